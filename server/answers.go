package server

import (
	"fmt"
	"net/http"
	"sync"
)

// Answers are bounded in bytes: each by itself, and all that are on their way to
// clients at once, of whom some are slow to take them.

const (
	// maxPageBytes ends a page of images or changes, by what they take as JSON:
	// after at least one.
	maxPageBytes = 4 << 20
	// maxSending bounds the answers of all clients that are being written, twice
	// that with the first ones of further clients, and maxSendingClient those of
	// one. What is smaller than smallAnswer is not
	// counted: connections bound it.
	maxSending       = 64 << 20
	maxSendingClient = maxSending / 4
	smallAnswer      = 32 << 10
)

// sending counts the bytes of answers on their way.
type sending struct {
	mu  sync.Mutex
	all int
	by  map[string]int
}

// begin takes room for an answer of n bytes to the request's client, and returns what
// gives it back; or an error, if too much is on its way.
func (s *sending) begin(r *http.Request, n int) (end func(), err error) {
	if n < smallAnswer {
		return func() {}, nil
	}
	client := clientOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	most := maxSending
	if s.by[client] == 0 {
		most = 2 * maxSending // those who have nothing yet are not crowded out by a few who do not read
	}
	if s.by[client] > 0 && s.by[client]+n > maxSendingClient || s.all > 0 && s.all+n > most {
		return nil, refuse(http.StatusServiceUnavailable, codeTooMany, "too many large answers are on their way",
			fmt.Sprintf("take those that were asked for first; one client is sent at most %d MiB at once", maxSendingClient>>20))
	}
	if s.by == nil {
		s.by = map[string]int{}
	}
	s.all += n
	s.by[client] += n
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all -= n
		if s.by[client] -= n; s.by[client] <= 0 {
			delete(s.by, client)
		}
	}, nil
}
