package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/internal/phrase"
	"trust-worker/layout"
	"trust-worker/server"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// keysAnswer is what `keys -o json` prints.
type keysAnswer struct {
	Loaded  []server.LoadedFile
	Refused []truststore.Refusal
	// Warnings are about material that is in force.
	Warnings []truststore.Refusal
	// Scopes are the directories below _cosign, with how many repositories each
	// governs.
	Scopes  []scopeAnswer
	Missing []string // trust directories that are not there, and need not be
	Ignored int      // names that are never loaded: hidden files, backups
	Policy  string
	// Generation is the publication that Images and Alone are of; empty: none can be read.
	Generation string `json:",omitempty"`
}

// scopeAnswer is a directory of keys and identities for a part of the repositories.
type scopeAnswer struct {
	Scope        string
	Repositories int
	// Narrowing is an entry of trustWorker.scopes for that prefix.
	Narrowing string `json:",omitempty"`
}

func newKeysCommand(s *settings) *cobra.Command {
	var o output
	var unused, sole bool
	c := &cobra.Command{
		Use:   "keys",
		Short: "Show the trust store as loaded, and every file refused, with the reason",
		Long: `Show the trust store as loaded, and every file refused, with the reason. Where answers are
published, it shows for each key, certificate, trusted root and identity how many trusted
images rest on it (IMAGES), and how many would not be trusted without it (ALONE).`,
		Example: `  trust-worker keys --root /var/lib/registry
  trust-worker keys --unused             # nothing would be lost without these
  trust-worker keys --sole -o json       # images would be lost without these`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if unused && sole {
				return usageError{errors.New("choose --unused or --sole")}
			}
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			log, err := s.logger()
			if err != nil {
				return err
			}
			loader, err := s.loader(log)
			if err != nil {
				return err
			}
			store, err := loader.Load(cmd.Context(), time.Now())
			if err != nil {
				return err
			}
			a := s.keysOf(store)
			if err := s.countUses(a, store); err != nil && (unused || sole) {
				return err
			}
			if unused || sole {
				a.Loaded = slices.DeleteFunc(a.Loaded, func(l server.LoadedFile) bool {
					return l.Images == nil || unused && (*l.Images > 0 || *l.Alone > 0 || *l.Attestations > 0) || sole && *l.Alone == 0
				})
			}
			s.outgrown(a, store)
			if err := s.countGoverned(cmd.Context(), a, store.Scopes(), store.InForce().Terms().Scopes); err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), a, func(t *table) { a.text(t) })
		},
	}
	c.Flags().BoolVar(&unused, "unused", false, "only what no image and no attestation rests on")
	c.Flags().BoolVar(&sole, "sole", false, "only what images rest on alone")
	o.register(c)
	c.AddCommand(newPreviewCommand(s))
	return c
}

