package signtest

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

// Sigstore is a private sigstore instance: a certificate authority, a certificate
// transparency log, a transparency log of Rekor 1 and a time stamp authority.
type Sigstore struct {
	CA      *Chain // leaf first: what issues, then its root
	CT, Log *Key
	TSA     *TSA
}

// NewSigstore makes an instance of that name.
func NewSigstore(name string) *Sigstore {
	root := NewRoot(CertOptions{CommonName: name + " root"})
	return &Sigstore{CA: root.Intermediate(CertOptions{CommonName: name + " fulcio", Change: func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}}), CT: NewKey(P256), Log: NewKey(P256),
		TSA: NewTSA(NewRoot(CertOptions{CommonName: name + " tsa root"}), CertOptions{CommonName: name + " tsa"})}
}

// KeylessOptions say how a keyless signature is made. Zero values are what cosign sign
// does against an instance that has all authorities.
type KeylessOptions struct {
	// Issuer and Subject are who signs; the subject is a URI or an e-mail address.
	Issuer, Subject string
	// At is when the certificate is issued; the signature follows a minute later. Zero
	// is a year ago.
	At time.Time
	// Key signs; nil: a new one.
	Key *Key
	// Authorities that are somebody else's; nil: the instance's own.
	CT, Log *Key
	TSA     *TSA
	// NoSCT, NoEntry, Stamp: evidence is left out, or is added.
	NoSCT, NoEntry, Stamp bool
	// SCTTwice embeds the SCT twice.
	SCTTwice bool
	// StampSigners is how many have signed the stamp, if it is not one. StampWith are
	// certificates in it that have nothing to do with it.
	StampSigners int
	StampWith    []*x509.Certificate
	// AlsoLog is a second log, which has made a bundle's second entry.
	AlsoLog *Key
	// NoSET leaves a bundle's entry with its inclusion proof alone.
	NoSET bool
	// LoggedAt, StampedAt: times other than a minute after At.
	LoggedAt, StampedAt time.Time
	// EntryFor is a signature, other than the one made, that the log has.
	EntryFor []byte
	// Predicate is a bundle's, other than that of a signature.
	Predicate string
	// Change is applied to the certificate's template.
	Change func(*x509.Certificate)
}

// Fulcio's extensions.
var (
	OIDIssuer   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	OIDIssuerV2 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
	oidSCTs     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
)

// FulcioText is an extension with a DER string.
func FulcioText(id asn1.ObjectIdentifier, text string) pkix.Extension {
	return pkix.Extension{Id: id, Value: must(asn1.MarshalWithParams(text, "utf8"))}
}

func (o *KeylessOptions) complete(s *Sigstore) {
	if o.At.IsZero() {
		o.At = time.Now().AddDate(-1, 0, 0)
	}
	o.At = o.At.UTC().Truncate(time.Second)
	if o.Key == nil {
		o.Key = NewKey(P256)
	}
	if o.CT == nil {
		o.CT = s.CT
	}
	if o.Log == nil {
		o.Log = s.Log
	}
	if o.TSA == nil {
		o.TSA = s.TSA
	}
	if o.LoggedAt.IsZero() {
		o.LoggedAt = o.At.Add(time.Minute)
	}
	if o.StampedAt.IsZero() {
		o.StampedAt = o.At.Add(time.Minute)
	}
}

