// Package cache is how programs read what trust-worker publishes in its state
// directory: whether an image is trusted, by whom, and if not, why.
//
// [OpenReader] once, [Reader.Snapshot] for each search or decision, and then
// [Snapshot.Tag], [Snapshot.Image] or [Snapshot.Digest]. Anything but trusted is a
// no; [ErrNoCache], [ErrUnlisted] and [ErrPartial] say that the answer is not known.
// The daemon need not run: what is published is believed until its lease ends.
//
// What readers may rely on:
//
//	C1. A published file never changes; a new one has a new name, and CURRENT
//	    names those in force. A reader sees one generation in a Snapshot, and
//	    generations of one cache id never go backwards.
//	C3. No answer is trusted unless the join of package trust says so with the
//	    published trust, at a time that is never earlier than the publication,
//	    and within its lease.
//	C4. Every value is framed with a checksum over its key and its bytes.
//	    Damage reads as an error, never as an answer.
//	C7. A Reader takes no lock that the daemon waits for, and its import graph has
//	    neither cosign nor notation-go.
//	C8. A program that adds up the differences between publications
//	    ([Snapshot.Compare]), and those at each [Difference.Next], has the counts
//	    that a recount of all answers finds.
//
// Package cache/store is the daemon's side and has the other invariants.
package cache
