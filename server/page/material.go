package page

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"time"

	"trust-worker/internal/phrase"
	"trust-worker/verifier/truststore"
)

// Trust is the page of the trust material.
type Trust struct {
	Now   time.Time
	Store *truststore.TrustStore // nil: not loaded yet, or elsewhere
	// Replica is set where the trust directories are elsewhere.
	Replica *Replica
	// After is how many files are on the pages before this one.
	After int
	// Asks: what a removal would cost can be asked.
	Asks bool
}

// filesPerPage keeps a store of thousands readable.
const filesPerPage = 500

// material is what is in force, and what was refused.
type material struct {
	Loaded       bool
	Source       Text // whose replica this is; empty: none
	Keys         int
	Certificates int
	Identities   int
	Roots        int
	Policy       Text
	PolicyWrong  bool
	Ignored      int
	Refused      []refusal
	Unshown      int // refusals that are left out
	Files        []file
	From, Of     int
	Next         int // 0: this is the last page
}

type refusal struct {
	Path, Reason Text
	Grace        bool
}

// file is one piece of material in force.
type file struct {
	Path, Store, Kind, Algorithm, Subject Text
	Tool, Scope                           Text
	Line                                  int
	Fingerprint, Short                    string
	Removal                               string // the page that says what its removal would cost; "": nobody can ask
	Until                                 Moment
	Class                                 string // of the expiry: a state's name, or ""
	Expiry                                string // "expires in 12 days", "expired 3 hours ago", "no end"
	notAfter                              time.Time
}

// soon is when an expiry is worth a colour.
const soon = 30 * 24 * time.Hour

func fileOf(f truststore.File, now time.Time) file {
	v := file{Path: Text(f.Path), Store: Text(f.Signer.Store()), Kind: Text(f.Kind), Algorithm: Text(f.Algorithm), Subject: Text(f.Subject),
		Tool: Text(f.Signer.Tool), Fingerprint: f.Signer.Fingerprint.String(), Short: short(f.Signer.Fingerprint), notAfter: f.NotAfter, Expiry: "no end"}
	v.Scope, v.Line = Text(f.Scope), f.Line
	if f.Kind == truststore.KindIdentity {
		v.Fingerprint, v.Short = "", ""
		v.Subject = Text(cmp.Or(f.Identity.Subject, f.Identity.SubjectRegExp) + " by " + cmp.Or(f.Identity.Issuer, f.Identity.IssuerRegExp, "no issuer") + ", " + f.Identity.Root)
	}
	if f.Kind == truststore.KindRoot {
		v.Subject = Text(fmt.Sprintf("%d authorities", len(f.Authorities)))
	}
	switch left := f.NotAfter.Sub(now); {
	case f.NotAfter.IsZero():
		return v
	case left <= 0:
		v.Class, v.Expiry = "unsigned", "expired "+phrase.Distance(f.NotAfter, now)
	case left < soon:
		v.Class, v.Expiry = "untrusted", "expires "+phrase.Distance(f.NotAfter, now)
	default:
		v.Expiry = "expires " + phrase.Distance(f.NotAfter, now)
	}
	v.Until = moment(f.NotAfter, now)
	return v
}

func newMaterial(now time.Time, store *truststore.TrustStore, r *Replica) material {
	if r != nil {
		return material{Source: Text(r.Source)}
	}
	if store == nil {
		return material{}
	}
	policy := store.Policy()
	m := material{Loaded: true, Policy: Text(policy.String()), PolicyWrong: policy.Problem != "" || len(policy.Lacking) > 0, Ignored: store.Ignored()}
	for _, r := range store.Refused() {
		m.Refused = append(m.Refused, refusal{Text(r.Path), Text(r.Reason), r.Grace})
	}
	for _, f := range store.Loaded() {
		switch f.Kind {
		case truststore.KindKey:
			m.Keys++
		case truststore.KindCertificate:
			m.Certificates++
		case truststore.KindIdentity:
			m.Identities++
		case truststore.KindRoot:
			m.Roots++
		}
		m.Files = append(m.Files, fileOf(f, now))
	}
	m.Of = len(m.Files)
	return m
}

// brief keeps what an operator has to know at a glance: refusals, and the
// certificates that end first.
func (m material) brief() material {
	const enough = 5
	ending := slices.DeleteFunc(slices.Clone(m.Files), func(f file) bool { return f.notAfter.IsZero() })
	slices.SortStableFunc(ending, func(a, b file) int { return a.notAfter.Compare(b.notAfter) })
	shown := 0
	for shown < len(ending) && shown < enough && ending[shown].Class != "" {
		shown++
	}
	m.Files = ending[:max(shown, min(1, len(ending)))] // the next one, if none is near
	if m.Unshown = len(m.Refused) - enough; m.Unshown > 0 {
		m.Refused = m.Refused[:enough]
	}
	return m
}

// Trust renders the page of the trust material.
func (p *Pages) Trust(t Trust) ([]byte, error) {
	m := newMaterial(t.Now, t.Store, t.Replica)
	m.From = min(max(t.After, 0), m.Of)
	to := min(m.From+filesPerPage, m.Of)
	if to < m.Of {
		m.Next = to
	}
	m.Files = m.Files[m.From:to]
	for i := range m.Files {
		if t.Asks {
			m.Files[i].Removal = Root + "preview?" + url.Values{"remove": {string(m.Files[i].Path)}}.Encode()
		}
	}
	return p.render("trust.html", frame{Title: "Trust material", Tab: "trust", Live: true, Body: m})
}
