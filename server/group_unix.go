//go:build unix

package server

import (
	"io/fs"
	"syscall"
)

// groupOf returns a file's group, or -1.
func groupOf(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int64(st.Gid)
	}
	return -1
}
