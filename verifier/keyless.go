package verifier

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"github.com/google/certificate-transparency-go/x509util"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Keyless signatures: by a certificate that an authority of a trusted root has issued.
// Each root is asked by itself, and all of it; which identity may sign is no question
// here. What the libraries leave open is checked before and after them, in this file:
// that some time is proven, that no stamp by a listed authority contradicts the
// certificate, which authority has done what. That each was vouched for at that time is
// checked when an answer is read.

const (
	maxStamps   = 32 // sigstore-go's limit
	maxEvidence = 8  // of one role; genuine signatures have one or two
)

// certified is a signature with a certificate, whatever carries it.
type certified struct {
	der       []byte // of the leaf certificate
	leaf      *x509.Certificate
	identity  *trust.Identity
	signature []byte // what time stamps are over
	stamps    [][]byte
	// readEntries reads the log entries, once a root may vouch for the certificate. An
	// error is that there is none.
	readEntries func() ([]logEntry, error)
	entries     []logEntry
	unreadable  error
	// issuedThen is that the library wants the authority to be vouched for when the
	// certificate begins, too.
	issuedThen bool
	// accept has cosign or sigstore-go verify the signature under a root, with the
	// given stamps if there are any.
	accept func(rt *truststore.Root, material root.TrustedMaterial, stamped bool) error
	// logged has sigstore-go verify one of several entries; nil: cosign, which takes
	// one.
	logged func(material root.TrustedMaterial, e *tlog.Entry) error
}

// logEntry is what a log entry says, before a library has verified it.
type logEntry struct {
	log      string // key id, in hexadecimal digits
	at       time.Time
	promised bool // it has a signed entry timestamp, which at rests on
	read     *tlog.Entry
}

// keyless asks the trusted roots about a signature and adds a ground for each that
// vouches for it, or the reason why none does. The caller has checked what is signed.
func (v *Verifier) keyless(c *certified, lo *LayerOutcome) {
	var f fault
	if c.leaf, f = readLeaf(c.der); f.found() {
		lo.keylessFault(f)
		return
	}
	issuer := truststore.IssuerKey(c.leaf.AuthorityKeyId, c.leaf.RawIssuer)
	lo.Hints = append(lo.Hints, Hint{Kind: HintIssuer, Fingerprint: issuer})
	if c.identity, f = identityOf(c.leaf); !f.found() {
		f = leafFault(c.leaf)
	}
	best := faultf(trust.NoTrustedRoot, "its certificate is by %.160q", c.leaf.Issuer.String())
	var grounds []trust.Ground
	var refused []trust.Proof // by roots whose authorities were asked
	for _, rt := range v.store.Roots() {
		if !rt.Issues(issuer) {
			continue
		}
		if f.found() {
			best = f
			break
		}
		if c.readEntries != nil {
			c.entries, c.unreadable = c.readEntries()
			c.readEntries = nil
		}
		proof, why := c.under(rt, lo)
		if !why.found() {
			if !slices.ContainsFunc(grounds, func(g trust.Ground) bool { return sameProof(g.Proof, proof) }) {
				grounds = append(grounds, proves(proof)) // the library has accepted: see under
			}
			continue
		}
		if asked := rt.Asked(len(c.stamps) > 0, len(c.entries) > 1); asked != (trust.AskedID{}) {
			refused = append(refused, trust.Proof{Asked: asked})
		}
		lo.RestsOn = append(lo.RestsOn, rt.Signer())
		if best.reason == trust.NoTrustedRoot {
			best = why
		}
	}
	if len(grounds) == 0 {
		lo.keylessFault(best)
		return
	}
	for i := range refused {
		if !slices.ContainsFunc(grounds, func(g trust.Ground) bool { return g.Proof.Asked == refused[i].Asked }) {
			grounds = append(grounds, proves(&refused[i]))
		}
	}
	if lo.Problem != "" { // of keys that have not all been tried
		lo.Incomplete, lo.Problem = lo.Problem, ""
	}
	lo.Verdict.Grounds = append(lo.Verdict.Grounds, grounds...)
	lo.Verdict.Reason, lo.Verdict.Detail, lo.Verdict.Identity, lo.Verdict.Key = "", "", c.identity, keyOf(c.leaf)
}

// proves is the one place where a ground of a keyless signature is made.
func proves(p *trust.Proof) trust.Ground { return trust.Ground{Proof: p} }

// keylessFault is why no root vouches for it, unless a key does.
func (lo *LayerOutcome) keylessFault(f fault) {
	if !lo.Verdict.Matched() && lo.Problem == "" {
		lo.refuse(f)
	}
}

func sameProof(a, b *trust.Proof) bool {
	return a != nil && b != nil && a.Asked == b.Asked && slices.Equal(a.Evidence, b.Evidence)
}

