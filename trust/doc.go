// Package trust is the vocabulary that every other package shares — signers,
// policies, grounds, verdicts, statuses and reasons — and the one decision
// that is made with it.
//
// A verdict is a fact: the signers under which a signature verified, and between which
// dates. Facts are expensive, named by digest, and lasting. Whether an image is trusted
// is a decision: a join of its verdicts with the signers and policies in force. It is
// cheap, and made each time an answer is read. Of the tools that are on:
//
//	trusted  ⇔  some ground holds now:  every signer it names is in force
//	            ∧  its policy is in force for this repository
//	            ∧  now ∈ [from, until)
//
// Invariants:
//
//	T1. [InForce.Decide] has the only statement in the program that can
//	    yield [Trusted].
//	T2. The zero values of Status, Verdict and InForce are never trusted: an
//	    empty InForce trusts nothing, a verdict without grounds never is.
//	T3. Every decision that is not Trusted carries a reason, and each reason
//	    belongs to exactly one status (the table in reason.go).
//	T4. No author is shown unless its signer is in force.
//
// The package does no I/O, no cryptography beyond SHA-256, and imports
// nothing outside the standard library: programs that read the cache import
// it through package cache.
package trust
