package server

import (
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// material is the answer to a GET of zot's upload routes: what `trust-worker
// keys` prints, of one tool.
type material struct {
	Loaded  []LoadedFile
	Refused []truststore.Refusal
	Policy  string `json:",omitempty"`
}

// LoadedFile is one piece of material in force, as the REST API and `trust-worker
// keys` show it.
type LoadedFile struct {
	Path string
	// Line is that of an entry of identities.yaml, or of a trusted root in a .jsonl.
	Line int `json:",omitempty"`
	// Scope is the repository prefix below which it may sign; absent: everywhere.
	Scope       string `json:",omitempty"`
	Tool        trust.Tool
	Store       string `json:",omitempty"`
	Kind        string
	Algorithm   string
	Fingerprint trust.Digest
	Subject     string     `json:",omitempty"`
	NotBefore   *time.Time `json:",omitempty"`
	NotAfter    *time.Time `json:",omitempty"`
	// Identity is an entry of identities.yaml, in its own words.
	Identity map[string]string `json:",omitempty"`
	// Authorities are a trusted root's.
	Authorities []Authority `json:",omitempty"`
	// Signatures is how many stored signatures rest on it; absent while
	// that is not counted.
	Signatures *int64 `json:",omitempty"`
	// Images is how many trusted images rest on it, and Alone how many would not be trusted
	// without it; absent while that is not counted, or it is not published yet.
	Images *int64 `json:",omitempty"`
	Alone  *int64 `json:",omitempty"`
	// Attestations is how many trusted attestations rest on it.
	Attestations *int64 `json:",omitempty"`
}

// Used fills in what rests on f, given what is counted of a snapshot.
func (l *LoadedFile) Used(f truststore.File, published *trust.InForce, uses map[trust.SignerID]cache.Use) {
	id, known := f.Signer.ID(), false
	if f.Identity != nil {
		id = f.Identity.ID()
		known = slices.ContainsFunc(published.Terms().Identities, func(r trust.IdentityRule) bool { return r.ID() == id })
	} else {
		known = published.Has(id)
	}
	if known {
		u := uses[id]
		l.Images, l.Alone, l.Attestations = &u.Images, &u.Alone, &u.Attestations
	}
}

// Authority is one authority of a trusted root, with the time for which the root vouches
// for it.
type Authority struct {
	Role, Name  string
	From, Until *time.Time `json:",omitempty"`
}

// Loaded is f as it is shown, without a count.
func Loaded(f truststore.File) LoadedFile {
	l := LoadedFile{Path: f.Path, Line: f.Line, Scope: f.Scope, Tool: f.Signer.Tool, Store: f.Signer.Store(), Kind: string(f.Kind), Algorithm: f.Algorithm,
		Fingerprint: f.Signer.Fingerprint, Subject: f.Subject}
	if !f.NotAfter.IsZero() {
		l.NotBefore, l.NotAfter = &f.NotBefore, &f.NotAfter
	}
	for _, a := range f.Authorities {
		at := func(u int64) *time.Time {
			if u == 0 {
				return nil
			}
			t := time.Unix(u, 0).UTC()
			return &t
		}
		l.Authorities = append(l.Authorities, Authority{a.Role.String(), a.Name, at(a.From), at(a.Until)})
	}
	if r := f.Identity; r != nil {
		l.Identity = map[string]string{}
		for name, value := range map[string]string{"issuer": r.Issuer, "issuerRegExp": r.IssuerRegExp, "subject": r.Subject, "subjectRegExp": r.SubjectRegExp, "root": r.Root,
			"sourceRepositoryURI": r.SourceRepositoryURI, "sourceRepositoryRef": r.SourceRepositoryRef, "buildSignerURI": r.BuildSignerURI, "runnerEnvironment": r.RunnerEnvironment} {
			if value != "" {
				l.Identity[name] = value
			}
		}
	}
	return l
}

func (s *Server) listKeys(w http.ResponseWriter, r *http.Request, _ identity) error {
	return s.list(w, r, trust.Cosign, s.cfg.CosignDir)
}

func (s *Server) listCertificates(w http.ResponseWriter, r *http.Request, _ identity) error {
	return s.list(w, r, trust.Notation, s.cfg.NotationDir)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, tool trust.Tool, dir string) error {
	store := s.cfg.Trust.TrustStore()
	if store == nil {
		return refuse(http.StatusServiceUnavailable, codeNoCache, "the trust directories have not been loaded yet", "")
	}
	m := material{Loaded: s.loadedOf(store, tool), Refused: refusedOf(store, dir)}
	if tool == trust.Notation {
		m.Policy = store.Policy().String()
	}
	s.stampGeneration(w)
	return s.sendJSON(w, r, m)
}

func (s *Server) loadedOf(store *truststore.TrustStore, tool trust.Tool) []LoadedFile {
	out := []LoadedFile{}
	var totals *changes.Totals
	if s.cfg.Totals != nil {
		totals = s.cfg.Totals()
	}
	for _, f := range store.Loaded() {
		if tool != "" && f.Signer.Tool != tool {
			continue
		}
		l := Loaded(f)
		if totals != nil && (f.Kind == truststore.KindKey || f.Kind == truststore.KindCertificate) {
			n := totals.Signers[f.Signer.ID()]
			l.Signatures = &n
		}
		out = append(out, l)
	}
	return out
}

// refusedOf returns the refusals below one trust directory; the loader names
// them by the directory's base name, or by its path if both tools' are alike.
func refusedOf(store *truststore.TrustStore, dir string) []truststore.Refusal {
	out := []truststore.Refusal{}
	for _, r := range store.Refused() {
		for _, label := range []string{filepath.Base(dir), filepath.Clean(dir)} {
			if r.Path == label || len(r.Path) > len(label) && r.Path[:len(label)] == label && r.Path[len(label)] == '/' {
				out = append(out, r)
				break
			}
		}
	}
	return out
}

// plain is the cause without paths.
func plain(err error) string {
	var pe *fs.PathError
	var le interface{ Unwrap() error }
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	if errors.As(err, &le) && le.Unwrap() != nil {
		return le.Unwrap().Error()
	}
	return "see the daemon's log"
}
