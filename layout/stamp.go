package layout

import (
	"strconv"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

// Stamp tells one state of a file, or of all links of a repository, from another without
// reading it. It is comparable. The zero Stamp is nothing's.
type Stamp struct {
	Mtime, Ctime int64 // ns since 1970
	Size         int64
	Inode        uint64
	// Links is a hash over the names and stamps of links. The rest is zero then.
	Links trust.Digest
}

// String returns the text form, "mtime.ctime.size.inode" of a file and "links.<hex>" of
// links; no two stamps have the same.
func (s Stamp) String() string {
	if s.Links != (trust.Digest{}) {
		return "links." + s.Links.Hex()
	}
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
