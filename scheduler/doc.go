// Package scheduler decides what is looked at, and when: it keeps the cache in
// step with storage and with the trust directories.
//
// The trust loop (trust.go) loads the trust directories, publishes what differs and
// renews the lease; followLoop then queues the passes that a change makes necessary. The
// scanner (scan.go, walk.go) lists storage and queues repositories that changed. A timer
// queues retries. The queue (queue.go) holds repositories and signers, never signatures:
// a worker takes one, does a bounded turn of it (visit.go, signer.go), hands the results to
// the committer, and puts the item back at the end if there is more. One signature is looked
// at by the examiner (examine.go), which [VerifyNow] uses too. Workers do all cryptography
// and read all manifests and blobs, outside any transaction.
//
// Invariants:
//
//	S1. A loss of trust is published before anything else is done about it,
//	    and waits for no verification, scan, delta or base.
//	S2. A signature that could not be decided has no fact. The row of its
//	    repository says why; it is tried again with back-off, and reads unknown
//	    meanwhile.
//	S3. A repository's turn verifies at most turnSize signature manifests, so
//	    one delays another by no more than that for each turn; a signer's
//	    turn, at most passSize.
//	S4. Pending work survives a crash: a repository is marked "unsettled", and a
//	    signer has no checkpoint "applied", until the commit that ends the work.
//	S5. Changes to one repository's rows are made one turn at a time.
//	S6. If a directory cannot be listed, the answers below it read unknown and
//	    none is removed. An image that is gone from a listing leaves the answers
//	    at once.
//	S7. A signature that replaces another under the same tag is verified
//	    before the replacement shows, so that trust does not flicker.
//	S8. A signature that crashes the verifier twice is not verified again, and
//	    reads unknown.
//
// The package writes to the state directory, and the default trust policy to the
// directory of notation, if that is wanted.
package scheduler
