package cluster

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// maxAttributes is for how many seconds a mount may keep what it knows of directories and
// files: a look each second is to see what is there.
const maxAttributes = 1

// MountProblem says why a look at a directory may not see what is there, with the options to
// mount it with instead, or returns "". It knows NFS and SMB, which keep attributes (nfs(5),
// mount.cifs(8)).
func MountProblem(dir string) string {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "" // what is not there is said elsewhere
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return ""
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(dir))
	if err != nil {
		return ""
	}
	return mountProblem(dir, mounts)
}

func mountProblem(dir string, mounts []*mountinfo.Info) string {
	var m *mountinfo.Info // the innermost, and of several at one place the last
	for _, is := range mounts {
		if m == nil || len(is.Mountpoint) >= len(m.Mountpoint) {
			m = is
		}
	}
	if m == nil {
		return ""
	}
	options := map[string]string{}
	for _, o := range strings.Split(m.Options+","+m.VFSOptions, ",") {
		name, value, _ := strings.Cut(o, "=")
		options[name] = value
	}
	longest := 0
	bound := func(name string, otherwise int) {
		seconds := otherwise // the kernel names what differs from it
		if n, err := strconv.Atoi(options[name]); err == nil {
			seconds = n
		}
		longest = max(longest, seconds)
	}
	remedy := "lookupcache=none,actimeo=1"
	switch {
	case strings.HasPrefix(m.FSType, "nfs"):
		if _, ok := options["noac"]; ok {
			return ""
		}
		bound("acregmax", 60)
		bound("acdirmax", 60)
	case m.FSType == "cifs", m.FSType == "smb3":
		remedy = "actimeo=1"
		otherwise := 1
		if n, err := strconv.Atoi(options["actimeo"]); err == nil {
			otherwise = n
		}
		bound("acregmax", otherwise)
		bound("acdirmax", otherwise)
	}
	if longest <= maxAttributes {
		return ""
	}
	return fmt.Sprintf("%s is on %s, mounted at %s with attributes kept for up to %d s: a change may be seen that late; mount it with %s", dir, m.FSType, m.Mountpoint, longest, remedy)
}
