package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// endpoint is one listener and what its connections may.
type endpoint struct {
	net.Listener
	name     string // as configured
	socket   string // the path of a Unix socket, else empty
	loopback bool
}

// at is the address in a URL for this machine.
func (e *endpoint) at() string {
	if tcp, ok := e.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
	}
	return e.Addr().String()
}

// peer is what is known of a connection's other end besides its address.
type peer struct {
	endpoint *endpoint
	uid, gid uint32 // of a Unix socket
	pid      int32
	known    bool // uid, gid and pid are the kernel's
	conn     *pooledConn
}

type peerKey struct{}

func peerOf(ctx context.Context) *peer {
	if p, ok := ctx.Value(peerKey{}).(*peer); ok {
		return p
	}
	return &peer{endpoint: &endpoint{}}
}

// listen opens one address.
func (s *Server) listen(address string) (*endpoint, error) {
	e := &endpoint{name: address}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		l, err := listenUnix(path)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
		e.socket, e.Listener = path, &pooledListener{l, s.pool}
		return e, nil
	}
	network := "tcp"
	if host, _, err := net.SplitHostPort(address); err == nil {
		if at, err := netip.ParseAddr(host); err == nil && at.Is4() {
			network = "tcp4" // or 0.0.0.0 would be all addresses of IPv6 as well
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	e.loopback = l.Addr().(*net.TCPAddr).IP.IsLoopback()
	e.Listener = &pooledListener{l, s.pool}
	if s.tls != nil {
		e.Listener = tls.NewListener(e.Listener, s.tls.config())
	}
	return e, nil
}

// listenUnix listens on a socket of mode 0660. A socket that nobody listens on
// any more is replaced; one that is alive, and anything else, is not.
func listenUnix(path string) (net.Listener, error) {
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode().Type() != fs.ModeSocket {
			return nil, errors.New("there is something else than a socket")
		}
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			return nil, errors.Join(errors.New("another process listens there"), c.Close())
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// Bind under a private name and rename: between bind and chmod the socket
	// would have the mode of the process's umask.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".listen-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	l, err := net.Listen("unix", made)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o660)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &unixListener{Listener: l, path: path}, nil
}

// unixListener removes its socket when it is closed.
type unixListener struct {
	net.Listener
	path string
	once sync.Once
}

// Addr is where clients find it, not where it was made.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	l.once.Do(func() { _ = os.Remove(l.path) })
	return l.Listener.Close()
}

// connContext remembers who is at the other end.
func (e *endpoint) connContext(ctx context.Context, c net.Conn) context.Context {
	p := &peer{endpoint: e}
	if p.conn = pooled(c); p.conn != nil && e.socket != "" {
		if u, ok := p.conn.Conn.(*net.UnixConn); ok {
			p.uid, p.gid, p.pid, p.known = credentials(u)
		}
	}
	return context.WithValue(ctx, peerKey{}, p)
}
