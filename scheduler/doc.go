// Package scheduler decides what is looked at, and when: it keeps the cache in
// step with storage and with the trust directories.
//
// Three loops feed one queue: the trust loop (reload, publish, confirm), the
// scanner (walk, stat, compare), and the timer over retries. The queue holds
// repositories and signers, never signatures; a worker takes one, does a
// bounded turn of it, hands the results to the committer and puts the item
// back at the end when there is more. All cryptography and all reading of
// storage happen in workers, outside any transaction; one committer writes
// what they found in batches.
//
// Invariants:
//
//	S1. A loss of trust is published before anything else is done about it,
//	    and waits for no verification, scan, delta or base.
//	S2. Nothing undecided is stored as a fact. It belongs to the place, is
//	    retried with back-off, and reads unknown meanwhile.
//	S3. A repository's turn verifies at most turnSize signature manifests, so
//	    one delays another by no more than that for each turn; a signer's
//	    turn, at most passSize.
//	S4. Work that is owed survives a crash: a repository is marked unsettled
//	    and a signer unapplied until the commit that ends their work.
//	S5. Changes to one repository's rows are made one turn at a time.
//	S6. What cannot be listed removes nothing: its answers read unknown. What
//	    is listed and gone leaves the answers at once.
//	S7. A signature that replaces another under the same tag is verified
//	    before the replacement shows, so that trust does not flicker.
//	S8. What crashes the verifier twice is left alone, and reads unknown.
//
// The package writes to the cache only.
package scheduler