// countUses counts what rests on each signer, by what is published.
func (s *settings) countUses(a *keysAnswer, store *truststore.TrustStore) error {
	r, err := s.reader()
	if err != nil {
		return err
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	uses, err := snap.Uses()
	if err != nil {
		return err
	}
	a.Generation = snap.Generation().String()
	for i, f := range store.Loaded() {
		a.Loaded[i].Used(f, snap.InForce(), uses)
	}
	return nil
}

func (s *settings) keysOf(store *truststore.TrustStore) *keysAnswer {
	a := &keysAnswer{Loaded: []server.LoadedFile{}, Refused: []truststore.Refusal{}, Warnings: []truststore.Refusal{}, Scopes: []scopeAnswer{}, Missing: []string{}, Ignored: store.Ignored(), Policy: store.Policy().String()}
	for _, f := range store.Loaded() {
		a.Loaded = append(a.Loaded, server.Loaded(f))
	}
	a.Refused = append(a.Refused, store.Refused()...)
	a.Warnings = append(a.Warnings, store.Warnings()...)
	for _, r := range store.Roots() {
		if !r.Open(time.Now()) {
			a.Warnings = append(a.Warnings, truststore.Refusal{Path: filepath.Base(s.cosignDir) + "/" + r.File, Reason: "is too old: it vouches for no certificate authority at present; get a newer one from whoever runs the instance"})
		}
	}
	a.Missing = append(a.Missing, store.Missing()...)
	return a
}

// outgrown warns of stored signatures that name authorities which no trusted root lists,
// by what the daemon has counted, if there are roots and a daemon.
func (s *settings) outgrown(a *keysAnswer, loaded *truststore.TrustStore) {
	var st statusFile
	b, err := os.ReadFile(statusPath(s.state))
	if len(loaded.Roots()) == 0 || err != nil || json.Unmarshal(b, &st) != nil || st.Counts == nil {
		return
	}
	for _, about := range []struct {
		reason trust.Reason
		what   string
	}{{trust.NoTrustedRoot, "certificate authorities"}, {trust.NotLogged, "transparency logs, or none"}, {trust.SCTMissing, "certificate transparency logs, or none"}} {
		if n := st.Counts.Reasons[about.reason]; n > 0 {
			a.Warnings = append(a.Warnings, truststore.Refusal{Path: filepath.Base(s.cosignDir) + "/" + loaded.Roots()[0].File, Reason: fmt.Sprintf(
				"%s stored signatures read %s: they name %s that no trusted root lists; is a root too old, or not there?", phrase.Number(int(n)), about.reason, about.what)})
		}
	}
}

// countGoverned counts the repositories that each scope governs, if there are scopes.
func (s *settings) countGoverned(ctx context.Context, a *keysAnswer, scopes []string, narrowing []trust.Narrowing) error {
	if len(scopes)+len(narrowing) == 0 {
		return nil
	}
	roots, closeAll, err := s.storage()
	if err != nil {
		return err
	}
	defer closeAll()
	governed, all := map[string]int{}, 0
	for _, r := range roots {
		err := r.Root.Walk(ctx, func(v layout.Visit) error {
			if !v.IsRepository {
				return nil
			}
			all++
			for name := v.Name; ; {
				governed[name]++
				i := strings.LastIndexByte(name, '/')
				if i < 0 {
					return nil
				}
				name = name[:i]
			}
		})
		if err != nil {
			return err
		}
	}
	for _, scope := range scopes {
		a.Scopes = append(a.Scopes, scopeAnswer{Scope: scope, Repositories: governed[scope]})
	}
	for _, n := range narrowing {
		count := governed[n.Prefix]
		if n.Prefix == "" {
			count = all
		}
		a.Scopes = append(a.Scopes, scopeAnswer{Scope: n.Prefix, Repositories: count, Narrowing: narrowingText(n)})
	}
	return nil
}

func (a *keysAnswer) text(t *table) {
	columns := []column{{"FILE", middle}}
	if a.Generation != "" {
		columns = append(columns, column{"IMAGES", spare}, column{"ALONE", spare})
	}
	t.columns(append(columns, column{"TOOL", spare}, column{"ALGORITHM", spare}, column{"FINGERPRINT", keep}, column{"SUBJECT", end}, column{"VALID UNTIL", keep})...)
	for i := range a.Loaded {
		l := &a.Loaded[i]
		until, fingerprint, kind := "", l.Fingerprint.String(), l.Algorithm
		if l.NotAfter != nil {
			until = t.when(*l.NotAfter)
		}
		subject := l.Subject
		switch truststore.Kind(l.Kind) {
		case truststore.KindIdentity:
			subject, fingerprint, kind = identityText(l.Identity), "", l.Kind
		case truststore.KindRoot:
			subject, kind = fmt.Sprintf("%d authorities", len(l.Authorities)), l.Kind
		}
		cells := []string{place(l.Path, l.Line)}
		switch {
		case l.Images != nil:
			cells = append(cells, strconv.FormatInt(*l.Images, 10), strconv.FormatInt(*l.Alone, 10))
		case a.Generation != "":
			cells = append(cells, "", "")
		}
		t.row(append(cells, string(l.Tool), kind, fingerprint, subject, until)...)
	}
	for i := range a.Loaded {
		l := &a.Loaded[i]
		if len(l.Authorities) == 0 {
			continue
		}
		t.columns(column{fit: wrap})
		t.row("")
		t.row(place(l.Path, l.Line) + " vouches for")
		t.columns(column{}, column{}, column{fit: middle}, column{}, column{})
		for _, au := range l.Authorities {
			from, until := "", "and on"
			if au.From != nil {
				from = "from " + t.when(*au.From)
			}
			if au.Until != nil {
				until = "until " + t.when(*au.Until)
			}
			t.row("", au.Role, au.Name, from, until)
		}
	}
	if len(a.Scopes) > 0 {
		t.columns(column{"SCOPE", keep}, column{"REPOSITORIES", keep}, column{"", keep})
		for _, sc := range a.Scopes {
			note := ""
			switch {
			case sc.Repositories == 0 && sc.Narrowing != "":
				note = "governs none: is the prefix in trustWorker.scopes right?"
			case sc.Repositories == 0:
				note = "governs none: is the directory's name right?"
			}
			t.row(cmp.Or(sc.Narrowing, sc.Scope), fmt.Sprint(sc.Repositories), note)
		}
	}
	t.columns(column{fit: wrap})
	t.row("notation policy: " + a.Policy)
	t.columns(column{}, column{fit: middle}, column{fit: wrap})
	for _, r := range a.Refused {
		word := "refused"
		if r.Grace {
			word = "refused (its last good content is in force for a few seconds)"
		}
		t.row(word, r.Path, r.Reason)
	}
	for _, r := range a.Warnings {
		t.row("warning", r.Path, r.Reason)
	}
	for _, dir := range a.Missing {
		t.row("missing", dir, "does not exist; nothing is trusted by it")
	}
	if a.Ignored > 0 {
		t.columns(column{fit: wrap})
		t.row(fmt.Sprintf("%d files with names that are never loaded (hidden, backup, temporary)", a.Ignored))
	}
}
