package truststore

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"trust-worker/trust"
	"trust-worker/verifier/recovery"
)

const (
	MinRSABits = 2048
	maxRSABits = 16384 // beyond, one verification would take tens of milliseconds
)

// Key is a trusted public key with everything cosign needs to verify under it,
// built once. It is immutable and shared between goroutines.
type Key struct {
	Fingerprint trust.Digest
	pem         string // the file's text, as it is
	algorithm   string
	Public      crypto.PublicKey
	Class       recovery.Class // of its signatures
	Curves      []CurveHash    // one per element of ways; none for RSA and Ed25519
	Ways        []Way
}

// Way is one algorithm under which a key's signatures are accepted.
type Way struct{ Simple, Bundle *cosign.CheckOpts }

// Hash is the hash of the pair. Never SHA-1; nothing else either.
func (c CurveHash) Hash() crypto.Hash {
	switch c {
	case P384SHA384:
		return crypto.SHA384
	case P521SHA512:
		return crypto.SHA512
	}
	return crypto.SHA256
}

// Curve is the curve of the pair, nil for none.
func (c CurveHash) Curve() elliptic.Curve {
	switch c {
	case P256SHA256:
		return elliptic.P256()
	case P384SHA384, P384SHA256:
		return elliptic.P384()
	case P521SHA512, P521SHA256:
		return elliptic.P521()
	}
	return nil
}

// String is for logs: "P-384/SHA-256".
func (c CurveHash) String() string {
	if c.Curve() == nil {
		return "none"
	}
	return c.Curve().Params().Name + "/" + c.Hash().String()
}

// parseKey reads a cosign key file: exactly one PEM public key. The error is a
// *fileError and never quotes the content.
func parseKey(b []byte) (*Key, error) {
	if bytes.Contains(b, []byte("PRIVATE KEY-----")) {
		return nil, refusef("holds a PRIVATE key; remove it at once and put its public key here: %s", publicKeyOf(b))
	}
	block, rest := pem.Decode(b)
	switch {
	case block == nil:
		return nil, unfinishedf("%s", cmp.Or(oddText(b, wantKey), "is not a PEM public key"))
	case blocks(b) > 1: // also when one of them cannot be read, which pem.Decode passes over
		return nil, refusef("holds more than one PEM block; put each key in its own file")
	case block.Type != string(cryptoutils.PublicKeyPEMType) && block.Type != string(cryptoutils.PKCS1PublicKeyPEMType):
		return nil, otherBlock(block.Type, wantKey)
	case beginsBlock(rest): // other text there is passed over, as by cosign
		return nil, unfinishedf("ends in the middle of a second PEM block; put each key in its own file")
	}
	pub, err := cryptoutils.UnmarshalPEMToPublicKey(b)
	if err != nil {
		return nil, refusef("is not a usable public key (%v)", err)
	}
	k, err := newKey(pub)
	if err != nil {
		return nil, err
	}
	k.pem = string(b)
	return k, nil
}

// newKey prepares pub for verification, or refuses it.
func newKey(pub crypto.PublicKey) (*Key, error) {
	k := &Key{Public: pub}
	var verifiers []signature.Verifier
	add := func(v signature.Verifier, err error) error {
		verifiers = append(verifiers, v)
		return err
	}
	if weak := weakness(pub); weak != nil {
		return nil, weak
	}
	var err error
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		k.algorithm = p.Params().Name
		switch p.Curve {
		case elliptic.P256():
			k.Curves = []CurveHash{P256SHA256}
		case elliptic.P384():
			k.Curves = []CurveHash{P384SHA384, P384SHA256}
		case elliptic.P521():
			k.Curves = []CurveHash{P521SHA512, P521SHA256}
		default:
			return nil, refusef("is a key on curve %s; use P-256, P-384 or P-521", p.Params().Name)
		}
		for _, c := range k.Curves {
			if err == nil {
				err = add(signature.LoadVerifier(p, c.Hash()))
			}
		}
	case *rsa.PublicKey:
		k.algorithm = fmt.Sprintf("RSA %d", p.N.BitLen())
		err = add(signature.LoadVerifier(p, crypto.SHA256))
	case ed25519.PublicKey:
		k.algorithm = "Ed25519"
		if err = add(signature.LoadVerifier(p, crypto.SHA256)); err == nil {
			err = add(signature.LoadED25519phVerifier(p))
		}
	default:
		return nil, refusef("is a key of an unsupported kind (%s); use ECDSA, RSA or Ed25519", strings.TrimPrefix(fmt.Sprintf("%T", pub), "*"))
	}
	if err != nil {
		return nil, refusef("is not a usable public key (%v)", err)
	}
	fp, err := recovery.FingerprintOf(pub)
	if err != nil {
		return nil, refusef("is not a usable public key (%v)", err)
	}
	k.Fingerprint, k.Class = trust.Digest(fp), recovery.ClassesFor(pub)[0]
	for _, v := range verifiers {
		k.Ways = append(k.Ways, Way{
			// The claims are the payload's, whoever signed it: see checkPayload.
			Simple: &cosign.CheckOpts{SigVerifier: v, IgnoreTlog: true, IgnoreSCT: true, Offline: true},
			Bundle: &cosign.CheckOpts{SigVerifier: v, TrustedMaterial: &root.BaseTrustedMaterial{},
				IgnoreTlog: true, IgnoreSCT: true, Offline: true, NewBundleFormat: true},
		})
	}
	return k, nil
}

// Signer names the key in facts.
func (k *Key) Signer() trust.Signer {
	return trust.Signer{Tool: trust.Cosign, Fingerprint: k.Fingerprint}
}

// keyring is the set of trusted keys, arranged for finding the few that could
// have made a signature.
type keyring struct {
	byPrint map[trust.Digest]*Key
	byClass map[recovery.Class][]*Key
	inUse   []CurveHash
}
