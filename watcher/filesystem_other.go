//go:build !linux

package watcher

// BUG: elsewhere than on Linux a FIFO that takes a directory's place in the
// instant between two calls is opened, and may block the watcher.
const directoryOnly = 0

// eventless is only known for Linux; elsewhere the regular poll has to do.
func eventless(string) string { return "" }

func born(string) int64 { return 0 }
