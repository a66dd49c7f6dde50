// Package store is the daemon's side of the cache: a private bbolt database of
// repositories, manifests and facts, and the immutable files that are published from
// it for package cache. bbolt locks its file against every other process while it is
// open for writing, so that readers never share it (docs/adr/0001).
//
// A batch of the scheduler goes this way:
//
//	commit.go, apply.go      into the private database, large ones in parts
//	index.go                 the candidate index: which signers a fact may concern
//	unpublished.go           what is committed and not published
//	publish.go, render.go    a part of that as a delta, or everything as a base
//	fold.go                  deltas that have grown become one
//	trust.go                 beside these: the signers and policies in force
//
// What it holds, besides the invariants of package cache:
//
//	C2. A loss of trust needs one small file and a rename. It waits for no lock
//	    that a base, a delta, a fold or a transaction is made under; if it cannot
//	    be written, CURRENT is withdrawn, which needs no space, and answers read
//	    unknown.
//	C9. A damaged private database is set aside and rebuilt under a new id.
//	C5. Signers, policies and authors are named by hashes that every cache computes
//	    the same.
//	C6. Facts, by digest, are kept apart from rows, which say what a repository
//	    holds. A missing blob is a matter of the row.
//
// The package decides nothing about signatures and reads no registry storage.
package store
