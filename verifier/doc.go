// Package verifier decides which signers a signature verifies under.
package verifier
