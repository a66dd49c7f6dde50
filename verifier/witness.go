package verifier

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// witness is a trusted root that notes which time stamp authority has verified what, and
// that verifies neither a stamp nor a certificate twice.
type witness struct {
	*root.TrustedRoot
	rt      *truststore.Root
	issued  []issued
	seen    map[string]stampResult
	log, ct string // if set, the only ones
}

type stampResult struct {
	who int // -1: nobody
	ts  *root.Timestamp
}

func newWitness(rt *truststore.Root) *witness {
	return &witness{TrustedRoot: rt.Trusted, rt: rt, seen: map[string]stampResult{}}
}

// only is the same root with one log, by key id, and one certificate transparency log.
func (w *witness) only(log, ct string) *witness {
	return &witness{TrustedRoot: w.TrustedRoot, rt: w.rt, issued: w.issued, seen: w.seen, log: log, ct: ct}
}

// stamp verifies a time stamp under each authority.
func (w *witness) stamp(stamp, signature []byte) (who trust.SignerID, at time.Time, ok bool) {
	r, known := w.seen[string(stamp)]
	if !known {
		r.who = -1
		if !costlyStamp(stamp) {
			for i, tsa := range w.TrustedRoot.TimestampingAuthorities() {
				if ts, err := tsa.Verify(stamp, signature); err == nil {
					r = stampResult{i, ts}
					break
				}
			}
		}
		w.seen[string(stamp)] = r
	}
	if r.who < 0 {
		return who, at, false
	}
	return w.rt.TSAs[r.who], r.ts.Time, true
}

// TimestampingAuthorities implements root.TrustedMaterial.
func (w *witness) TimestampingAuthorities() []root.TimestampingAuthority {
	all := w.TrustedRoot.TimestampingAuthorities()
	out := make([]root.TimestampingAuthority, len(all))
	for i := range all {
		out[i] = seenBy{w, i}
	}
	return out
}

// seenBy is one authority, whose verdicts are known.
type seenBy struct {
	w *witness
	i int
}

var errNotMine = errors.New("the time stamp is not by this authority")

// Verify implements root.TimestampingAuthority.
func (s seenBy) Verify(stamp, signature []byte) (*root.Timestamp, error) {
	s.w.stamp(stamp, signature)
	if r := s.w.seen[string(stamp)]; r.who == s.i {
		// Authorities without a URI are told apart by it (sigstore-go, tsa.go).
		return &root.Timestamp{Time: r.ts.Time, URI: fmt.Sprint(s.i, r.ts.URI)}, nil
	}
	return nil, errNotMine
}

// FulcioCertificateAuthorities implements root.TrustedMaterial.
func (w *witness) FulcioCertificateAuthorities() []root.CertificateAuthority {
	all := w.TrustedRoot.FulcioCertificateAuthorities()
	out := make([]root.CertificateAuthority, len(all))
	for i := range all {
		out[i] = all[i]
		fulcio, ok := all[i].(*root.FulcioCertificateAuthority)
		if by := slices.IndexFunc(w.issued, func(by issued) bool { return by.authority == i }); ok && by >= 0 {
			out[i] = issuing{fulcio, w.issued[by].chains}
		}
	}
	return out
}

// issuing is a certificate authority, with the chains that it has verified at one time. At
// another they differ by dates alone.
type issuing struct {
	*root.FulcioCertificateAuthority
	chains [][]*x509.Certificate
}

// Verify implements root.CertificateAuthority. What it has no chain for it leaves to the
// authority.
func (a issuing) Verify(leaf *x509.Certificate, at time.Time) (valid [][]*x509.Certificate, _ error) {
	if !at.Before(a.ValidityPeriodStart) && (a.ValidityPeriodEnd.IsZero() || !at.After(a.ValidityPeriodEnd)) {
		for _, chain := range a.chains {
			if chain[0].Equal(leaf) && validThen(chain, at) {
				valid = append(valid, chain)
			}
		}
	}
	if len(valid) > 0 {
		return valid, nil
	}
	return a.FulcioCertificateAuthority.Verify(leaf, at)
}

// validThen reports whether all certificates of a chain were valid at a time.
func validThen(chain []*x509.Certificate, at time.Time) bool {
	return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return at.Before(c.NotBefore) || at.After(c.NotAfter) })
}

// RekorLogs implements root.TrustedMaterial.
func (w *witness) RekorLogs() map[string]*root.TransparencyLog {
	return onlyLog(w.TrustedRoot.RekorLogs(), w.log)
}

// CTLogs implements root.TrustedMaterial.
func (w *witness) CTLogs() map[string]*root.TransparencyLog {
	return onlyLog(w.TrustedRoot.CTLogs(), w.ct)
}

func onlyLog(all map[string]*root.TransparencyLog, keyID string) map[string]*root.TransparencyLog {
	if keyID == "" {
		return all
	}
	if l := all[keyID]; l != nil {
		return map[string]*root.TransparencyLog{keyID: l}
	}
	return nil
}
