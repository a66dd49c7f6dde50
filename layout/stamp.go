package layout

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Stamp tells one state of a file from another without reading it. It is
// comparable. The zero Stamp is no file's.
type Stamp struct {
	Mtime, Ctime int64 // ns since 1970
	Size         int64
	Inode        uint64
}

// String returns the text form, "mtime.ctime.size.inode"; no two stamps have the
// same.
func (s Stamp) String() string {
	b := make([]byte, 0, 64)
	b = append(strconv.AppendInt(b, s.Mtime, 10), '.')
	b = append(strconv.AppendInt(b, s.Ctime, 10), '.')
	b = append(strconv.AppendInt(b, s.Size, 10), '.')
	return string(strconv.AppendUint(b, s.Inode, 10))
}

func stampOf(st *unix.Stat_t) (Stamp, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Stamp{}, errIrregular
	}
	return Stamp{Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(), Size: st.Size, Inode: st.Ino}, nil
}

// Stamp returns the stamp of a repository's index.json, by one fstatat. An
// error wraps [fs.ErrNotExist] when there is none.
//
// The path is relative to the open root and its name has been parsed; a symlink
// put on the way since the last Walk would be followed, which os.Root would
// prevent for three times the price. All that a stamp decides is whether to
// look: [Root.Repository], which does the looking, does not follow it.
func (r *Root) Stamp(name string) (Stamp, error) {
	if !r.serves(name) {
		return Stamp{}, fmt.Errorf("stat index of %.*q: %w", maxName, name, ErrName)
	}
	conn, err := r.file.SyscallConn()
	if err != nil {
		return Stamp{}, fmt.Errorf("stat index of %s: %w", name, err)
	}
	var st unix.Stat_t
	cerr := conn.Control(func(at uintptr) {
		err = ignoringEINTR(func() error {
			return unix.Fstatat(int(at), name+"/"+indexFile, &st, unix.AT_SYMLINK_NOFOLLOW)
		})
	})
	if err = errors.Join(cerr, err); err != nil {
		return Stamp{}, fmt.Errorf("stat index of %s: %w", name, err)
	}
	s, err := stampOf(&st)
	if err != nil {
		return Stamp{}, fmt.Errorf("stat index of %s: %w", name, err)
	}
	return s, nil
}
