package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
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
	verb         string // open, lose, trust, commit, remove, bulk, publish, fold
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

// knowsAll is the trust generation of a fact that no signer has come after.
const knowsAll = 1 << 62

// stormSigners is how many certificates come and go.
const stormSigners = 9

func stormSigner(n int) trust.Signer {
	return trust.Signer{Tool: trust.Notation, StoreType: "ca", StoreName: "acme", Fingerprint: trust.SumOf(fmt.Append(nil, "signer ", n))}
}

func stormPolicy(n int) trust.PolicyID {
	return trust.Meaning{VerifyTimestamp: fmt.Sprint(n)}.ID()
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
			Verdicts: []trust.Verdict{{Format: trust.JWS, Policy: stormPolicy(o.pol), Epoch: trust.MinEpoch, VerifiedAt: 1, Author: stormAuthor(o.place, n),
				Grounds: []trust.Ground{{Signers: []trust.SignerID{stormSigner(n % stormSigners).ID()}}}}},
			Hints: []Hint{{HintSigner, byte(n)}}, Trust: knowsAll})
	}
	return b
}

func stormOptions() Options { return Options{Lease: -1, fewBytes: 1, compactAbove: 16 << 10} }

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
			if o.verb == "lose" && s != nil {
				err = s.MarkDamaged(format.ErrDamaged)
			}
			if err == nil && (s == nil || o.verb == "open" || o.verb == "lose") {
				if s, err = reopen(s, dir, last); err == nil && s.Rebuilt() != "" && o.verb != "lose" {
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
			if errors.Is(err, format.ErrDamaged) && s != nil { // as the daemon does
				_ = s.MarkDamaged(format.ErrDamaged) // or the next opening finds it
				_ = s.Close()
				s = nil
			}
			if try == 30 {
				fmt.Fprintln(out, "gave up")
				return 3
			}
		}
		_, c, _ := format.ReadCurrent(s.publishedPath()) // there may be none
		if c.ID != s.ID() {
			c.Generation = 0
		}
		fmt.Fprintln(out, "done", o)
		fmt.Fprintln(out, "at", s.ID(), c.Generation)
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
	r, err := cache.OpenReader(dir)
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
	case "bulk": // comes and goes, so that the next opening has something to compact
		b := Batch{Place: "bulk"}
		for n := range 60 {
			b.Rows = append(b.Rows, Row{Digest: stormImage(b.Place, n), MediaType: strings.Repeat("m", 3000), Present: true})
		}
		_, err := s.Commit(b)
		if err == nil {
			_, err = s.Commit(Batch{Place: b.Place, Remove: true})
		}
		return err
	case "publish":
		return s.Publish(context.Background())
	case "fold":
		return s.Fold(context.Background())
	}
	return nil
}

// images is everything that any plan may name.
const stormImages = 60

var stormPlaces = []string{"one", "two", "three"}

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
		case n < 15:
			o.verb = "bulk"
		}
		ops = append(ops, o)
	}
	return ops
}

// stormTime bounds one life; only a storm that hangs waits for it.
const stormTime = 2 * time.Minute
