package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// ledger is what a storm's output says must, and may, be true.
type ledger struct {
	terms  op
	places map[string]map[int]bool // what is where
	facts  map[string]bool         // place, image, policy
	past   map[string]bool         // those of a cache that was lost: true, and not known any more
	shown  map[string]map[int]bool // what is where, as of the last publication
	begun  *op                     // maybe done, maybe not
	bad    string                  // what the storm said that it should not
	wrong  int                     // answers that it found trusted when they no longer were
	done   int
	faulty bool // there may be nothing published for want of what was refused
	ended  bool
	again  bool // the last start but one was cut short: should this be too, the next one begins anew

	id, generation uint64 // of the cache, and what was published of it
}

func newLedger() *ledger {
	return &ledger{terms: op{verb: "trust", place: "-"}, places: map[string]map[int]bool{}, facts: map[string]bool{}, past: map[string]bool{}}
}

func factName(place string, n, policy int) string { return fmt.Sprint(place, " ", n, " ", policy) }

// read takes a storm's output in.
func (l *ledger) read(out string) {
	l.begun, l.ended = nil, false
	for s := bufio.NewScanner(strings.NewReader(out)); s.Scan(); {
		verb, rest, _ := strings.Cut(s.Text(), " ")
		o, _ := parseOp(rest)
		switch verb {
		case "begin":
			l.begun = &o
			if o.verb == "lose" {
				l.shown = nil
			}
		case "at":
			var generation uint64
			if _, err := fmt.Sscan(rest, &l.id, &generation); err != nil {
				l.bad = s.Text()
			}
			l.generation = max(l.generation, generation)
		case "done":
			l.done++
			l.begun = nil
			l.apply(o)
		case "fail":
		case "wrong":
			l.wrong++
		case "end":
			l.ended = true
		case "rebuilt":
			l.bad = s.Text()
		default:
			l.bad = s.Text()
		}
	}
}

func (l *ledger) apply(o op) {
	switch o.verb {
	case "trust":
		l.terms = o
	case "commit":
		if l.places[o.place] == nil {
			l.places[o.place] = map[int]bool{}
		}
		for n := o.from; n < o.to; n++ {
			l.places[o.place][n] = true
			l.facts[factName(o.place, n, o.pol)] = true
		}
	case "remove":
		delete(l.places, o.place)
		delete(l.shown, o.place)
	case "lose":
		maps.Copy(l.past, l.facts)
		l.places, l.facts, l.shown = map[string]map[int]bool{}, map[string]bool{}, nil
		l.id, l.generation = 0, 0
	case "publish":
		l.shown = map[string]map[int]bool{}
		for p, images := range l.places {
			l.shown[p] = maps.Clone(images)
		}
	}
}

// mayTrust reports whether an image may be answered as trusted: under the terms
// in force, or those that were being set.
func (l *ledger) mayTrust(place string, n int) bool {
	may := func(terms op, policyOf *op) bool {
		name := factName(place, n, terms.pol)
		known := l.facts[name] || l.past[name] ||
			policyOf != nil && policyOf.verb == "commit" && policyOf.place == place && policyOf.pol == terms.pol && n >= policyOf.from && n < policyOf.to
		return terms.signers&(1<<(n%stormSigners)) != 0 && known
	}
	if l.begun != nil && l.begun.verb == "trust" && may(*l.begun, nil) {
		return true
	}
	return may(l.terms, l.begun)
}

