// Package powercut derives what a power cut may leave of a directory. It is for
// tests, after ALICE (Pillai and others, "All File Systems Are Not Created
// Equal", OSDI 2014): a process is run once under strace ([Command]), its calls
// on files below a directory are read back ([Read]), and a small model of a file
// system is taken through them. At any point the power may go ([Replay]); the
// model then says what may be found ([State]), which is written to a real
// directory and given to the code under test.
//
// What the model takes as given:
//
//	G1. What a successful fsync of a file covers, and what fdatasync covers but
//	    for times, is there afterwards, with the length needed to read it
//	    (POSIX, fsync and fdatasync; the disk does not lie about its cache).
//	G2. A successful fsync of a directory does the same for its entries. POSIX
//	    leaves it open; fsync(2) of Linux says that it is needed.
//	G3. A rename is there wholly or not at all, and a symbolic link is made
//	    with its target (every journalling file system).
//	G4. A sector of 512 bytes is written wholly or not at all.
//	G5. [Ordered] alone: names change in the order of the calls, so that what
//	    is found is the names after some prefix of them, and an fsync of a
//	    directory keeps all calls before its last change too. That is a single
//	    journal of metadata: ext4 (any data= mode), XFS, btrfs.
//
// All else may happen. Writes without fsync come in any order, in part, torn at
// sectors, or not at all, also when the name that was given to the file later is
// there (no data=ordered, no auto_da_alloc); a file may have its new length and
// zeros instead of data. An fsync of a file keeps no name. Under [Unordered] any
// subset of the changes of names may be there: no common file system is as weak,
// and what holds there holds without G5.
//
// Owners and modes are not modelled. Calls that the model does not know — a
// writable shared mapping, O_DSYNC, io_uring, hard links — fail the test when
// they concern files below the directory.
package powercut
