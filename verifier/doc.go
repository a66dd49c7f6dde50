// Package verifier finds out under which signers of a [truststore.TrustStore] a
// signature verifies. What it returns are facts; whether an image is trusted is decided
// by package trust, which joins facts with what is in force.
//
// Verifying begins in verifier.go and layers.go, and goes on in cosign.go, bundle.go,
// keyless.go and notation.go. The checks that need no cryptography come first, and then cosign or
// notation-go decides.
//
// Invariants:
//
//	V1. A [trust.Ground] is made in three places, in cosign.go, keyless.go and
//	    notation.go, each after the library's own verifier has accepted the very
//	    bytes fetched, under the very signers or the one root that the ground
//	    stands for.
//	V2. Keys and certificates to verify with come from the trust directories
//	    alone. What an artifact carries — certificates, chains, public keys,
//	    hints, bundles — selects candidates at most, or is evidence that a trusted
//	    root's authorities have to have signed.
//	V3. Candidates are proposals. No ground follows from a recovered key, a hint
//	    or an index; their absence can only lose a ground, never make one.
//	V4. The digest of every blob is recomputed before it is parsed, its size is
//	    bounded before it is read, and JSON that two readers could take for
//	    different things is refused.
//	V5. Dates are no part of a verdict but bounds of its grounds, and where the
//	    bounds contain the present, the library's own judgement of them must not
//	    object. A bound is never later than the library's.
//	V6. An error means that nothing is known. A verdict has grounds or a decided
//	    reason, never both; a Problem is neither.
//	V7. Nothing here waits for a connection or runs a program: notation-go is
//	    given a nil plugin manager and our own revocation validators, cosign is
//	    offline and has no log to ask. Package revocation, below this one, asks
//	    OCSP responders and CRL distribution points on its own time, about
//	    chains whose integrity, anchor and identity notation-go has accepted,
//	    in the mode online alone.
//	V8. A panic in a library ends with the one layer: it reads limit-exceeded and
//	    is counted (docs/adr/0006).
//	V9. The author of a signature is set only beside a ground.
//
// The package does not find signatures (package layout), store verdicts (package
// cache/store) or decide what to verify when (package scheduler).
package verifier
