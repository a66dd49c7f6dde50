// Package mirror copies what a state directory publishes to another one, without saying
// how the bytes travel: [Source] tells what there is to copy, and [Mirror] keeps a copy
// that cache.OpenReader reads like the original.
//
//	publication.go  what is told: CURRENT, and the name, size and SHA-256 of each file
//	source.go       the side that is copied
//	open.go         whose the copy is, and where a new process goes on
//	mirror.go       what may be published in it, and in which order: trust first
//	data.go         the data below it
//	tend.go         what is done every second
//	part.go         a file on its way
//	heard.go        when the source's last confirmation was, by the clock of this machine
//
// The rules of the copy:
//
//   - The trust file comes first and rules at once over the data that are there. Data are
//     published only below a trust file of their generation or a later one.
//   - Neither goes back within a cache id. Nothing of two cache ids, or of two files that
//     had one name, is ever published together: CURRENT is removed first.
//   - A file is published when its SHA-256 is the one that the source told.
//   - Trust that cannot be written, on a full disk for one, withdraws CURRENT, which needs
//     no space: answers read unknown until it can be.
//
// See docs/adr/0015.
package mirror
