package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/layout"
	"trust-worker/server"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// explained is what `policy explain` says of one repository.
type explained struct {
	RepoName string
	// Counts may sign here, the others may not and say why.
	Counts, DoesNotCount []explainedFile
	Roots                []explainedRoot
	// Alone is the prefix above which nothing counts, Require how many signers an
	// image needs. ScopesFile is the configuration that says so, "" for none.
	Alone      string
	Require    int
	ScopesFile string
	Notation   explainedStatement
}

// explainedFile is a key or an entry of identities.yaml.
type explainedFile struct {
	server.LoadedFile
	Why string `json:",omitempty"`
}

// explainedRoot is a trusted root and what it demands of each signature.
type explainedRoot struct {
	Path    string
	Line    int `json:",omitempty"`
	Demands []string
}

// explainedStatement is the statement of the notation trust policy.
type explainedStatement struct {
	Source    string   // whose policy it is
	Statement string   `json:",omitempty"`
	Scopes    []string `json:",omitempty"`
	Stores    []string `json:",omitempty"`
	Verifies  bool
	Reason    trust.Reason `json:",omitempty"` // why none governs the repository
}

func newPolicyExplainCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "explain REPO",
		Short: "Show who may sign in a repository, and the file that each part comes from",
		Long: `Show who may sign in a repository: the keys and identities that count there, those
that do not and why, the trusted roots and what they demand, how many signers an
image needs, and the statement of the notation trust policy. It reads the trust
directories and the configuration; no signature is looked at.`,
		Example: `  trust-worker policy explain team-a/app --root /var/lib/registry`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			if !layout.ValidName(args[0]) {
				return usageError{fmt.Errorf("%.100q is no repository's name; write it without host, tag and digest, such as team-a/app", args[0])}
			}
			log, err := s.logger()
			if err != nil {
				return err
			}
			loader, err := s.loader(log)
			if err != nil {
				return err
			}
			loaded, err := loader.Load(cmd.Context(), time.Now())
			if err != nil {
				return err
			}
			a := s.explain(args[0], loaded)
			return o.print(cmd.OutOrStdout(), a, a.text)
		},
	}
	o.register(c)
	return c
}

func (s *settings) explain(repository string, loaded *truststore.TrustStore) *explained {
	f := loaded.InForce()
	a := &explained{RepoName: repository, Counts: []explainedFile{}, DoesNotCount: []explainedFile{}, Roots: []explainedRoot{}, Require: f.Required(repository)}
	if a.Alone = f.Alone(repository); a.Alone != "" || a.Require > 1 {
		a.ScopesFile = s.scopesFile
	}
	roots := map[string]bool{}
	for _, file := range loaded.Loaded() {
		if file.Kind == truststore.KindRoot {
			roots[filepath.Base(file.Path)] = true
			r := explainedRoot{Path: file.Path, Line: file.Line, Demands: []string{"a proven time of signing"}}
			listed := trust.Root{Authorities: file.Authorities}
			if listed.Demands(trust.CTLog) {
				r.Demands = append(r.Demands, "an SCT")
			}
			if listed.Demands(trust.TransparencyLog) {
				r.Demands = append(r.Demands, "a log entry")
			}
			a.Roots = append(a.Roots, r)
		}
	}
	for _, file := range loaded.Loaded() {
		if file.Kind != truststore.KindKey && file.Kind != truststore.KindIdentity {
			continue
		}
		e := explainedFile{LoadedFile: server.Loaded(file)}
		counts, why := f.Counts(file.Scope, repository)
		if counts && file.Identity != nil && !roots[file.Identity.Root] {
			counts, why = false, "its trusted root "+file.Identity.Root+" is not there"
		}
		if e.Why = why; counts {
			a.Counts = append(a.Counts, e)
		} else {
			a.DoesNotCount = append(a.DoesNotCount, e)
		}
	}
	a.Notation.Source = loaded.Policy().String()
	if st, reason := f.Statement(repository); reason != "" {
		a.Notation.Reason = reason
	} else {
		a.Notation.Statement, a.Notation.Scopes, a.Notation.Stores, a.Notation.Verifies = st.Name, st.Scopes, st.Stores, st.Verifies
	}
	return a
}

// identityText is an entry of identities.yaml in a line.
func identityText(id map[string]string) string {
	var parts []string
	for _, name := range []string{"subject", "subjectRegExp", "issuer", "issuerRegExp", "root", "sourceRepositoryURI", "sourceRepositoryRef", "buildSignerURI", "runnerEnvironment"} {
		if v := id[name]; v != "" {
			parts = append(parts, name+" "+v)
		}
	}
	return strings.Join(parts, ", ")
}

// whatItIs is a key or an identity for people.
func whatItIs(l *server.LoadedFile) string {
	if len(l.Identity) > 0 {
		return identityText(l.Identity)
	}
	return l.Algorithm + " key " + l.Fingerprint.String()
}

// place is a file with its line.
func place(path string, line int) string {
	if line == 0 {
		return path
	}
	return fmt.Sprintf("%s:%d", path, line)
}

func (a *explained) text(t *table) {
	t.columns(column{fit: wrap})
	t.row(a.RepoName)
	list := func(title string, files []explainedFile) {
		if len(files) == 0 {
			return
		}
		t.columns(column{fit: wrap})
		t.row("")
		t.row(title)
		t.columns(column{}, column{fit: middle}, column{fit: end}, column{fit: wrap})
		for i := range files {
			e := &files[i]
			t.row("", place(e.Path, e.Line), whatItIs(&e.LoadedFile), e.Why)
		}
	}
	if len(a.Counts) == 0 {
		t.row("")
		t.row("cosign: nobody may sign here")
	}
	list("cosign: who may sign here", a.Counts)
	list("cosign: who may not", a.DoesNotCount)
	if len(a.Roots) > 0 {
		t.columns(column{fit: wrap})
		t.row("")
		t.row("trusted roots, and what each demands of a signature by an identity")
		t.columns(column{}, column{fit: middle}, column{fit: wrap})
		for _, r := range a.Roots {
			t.row("", place(r.Path, r.Line), strings.Join(r.Demands, ", "))
		}
	}
	t.columns(column{fit: wrap})
	t.row("")
	if a.Alone != "" {
		t.row(fmt.Sprintf("%s stands alone: what lies above _cosign/%s does not count (%s)", a.Alone, a.Alone, a.ScopesFile))
	}
	switch {
	case a.Require > 1:
		t.row(fmt.Sprintf("an image needs good signatures by %d signers, of cosign and notation together (%s)", a.Require, a.ScopesFile))
	default:
		t.row("one good signature is enough")
	}
	switch {
	case a.Notation.Reason != "":
		t.row("notation: " + string(a.Notation.Reason) + ": " + a.Notation.Reason.Explain().What)
	default:
		verifies := ""
		if !a.Notation.Verifies {
			verifies = ", whose level never makes anything trusted"
		}
		t.row(fmt.Sprintf("notation: the statement %q%s, trust stores %s", a.Notation.Statement, verifies, strings.Join(a.Notation.Stores, ", ")))
	}
	t.row("notation policy: " + a.Notation.Source)
}
