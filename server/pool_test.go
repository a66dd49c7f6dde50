package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// end is one end of a connection that does nothing.
func end(t *testing.T) net.Conn {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a
}

func closed(c *pooledConn) bool {
	_ = c.SetReadDeadline(time.Now())
	_, err := c.Read(make([]byte, 1))
	return err == io.ErrClosedPipe
}

// A pool that is full takes the place of what nobody waits for, from whoever has the
// most; what is beyond it is for health alone.
func TestPoolShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(8)
		p.reserve = 2
		accept := func(client string) *pooledConn {
			t.Helper()
			c, ok := p.accept(end(t), client)
			if !ok {
				t.Fatal("refused")
			}
			time.Sleep(time.Millisecond)
			return c
		}
		var many []*pooledConn
		for range 8 {
			many = append(many, accept("many"))
		}
		one := accept("one")
		if one.reserved || !closed(many[0]) || p.all != 8 {
			t.Errorf("reserved %v, the oldest is closed: %v, %d in all", one.reserved, closed(many[0]), p.all)
		}
		// Nobody takes more than their own by asking again.
		again := accept("many")
		if again.reserved || !closed(many[1]) || closed(one) {
			t.Errorf("reserved %v, one is closed: %v", again.reserved, closed(one))
		}
		// Those in work are left alone.
		for _, c := range append(many, again, one) {
			connState(c, http.StateActive)
		}
		for range 2 {
			if c := accept("other"); !c.reserved {
				t.Error("no place was free")
			}
		}
		first := accept("other") // the oldest that is reserved goes
		if !first.reserved || p.reserved != 2 || p.all != 8 {
			t.Errorf("%d reserved, %d in all", p.reserved, p.all)
		}
		for c := range p.by["other"] {
			connState(c, http.StateActive)
		}
		if _, ok := p.accept(end(t), "other"); ok {
			t.Error("accepted beyond the reserve")
		}
		if !p.pressed() {
			t.Error("nothing presses")
		}
		var all []*pooledConn
		for _, of := range p.by {
			all = slices.AppendSeq(all, maps.Keys(of))
		}
		for _, c := range all {
			go c.Close()
		}
		synctest.Wait()
		if p.all != 0 || p.reserved != 0 || len(p.by) != 0 || p.pressed() {
			t.Errorf("left: %d, %d reserved, %d clients", p.all, p.reserved, len(p.by))
		}
	})
}

// One client has its part; others find places meanwhile.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(4, 3)
		var leave []func()
		for range 3 {
			leave = append(leave, s.tryTake("a"))
		}
		if s.tryTake("a") != nil {
			t.Error("more than its part")
		}
		got := make(chan func())
		go func() { got <- s.take(t.Context(), "a", 1) }()
		synctest.Wait()
		if s.take(t.Context(), "a", 1) != nil {
			t.Error("more wait than may")
		}
		other := s.tryTake("b")
		if other == nil || s.tryTake("c") != nil {
			t.Error("another's place")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if s.take(ctx, "c", 1) != nil {
			t.Error("a place while all are taken")
		}
		leave[0]()
		last := <-got
		for _, l := range append(leave[1:], other, last) {
			l()
		}
		if len(s.by) != 0 || len(s.all) != 0 {
			t.Errorf("left: %d clients, %d places", len(s.by), len(s.all))
		}
	})
}

// Health answers, and so do others, while one client without a credential holds every
// connection, silent or after a request.
func TestIdleConnectionsHoldNothingUp(t *testing.T) {
	const most = 16
	w := start(t, func(c *Config) {
		c.Limits.MaxConns = most
		c.Limits.IdleTimeout, c.Limits.ReadHeaderTimeout = time.Hour, time.Hour
	})
	address := w.srv.Addresses()[0].String()
	for n := range 2 * most {
		c := dial(t, address)
		if n%2 == 0 {
			_, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
			check(t, err)
			_, _ = http.ReadResponse(bufio.NewReader(c), nil) // or it was closed for another
		}
	}
	for range 3 {
		if got := w.get(pathReady).StatusCode; got != 200 {
			t.Errorf("/readyz: %d", got)
		}
		if got := w.get("/api/v1/summary").StatusCode; got != 200 {
			t.Errorf("/api/v1/summary: %d", got)
		}
	}
}

// inWork is how many connections have a request in work.
func inWork(p *pool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.by {
		for c := range of {
			if c.active {
				n++
			}
		}
	}
	return n
}

// Bodies that are begun and never end hold nobody up: not those that are read, of which
// one client has half of the places, nor those that are refused unread.
func TestBodiesThatNeverEnd(t *testing.T) {
	const most = 16
	w := start(t, func(c *Config) { c.Limits.MaxConns = most; c.Limits.ReadTimeout = time.Hour })
	address := w.srv.Addresses()[0].String()
	waiting := 0
	for n := range 3 * most {
		c := dial(t, address)
		path := []string{"/v2/_zot/ext/search", "/livez", "/api/v1/images"}[n%3]
		_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", path)
		check(t, err)
		if n%3 == 0 && n < 3*most/2 {
			waiting++ // it is waited for, once its place is taken
			for inWork(w.srv.pool) < waiting {
				time.Sleep(time.Millisecond)
			}
			continue
		}
		check(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("connection %d to %s is kept: %v", n, path, err)
		}
	}
	if got := w.get(pathReady).StatusCode; got != 200 {
		t.Errorf("/readyz: %d", got)
	}
}

// Answers on their way are bounded in bytes, all together and of one client.
func TestAnswersOnTheirWayAreBounded(t *testing.T) {
	var s sending
	from := func(client string) *http.Request {
		r, err := http.NewRequest("GET", "/", nil)
		check(t, err)
		r.RemoteAddr = client + ":1"
		return r
	}
	var ends []func()
	begin := func(client string, n int) bool {
		e, err := s.begin(from(client), n)
		if err == nil {
			ends = append(ends, e)
		}
		return err == nil
	}
	if !begin("1.1.1.1", maxSendingClient-1) || begin("1.1.1.1", smallAnswer) || !begin("1.1.1.1", smallAnswer-1) {
		t.Error("one client's part")
	}
	for n := range 3 {
		if !begin(fmt.Sprintf("1.1.1.%d", n+2), maxSendingClient) {
			t.Error("another client")
		}
	}
	for n := range 4 {
		if !begin(fmt.Sprintf("1.1.2.%d", n), maxSendingClient) {
			t.Error("the first answer of a client is crowded out")
		}
	}
	if begin("1.1.1.9", maxSendingClient) {
		t.Error("more than all may have")
	}
	for _, e := range ends {
		e()
	}
	if s.all != 0 || len(s.by) != 0 || !begin("1.1.1.9", 2*maxSending) {
		t.Errorf("left: %d, %d clients; one answer is always sent", s.all, len(s.by))
	}
}