// check reads what is published as another process would, and returns how many
// answers it compared.
func (l *ledger) check(t *testing.T, dir string, settled bool) (compared int) {
	t.Helper()
	r, err := cache.OpenReader(dir)
	if err != nil {
		if l.shown != nil || settled {
			t.Errorf("no reader: %v", err)
		}
		return 0
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		if settled || l.shown != nil && !l.faulty {
			t.Errorf("what was published is lost: %v", err)
		}
		return 0
	}
	defer snap.Close()
	for _, place := range stormPlaces {
		for n := range stormImages {
			img, err := snap.Image(place, stormImage(place, n))
			if errors.Is(err, cache.ErrNotFound) {
				if l.shown[place][n] && (l.begun == nil || l.begun.verb != "remove" || settled) || settled && l.places[place][n] {
					t.Errorf("%s %d is lost", place, n)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s %d: %v", place, n, err)
				continue
			}
			compared++
			if settled && !l.places[place][n] {
				t.Errorf("%s %d is answered and nowhere", place, n)
			}
			sig := img.SignatureInfo[0]
			switch may := l.mayTrust(place, n); {
			case sig.IsTrusted && !may:
				t.Errorf("WRONGLY TRUSTED: %s %d", place, n)
			case settled && !sig.IsTrusted && may && l.facts[factName(place, n, l.terms.pol)]:
				t.Errorf("%s %d reads %s %s, though it is to be trusted", place, n, sig.Status, sig.Reason)
			case sig.IsTrusted && (sig.Author != stormAuthor(place, n) || sig.SignerFingerprint != stormSigner(n%stormSigners).Fingerprint):
				t.Errorf("%s %d is said to be by %q", place, n, sig.Author)
			}
		}
	}
	return compared
}

// settle is the start after it all: the daemon opens, loads the trust
// directories and publishes. Everything must be as the ledger says. An
// operation that was not seen to end may be done or not, but wholly.
func (l *ledger) settle(t *testing.T, dir string) (compared int) {
	t.Helper()
	s, err := Open(dir, stormOptions())
	if err != nil {
		t.Errorf("does not start: %v", err)
		return 0
	}
	if l.again && s.Rebuilt() != "" {
		l.apply(op{verb: "lose"})
	} else if l.begun != nil && l.begun.verb == "lose" && (s.Rebuilt() != "" || l.empty(t, s)) {
		l.apply(*l.begun)
	} else if s.Rebuilt() != "" {
		t.Errorf("lost all: %s", s.Rebuilt())
	}
	l.resolve(t, s)
	compared = l.check(t, dir, false) // opening publishes nothing
	if l.begun != nil && l.begun.verb == "trust" {
		l.apply(*l.begun) // the operator's directories say so
	}
	if _, err = s.SetTrust(stormTerms(l.terms)); err == nil {
		// Something new, so that a delta is made of all that should be in one.
		_, err = s.Commit(Batch{Place: "new", Rows: []Row{{Digest: stormImage("new", 0), Present: true}}})
	}
	if err == nil {
		err = s.Publish(context.Background())
	}
	if err != nil {
		t.Errorf("does not publish: %v", err)
	}
	if _, c, err := format.ReadCurrent(s.publishedPath()); err != nil || c.ID == l.id && c.Generation <= l.generation {
		t.Errorf("generation %d is followed by %d: %v", l.generation, c.Generation, err)
	} else {
		l.id, l.generation = c.ID, c.Generation
	}
	l.begun = nil
	l.apply(op{verb: "publish"})
	compared += l.check(t, dir, true)
	closeChecked(t, s)
	return compared
}

// empty reports whether the store knows none of the repositories that it should.
func (l *ledger) empty(t *testing.T, s *Store) bool {
	t.Helper()
	for place := range l.places {
		if _, ok, err := s.Place(place); err != nil {
			t.Error(err)
		} else if ok {
			return false
		}
	}
	return true
}

// resolve finds out whether the commit that was cut short was done.
func (l *ledger) resolve(t *testing.T, s *Store) {
	t.Helper()
	o := l.begun
	if o == nil || o.verb != "commit" && o.verb != "remove" {
		return
	}
	if o.verb == "remove" {
		if _, ok, err := s.Place(o.place); err != nil {
			t.Error(err)
		} else if !ok {
			l.apply(*o)
		}
		return
	}
	found := 0
	for n := o.from; n < o.to; n++ {
		d := stormImage(o.place, n)
		_, ok, err := s.Fact(d, trust.SumOf(d[:]), o.batch().Facts[n-o.from].Context)
		if err != nil {
			t.Error(err)
		}
		_, row, err := s.Row(o.place, d)
		if err != nil {
			t.Error(err)
		}
		if ok && row {
			found++
		}
	}
	if found == o.to-o.from {
		l.apply(*o)
	}
}
