// Package truststore loads the trust directories into an immutable [TrustStore]: the
// keys, the certificates and the policy at one moment, ready to verify under and to join
// with facts (package trust).
//
// Loading begins in loader.go; pass.go and directories.go go through the directories,
// keys.go, certificates.go and policy.go read one file, ruling.go says which policy rules.
// Loading is tolerant: a bad file is refused by itself, with a sentence that says what to
// do (oddfile.go).
//
// Invariants:
//
//	T1. A trust store is one state of each directory, never a mixture: a
//	    Kubernetes volume is read through the directory that its ..data named,
//	    and read again when that has changed meanwhile.
//	T2. A file's last good content stays in force for at most [Grace] after the
//	    file stops being parsable, and not at all when it is gone or when what
//	    is there is complete and refused. Nothing else outlives a load.
//	T3. A directory that is missing, empty or off trusts nothing. A policy that
//	    cannot be used in full is not used at all.
//	     Absence, a new name or damage of a policy never widens trust (ruling.go).
//	T4. No message quotes the content of a file of trust material.
//
// The package verifies nothing (package verifier) and watches nothing (package watcher).
package truststore
