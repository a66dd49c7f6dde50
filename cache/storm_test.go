package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"trust-worker/trust"
)

// A storm is a writer's life, in a process of its own, that does what it is told
// line by line and says on its standard output what was begun, done or refused.
// It works on one thread, so that the same life makes the same system calls in
// the same order, and can be ended at, or refused, any one of them.
const (
	stormState = "TRUST_WORKER_STORM_STATE"
	stormPlan  = "TRUST_WORKER_STORM_PLAN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(stormState); dir != "" {
		runtime.LockOSThread()
		os.Exit(storm(dir, strings.Split(os.Getenv(stormPlan), "\n"), stubborn{os.Stdout}))
	}
	goleak.VerifyTestMain(m)
}

// stubborn writes again when a fault hits the storm's own output.
type stubborn struct{ io.Writer }

func (w stubborn) Write(b []byte) (n int, err error) {
	for range 10 {
		if n, err = w.Writer.Write(b); err == nil {
			break
		}
	}
	return n, err
}

// op is one thing that a storm does.
type op struct {
	verb         string // open, trust, commit, remove, publish, fold
	place        string
	from, to     int
	signers, pol int // signers in force by bit; the statement's meaning
}

func (o op) String() string {
	return fmt.Sprintf("%s %s %d %d %d %d", o.verb, o.place, o.from, o.to, o.signers, o.pol)
}

func parseOp(s string) (o op, err error) {
	_, err = fmt.Sscanf(s, "%s %s %d %d %d %d", &o.verb, &o.place, &o.from, &o.to, &o.signers, &o.pol)
	return o, err
}

// stormSigners is how many certificates come and go.
const stormSigners = 9

func stormSigner(n int) trust.Signer {
	return trust.Signer{Tool: trust.Notation, StoreType: "ca", StoreName: "acme", Fingerprint: trust.SumOf(fmt.Append(nil, "signer ", n))}
}

func stormPolicy(n int) trust.PolicyID {
	return trust.PolicyID(trust.SumOf(fmt.Append(nil, "policy ", n)))
}

func stormTerms(o op) *trust.InForce {
	t := trust.Terms{Cosign: true, Notation: true, Statements: []trust.Statement{{Name: "all", Scopes: []string{"*"},
		Stores: []string{"ca:acme"}, Policy: stormPolicy(o.pol), Verifies: true}}}
	for n := range stormSigners {
		if o.signers&(1<<n) != 0 {
			t.Materials = append(t.Materials, trust.Material{Signer: stormSigner(n), Author: fmt.Sprint("certificate ", n)})
		}
	}
	return trust.NewInForce(t)
}

func stormImage(place string, n int) trust.Digest { return trust.SumOf(fmt.Append(nil, place, " ", n)) }
func stormAuthor(place string, n int) string      { return fmt.Sprintf("CN=%s %d", place, n) }

// batch is what a commit of images of one place holds. Each has an author of
// its own.
func (o op) batch() Batch {
	b := Batch{Place: o.place}
	for n := o.from; n < o.to; n++ {
		d := stormImage(o.place, n)
		sig := trust.SumOf(d[:])
		b.Rows = append(b.Rows, Row{Digest: d, MediaType: "m", Present: true, References: []Reference{{Digest: sig, Carrier: 4}}})
		b.Facts = append(b.Facts, Fact{Subject: d, Signature: sig, Context: Context{Tool: trust.Notation, Policy: stormPolicy(o.pol), MediaType: "m"},
			Verdicts: []trust.Verdict{{Format: trust.JWS, Policy: stormPolicy(o.pol), Epoch: 1, VerifiedAt: 1, Author: stormAuthor(o.place, n),
				Grounds: []trust.Ground{{Signers: []trust.Signer{stormSigner(n % stormSigners)}}}}},
			Hints: []Hint{{HintSigner, byte(n)}}})
	}
	return b
}

func stormOptions() Options { return Options{Lease: -1, foldAt: 10, compactAbove: 16 << 10} }

// storm does the plan. An operation that is refused is tried again until it is
// done; more refusals than any fault here makes are given up with.
func storm(dir string, plan []string, out io.Writer) int {
	var s *Store
	defer func() {
		if s != nil {
			_ = s.Close() // the process ends
		}
	}()
	last := op{signers: -1}
	for _, line := range plan {
		o, err := parseOp(line)
		if err != nil {
			fmt.Fprintln(out, "bad plan:", err)
			return 2
		}
		if o.verb == "trust" {
			last = o
		}
		for try := 0; ; try++ {
			fmt.Fprintln(out, "begin", o)
			err = nil
			if s == nil || o.verb == "open" {
				if s, err = reopen(s, dir, last); err == nil && s.Rebuilt() != "" {
					fmt.Fprintln(out, "rebuilt", s.Rebuilt())
				}
			}
			if err == nil {
				err = o.do(s)
				if o.verb == "trust" {
					o.look(dir, err, out)
				}
			}
			if err == nil {
				break
			}
			fmt.Fprintf(out, "fail %q\n", err)
			if errors.Is(err, ErrDamaged) && s != nil { // as the daemon does
				_ = s.MarkDamaged() // or the next opening finds it
				_ = s.Close()
				s = nil
			}
			if try == 30 {
				fmt.Fprintln(out, "gave up")
				return 3
			}
		}
		fmt.Fprintln(out, "done", o)
	}
	fmt.Fprintln(out, "end")
	return 0
}

