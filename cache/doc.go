// Package cache keeps what trust-worker knows, and is how other programs read
// it.
//
// [OpenReader] is for other programs: it reads what is published in a state
// directory and joins it with the trust in force at the moment of the
// question. [Store] is for the one daemon that writes: a private bbolt
// database of places and facts, from which immutable files are published.
// bbolt locks its file against every other process while it is open for
// writing, so the two never share one (docs/adr/0001).
//
// Invariants:
//
//	C1. A published file never changes; a new one has a new name, and CURRENT
//	    names those in force. A reader sees one generation in a Snapshot, and
//	    generations of one cache id never go backwards.
//	C2. A loss of trust needs one small file and a rename. It waits for no lock
//	    that a base, a delta, a fold or a transaction is made under; if it cannot be written, CURRENT is
//	    withdrawn, which needs no space, and answers read unknown.
//	C3. No answer is trusted unless the join of package trust says so with the
//	    published trust, at a time that is never earlier than the publication,
//	    and within its lease.
//	C4. Every value is framed with a checksum over its key and its bytes.
//	    Damage reads as an error, never as an answer; a damaged private store
//	    is set aside and rebuilt under a new id.
//	C5. Signers, policies and authors are named by hashes that every cache computes the
//	    same; a reader that meets a demand it does not know takes it for not met.
//	C6. What is true (facts, by digest) is kept apart from what is where (rows,
//	    by repository). A missing blob belongs to a place.
//	C7. A Reader takes no lock that the daemon waits for, and imports neither
//	    cosign nor notation-go.
//	C8. Differences between publications, and at the dates that they name, add up to the
//	    counts that a recount of all answers finds.
//
// The package decides nothing about signatures and reads no registry storage.
package cache
