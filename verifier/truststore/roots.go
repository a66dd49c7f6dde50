package truststore

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"trust-worker/trust"
)

// Trusted roots: the authorities of a sigstore instance, as cosign trusted-root create,
// the TUF cache and Flux's Secret have them (sigstore protobuf-specs,
// sigstore_trustroot.proto).

const (
	maxRootFile = 1 << 20
	maxRoots    = 64 // in all files: each may have to be asked about a signature
	// maxAuthorities bounds one root.
	maxAuthorities = 256
)

// isRootName reports whether a file of that name holds trusted roots.
func isRootName(name string) bool {
	ext := path.Ext(name)
	return strings.HasPrefix(name, "trusted_root") && (ext == ".json" || ext == ".jsonl")
}

// Root is a trusted root with everything needed to verify under it. It is immutable.
type Root struct {
	trust.Root
	// Trusted is the root as sigstore-go has it. CAs, TSAs name its authorities, in
	// its order; Logs and CTLogs by its key id in hexadecimal digits.
	Trusted      *root.TrustedRoot
	CAs, TSAs    []trust.SignerID
	Logs, CTLogs map[string]trust.SignerID

	issuers []trust.Digest
}

// IssuerKey names who has issued a certificate, for finding the roots that could vouch
// for it: by the key identifier or, without one, by the distinguished name. It only
// proposes.
func IssuerKey(keyID, rawName []byte) trust.Digest {
	if len(keyID) > 0 {
		return trust.SumOf(append([]byte("key id\n"), keyID...))
	}
	return trust.SumOf(append([]byte("name\n"), rawName...))
}

// Issues reports whether a certificate authority of the root may have issued a
// certificate that names that issuer.
func (r *Root) Issues(issuer trust.Digest) bool { return slices.Contains(r.issuers, issuer) }

// parseRoots reads a file of trusted roots: one, or one on each line of a .jsonl.
func parseRoots(name string, b []byte) ([]*Root, error) {
	if path.Ext(name) != ".jsonl" {
		r, err := parseRoot(b)
		if err != nil {
			return nil, err
		}
		r.File = name
		return []*Root{r}, nil
	}
	var roots []*Root
	for n, line := range bytes.Split(b, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		r, err := parseRoot(line)
		if err != nil {
			err.reason = fmt.Sprintf("line %d %s", n+1, err.reason)
			return nil, err
		}
		r.File, r.Line = name, n+1
		roots = append(roots, r)
	}
	if len(roots) == 0 {
		return nil, unfinishedf("holds no trusted root")
	}
	return roots, nil
}

