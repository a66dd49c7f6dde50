//go:build !linux

package server

import "net"

// credentials: not known here, so that nobody may write over the socket.
func credentials(*net.UnixConn) (uid, gid uint32, pid int32, ok bool) { return 0, 0, 0, false }
