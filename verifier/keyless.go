package verifier

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/certificate-transparency-go/x509util"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

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

// readLeaf reads a leaf certificate, afresh each time: the libraries change it.
func readLeaf(der []byte) (*x509.Certificate, fault) {
	if len(der) > maxCertDER {
		return nil, faultf(trust.CertificateInvalid, "the certificate has %d bytes; at most %d are read", len(der), maxCertDER)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, faultf(trust.CertificateInvalid, "the certificate cannot be read: %s", libraryText(err))
	}
	return leaf, fault{}
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
		switch {
		case !why.found():
			if !slices.ContainsFunc(grounds, func(g trust.Ground) bool { return sameProof(g.Proof, proof) }) {
				grounds = append(grounds, proves(proof)) // the library has accepted: see under
			}
		default:
			if asked := rt.Asked(len(c.stamps) > 0, len(c.entries) > 1); asked != (trust.AskedID{}) {
				refused = append(refused, trust.Proof{Asked: asked})
			}
			lo.RestsOn = append(lo.RestsOn, rt.Signer())
			if best.reason == trust.NoTrustedRoot {
				best = why
			}
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

func keyOf(leaf *x509.Certificate) trust.KeyID {
	sum := trust.SumOf(leaf.RawSubjectPublicKeyInfo)
	return trust.KeyID(sum[:len(trust.KeyID{})])
}

func sameProof(a, b *trust.Proof) bool {
	return a != nil && b != nil && a.Asked == b.Asked && slices.Equal(a.Evidence, b.Evidence)
}

// leafFault says why a certificate's key must not be used.
func leafFault(leaf *x509.Certificate) fault {
	if why := costlyKey(leaf.PublicKey); why != "" {
		return faultf(trust.CertificateInvalid, "the certificate's key %s", why)
	}
	return fault{}
}

// The extensions of Fulcio that name the issuer of the OIDC token: as raw bytes, and as
// a DER string (fulcio oid-info.md).
var (
	oidIssuer   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	oidIssuerV2 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
)

// identityOf reads who a certificate was issued to. Two readers must not see different
// ones: there is one subject alternative name, of a kind that sigstore has, and if there
// are both extensions for the issuer they agree.
func identityOf(leaf *x509.Certificate) (*trust.Identity, fault) {
	names := 0
	var issuers []string
	for _, e := range leaf.Extensions {
		switch {
		case e.Id.Equal(cryptoutils.SANOID):
			n, f := countNames(e.Value)
			if f.found() {
				return nil, f
			}
			names += n
		case e.Id.Equal(oidIssuer):
			issuers = append(issuers, string(e.Value))
		case e.Id.Equal(oidIssuerV2):
			var text string
			if rest, err := asn1.Unmarshal(e.Value, &text); err != nil || len(rest) > 0 {
				return nil, faultf(trust.CertificateInvalid, "the certificate's extension for the issuer is no DER string")
			}
			issuers = append(issuers, text)
		}
	}
	switch {
	case names != 1:
		return nil, faultf(trust.CertificateInvalid, "the certificate has %d subject alternative names; one is expected", names)
	case len(leaf.DNSNames)+len(leaf.IPAddresses) > 0:
		return nil, faultf(trust.CertificateInvalid, "the certificate's subject alternative name is a host; a URI, an e-mail address or Fulcio's OtherName is expected")
	case len(issuers) > 1 && slices.ContainsFunc(issuers, func(i string) bool { return i != issuers[0] }):
		return nil, faultf(trust.CertificateInvalid, "the certificate names two issuers, %.100q and %.100q", issuers[0], issuers[1])
	}
	s, err := certificate.SummarizeCertificate(leaf)
	if err != nil {
		return nil, faultf(trust.CertificateInvalid, "the certificate's identity cannot be read: %s", libraryText(err))
	}
	id := &trust.Identity{Subject: s.SubjectAlternativeName, SourceRepositoryURI: s.SourceRepositoryURI,
		SourceRepositoryRef: s.SourceRepositoryRef, BuildSignerURI: s.BuildSignerURI, RunnerEnvironment: s.RunnerEnvironment}
	if len(issuers) > 0 {
		id.Issuer = issuers[0]
	}
	if n := len(id.Text()); n > trust.MaxIdentity {
		return nil, faultf(trust.CertificateInvalid, "the certificate's identity has %d bytes; at most %d are taken", n, trust.MaxIdentity)
	}
	return id, fault{}
}

// countNames counts the names in a SubjectAltName extension, also of kinds that Go passes
// over (RFC 5280, 4.2.1.6).
func countNames(value []byte) (n int, _ fault) {
	var seq asn1.RawValue
	rest, err := asn1.Unmarshal(value, &seq)
	if err != nil || len(rest) > 0 || !seq.IsCompound || seq.Tag != asn1.TagSequence {
		return 0, faultf(trust.CertificateInvalid, "the certificate's subject alternative name cannot be read")
	}
	for rest = seq.Bytes; len(rest) > 0; n++ {
		var name asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return 0, faultf(trust.CertificateInvalid, "the certificate's subject alternative name cannot be read")
		}
	}
	return n, fault{}
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

// withoutOtherName has Go verify a certificate whose subject alternative name is Fulcio's
// OtherName, which it does not know; identityOf has read it.
func withoutOtherName(leaf *x509.Certificate) {
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(leaf.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool { return id.Equal(cryptoutils.SANOID) })
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
