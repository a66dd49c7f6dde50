// Package changes finds and reports changes of trust: signers that came or left, images
// that began or ceased to be trusted, and times when no answers can be read. It also
// keeps the counts of images and signatures.
//
// An [Observer] in the daemon compares each publication of the cache with the
// one before it, as readers see them, and gives what differs to a [Journal]. The
// journal holds the newest changes, in memory and in the file changes.jsonl of
// the state directory. [Follow] reads that file from any other process.
//
// Invariants:
//
//	L1. A change is what readers see: the net difference between two
//	    publications, or between two times in one. A change that is undone
//	    between two looks is not reported. Looks are 100 ms apart, or four times
//	    as long as the last one took, or 5 s after an error.
//	L2. A follower gets every change since its position, or a [Reset]: then it has
//	    to read everything again. A reset comes when the journal does not go back
//	    that far, or a process was killed between publishing and reporting.
//	L3. A change that touches many images is one change, with their number.
//	    What the journal holds is bounded in number and in memory.
//	L4. The journal decides nothing and holds nothing up: publications do not
//	    wait for it, and no answer depends on it.
//
// A position is a generation of the cache and the number of a change in it. To begin,
// read all images in a snapshot and follow from that snapshot's generation.
package changes