// certificate issues a certificate that lives for ten minutes.
func (s *Sigstore) certificate(o *KeylessOptions) *x509.Certificate {
	scts := []byte(nil)
	make := func() *x509.Certificate {
		return s.CA.Leaf(CertOptions{Key: o.Key, NotBefore: o.At, NotAfter: o.At.Add(10 * time.Minute), Change: func(c *x509.Certificate) {
			id := o.Key.Fingerprint() // both certificates are one but for the list
			c.SerialNumber.SetBytes(append([]byte{1}, id[:8]...))
			c.Subject = pkix.Name{}
			if strings.Contains(o.Subject, "://") {
				c.URIs = []*url.URL{must(url.Parse(o.Subject))}
			} else if o.Subject != "" {
				c.EmailAddresses = []string{o.Subject}
			}
			if o.Issuer != "" {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: OIDIssuer, Value: []byte(o.Issuer)}, FulcioText(OIDIssuerV2, o.Issuer))
			}
			if o.Change != nil {
				o.Change(c)
			}
			if scts != nil {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidSCTs, Value: must(asn1.Marshal(scts))})
			}
		}}).Cert()
	}
	c := make()
	if o.NoSCT {
		return c
	}
	// RFC 6962, 3.2: over the certificate without the list, and its issuer's key.
	at := uint64(o.At.UnixMilli())
	issuer := sha256.Sum256(s.CA.Cert().RawSubjectPublicKeyInfo)
	b := binary.BigEndian.AppendUint64([]byte{0, 0}, at)
	b = append(append(b, 0, 1), issuer[:]...)
	b = append(b, byte(len(c.RawTBSCertificate)>>16), byte(len(c.RawTBSCertificate)>>8), byte(len(c.RawTBSCertificate)))
	b = append(append(b, c.RawTBSCertificate...), 0, 0)
	sig := o.CT.Sign(b, crypto.SHA256)
	id := o.CT.Fingerprint()
	one := append([]byte{0}, id[:]...)
	one = append(binary.BigEndian.AppendUint64(one, at), 0, 0, 4, 3)
	one = append(binary.BigEndian.AppendUint16(one, uint16(len(sig))), sig...)
	one = append(binary.BigEndian.AppendUint16(nil, uint16(len(one))), one...)
	if o.SCTTwice {
		one = append(one, one...)
	}
	scts = append(binary.BigEndian.AppendUint16(nil, uint16(len(one))), one...)
	return make()
}

// entry is a Rekor entry with all that proves it.
type entry struct {
	body       []byte
	at         time.Time
	log        trust.Digest
	set        []byte
	checkpoint string
	root       [32]byte
}

const logIndex = 7

func (o *KeylessOptions) entry(body any) entry {
	e := entry{body: must(json.Marshal(body)), at: o.LoggedAt, log: o.Log.Fingerprint()}
	// Canonical JSON (RFC 8785): these members in this order, no blanks.
	canonical := fmt.Appendf(nil, `{"body":%q,"integratedTime":%d,"logID":%q,"logIndex":%d}`,
		base64.StdEncoding.EncodeToString(e.body), e.at.Unix(), e.log.Hex(), logIndex)
	e.set = o.Log.Sign(canonical, crypto.SHA256)
	// A log of one entry (RFC 6962, 2.1), and its tree head as a signed note.
	e.root = sha256.Sum256(append([]byte{0}, e.body...))
	head := fmt.Sprintf("rekor.test - 1\n1\n%s\n", base64.StdEncoding.EncodeToString(e.root[:]))
	sig := append(bytes.Clone(e.log[:4]), o.Log.Sign([]byte(head), crypto.SHA256)...)
	e.checkpoint = head + "\n— rekor.test " + base64.StdEncoding.EncodeToString(sig) + "\n"
	return e
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// stamp is a time stamp response with its status (RFC 3161, 2.4.2).
func (o *KeylessOptions) stamp(signature []byte) []byte {
	return response(o.TSA.OddToken(signature, o.StampedAt, max(1, o.StampSigners), o.StampWith...))
}

// Stamp is a time stamp response over a signature, as of now.
func (s *Sigstore) Stamp(signature []byte) []byte {
	return response(s.TSA.Token(signature, time.Now()))
}

// OddStamp is Stamp with a number of signers, and more certificates than belong to it.
func (s *Sigstore) OddStamp(signature []byte, signers int, more ...*x509.Certificate) []byte {
	return response(s.TSA.OddToken(signature, time.Now(), signers, more...))
}

func response(token []byte) []byte {
	return must(asn1.Marshal(struct {
		Status struct{ Status int }
		Token  asn1.RawValue
	}{Token: asn1.RawValue{FullBytes: token}}))
}

// Layer makes one simple signing layer over subject, with its evidence in annotations.
func (s *Sigstore) Layer(subject trust.Digest, o KeylessOptions) (ocispec.Descriptor, []byte) {
	o.complete(s)
	payload := Payload(subject)
	d := descriptor(SimpleMediaType, payload)
	sig := o.Key.Sign(payload, crypto.SHA256)
	cert := s.certificate(&o)
	chain := append(certPEM(s.CA.Cert()), certPEM(s.CA.Root())...)
	d.Annotations = map[string]string{SignatureAnnotation: base64.StdEncoding.EncodeToString(sig),
		CertificateAnnotation: string(certPEM(cert)), "dev.sigstore.cosign/chain": string(chain)}
	if !o.NoEntry {
		sum, logged := sha256.Sum256(payload), sig
		if o.EntryFor != nil {
			logged = o.EntryFor
		}
		e := o.entry(map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
			"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}},
			"signature": map[string]any{"content": logged, "publicKey": map[string]any{"content": certPEM(cert)}}}})
		d.Annotations["dev.sigstore.cosign/bundle"] = string(must(json.Marshal(map[string]any{"SignedEntryTimestamp": e.set,
			"Payload": map[string]any{"body": base64.StdEncoding.EncodeToString(e.body), "integratedTime": e.at.Unix(), "logIndex": logIndex, "logID": e.log.Hex()}})))
	}
	if o.Stamp {
		d.Annotations["dev.sigstore.cosign/rfc3161timestamp"] = string(must(json.Marshal(map[string]any{"SignedRFC3161Timestamp": o.stamp(sig)})))
	}
	return d, payload
}

