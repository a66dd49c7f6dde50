package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/cache/internal/format"
	"trust-worker/internal/powercut"
)

// powered is a life of which everything is recorded.
type powered struct {
	dir   string // holds before, what was there when it began
	said  string // by the lives before
	again bool   // the last of which was killed while it opened
	ops   []powercut.Op
	ended time.Time
}

// recordStorm lets a life that goes on from the lives before run to its end.
func recordStorm(t *testing.T, before []op, killed bool, plan []op) powered {
	t.Helper()
	work := t.TempDir()
	p := powered{dir: filepath.Join(work, "before"), again: killed}
	live, trace := filepath.Join(work, "live"), filepath.Join(work, "trace")
	if err := os.Mkdir(live, 0o750); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(live, "state")
	if before != nil {
		p.said = runStorm(t, state, before, func(argv ...string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) })
	}
	if killed { // while it was opening once more
		if err := os.WriteFile(filepath.Join(state, format.PrivateDir, "opening"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(p.dir, os.DirFS(live)); err != nil { // follows no link: CURRENT is copied as one
		t.Fatal(err)
	}
	out := runStorm(t, state, plan, func(argv ...string) *exec.Cmd { return powercut.Command(trace, argv...) })
	if !strings.HasSuffix(out, "end\n") {
		t.Fatalf("undisturbed, the storm does not end:\n%s", out)
	}
	var err error
	if p.ops, err = powercut.Read(trace, live); err != nil {
		t.Fatal(err)
	}
	p.ended = time.Now()
	return p
}

// varied does everything that a store does, in few operations: a base, deltas,
// folds, compactions, changes of trust, a repository that leaves, a cache that
// is lost and begun anew while an older one is still published.
func varied() []op {
	all, some := 1<<stormSigners-1, 0b010110101
	at := func(verb string) op { return op{verb: verb, place: "-"} }
	trusts := func(signers, pol int) op { return op{verb: "trust", place: "-", signers: signers, pol: pol} }
	commit := func(place string, from, to, pol int) op {
		return op{verb: "commit", place: place, from: from, to: to, pol: pol}
	}
	return []op{
		trusts(all, 0), commit("one", 0, 12, 0), at("publish"), commit("two", 8, 20, 0), at("publish"),
		trusts(some, 0), commit("three", 0, 30, 0), at("publish"), at("fold"), trusts(all, 0),
		{verb: "remove", place: "three"}, at("bulk"), at("publish"), at("open"), commit("one", 20, 24, 1), trusts(all, 1), at("publish"),
		trusts(some, 1), at("lose"), trusts(0b1, 0), commit("one", 0, 12, 0), at("publish"), commit("two", 0, 12, 0), at("publish"), trusts(0b10, 0),
	}
}

// A power cut at any moment, which leaves anything that package powercut says it
// may, costs nothing that was acknowledged, and nothing is wrongly trusted: not
// by what is found published, and not once a daemon has started.
func TestKillPower(t *testing.T) {
	powercut.Need(t)
	t.Parallel()
	// Always where something was just acknowledged, and where the private store
	// was just replaced: by then it must be whole.
	replay := powercut.Plan{Points: 20, Random: 1, Seed: 1, Always: func(o powercut.Op) bool {
		return o.Says("done") || o.Kind == powercut.Rename && filepath.Base(o.To) == "cache.db"
	}}
	histories := []powered{recordStorm(t, nil, false, varied()), recordStorm(t, varied()[:8], true, varied()[5:])}
	renamed := map[string]int{}
	for _, o := range histories[0].ops {
		if o.Kind == powercut.Rename {
			kind, _, _ := strings.Cut(filepath.Base(o.To), "-")
			renamed[kind]++
		}
	}
	for kind, least := range map[string]int{"cache.db": 3, "base": 3, "delta": 4, "trust": 6, format.CurrentName: 10} { // the first is made, compacted, made anew
		if renamed[kind] < least {
			t.Errorf("the history has only %v", renamed)
		}
	}
	if torture {
		replay = powercut.Plan{Random: 2, Seed: 1}
		for seed := range 2 {
			rnd := rand.New(rand.NewPCG(uint64(seed), 6))
			l := newLedger()
			first, second := l.plan(rnd, 12), l.plan(rnd, 20)
			second = slices.Insert(second, 10, op{verb: "lose", place: "-"})
			histories = append(histories, recordStorm(t, first, seed%2 == 0, second))
		}
	}
	for i, p := range histories {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			p.replay(t, replay)
		})
	}
}

func (p powered) replay(t *testing.T, plan powercut.Plan) {
	var n tally
	states, cuts := powercut.Replay(p.dir, p.ops, plan)
	opened, scratch := 0, scratchDir(t)
	for s, err := range states {
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(scratch, fmt.Sprint(opened))
		if err := s.Write(dir); err != nil {
			t.Fatal(err)
		}
		l := newLedger()
		l.read(p.said)
		l.read(s.Said)
		// A name that is there without the one before it is CURRENT without
		// what it names: no answer, until there is a daemon again.
		l.faulty = s.Names == powercut.Unordered
		l.again = p.again && !strings.Contains(s.Said, "done")
		state := filepath.Join(dir, "state")
		p.checkLease(t, state)
		n.answers += l.check(t, state, false)
		if _, err := os.Stat(state); err != nil && l.done > 0 {
			t.Errorf("the state directory is lost: %v", err)
		}
		n.answers += l.settle(t, state)
		if t.Failed() {
			t.Fatalf("%s, seed %d; it had said:\n%s", s, plan.Seed, s.Said)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		opened++
	}
	t.Logf("%d operations, %d power cuts, %d states opened, %d answers compared, 0 wrongly trusted, 0 lost", len(p.ops), cuts, opened, n.answers)
	if opened < cuts/2 { // a state is opened once between two things said
		t.Errorf("only %d states of %d cuts", opened, cuts)
	}
}

// checkLease holds a trust file that is in force to the time that the daemon
// gave it: one whose times are not kept would be believed from the cut on.
func (p powered) checkLease(t *testing.T, state string) {
	t.Helper()
	published := filepath.Join(state, format.PublishedDir)
	_, c, err := format.ReadCurrent(published)
	if err != nil {
		return
	}
	if fi, err := os.Stat(c.TrustPath(published)); err == nil && fi.ModTime().After(p.ended) {
		t.Errorf("the lease of %s begins at the power cut", filepath.Base(c.TrustPath(published)))
	}
}

// scratchDir is in memory where it can be: each state that is opened syncs many
// times, and no disk is asked about it.
func scratchDir(t *testing.T) string {
	if dir, err := os.MkdirTemp("/dev/shm", "power"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}
