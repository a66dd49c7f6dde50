package recovery

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"math/big"
	"testing"
)

// FuzzCandidates feeds any bytes to recovery on any curve. Nothing panics (R4), every candidate is a proper key under
// which (r, s) verifies, and which sigstore accepts unless it refuses the encoding (R2), and all of them are there (R1).
func FuzzCandidates(f *testing.F) {
	rng := newRand(1)
	for i, curve := range curves {
		key, msg := newSigner(f, rng, curve), []byte("message")
		der := sign(f, key, crypto.SHA256, msg)
		r, s := fromDER(f, der)
		for _, e := range encodings {
			h := crypto.SHA256
			in := &input{&key.PublicKey, h, msg, r, s}
			f.Add(uint8(i), uint8(1), e.encode(f, rng, in), in.msg)
		}
		f.Add(uint8(i), uint8(3), toDER(f, big.NewInt(3), big.NewInt(5)), msg)
	}
	f.Fuzz(func(t *testing.T, curveIndex, hashIndex uint8, sig, msg []byte) {
		curve, h := curves[int(curveIndex)%len(curves)], hashes[int(hashIndex)%len(hashes)]
		digest := sum(h, msg)
		keys, err := candidateKeys(curve, sig, [][]byte{digest})
		if err != nil {
			t.Fatalf("R4: %v", err)
		}
		rBytes, sBytes, ok := scalars(sig)
		if !ok {
			if len(keys) != 0 {
				t.Fatalf("R4: %d candidates for what is no signature", len(keys))
			}
			return
		}
		r, s := new(big.Int).SetBytes(rBytes), new(big.Int).SetBytes(sBytes)
		if want := wantCandidates(curve, r, s); len(keys) != want {
			t.Fatalf("R1: %d candidates, want %d", len(keys), want)
		}
		for _, spki := range keys {
			pub := parseKey(t, spki)
			if !ecdsa.VerifyASN1(pub, digest, toDER(t, r, s)) {
				t.Fatalf("R2: (r, s) does not verify under %x", spki)
			}
			// The other half of compare: what sigstore accepts here has been proposed by definition.
			if compare(t, pub, h, msg, sig) == refusedAsDER(t, sig) {
				t.Fatalf("R2: sigstore's verdict on %x is not its encoding's", sig)
			}
		}
	})
}

// FuzzScalars holds the parser against sigstore's two: whatever crypto/ecdsa would take as DER is read, with
// encoding/asn1's values, and nothing else is taken for DER.
func FuzzScalars(f *testing.F) {
	rng := newRand(1)
	for _, curve := range curves {
		key := newSigner(f, rng, curve)
		r, s := fromDER(f, sign(f, key, crypto.SHA256, nil))
		for _, e := range encodings {
			f.Add(e.encode(f, rng, &input{&key.PublicKey, crypto.SHA256, nil, r, s}))
		}
	}
	f.Fuzz(func(t *testing.T, sig []byte) {
		r, s, ok := derScalars(sig)
		var v ints
		rest, err := asn1.Unmarshal(sig, &v)
		strict := err == nil && len(rest) == 0 && v.R.Sign() >= 0 && v.S.Sign() >= 0 && bytes.Equal(toDER(t, v.R, v.S), sig)
		if strict && len(sig) > 258 {
			return // more than one length octet; no curve has such scalars
		}
		if ok != strict {
			t.Fatalf("%x: read %v, strict DER %v", sig, ok, strict)
		}
		if ok && (new(big.Int).SetBytes(r).Cmp(v.R) != 0 || new(big.Int).SetBytes(s).Cmp(v.S) != 0) {
			t.Fatalf("%x: read %x and %x", sig, r, s)
		}
		Classify(sig)
	})
}
