package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Connections have shares: any client may have all of them until another comes, which
// then takes the place of what nobody is waiting for.

// pool are the connections of all listeners.
type pool struct {
	most    int // connections at once
	reserve int // beyond that, for health alone

	mu       sync.Mutex
	by       map[string]map[*pooledConn]bool
	all      int // without the reserved ones
	reserved int
}

// reservedConns are accepted when all others are in use, and asked for health.
const reservedConns = 32

func newPool(most int) *pool {
	return &pool{most: most, reserve: reservedConns, by: map[string]map[*pooledConn]bool{}}
}

// pooledConn is one connection of a client.
type pooledConn struct {
	net.Conn
	pool   *pool
	client string
	once   sync.Once

	// Guarded by the pool's lock.
	active   bool // a request is in work
	since    time.Time
	reserved bool
}

// accept takes a connection into the pool, in place of another if it has to be. It
// never waits. false: the connection is closed, there is no place for it.
func (p *pool) accept(c net.Conn, client string) (*pooledConn, bool) {
	n := &pooledConn{Conn: c, pool: p, client: client, since: time.Now()}
	p.mu.Lock()
	var victim *pooledConn
	switch {
	case p.all < p.most:
	case p.victim(false, &victim):
	case len(p.by[client]) < p.most/2 && (p.reserved < p.reserve || p.victim(true, &victim)):
		n.reserved = true // not for who has a good part of the others
	default:
		p.mu.Unlock()
		_ = c.Close() // whoever it is
		return nil, false
	}
	if victim != nil {
		p.remove(victim)
	}
	of := p.by[client]
	if of == nil {
		of = map[*pooledConn]bool{}
		p.by[client] = of
	}
	of[n] = true
	*p.count(n)++
	p.mu.Unlock()
	if victim != nil {
		_ = victim.Conn.Close() // nobody waits for it
	}
	return n, true
}

// victim finds the connection that has been without a request for longest, of the
// client that has the most. mu is held.
func (p *pool) victim(reserved bool, found **pooledConn) bool {
	most := 0
	for _, of := range p.by {
		var oldest *pooledConn
		n := 0
		for c := range of {
			if c.reserved != reserved {
				continue
			}
			n++
			if !c.active && (oldest == nil || c.since.Before(oldest.since)) {
				oldest = c
			}
		}
		if oldest != nil && n > most {
			most, *found = n, oldest
		}
	}
	return *found != nil
}

func (p *pool) count(c *pooledConn) *int {
	if c.reserved {
		return &p.reserved
	}
	return &p.all
}

// remove forgets a connection. mu is held.
func (p *pool) remove(c *pooledConn) {
	of := p.by[c.client]
	if !of[c] {
		return
	}
	delete(of, c)
	if len(of) == 0 {
		delete(p.by, c.client)
	}
	*p.count(c)--
}

// pressed reports whether connections are scarce: then none is kept after a request.
func (p *pool) pressed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all >= p.most*3/4
}

func (c *pooledConn) Close() error {
	c.once.Do(func() {
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		c.pool.remove(c)
	})
	return c.Conn.Close()
}

// pooled finds the pool's connection below a TLS one.
func pooled(c net.Conn) *pooledConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	n, _ := c.(*pooledConn)
	return n
}

// connState is http.Server's: active from when a request's head has been read.
func connState(c net.Conn, state http.ConnState) {
	n := pooled(c)
	if n == nil {
		return
	}
	n.pool.mu.Lock()
	defer n.pool.mu.Unlock()
	n.active, n.since = state == http.StateActive, time.Now()
}

// pooledListener accepts into a pool.
type pooledListener struct {
	net.Listener
	pool *pool
}

func (l *pooledListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if n, ok := l.pool.accept(c, connClient(c)); ok {
			return n, nil
		}
	}
}

// connClient names the client at the other end of a connection, as clientOf names
// that of a request.
func connClient(c net.Conn) string {
	if u, ok := c.(*net.UnixConn); ok {
		uid, _, _, _ := credentials(u)
		return fmt.Sprintf("uid %d", uid)
	}
	return addressOf(c.RemoteAddr().String())
}

// shares are places for things that are done at once, of which one client has some
// part at most.
type shares struct {
	all  chan struct{}
	most int // of one client

	mu sync.Mutex
	by map[string]*share
}

type share struct {
	places chan struct{}
	users  int // who have it or wait for it
}

// newShares makes n places, of which one client has at most most.
func newShares(n, most int) *shares {
	return &shares{all: make(chan struct{}, n), most: max(1, min(n, most)), by: map[string]*share{}}
}

// tryTake takes a place if there is one. leave gives it back; it is nil if there was none.
func (s *shares) tryTake(client string) (leave func()) { return s.take(ended, client, 0) }

// ended is for who does not wait.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// take is tryTake, but waits for a place until ctx ends. more is how many of a client
// may wait.
func (s *shares) take(ctx context.Context, client string, more int) (leave func()) {
	s.mu.Lock()
	of := s.by[client]
	if of == nil {
		of = &share{places: make(chan struct{}, s.most)}
		s.by[client] = of
	}
	if of.users >= s.most+more {
		s.mu.Unlock()
		return nil
	}
	of.users++
	s.mu.Unlock()
	forget := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if of.users--; of.users == 0 {
			delete(s.by, client)
		}
	}
	if !enter(ctx, of.places) {
		forget()
		return nil
	}
	if !enter(ctx, s.all) {
		<-of.places
		forget()
		return nil
	}
	return func() {
		<-s.all
		<-of.places
		forget()
	}
}

// enter puts something into places, waiting until ctx ends.
func enter(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
	}
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}
