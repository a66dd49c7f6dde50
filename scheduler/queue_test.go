package scheduler

import (
	"testing"
	"testing/synctest"
	"time"

	"trust-worker/cache/store"
)

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	for tries, want := range map[uint32]time.Duration{0: 1, 1: 1, 2: 2, 3: 4, 7: 64, 12: 2048, 13: 3600, 1 << 31: 3600} {
		if got := backoff(tries, time.Second, time.Hour); got != want*time.Second {
			t.Errorf("after %d tries %s, want %s", tries, got, want*time.Second)
		}
	}
}

func repo(name string) item { return item{repository: name} }

// take gets the next item and ends its turn.
func take(t *testing.T, a *agenda) (string, *work) {
	t.Helper()
	i, w, shutdown := a.get(ordinary)
	if shutdown {
		t.Fatal("shut down")
	}
	a.done(i)
	return i.repository, w
}

func TestOrderIsByClassThenTurn(t *testing.T) {
	a := newAgenda()
	defer a.end()
	none := func(*work) {}
	a.add(repo("slow"), slow, none)
	a.add(repo("retry"), retry, none)
	a.add(repo("new 1"), fresh, none)
	a.add(repo("new 2"), fresh, none)
	a.add(repo("urgent"), urgent, none)
	a.add(repo("slow"), fresh, none) // more urgent now: behind the other new ones
	for _, want := range []string{"urgent", "new 1", "new 2", "slow", "retry"} {
		if got, _ := take(t, a); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	select {
	case <-a.quiet():
	default:
		t.Errorf("%d items left", a.size())
	}
}

// A scan that takes long is taken only by the worker that takes such scans; what else
// its repository is owed is an ordinary turn.
func TestLongScansAreTakenApart(t *testing.T) {
	a := newAgenda()
	defer a.end()
	scan, settle := func(w *work) { w.scan = true }, func(w *work) { w.settle = true }
	for _, name := range []string{"big 1", "big 2"} {
		a.took(repo(name), true)
		a.add(repo(name), urgent, scan)
	}
	a.add(repo("small"), retry, scan)
	if got, w := take(t, a); got != "small" || w.long {
		t.Errorf("got %s (long %v), want the only ordinary turn", got, w.long)
	}
	i, w, _ := a.get(longScans)
	if i != repo("big 1") || !w.long {
		t.Errorf("got %v, long %v", i, w.long)
	}
	a.add(i, fresh, settle)
	a.done(i)
	if got, w := take(t, a); got != "big 1" || w.scan || w.long {
		t.Errorf("got %s, want what is left of the first: %+v", got, w)
	}
	a.add(i, bulk, scan)
	if i, _, _ = a.get(longScans); i != repo("big 2") {
		t.Errorf("got %v before the other long scan", i)
	}
	a.took(i, false) // it has become small
	a.add(i, fresh, scan)
	a.done(i)
	if got, _ := take(t, a); got != "big 2" {
		t.Errorf("got %s", got)
	}
}

// What is added during a turn is kept for another, and merged into one.
func TestWorkAddedDuringATurnIsKept(t *testing.T) {
	a := newAgenda()
	defer a.end()
	a.add(repo("a"), fresh, func(w *work) { w.scan = true })
	i, w, _ := a.get(ordinary)
	if !w.scan || w.settle {
		t.Errorf("%+v", w)
	}
	a.add(repo("a"), fresh, func(w *work) { w.settle = true })
	a.add(repo("a"), fresh, func(w *work) { w.force = true })
	select {
	case <-a.quiet():
		t.Error("quiet during a turn")
	default:
	}
	a.done(i)
	if _, w := take(t, a); !w.settle || !w.force || w.scan {
		t.Errorf("%+v", w)
	}
	<-a.quiet()
}

// An item that fails waits, longer each time, and starts anew after a success.
func TestFailuresWaitLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgenda()
		for _, want := range []time.Duration{1, 2, 4} {
			d := a.failed(repo("a"))
			if d != want*time.Second {
				t.Errorf("waits %s, want %ds", d, want)
			}
			start := time.Now()
			time.AfterFunc(d, func() { a.add(repo("a"), fresh, func(*work) {}) })
			if _, _ = take(t, a); time.Since(start) != d {
				t.Errorf("came after %s", time.Since(start))
			}
		}
		a.succeeded(repo("a"))
		if d := a.failed(repo("a")); d != time.Second {
			t.Errorf("after a success it waits %s", d)
		}
		a.end()
	})
}

// Each item is in work once at a time, what is owed to it meanwhile is not lost, and the
// best class comes first.
func TestAgenda(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgenda()
		one, two, three := item{repository: "1"}, item{repository: "2"}, item{repository: "3"}
		<-a.quiet()
		a.add(one, slow, func(w *work) { w.rehash = true })
		a.add(two, fresh, func(w *work) { w.scan = true })
		a.add(three, retry, func(*work) {})
		a.add(one, urgent, func(w *work) { w.settle = true }) // more urgent now
		get := func(want item) *work {
			t.Helper()
			i, w, ended := a.get(ordinary)
			if i != want || ended {
				t.Fatalf("%v, want %v", i, want)
			}
			return w
		}
		if w := get(one); !w.rehash || !w.settle || w.level != urgent {
			t.Errorf("%+v", w)
		}
		a.add(one, fresh, func(w *work) { w.scan = true }) // while it is in work
		get(two)
		get(three)
		got := make(chan item)
		go func() { i, _, _ := a.get(ordinary); got <- i }()
		synctest.Wait()
		select {
		case i := <-got:
			t.Fatalf("%v is in work twice", i)
		default:
		}
		a.done(one)
		if i := <-got; i != one {
			t.Errorf("%v", i)
		}
		for _, i := range []item{one, two} {
			a.done(i)
			select {
			case <-a.quiet():
				t.Error("quiet with work left")
			default:
			}
		}
		a.done(three)
		<-a.quiet()
		if a.size() != 0 || len(a.queued) != 0 {
			t.Errorf("left: %d, %v", a.size(), a.queued)
		}
		ended := make(chan bool)
		go func() { _, _, e := a.get(ordinary); ended <- e }()
		synctest.Wait()
		a.end()
		if !<-ended {
			t.Error("goes on after its end")
		}
	})
}

// What was put off by a clock that was ahead is looked at, and what waits for the next
// answer of a revocation service is not.
func TestWhatAClockAheadHasPutOffIsDue(t *testing.T) {
	const now, hour = int64(1 << 31), int64(3600)
	s := &Scheduler{}
	for _, c := range []struct {
		attempts uint32
		next     int64
		due      bool
	}{
		{1, now, true}, {1, now + hour, false}, {1, now + 4*hour, true},
		{0, 0, false}, {0, now, true}, {0, now + 4*hour, false}, {0, now + 25*hour, true},
	} {
		if got := s.isDue(&store.Reference{Attempts: c.attempts, NextTry: c.next}, now); got != c.due {
			t.Errorf("after %d attempts, in %d s: %v", c.attempts, c.next-now, got)
		}
	}
}
