// Package faulttest stops a process, or makes the kernel refuse it something, at
// a system call of one's choice. It is for tests: strace does the work.
//
// A first run is only watched ([Watching]); [Points] are its calls that
// concern files below a directory. A later run of the same kind is then given a
// [Fault] at one of them. Counting is by thread, so that a single-threaded run is
// hit exactly where the point says, and another one somewhere near.
package faulttest
