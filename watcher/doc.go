// Package watcher says "look again" when something may have changed on disk:
// [Trust] for the trust directories, where it is a promise, and [Repositories]
// for registry storage, where it is a hint.
//
// It never says what changed. Events of the operating system are lost, late,
// merged, and name paths that have moved since; whoever acts on their content
// acts on a guess. So an event only ever leads to a look at the directories
// themselves (to place watches) and then to a [Notice], upon which the caller
// reads everything and compares. A caller that does so for each notice ends
// in the state that is on disk, whatever the order and the loss of events.
//
// What a caller may rely on:
//
//   - I1 Watches come first. A notice is sent after the directories found by
//     listing have been watched, and listed once more after that; there is no
//     moment between the first look and the first watch in which a change
//     could hide. Directories that appear are watched, then listed, again and
//     again until a listing finds nothing new; if they never hold still, the
//     notice is followed by another.
//   - I2 Each change is followed by a notice sent after it. In [ModeEvents],
//     after Options.Debounce without a further event and never later than
//     Options.MaxDelay after the burst's first one, plus the listing of the
//     directories. In [ModePolling], within Options.PollWithoutEvents. In any
//     case within Options.Poll.
//   - I3 The watcher waits for nobody: its channels hold one value, which is
//     merged with the next. Its memory is bounded by Options.MaxDirs and by
//     the repositories it was told of, not by the number of events.
//   - I4 Lost events heal. After an overflow of the kernel's queue, an error
//     or the death of the event source, all watches are made anew on a new
//     source, and a notice with Rescan follows.
//   - I5 A watch is on a directory, not on its name. Whether each name still
//     leads to the watched directory is checked at every look, so a trust
//     directory may be removed, made again, renamed, exchanged, be absent at
//     first or be reached through symbolic links that are replaced.
//   - I6 What cannot be relied on shows. A limit of the system, a directory
//     that refuses to be watched, a file system that reports no events: the
//     mode is [ModePolling] with the reason, in [Status] and in the log, and
//     each poll tries to return to events. Nothing here ends the process.
//   - I7 Only directories are opened, and those without following a link or
//     waiting for a FIFO. No file is read and nothing is written. Symbolic
//     links are followed on the way to a trust directory, never below it.
//   - I8 Run owns every goroutine; they have ended when it returns.
//
// I2's events do not report, and only Options.Poll finds: a file system being
// mounted or unmounted over a directory, writes through a memory mapping, and
// writes through another name (a hard link) of a file that is outside.
//
// The package does not load, parse or judge keys (see verifier, which does it
// with reads that notice half-written files), does not know what a repository
// is beyond the names it is told, and does not act on what it sees.
package watcher