// reopen ends one life of the store and begins the next, as a daemon begins:
// with the trust in force.
func reopen(s *Store, dir string, last op) (*Store, error) {
	if s != nil {
		_ = s.Close() // refused or not, the descriptors are gone
	}
	s, err := Open(dir, stormOptions())
	if err != nil {
		return nil, err
	}
	if last.signers >= 0 {
		_, err = s.SetTrust(stormTerms(last))
	}
	return s, err
}

// look reads as another process would, just after the terms were set or could
// not be: either way nothing is trusted by anybody else from then on.
func (o op) look(dir string, failed error, out io.Writer) {
	r, err := OpenReader(dir)
	if err != nil {
		return
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return
	}
	defer snap.Close()
	for _, place := range stormPlaces {
		for n := range stormImages {
			img, err := snap.Image(place, stormImage(place, n))
			if err == nil && img.SignatureInfo[0].IsTrusted && o.signers&(1<<(n%stormSigners)) == 0 {
				fmt.Fprintf(out, "wrong %s %d after %v\n", place, n, failed)
			}
		}
	}
}

func (o op) do(s *Store) error {
	switch o.verb {
	case "trust":
		_, err := s.SetTrust(stormTerms(o))
		return err
	case "commit":
		_, err := s.Commit(o.batch())
		return err
	case "remove":
		_, err := s.Commit(Batch{Place: o.place, Remove: true})
		return err
	case "publish":
		return s.Publish(context.Background())
	case "fold":
		return s.Fold(context.Background())
	}
	return nil
}

// ledger is what a storm's output says must, and may, be true.
type ledger struct {
	terms  op
	places map[string]map[int]bool // what is where
	facts  map[string]bool         // place, image, policy
	shown  map[string]map[int]bool // what is where, as of the last publication
	begun  *op                     // maybe done, maybe not
	bad    string                  // what the storm said that it should not
	wrong  int                     // answers that it found trusted when they no longer were
	done   int
	faulty bool // there may be nothing published for want of what was refused
	ended  bool
}

func newLedger() *ledger {
	return &ledger{terms: op{verb: "trust", place: "-"}, places: map[string]map[int]bool{}, facts: map[string]bool{}}
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
		known := l.facts[factName(place, n, terms.pol)] ||
			policyOf != nil && policyOf.verb == "commit" && policyOf.place == place && policyOf.pol == terms.pol && n >= policyOf.from && n < policyOf.to
		return terms.signers&(1<<(n%stormSigners)) != 0 && known
	}
	if l.begun != nil && l.begun.verb == "trust" && may(*l.begun, nil) {
		return true
	}
	return may(l.terms, l.begun)
}

// images is everything that any plan may name.
const stormImages = 60

var stormPlaces = []string{"one", "two", "three"}

// check reads what is published as another process would, and returns how many
// answers it compared.
func (l *ledger) check(t *testing.T, dir string, settled bool) (compared int) {
	t.Helper()
	r, err := OpenReader(dir)
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
			if errors.Is(err, ErrNotFound) {
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
			case settled && !sig.IsTrusted && may:
				t.Errorf("%s %d reads %s %s, though it is to be trusted", place, n, sig.Status, sig.Reason)
			case sig.IsTrusted && (sig.Author != stormAuthor(place, n) || sig.SignerFingerprint != stormSigner(n%stormSigners).Fingerprint):
				t.Errorf("%s %d is said to be by %q", place, n, sig.Author)
			}
		}
	}
	return compared
}

// plan is a random life of a few operations that begins with the trust in force.
func (l *ledger) plan(rnd *rand.Rand, length int) []op {
	terms := func() op {
		return op{verb: "trust", place: "-", signers: rnd.IntN(1 << stormSigners), pol: rnd.IntN(2)}
	}
	ops := []op{terms()}
	now := ops[0]
	for len(ops) < length {
		o := op{verb: "publish", place: "-"}
		switch n := rnd.IntN(20); {
		case n < 7:
			from := rnd.IntN(stormImages - 8)
			o = op{verb: "commit", place: stormPlaces[rnd.IntN(len(stormPlaces))], from: from, to: from + 1 + rnd.IntN(8), pol: now.pol}
		case n < 8:
			o = op{verb: "remove", place: stormPlaces[rnd.IntN(len(stormPlaces))]}
		case n < 11:
			o = terms()
			if rnd.IntN(3) > 0 {
				o.pol = now.pol
			}
			now = o
		case n < 13:
			o.verb = "fold"
		case n < 14:
			o.verb = "open"
		}
		ops = append(ops, o)
	}
	return ops
}

// settle is the start after it all: the daemon opens, loads the trust
// directories and publishes. Everything must be as the ledger says. An
// operation that was not seen to end may be done or not, but wholly.
func (l *ledger) settle(t *testing.T, dir string) (compared int) {
	t.Helper()
	if l.begun != nil && l.begun.verb == "trust" {
		l.apply(*l.begun) // the operator's directories say so
	}
	s, err := Open(dir, stormOptions())
	if err != nil {
		t.Errorf("does not start: %v", err)
		return 0
	}
	if s.Rebuilt() != "" {
		t.Errorf("lost all: %s", s.Rebuilt())
	}
	l.resolve(t, s)
	if _, err = s.SetTrust(stormTerms(l.terms)); err == nil {
		err = s.Publish(context.Background())
	}
	if err != nil {
		t.Errorf("does not publish: %v", err)
	}
	l.begun = nil
	l.apply(op{verb: "publish"})
	compared = l.check(t, dir, true)
	closeChecked(t, s)
	return compared
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

// stormTime bounds one life; only a storm that hangs waits for it.
const stormTime = 2 * time.Minute
