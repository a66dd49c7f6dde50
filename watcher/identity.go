package watcher

import (
	"io/fs"
	"os"
	"syscall"
)

// identity tells a directory from another that has its name later. Device and
// inode number do not suffice: an inode number is free again at once, and a
// directory that is removed and made again usually gets its old one, while its
// watch is gone. So the time of birth belongs to it, where it is known.
type identity struct {
	info fs.FileInfo
	born int64 // nanoseconds, 0 if unknown
}

func (a identity) same(b identity) bool {
	return os.SameFile(a.info, b.info) && a.born == b.born
}

// identify fails for everything but directories; stat is os.Stat or os.Lstat.
// The two looks it takes may see two directories. What comes out is then the
// identity of neither, so that the next look finds a change.
func identify(dir string, stat func(string) (fs.FileInfo, error)) (identity, error) {
	info, err := stat(dir)
	if err != nil {
		return identity{}, err
	}
	if !info.IsDir() {
		return identity{}, &fs.PathError{Op: "watch", Path: dir, Err: syscall.ENOTDIR}
	}
	return identity{info: info, born: born(dir)}, nil
}
