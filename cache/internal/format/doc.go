// Package format is the form of a cache's files, for those who write them
// (cache/store) and those who read them (cache).
//
//	published.go  the names of the published files, CURRENT, buckets and keys
//	frame.go      the checksum around each value
//	codes.go      the numbers of enumerations
//	verdict.go    verdicts as protobuf messages (cache/internal/cachepb)
//	trustfile.go  the trust in force as a file
//	view.go       reading a published bbolt file
//	layers.go     a base and its deltas, read as one
//	lock.go       whose a state directory is
//	write.go      writing any of these durably
//	damage.go     what a damaged page does to a process
//
// Formats grow by narrowing: whoever does not know a demand takes it for not met. See
// docs/adr/0009.
package format
