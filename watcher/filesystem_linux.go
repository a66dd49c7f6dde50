package watcher

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// directoryOnly makes open(2) fail, rather than wait or follow, when a FIFO, a
// device or a symbolic link has taken a directory's place.
const directoryOnly = syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// eventless names the file system of dir if inotify does not see all changes
// to it: those made by other hosts, by the server, or by nobody (/proc). Local
// changes to most of these are reported all the same, so they are watched as
// well as polled. Overlay is not among them: changes through the mount are
// reported, and those to a layer below it are undefined by its documentation
// anyway; the regular poll finds what it can of them.
func eventless(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "" // gone again: whoever lists it finds out
	}
	switch uint32(st.Type) { // signed and wider on some architectures
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "SMB"
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE"
	case unix.V9FS_MAGIC:
		return "9P"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "AFS"
	case unix.CEPH_SUPER_MAGIC:
		return "Ceph"
	case unix.CODA_SUPER_MAGIC:
		return "Coda"
	case unix.OCFS2_SUPER_MAGIC:
		return "OCFS2"
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC:
		return "a kernel file system"
	case 0x01161970:
		return "GFS2"
	case 0x0bd00bd0:
		return "Lustre"
	case 0x47504653:
		return "GPFS"
	case 0x786f4256:
		return "a VirtualBox shared folder"
	}
	return ""
}

// born returns when dir (the target, if it is a link) was made. Kernels before
// 4.11, some sandboxes and some file systems do not say.
func born(dir string) int64 {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_SYNC_AS_STAT, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}
