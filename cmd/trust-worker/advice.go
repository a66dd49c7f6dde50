package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// permissionAdvice says what somebody can do who may not read what err names: join
// the group that may, or run as the user who does. It returns "" if err is about
// something else.
func permissionAdvice(err error) string {
	var write *writeDenied
	var denied *fs.PathError
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &denied) {
		return ""
	}
	// What cannot be looked at lies in a directory that can.
	path := denied.Path
	fi, statErr := os.Stat(path)
	for statErr != nil && path != filepath.Dir(path) {
		path = filepath.Dir(path)
		fi, statErr = os.Stat(path)
	}
	if statErr != nil {
		return ""
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	groups, _ := os.Getgroups()
	if group := groupName(st.Gid); !errors.As(err, &write) && fi.Mode()&0o040 != 0 && !slices.Contains(groups, int(st.Gid)) && st.Gid != 0 {
		return fmt.Sprintf("the group %s may read %s: sudo usermod -aG %s $USER, and log in again", group, path, group)
	}
	owner := userName(st.Uid)
	advice := fmt.Sprintf("%s belongs to the user %s: sudo -u %s trust-worker …", path, owner, owner)
	if errors.As(err, &write) {
		advice += "; or choose another directory with --state"
	}
	return advice
}

// writeDenied is the error of a command that may not write the state directory.
type writeDenied struct{ error }

func (e *writeDenied) Unwrap() error { return e.error }

func groupName(gid uint32) string {
	id := strconv.Itoa(int(gid))
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

func userName(uid uint32) string {
	id := strconv.Itoa(int(uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "#" + id
}
