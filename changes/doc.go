// Package changes tells how trust changes: who may sign came or went, which
// images began or ceased to be trusted, and when no answers can be read.
//
// An [Observer] in the daemon compares each publication of the cache with the
// one before it, as readers see them, and gives what differs to a [Journal]. The
// journal holds the newest changes, in memory and in the file changes.jsonl of
// the state directory. [Follow] reads that file from any other process.
//
// Invariants:
//
//	L1. A change is what readers see: the net difference between two
//	    publications, or between two times in one. What was undone between two
//	    looks (they are 100 ms apart, or four times as far as the work on the
//	    last one took) is not told.
//	L2. Trust lost is told, or a reset is. Whoever has every change since a
//	    position misses none; when that cannot be had (the journal is bounded,
//	    a process was killed between publishing and telling) the answer is a
//	    [Reset]: read everything again, then go on from its position.
//	L3. A change that touches many images is one change, with their number.
//	    What the journal holds is bounded in number and in memory.
//	L4. The journal decides nothing and holds nothing up: publications do not
//	    wait for it, and no answer rests on it.
//
// Positions are generations of the cache, so that one can read all images in a
// snapshot and then follow from that snapshot's generation.
package changes