// Bundle makes a sigstore bundle v0.3 over subject.
func (s *Sigstore) Bundle(subject trust.Digest, o KeylessOptions) []byte {
	o.complete(s)
	predicate := o.Predicate
	if predicate == "" {
		predicate = SignPredicate
	}
	payload := Statement(subject, predicate)
	sig := o.Key.Sign(PAE(InTotoMediaType, payload), crypto.SHA256)
	cert := s.certificate(&o)
	material := map[string]any{"certificate": map[string]any{"rawBytes": cert.Raw}}
	if !o.NoEntry {
		sum, envelope := sha256.Sum256(payload), sha256.Sum256(payload)
		logged := sig
		if o.EntryFor != nil {
			logged = o.EntryFor
		}
		body := map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
			"envelopeHash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(envelope[:])},
			"payloadHash":  map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])},
			"signatures":   []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(logged), "verifier": certPEM(cert)}}}}
		var entries []any
		for _, log := range []*Key{o.Log, o.AlsoLog} {
			if log == nil {
				continue
			}
			by := o
			by.Log = log
			entries = append(entries, by.bundled(body))
		}
		material["tlogEntries"] = entries
	}
	if o.Stamp {
		material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": o.stamp(sig)}}}
	}
	return must(json.Marshal(map[string]any{"mediaType": BundleMediaType, "verificationMaterial": material,
		"dsseEnvelope": map[string]any{"payload": payload, "payloadType": InTotoMediaType, "signatures": []any{map[string]any{"sig": sig}}}}))
}

// bundled is the log's entry as a bundle has it.
func (o *KeylessOptions) bundled(body any) map[string]any {
	e := o.entry(body)
	proof := map[string]any{"logIndex": "0", "rootHash": e.root[:], "treeSize": "1", "hashes": []any{}, "checkpoint": map[string]any{"envelope": e.checkpoint}}
	one := map[string]any{"logIndex": fmt.Sprint(logIndex), "logId": map[string]any{"keyId": e.log[:]}, "kindVersion": map[string]any{"kind": "dsse", "version": "0.0.1"},
		"integratedTime": fmt.Sprint(e.at.Unix()), "inclusionProof": proof, "canonicalizedBody": e.body}
	if !o.NoSET {
		one["inclusionPromise"] = map[string]any{"signedEntryTimestamp": e.set}
	}
	return one
}

