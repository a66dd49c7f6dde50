package format

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned for a state directory that another process holds.
var ErrLocked = errors.New("state directory is in use by another trust-worker")

// Lock locks <state>/lock, which is never removed, so that a removed and re-created
// database cannot give two processes one state directory, and writes the pid into it.
// noted is why that could not be written: nothing rests on it.
func Lock(state string) (lock *os.File, noted, err error) {
	f, err := os.OpenFile(filepath.Join(state, LockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for try := 0; err != nil && try < 5; try++ {
		time.Sleep(20 * time.Millisecond) // those who only look hold it for a moment, too: Alive, Check
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, nil, errors.Join(ErrLocked, f.Close())
	}
	if noted = f.Truncate(0); noted == nil {
		_, noted = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, noted, nil
}

// Holds reports whether a lock is that of the state directory that is there now: it may have
// been removed or replaced.
func Holds(lock *os.File, state string) (bool, error) {
	held, err := lock.Stat()
	if err != nil {
		return false, fmt.Errorf("look at lock: %w", err)
	}
	named, err := os.Stat(filepath.Join(state, LockName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at lock: %w", err)
	}
	return os.SameFile(held, named), nil
}

// Holder is the pid that is written in the lock file of a state directory, or 0. It does not
// say that the process is alive.
func Holder(state string) int {
	b, err := os.ReadFile(filepath.Join(state, LockName))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}
