package scheduler

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

// gathering is a committer's view: n repositories in work, the results of some.
func gathering(n int) *Scheduler {
	s := &Scheduler{agenda: newAgenda(), results: make(chan result, 10)}
	for i := range n {
		s.agenda.add(repo(fmt.Sprint(i)), fresh, func(w *work) { w.scan = true })
		s.agenda.get()
	}
	return s
}

func TestACommitWaitsForOthersOnlyWhileThereAreAny(t *testing.T) {
	rest := restAfter(time.Second) // the longest
	signer := result{item: item{signer: trust.Signer{Tool: trust.Cosign}}, waited: true}
	big := result{item: repo("1"), batches: []cache.Batch{{Rows: make([]cache.Row, maxBatch)}}}
	for _, tt := range []struct {
		name   string
		inWork int
		first  result
		later  map[time.Duration]result // after the first
		close  bool
		gather int           // results in the batch
		after  time.Duration // when it is committed
	}{
		{"the only one", 1, result{item: repo("0")}, nil, false, 1, 0},
		{"the last two", 2, result{item: repo("0")}, map[time.Duration]result{rest / 2: {item: repo("1")}}, false, 2, rest / 2},
		{"of many", 9, result{item: repo("0")}, map[time.Duration]result{rest / 2: {item: repo("1")}, 2 * rest: {item: repo("2")}}, false, 2, rest},
		{"somebody waits", 9, signer, nil, false, 1, 0},
		{"somebody comes to wait", 9, result{item: repo("0")}, map[time.Duration]result{rest / 4: signer}, false, 2, rest / 4},
		{"enough", 9, result{item: repo("0")}, map[time.Duration]result{rest / 4: big}, false, 2, rest / 4},
		{"at the end", 9, result{item: repo("0")}, nil, true, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, began := gathering(tt.inWork), time.Now()
				defer s.agenda.end()
				for after, r := range tt.later {
					time.AfterFunc(after, func() { s.results <- r })
				}
				if tt.close {
					close(s.results)
				}
				batch := s.gather(tt.first, began.Add(rest))
				if len(batch) != tt.gather || time.Since(began) != tt.after {
					t.Errorf("%d results after %v, want %d after %v", len(batch), time.Since(began), tt.gather, tt.after)
				}
				time.Sleep(3 * rest) // the rest come
			})
		})
	}
}