// under asks one root. Without a fault the library has accepted the signature under it,
// and the proof says which of its authorities did what.
func (c *certified) under(rt *truststore.Root, lo *LayerOutcome) (*trust.Proof, fault) {
	issued, f := c.issuedBy(rt)
	if f.found() {
		return nil, f
	}
	w := newWitness(rt)
	w.issued = issued
	proof := &trust.Proof{Asked: rt.Asked(len(c.stamps) > 0, len(c.entries) > 1)}
	var stamped []trust.Evidence
	if len(c.stamps) > maxStamps {
		return nil, faultf(trust.TimestampInvalid, "it has %d time stamps; at most %d are read", len(c.stamps), maxStamps)
	}
	for _, stamp := range c.stamps {
		who, at, ok := w.stamp(stamp, c.signature)
		switch {
		case !ok: // by an authority that the root does not list: it proves nothing
		case at.Before(c.leaf.NotBefore) || at.After(c.leaf.NotAfter):
			return nil, faultf(trust.TimestampInvalid, "a time stamp of %s says %s, when its certificate was not valid", rt.File, at.UTC().Format(time.RFC3339))
		case len(stamped) < maxEvidence:
			stamped = append(stamped, trust.Evidence{Authority: who, At: trust.Date(at.Unix())})
		}
	}
	scts := c.scts(rt)
	var entries []logEntry
	signedTime := len(stamped) > 0
	for _, e := range c.entries {
		if _, known := rt.Logs[e.log]; known && len(entries) < maxEvidence {
			entries = append(entries, e)
			signedTime = signedTime || e.promised
		}
	}
	switch {
	case len(rt.CTLogs) > 0 && len(scts) == 0:
		return nil, fault{reason: trust.SCTMissing}
	case len(rt.Logs) > 0 && c.unreadable != nil:
		return nil, faultf(trust.NotLogged, "the log's entry that came along is no good: %s", libraryText(c.unreadable))
	case len(rt.Logs) > 0 && len(entries) == 0:
		return nil, fault{reason: trust.NotLogged}
	case !signedTime:
		return nil, fault{reason: trust.NoSignedTime}
	}
	lo.Calls++
	if err := c.accept(rt, w, len(stamped) > 0); err != nil {
		return nil, c.refused(rt, w, err)
	}
	// From here on the library has said yes; what follows only takes away.
	proof.Evidence = append(proof.Evidence, stamped...)
	var times []time.Time
	for _, e := range stamped {
		times = append(times, time.Unix(e.At, 0))
	}
	for _, e := range entries {
		if len(entries) > 1 && (c.logged == nil || c.logged(w.only(e.log, ""), e.read) != nil) {
			continue // the library went by another entry
		}
		at := int64(0)
		if e.promised {
			at = trust.Date(e.at.Unix())
			if e.at.Before(c.leaf.NotBefore) || e.at.After(c.leaf.NotAfter) {
				return nil, faultf(trust.TimestampInvalid, "its log says %s, when its certificate was not valid", e.at.UTC().Format(time.RFC3339))
			}
			times = append(times, e.at)
		}
		proof.Evidence = append(proof.Evidence, trust.Evidence{Authority: rt.Logs[e.log], At: at})
	}
	if len(times) == 0 {
		return nil, fault{reason: trust.NoSignedTime}
	}
	if issued, f = c.validAt(rt, issued, times); f.found() {
		return nil, f
	}
	var chains [][]*x509.Certificate
	for _, by := range issued {
		e := trust.Evidence{Authority: rt.CAs[by.authority]}
		if c.issuedThen {
			e.At = trust.Date(c.leaf.NotBefore.Unix())
		}
		proof.Evidence = append(proof.Evidence, e)
		chains = append(chains, by.chains...)
	}
	for _, s := range scts {
		if len(scts) > 1 && verify.VerifySignedCertificateTimestamp(chains, 1, w.only("", s.log)) != nil {
			continue
		}
		proof.Evidence = append(proof.Evidence, trust.Evidence{Authority: rt.CTLogs[s.log], At: s.at})
	}
	slices.SortFunc(proof.Evidence, func(a, b trust.Evidence) int {
		if n := bytes.Compare(a.Authority[:], b.Authority[:]); n != 0 {
			return n
		}
		return int(min(max(a.At-b.At, -1), 1))
	})
	proof.Evidence = slices.Compact(proof.Evidence)
	return proof, fault{}
}

// issued is that a certificate authority of a root has issued the certificate.
type issued struct {
	authority int                   // of the root's
	chains    [][]*x509.Certificate // from the leaf, verified at its beginning
}