func parseRoot(b []byte) (*Root, *fileError) {
	var head struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, unfinishedf("%s", cmp.Or(oddText(b, wantPolicy), "is not the JSON of a trusted root, or not all of it; copy it again, and rename it into place"))
	}
	if head.MediaType == "" {
		return nil, refusef("has no mediaType, and so is no trusted root: make it with cosign trusted-root create")
	}
	if head.MediaType != root.TrustedRootMediaType01 {
		return nil, refusef("has the media type %.100q; %q can be read: make it with cosign trusted-root create", head.MediaType, root.TrustedRootMediaType01)
	}
	parsed, err := root.NewTrustedRootFromJSON(b)
	if err != nil {
		return nil, refusef("is not a usable trusted root (%.200s)", strings.ReplaceAll(err.Error(), "\u00a0", " "))
	}
	r := &Root{Trusted: parsed, Logs: map[string]trust.SignerID{}, CTLogs: map[string]trust.SignerID{}}
	add := func(role trust.Role, fingerprint trust.Digest, from, until time.Time, name string) trust.SignerID {
		a := trust.Authority{Role: role, ID: trust.AuthorityID(role, fingerprint), From: bound(from), Until: bound(until), Name: name}
		r.Authorities = append(r.Authorities, a)
		return a.ID
	}
	var weak *fileError
	judge := func(what string, pub crypto.PublicKey) {
		if found := weakness(pub); found != nil && weak == nil {
			weak = refusef("lists a %s whose key %s", what, found.reason)
		}
	}
	for _, ca := range parsed.FulcioCertificateAuthorities() {
		f, ok := ca.(*root.FulcioCertificateAuthority)
		if !ok || f.Root == nil {
			return nil, refusef("lists a certificate authority of a kind that is not known")
		}
		chain := append(slices.Clone(f.Intermediates), f.Root)
		for _, c := range chain {
			judge("certificate authority", c.PublicKey)
			r.issuers = append(r.issuers, IssuerKey(nil, c.RawSubject))
			if len(c.SubjectKeyId) > 0 {
				r.issuers = append(r.issuers, IssuerKey(c.SubjectKeyId, nil))
			}
		}
		r.CAs = append(r.CAs, add(trust.CertificateAuthority, chainSum(chain), f.ValidityPeriodStart, f.ValidityPeriodEnd, cmp.Or(f.URI, f.Root.Subject.String())))
	}
	for _, tsa := range parsed.TimestampingAuthorities() {
		s, ok := tsa.(*root.SigstoreTimestampingAuthority)
		if !ok || s.Root == nil {
			return nil, refusef("lists a time stamp authority of a kind that is not known, or without a root certificate")
		}
		chain := append(slices.Clone(s.Intermediates), s.Root)
		if s.Leaf != nil {
			chain = append([]*x509.Certificate{s.Leaf}, chain...)
		}
		for _, c := range chain {
			judge("time stamp authority", c.PublicKey)
		}
		r.TSAs = append(r.TSAs, add(trust.TimestampAuthority, chainSum(chain), s.ValidityPeriodStart, s.ValidityPeriodEnd, cmp.Or(s.URI, s.Root.Subject.String())))
	}
	for role, logs := range map[trust.Role]map[string]*root.TransparencyLog{trust.TransparencyLog: parsed.RekorLogs(), trust.CTLog: parsed.CTLogs()} {
		ids := r.Logs
		if role == trust.CTLog {
			ids = r.CTLogs
		}
		for keyID, l := range logs {
			judge(role.String(), l.PublicKey)
			fingerprint, err := logSum(l)
			if err != nil {
				return nil, refusef("lists a %s whose key cannot be used (%v)", role, err)
			}
			ids[keyID] = add(role, fingerprint, l.ValidityPeriodStart, l.ValidityPeriodEnd, cmp.Or(l.BaseURL, "log "+keyID))
		}
	}
	switch {
	case weak != nil:
		return nil, weak
	case len(r.CAs) == 0:
		return nil, refusef("lists no certificate authority, so that it vouches for nobody")
	case len(r.TSAs)+len(r.Logs) == 0:
		return nil, refusef("lists neither a transparency log nor a time stamp authority, so that nothing proves when a signature was made")
	case len(r.Authorities) > maxAuthorities:
		return nil, refusef("lists %d authorities; at most %d are taken", len(r.Authorities), maxAuthorities)
	}
	slices.SortFunc(r.Authorities, func(a, b trust.Authority) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.From, b.From), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return r, nil
}

// bound is a window's end in Unix seconds. 0, which is none, is no date that occurs.
func bound(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return cmp.Or(trust.Date(t.Unix()), 1)
}

func chainSum(chain []*x509.Certificate) trust.Digest {
	h := sha256.New()
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		h.Write(sum[:])
	}
	return trust.Digest(h.Sum(nil))
}

// logSum is over all that a log's statements are verified with: the key, how logs are
// told apart, and the host, which is in what Rekor 2 signs.
func logSum(l *root.TransparencyLog) (trust.Digest, error) {
	der, err := x509.MarshalPKIXPublicKey(l.PublicKey)
	if err != nil {
		return trust.Digest{}, err
	}
	host := ""
	if u, err := url.Parse(l.BaseURL); err == nil {
		host = u.Hostname()
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%d:%s%d:%s%d", len(l.ID), l.ID, len(host), host, len(der), der, l.SignatureHashFunc)
	return trust.Digest(h.Sum(nil)), nil
}

// Open reports whether the root lists a certificate authority that it vouches for now
// and in future: one without has been superseded by a newer file.
func (r *Root) Open(now time.Time) bool {
	return slices.ContainsFunc(r.Authorities, func(a trust.Authority) bool {
		return a.Role == trust.CertificateAuthority && (a.Until == 0 || a.Until > now.Unix())
	})
}
