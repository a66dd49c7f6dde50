package verifier

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-go"
	nverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	notationstore "github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	cbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/recovery"
)

// BenchmarkLibrary is the second floor: what the library costs alone on bytes like
// those of BenchmarkCosign and BenchmarkNotation, when it is handed the one key or
// certificate that is right, with everything that can be made beforehand made.
// None of our checks, no blob hashed, nobody looked for.
func BenchmarkLibrary(b *testing.B) {
	k := signtest.NewKey(signtest.P256)
	w := newDirs(b).key("k.pub", k).load().Keys(recovery.ECDSA256)[0].Ways[0]
	opts := *w.Simple
	opts.ClaimVerifier = cosign.SimpleClaimVerifier // as cosign verify sets it
	b.Run("simple", func(b *testing.B) {
		library(b, func(s Subject) *request { return simple(s, k, signtest.CosignOptions{}) }, func(r *request, blob []byte) error {
			sig, err := static.NewSignature(blob, r.Signature.Layers[0].Annotations[static.SignatureAnnotationKey])
			if err != nil {
				return err
			}
			_, err = cosign.VerifyImageSignature(b.Context(), sig, v1.Hash{Algorithm: "sha256", Hex: r.Subject.Digest.Hex()}, &opts)
			return err
		})
	})
	b.Run("bundle", func(b *testing.B) {
		library(b, func(s Subject) *request { return bundled(s, k, signtest.CosignOptions{}) }, func(r *request, blob []byte) error {
			var parsed bundle.Bundle
			if err := parsed.UnmarshalJSON(blob); err != nil {
				return err
			}
			_, err := cosign.VerifyNewBundle(b.Context(), w.Bundle, verify.WithArtifactDigest("sha256", r.Subject.Digest[:]), &parsed)
			return err
		})
	})
	instance := signtest.NewSigstore("bench")
	rt := newDirs(b).root("trusted_root.json", instance.Root()).load().Roots()[0]
	b.Run("keyless-layer", func(b *testing.B) {
		library(b, func(s Subject) *request {
			d, blob := instance.Layer(s.Digest, signtest.KeylessOptions{Issuer: actions, Subject: workflow})
			return newRequest(s, trust.CosignTag).layer(d, blob)
		}, func(r *request, blob []byte) error {
			a := r.Signature.Layers[0].Annotations
			var log cbundle.RekorBundle
			if err := json.Unmarshal([]byte(a[static.BundleAnnotationKey]), &log); err != nil {
				return err
			}
			sig, err := static.NewSignature(blob, a[static.SignatureAnnotationKey], static.WithCertChain([]byte(a[static.CertificateAnnotationKey]), nil), static.WithBundle(&log))
			if err != nil {
				return err
			}
			_, err = cosign.VerifyImageSignature(b.Context(), sig, v1.Hash{Algorithm: "sha256", Hex: r.Subject.Digest.Hex()},
				&cosign.CheckOpts{TrustedMaterial: rt.Trusted, Offline: true, ClaimVerifier: cosign.SimpleClaimVerifier})
			return err
		})
	})
	b.Run("keyless-bundle", func(b *testing.B) {
		sv, err := verify.NewVerifier(rt.Trusted, verify.WithObserverTimestamps(1), verify.WithTransparencyLog(1), verify.WithSignedCertificateTimestamps(1))
		if err != nil {
			b.Fatal(err)
		}
		library(b, func(s Subject) *request {
			return newRequest(s, trust.CosignBundle).blob(signtest.BundleMediaType, instance.Bundle(s.Digest, signtest.KeylessOptions{Issuer: actions, Subject: workflow}))
		}, func(r *request, blob []byte) error {
			var parsed bundle.Bundle
			if err := parsed.UnmarshalJSON(blob); err != nil {
				return err
			}
			_, err := sv.Verify(&parsed, verify.NewPolicy(verify.WithArtifactDigest("sha256", r.Subject.Digest[:]), verify.WithoutIdentitiesUnsafe()))
			return err
		})
	})
	leaf := signtest.NewRoot(signtest.CertOptions{}).Leaf(signtest.CertOptions{})
	self := signtest.SelfSigned(signtest.CertOptions{})
	for _, c := range []struct {
		name  string
		chain *signtest.Chain
		cose  bool
	}{{"jws", leaf, false}, {"cose", leaf, true}, {"jws-self-signed", self, false}} {
		b.Run(c.name, func(b *testing.B) {
			v := notationAlone(b, c.chain)
			library(b, func(s Subject) *request { return notated(s, c.chain, signtest.NotationOptions{COSE: c.cose}) }, func(r *request, blob []byte) error {
				o, err := v.Verify(b.Context(), r.Subject.descriptor(), blob, notation.VerifierVerifyOptions{
					ArtifactReference: "registry.invalid/subject@" + r.Subject.Digest.String(), SignatureMediaType: r.Signature.Layers[0].MediaType})
				return errors.Join(err, o.Error)
			})
		})
	}
}

// library times verify, which gets a request and its blob, beside the floor.
func library(b *testing.B, sign func(Subject) *request, verify func(*request, []byte) error) {
	b.Helper()
	var requests []*request
	var content [][]byte
	for i := range samples {
		r := sign(image(fmt.Sprint(i)))
		digest, err := trust.ParseDigest(string(r.Signature.Layers[0].Digest))
		if err != nil {
			b.Fatal(err)
		}
		requests, content = append(requests, r), append(content, r.blobs[digest])
	}
	beside(b, func(i int) error { return verify(requests[i%samples], content[i%samples]) })
}

// notationAlone is notation-go's verifier with the chain's root in its only store.
func notationAlone(b *testing.B, chain *signtest.Chain) notation.Verifier {
	b.Helper()
	doc := &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name: "default-config", RegistryScopes: []string{"*"}, TrustStores: []string{"ca:" + anchorStore}, TrustedIdentities: []string{"*"},
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name}}}}
	v, err := nverifier.NewWithOptions(doc, all{notationstore.TypeCA: {chain.Root()}}, nil, nverifier.VerifierOptions{
		RevocationCodeSigningValidator:  &revocationCheck{purpose: purpose.CodeSigning},
		RevocationTimestampingValidator: &revocationCheck{purpose: purpose.Timestamping}})
	if err != nil {
		b.Fatal(err)
	}
	return v
}