// issuedBy finds the certificate authorities of the root that have issued the certificate,
// mostly one: the first question, since whoever pushes can name any issuer. Their windows
// are asked when an answer is read.
func (c *certified) issuedBy(rt *truststore.Root) (all []issued, _ fault) {
	for i, ca := range rt.Trusted.FulcioCertificateAuthorities() {
		fulcio, ok := ca.(*root.FulcioCertificateAuthority)
		if !ok {
			continue
		}
		whenever := *fulcio
		whenever.ValidityPeriodStart, whenever.ValidityPeriodEnd = time.Time{}, time.Time{}
		leaf, _ := readLeaf(c.der)
		withoutOtherName(leaf)
		if chains, err := whenever.Verify(leaf, c.leaf.NotBefore); err == nil && len(all) < maxEvidence {
			all = append(all, issued{i, chains})
		}
	}
	if len(all) > 0 {
		return all, fault{}
	}
	return nil, faultf(trust.NoTrustedRoot, "%s lists the authority %.120q, under which its certificate does not verify", rt.File, c.leaf.Issuer.String())
}

// validAt leaves those authorities of whose paths one was valid at each of the times, and
// refuses a certificate that has none.
func (c *certified) validAt(rt *truststore.Root, all []issued, times []time.Time) (valid []issued, _ fault) {
	for _, by := range all {
		by.chains = slices.DeleteFunc(slices.Clone(by.chains), func(chain []*x509.Certificate) bool {
			return slices.ContainsFunc(times, func(t time.Time) bool { return !validThen(chain, t) })
		})
		if len(by.chains) > 0 {
			valid = append(valid, by)
		}
	}
	if len(valid) > 0 {
		return valid, fault{}
	}
	return nil, faultf(trust.NoTrustedRoot, "a certificate of the authority %.120q of %s was not valid when it was signed", c.leaf.Issuer.String(), rt.File)
}

// refused says why the library has refused the signature under a root. It decides
// nothing: there is no ground.
func (c *certified) refused(rt *truststore.Root, w *witness, err error) fault {
	var times []time.Time
	for _, e := range c.entries {
		if e.promised {
			times = append(times, e.at)
		}
	}
	for _, t := range times {
		if len(rt.Logs) > 0 && (t.Before(c.leaf.NotBefore) || t.After(c.leaf.NotAfter)) {
			return faultf(trust.TimestampInvalid, "its log says %s, when its certificate was not valid", t.UTC().Format(time.RFC3339))
		}
	}
	if len(times) == 0 {
		times = []time.Time{c.leaf.NotBefore}
	}
	valid, f := c.validAt(rt, w.issued, times[:1])
	if f.found() {
		return f
	}
	wanted := times[:1:1]
	if c.issuedThen {
		wanted = append(wanted, c.leaf.NotBefore)
	}
	for _, a := range rt.Authorities {
		for _, t := range wanted {
			if at := t.Unix(); len(valid) == 1 && a.ID == rt.CAs[valid[0].authority] && (a.From != 0 && at < a.From || a.Until != 0 && at > a.Until) {
				return faultf(trust.AuthorityRemoved, "%s does not vouch for the certificate authority %.100q at %s", rt.File, a.Name, t.UTC().Format(time.RFC3339))
			}
		}
	}
	if len(rt.CTLogs) > 0 && verify.VerifySignedCertificateTimestamp(valid[0].chains, 1, w) != nil {
		return faultf(trust.SCTMissing, "no signed certificate timestamp verifies under a log of %s", rt.File)
	}
	return faultf(notLoggedOr(rt, err), "%s", libraryText(err))
}

// notLoggedOr is the reason where the library names the log, else malformed.
func notLoggedOr(rt *truststore.Root, err error) trust.Reason {
	for _, part := range []string{"log", "bundle", "SET", "tlog"} {
		if len(rt.Logs) > 0 && containsWord(err.Error(), part) {
			return trust.NotLogged
		}
	}
	return trust.Malformed
}

func containsWord(text, word string) bool { return bytes.Contains([]byte(text), []byte(word)) }

// sct is a signed certificate timestamp by a log that a root lists.
type sct struct {
	log string // key id, in hexadecimal digits
	at  int64
}

// scts reads which logs of the root say in the certificate that they have it. What they
// say is verified by the library.
func (c *certified) scts(rt *truststore.Root) (found []sct) {
	if len(rt.CTLogs) == 0 {
		return nil
	}
	all, err := x509util.ParseSCTsFromCertificate(c.der)
	if err != nil {
		return nil
	}
	times := map[string]int{}
	for _, s := range all {
		id := hex.EncodeToString(s.LogID.KeyID[:])
		times[id]++
		if _, known := rt.CTLogs[id]; known {
			found = append(found, sct{id, trust.Date(int64(s.Timestamp / 1000))})
		}
	}
	// Of two by one log nobody can say which the library went by: it has said nothing.
	found = slices.DeleteFunc(found, func(s sct) bool { return times[s.log] > 1 })
	return found[:min(len(found), maxEvidence)]
}
