package layout

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

// What a file can be guilty of before it is read.
var (
	errIrregular = errors.New("not a regular file")
	errTooLarge  = errors.New("larger than the limit")
	errSize      = errors.New("not of the size that its descriptor says")
	errTorn      = errors.New("changed while it was read")
)

// reasonf makes a ReasonError of a formatted cause.
func reasonf(r trust.Reason, format string, args ...any) *trust.ReasonError {
	return &trust.ReasonError{Reason: r, Err: fmt.Errorf(format, args...)}
}

// reasonOf is the one mapping from readFile's errors to reasons.
func reasonOf(err error) trust.Reason {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return trust.BlobMissing
	case errors.Is(err, errTooLarge):
		return trust.LimitExceeded
	case errors.Is(err, errSize), errors.Is(err, errTorn):
		return trust.DigestMismatch
	}
	return trust.IOError
}

// readFile reads one file of a directory whole: exactly size bytes, or, when
// size is -1, any number up to limit. name must be a single path component.
// The Stamp is that of the file that was read, which did not change meanwhile.
//
// It uses openat itself because os.Root resolves a final symlink even with
// O_NOFOLLOW, and because a name without a slash cannot leave the directory.
// The calls are
//
//	openat(dir, name, O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC)
//	fstat, read × n, fstat, close
func readFile(dir *os.File, name string, size, limit int64) (b []byte, s Stamp, err error) {
	f, err := openAt(dir, name)
	if err != nil {
		return nil, Stamp{}, err
	}
	defer unix.Close(f)
	before, err := fstat(f)
	if err != nil {
		return nil, Stamp{}, err
	}
	switch {
	case before.Size > limit:
		return nil, Stamp{}, fmt.Errorf("%d bytes: %w of %d", before.Size, errTooLarge, limit)
	case size >= 0 && before.Size != size:
		return nil, Stamp{}, fmt.Errorf("%d bytes instead of %d: %w", before.Size, size, errSize)
	}
	b = make([]byte, before.Size)
	if err := readFull(f, b); err != nil {
		return nil, Stamp{}, err
	}
	after, err := fstat(f)
	if err != nil {
		return nil, Stamp{}, err
	}
	if after != before {
		return nil, Stamp{}, errTorn
	}
	return b, before, nil
}

// openAt opens a regular file or returns an error. Opening a FIFO for reading
// would wait for its writer, were it not for O_NONBLOCK; fstat, in readFile,
// then refuses it.
func openAt(dir *os.File, name string) (fd int, err error) {
	conn, err := dir.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := conn.Control(func(at uintptr) {
		err = ignoringEINTR(func() error {
			fd, err = unix.Openat(int(at), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			return err
		})
	})
	if cerr != nil { // dir is closed
		return 0, cerr
	}
	if errors.Is(err, unix.ELOOP) {
		return 0, fmt.Errorf("symlink: %w", errIrregular)
	}
	return fd, err
}

// sizeAt returns the size of a regular file of a directory, without opening it.
func sizeAt(dir *os.File, name string) (int64, error) {
	conn, err := dir.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	cerr := conn.Control(func(at uintptr) {
		err = ignoringEINTR(func() error { return unix.Fstatat(int(at), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	})
	switch {
	case cerr != nil: // dir is closed
		return 0, cerr
	case err != nil:
		return 0, err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return 0, errIrregular
	}
	return st.Size, nil
}

func fstat(fd int) (Stamp, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return Stamp{}, err
	}
	return stampOf(&st)
}

// readFull fills b. A file that ends before is torn.
func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		var n int
		err := ignoringEINTR(func() (err error) {
			n, err = unix.Read(fd, b)
			return err
		})
		switch {
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("%w: %w", errTorn, io.ErrUnexpectedEOF)
		}
		b = b[n:]
	}
	return nil
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