// RootFile is the JSON of a trusted root, to be changed.
type RootFile struct {
	MediaType              string          `json:"mediaType"`
	Tlogs                  []RootLog       `json:"tlogs,omitempty"`
	CertificateAuthorities []RootAuthority `json:"certificateAuthorities,omitempty"`
	CTLogs                 []RootLog       `json:"ctlogs,omitempty"`
	TimestampAuthorities   []RootAuthority `json:"timestampAuthorities,omitempty"`
}

// RootWindow is for how long a root vouches for an authority.
type RootWindow struct {
	Start string `json:"start,omitempty"`
	End   string `json:"end,omitempty"`
}

// RootLog is a log of a trusted root.
type RootLog struct {
	BaseURL       string `json:"baseUrl"`
	HashAlgorithm string `json:"hashAlgorithm"`
	PublicKey     struct {
		RawBytes   []byte     `json:"rawBytes"`
		KeyDetails string     `json:"keyDetails"`
		ValidFor   RootWindow `json:"validFor"`
	} `json:"publicKey"`
	LogID struct {
		KeyID []byte `json:"keyId"`
	} `json:"logId"`
}

// RootAuthority is a certificate or time stamp authority of a trusted root.
type RootAuthority struct {
	URI       string `json:"uri"`
	CertChain struct {
		Certificates []map[string][]byte `json:"certificates"`
	} `json:"certChain"`
	ValidFor RootWindow `json:"validFor"`
}

const rootStart = "2000-01-01T00:00:00Z"

func rootLog(url string, k *Key) (l RootLog) {
	l.BaseURL, l.HashAlgorithm = url, "SHA2_256"
	l.PublicKey.RawBytes, l.PublicKey.KeyDetails = must(x509.MarshalPKIXPublicKey(k.Public())), "PKIX_ECDSA_P256_SHA_256"
	l.PublicKey.ValidFor.Start = rootStart
	id := k.Fingerprint()
	l.LogID.KeyID = id[:]
	return l
}

func rootAuthority(uri string, c *Chain) (a RootAuthority) {
	a.URI, a.ValidFor.Start = uri, rootStart
	for _, one := range c.Certs {
		a.CertChain.Certificates = append(a.CertChain.Certificates, map[string][]byte{"rawBytes": one.Raw})
	}
	return a
}

// Root is the instance's trusted root.
func (s *Sigstore) Root() *RootFile {
	return &RootFile{MediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		Tlogs:                  []RootLog{rootLog("https://rekor.test", s.Log)},
		CertificateAuthorities: []RootAuthority{rootAuthority("https://fulcio.test", s.CA)},
		CTLogs:                 []RootLog{rootLog("https://ct.test", s.CT)},
		TimestampAuthorities:   []RootAuthority{rootAuthority("https://tsa.test", s.TSA.Chain())}}
}

// JSON is the file.
func (r *RootFile) JSON() []byte { return must(json.Marshal(r)) }

// TrustFile writes a file in _cosign: a trusted root, identities, or a key in a scope.
func (s *Storage) TrustFile(name string, content []byte) {
	s.replace(filepath.Join("_cosign", filepath.FromSlash(name)), content)
}

// SignKeyless attaches a keyless signature by its tag.
func (s *Storage) SignKeyless(img Image, by *Sigstore, o KeylessOptions) Image {
	layer, payload := by.Layer(img.Trust(), o)
	s.Blob(img.Repo, payload)
	tag := SigTag(img.Trust())
	return s.Layers(img.Repo, tag, append(s.layersOf(img.Repo, tag), layer)...)
}

// SignKeylessBundle attaches a keyless signature as a bundle.
func (s *Storage) SignKeylessBundle(img Image, by *Sigstore, o KeylessOptions) Image {
	return s.AttachBlob(img, BundleMediaType, BundleMediaType, by.Bundle(img.Trust(), o))
}
