package revocation

import (
	"container/list"
	"crypto/x509"
	"net/url"
	"sync"
	"time"

	"github.com/notaryproject/notation-core-go/revocation/purpose"
)

// ask is one question in the queue.
type ask struct {
	id      chainID
	chain   []*x509.Certificate
	purpose purpose.Purpose
	signed  time.Time
	host    string

	mu    sync.Mutex
	until time.Time // of the responses used so far, the first to end
}

type askKey struct{}

func (a *ask) uses(until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until.IsZero() || until.Before(a.until) {
		a.until = until
	}
}

func (a *ask) ends() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.until
}

// queue holds each question once and gives every host its turn: a responder that
// hangs keeps perHost goroutines, not the others'. Its methods need the Checker's
// lock.
type queue struct {
	pending map[chainID]bool // queued or being asked
	hosts   map[string]*hostQueue
	ring    []string // hosts with questions, in the order of their turns
}

type hostQueue struct {
	asks    []*ask
	running int
}

func newQueue() queue {
	return queue{pending: map[chainID]bool{}, hosts: map[string]*hostQueue{}}
}

// push queues a question unless it is already there; false: there are too many.
func (q *queue) push(a *ask) bool {
	if q.pending[a.id] {
		return true
	}
	if len(q.pending) >= maxWaiting {
		return false
	}
	q.pending[a.id] = true
	a.host = firstHost(a.chain)
	h := q.hosts[a.host]
	if h == nil {
		h = &hostQueue{}
		q.hosts[a.host] = h
	}
	if len(h.asks) == 0 {
		q.ring = append(q.ring, a.host)
	}
	h.asks = append(h.asks, a)
	return true
}

// pop takes the next question of the first host that may have one more.
func (q *queue) pop() *ask {
	for i, name := range q.ring {
		h := q.hosts[name]
		if h.running >= perHost {
			continue
		}
		a := h.asks[0]
		h.asks, h.running = h.asks[1:], h.running+1
		q.ring = append(q.ring[:i], q.ring[i+1:]...)
		if len(h.asks) > 0 {
			q.ring = append(q.ring, name)
		}
		return a
	}
	return nil
}

func (q *queue) done(a *ask) {
	delete(q.pending, a.id)
	h := q.hosts[a.host]
	if h.running--; h.running == 0 && len(h.asks) == 0 {
		delete(q.hosts, a.host)
	}
}

func (q *queue) waiting() int { return len(q.pending) }

func firstHost(chain []*x509.Certificate) string {
	for _, c := range chain {
		for _, list := range [][]string{c.OCSPServer, c.CRLDistributionPoints} {
			for _, address := range list {
				if u, err := url.Parse(address); err == nil && u.Host != "" {
					return u.Host
				}
			}
		}
	}
	return ""
}

// bounded is a map that forgets what was used least lately, by entries and by
// weight.
type bounded[K comparable, V any] struct {
	entries, weight, used int
	order                 *list.List // of *item[K, V], most lately used first
	at                    map[K]*list.Element
}

type boundedItem[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

func newBounded[K comparable, V any](entries, weight int) *bounded[K, V] {
	return &bounded[K, V]{entries: entries, weight: weight, order: list.New(), at: map[K]*list.Element{}}
}

func (b *bounded[K, V]) get(key K) (v V, ok bool) {
	e := b.at[key]
	if e == nil {
		return v, false
	}
	b.order.MoveToFront(e)
	return e.Value.(*boundedItem[K, V]).value, true
}

func (b *bounded[K, V]) put(key K, v V, weight int) {
	b.remove(key)
	if weight > b.weight {
		return
	}
	b.at[key] = b.order.PushFront(&boundedItem[K, V]{key, v, weight})
	b.used += weight
	for b.used > b.weight || len(b.at) > b.entries {
		b.remove(b.order.Back().Value.(*boundedItem[K, V]).key)
	}
}

func (b *bounded[K, V]) remove(key K) {
	if e := b.at[key]; e != nil {
		b.used -= e.Value.(*boundedItem[K, V]).weight
		b.order.Remove(e)
		delete(b.at, key)
	}
}
