package layout

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

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
// size is -1, any number up to limit. name is a single path component, or a path below dir.
// The Stamp is that of the file that was read, which did not change meanwhile.
//
// It uses openat itself because os.Root resolves a final symlink even with
// O_NOFOLLOW, and because a name without a slash cannot leave the directory.
// The calls are
//
//	openat(dir, name, O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC), or openBelow
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
	if strings.Contains(name, "/") {
		return openBelow(dir, name, unix.O_RDONLY)
	}
	err = at(dir, func(dir int) (err error) {
		fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, noSymlink(err)
}

// openBelow opens a file or a directory by a path below dir that goes through no symlink.
func openBelow(dir *os.File, path string, flags int) (fd int, err error) {
	err = at(dir, func(dir int) (err error) {
		fd, err = openBeneath(dir, path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC)
		return err
	})
	return fd, noSymlink(err)
}

// openInSteps is openBelow by one call for each element of the path.
func openInSteps(dir int, path string, flags int) (int, error) {
	from := dir
	for {
		part, rest, more := strings.Cut(path, "/")
		how := flags
		if more {
			how = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
		}
		fd, err := unix.Openat(from, part, how, 0)
		if from != dir {
			unix.Close(from)
		}
		if err != nil || !more {
			return fd, err
		}
		from, path = fd, rest
	}
}

func noSymlink(err error) error {
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("symlink: %w", errIrregular)
	}
	return err
}

// at calls f with the descriptor of an open directory, again where a signal interrupts it.
func at(dir *os.File, f func(fd int) error) error {
	conn, err := dir.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) { err = ignoringEINTR(func() error { return f(int(fd)) }) })
	return cmp.Or(cerr, err) // the first: dir is closed
}

// statAt returns the stamp of a regular file, by a path below a directory, without opening it.
func statAt(dir *os.File, path string) (Stamp, error) {
	var st unix.Stat_t
	err := at(dir, func(dir int) error { return unix.Fstatat(dir, path, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return Stamp{}, err
	}
	return stampOf(&st)
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
