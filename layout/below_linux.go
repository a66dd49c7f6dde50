package layout

import (
	"errors"

	"golang.org/x/sys/unix"
)

// openBeneath opens a path below dir that goes through no symlink: by openat2 in one call, or
// where that is not to be had (Linux before 5.6, a sandbox that does not know it) in steps.
func openBeneath(dir int, path string, flags int) (int, error) {
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EAGAIN) {
		return openInSteps(dir, path, flags)
	}
	return fd, err
}
