package scheduler

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"trust-worker/cache/store"
	"trust-worker/trust"
)

// gathering is a committer's view: n repositories in work, the results of some.
func gathering(n int) *Scheduler {
	s := &Scheduler{agenda: newAgenda(), results: make(chan result, 10)}
	for i := range n {
		s.agenda.add(repo(fmt.Sprint(i)), fresh, func(w *work) { w.scan = true })
		s.agenda.get(ordinary)
	}
	return s
}

func TestACommitWaitsForOthersOnlyWhileThereAreAny(t *testing.T) {
	rest := restAfter(time.Second) // the longest
	signer := result{item: item{signer: trust.SignerID{1}}, waited: true}
	big := result{item: repo("1"), batches: []store.Batch{{Rows: make([]store.Row, maxBatch)}}}
	for _, tt := range []struct {
		name   string
		inWork int
		first  result
		large  []result                 // unfinished from the transaction before
		later  map[time.Duration]result // after the first
		close  bool
		gather int           // results in the batch
		after  time.Duration // when it is committed
	}{
		{"the only one", 1, result{item: repo("0")}, nil, nil, false, 1, 0},
		{"the last two", 2, result{item: repo("0")}, nil, map[time.Duration]result{rest / 2: {item: repo("1")}}, false, 2, rest / 2},
		{"of many", 9, result{item: repo("0")}, nil, map[time.Duration]result{rest / 2: {item: repo("1")}, 2 * rest: {item: repo("2")}}, false, 2, rest},
		{"somebody waits", 9, signer, nil, nil, false, 1, 0},
		{"somebody comes to wait", 9, result{item: repo("0")}, nil, map[time.Duration]result{rest / 4: signer}, false, 2, rest / 4},
		{"enough", 9, result{item: repo("0")}, nil, map[time.Duration]result{rest / 4: big}, false, 2, rest / 4},
		{"at the end", 9, result{item: repo("0")}, nil, nil, true, 1, 0},
		{"a large one goes on", 9, result{item: repo("0")}, []result{big}, map[time.Duration]result{rest / 4: {item: repo("2")}}, false, 2, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, began := gathering(tt.inWork), time.Now()
				defer s.agenda.end()
				for after, r := range tt.later {
					time.AfterFunc(after, func() { s.results <- r })
				}
				s.results <- tt.first
				if tt.close {
					close(s.results)
				}
				batch, _ := s.gather(tt.large, began.Add(rest))
				if len(batch) != tt.gather || time.Since(began) != tt.after {
					t.Errorf("%d results after %v, want %d after %v", len(batch), time.Since(began), tt.gather, tt.after)
				}
				time.Sleep(3 * rest) // the rest come
			})
		})
	}
}

// What waits for the committer is bounded by its rows and references, not by its number;
// then workers wait. A long scan waits for nothing.
func TestResultsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gathering(9)
		s.room = semaphore.NewWeighted(maxResults)
		defer s.agenda.end()
		full := store.Batch{Rows: []store.Row{{References: make([]store.Reference, maxResults)}}}
		s.hand(result{item: repo("0"), batches: []store.Batch{full}})
		go s.hand(result{item: repo("1"), waited: true})
		synctest.Wait()
		if n := len(s.results); n != 1 {
			t.Errorf("%d results wait beside one that fills the room", n)
		}
		s.hand(result{item: repo("2"), batches: []store.Batch{full}, over: make(chan struct{})})
		if batch, _ := s.gather(nil, time.Now()); len(batch) != 1 {
			t.Errorf("%d results gathered", len(batch))
		}
		synctest.Wait()
		if n := len(s.results); n != 2 { // the long scan, and what has room now
			t.Errorf("%d results wait", n)
		}
	})
}

// A push of any size is written in parts, and what comes meanwhile is written with
// the next of them.
func TestALargeRepositoryIsWrittenBesideOthers(t *testing.T) {
	w := newWorld(t)
	w.opts.ShareSteps = 10
	s := w.scheduler()
	if _, err := w.store.SetTrust(trust.NewInForce(trust.Terms{Cosign: true})); err != nil {
		t.Fatal(err)
	}
	whole := func(name string, images int) store.Batch {
		b := store.Batch{Place: name, SetTags: true, Complete: true, Tags: map[string]trust.Digest{}}
		for i := range images {
			d := trust.SumOf(fmt.Append(nil, name, i))
			b.Tags[fmt.Sprint(i)] = d
			b.Rows = append(b.Rows, store.Row{Digest: d, Present: true, Tagged: true})
		}
		return b
	}
	var order []string
	send := func(name string, images int, then func()) {
		i := repo(name)
		s.agenda.add(i, fresh, func(w *work) { w.scan = true })
		s.agenda.get(ordinary)
		s.results <- result{item: i, batches: []store.Batch{whole(name, images)}, then: func(bool) {
			order = append(order, fmt.Sprint(name, " after ", s.counters.commits.Load()))
			then()
		}}
	}
	left := 3
	end := func() {
		if left--; left == 0 {
			close(s.results)
		}
	}
	send("big", 100, end)
	send("bigger", 200, end)
	send("small", 1, func() { send("later", 1, func() {}); end() })
	if err := s.commitLoop(); err != nil {
		t.Fatal(err)
	}
	want := []string{"small after 1", "later after", "big after ", "bigger after "}
	if len(order) != len(want) {
		t.Fatalf("%q", order)
	}
	for n, w := range want {
		if !strings.HasPrefix(order[n], w) {
			t.Errorf("%q, want %q", order, want)
		}
	}
	if err := w.store.Publish(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := s.counters.commits.Load(); n != 40 { // two hundred rows and as many tags
		t.Errorf("%d transactions", n)
	}
}
