package watcher

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func at(ms int) time.Time { return time.Unix(1, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestHints(t *testing.T) {
	h := newHints(Options{}.forRepositories())
	h.touch("b", at(0))
	h.touch("a", at(5))
	h.touch("", at(7))
	h.watched("a", at(5)) // an event is more
	h.watched("c", at(5))
	if next, news := h.flush(at(9)); news || !next.Equal(at(10)) {
		t.Errorf("next %v, news %v", next, news)
	}
	if next, news := h.flush(at(10)); !news || !next.Equal(at(15)) {
		t.Errorf("next %v, news %v", next, news)
	}
	if next, news := h.flush(at(20)); !news || !next.IsZero() {
		t.Errorf("next %v, news %v", next, news)
	}
	if len(h.signal) != 1 {
		t.Error("no signal")
	}
	if got, want := h.take(), (Hint{Walk: true, Names: []string{"a", "b"}, Watched: []string{"c"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := h.take(); !reflect.DeepEqual(got, Hint{}) {
		t.Errorf("taken twice: %+v", got)
	}
}

// A repository that is pushed to without a pause is named each 200 ms, and does
// not delay another.
func TestHintsFair(t *testing.T) {
	h := newHints(Options{}.forRepositories())
	busy, quiet := []int{}, []int{}
	for ms := range 1000 {
		h.touch("busy", at(ms))
		if ms == 300 {
			h.touch("quiet", at(ms))
		}
		h.flush(at(ms))
		for _, name := range h.take().Names {
			if name == "busy" {
				busy = append(busy, ms)
			} else {
				quiet = append(quiet, ms)
			}
		}
	}
	if want := []int{200, 401, 602, 803}; !reflect.DeepEqual(busy, want) {
		t.Errorf("busy %v, want %v", busy, want)
	}
	if want := []int{310}; !reflect.DeepEqual(quiet, want) {
		t.Errorf("quiet %v, want %v", quiet, want)
	}
}

// I3: nobody takes, and names never repeat.
func TestHintsBounded(t *testing.T) {
	h := newHints(Options{MaxDirs: 100}.forRepositories())
	for i := range 1000 {
		h.touch(fmt.Sprint("r", i), at(i*100))
		h.flush(at(i*100 + 50))
		if len(h.ready) > 100 || len(h.bursts) > 1 {
			t.Fatalf("holds %d names and %d bursts", len(h.ready), len(h.bursts))
		}
	}
	if got, want := h.take(), (Hint{All: true, Walk: true}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
