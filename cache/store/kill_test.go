package store

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trust-worker/internal/faulttest"
)

// torture is set by make torture.
var torture = os.Getenv("TRUST_WORKER_TORTURE") == "1"

// tally is what a loop did, for the last line of its log.
type tally struct{ lives, faults, operations, answers int }

func (n tally) String() string {
	return fmt.Sprintf("%d lives, %d faults, %d operations done, %d answers compared, 0 wrongly trusted, 0 lost", n.lives, n.faults, n.operations, n.answers)
}

// runStorm runs one life of a storm by a command and returns what it printed.
func runStorm(t *testing.T, dir string, plan []op, command func(argv ...string) *exec.Cmd) string {
	t.Helper()
	var lines []string
	for _, o := range plan {
		lines = append(lines, o.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), stormTime)
	defer cancel()
	made := command(os.Args[0])
	c := exec.CommandContext(ctx, made.Path, made.Args[1:]...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Env = append(os.Environ(), stormState+"="+dir, stormPlan+"="+strings.Join(lines, "\n"), "GORACE=atexit_sleep_ms=10")
	_ = c.Run() // it may have been killed
	if ctx.Err() != nil {
		t.Fatalf("the storm hangs\n%s", &out)
	}
	for _, sign := range []string{"panic:", "fatal error:", "DATA RACE"} {
		if strings.Contains(errs.String(), sign) {
			t.Fatalf("the storm crashed:\n%s\n%s", &out, &errs)
		}
	}
	return out.String()
}

// watchStorm runs a life undisturbed, on a copy of dir, and returns its calls.
func watchStorm(t *testing.T, dir string, plan []op, calls []string) []faulttest.Point {
	t.Helper()
	work := t.TempDir()
	same := filepath.Join(work, filepath.Base(dir))
	if err := os.CopyFS(same, os.DirFS(dir)); err != nil { // follows no link: CURRENT is copied as one
		t.Fatal(err)
	}
	trace := filepath.Join(work, "trace")
	out := runStorm(t, same, plan, func(argv ...string) *exec.Cmd { return faulttest.Watching(trace, calls, argv...) })
	if !strings.HasSuffix(out, "end\n") {
		t.Fatalf("undisturbed, the storm does not end:\n%s", out)
	}
	return faulttest.Points(t, trace, same)
}

// Killed at any system call of the private store's and of what is published —
// first initialisation, commits, publications, folds, compactions, changes of
// trust — nothing is wrongly trusted, nothing that was said to be done is lost,
// and the next start needs no rebuilding. Each turn goes on from where the one
// before was killed.
func TestKillAtEverySystemCall(t *testing.T) {
	faulttest.Need(t)
	t.Parallel()
	plans, each := 2, 10
	if torture {
		plans, each = 40, 50
	}
	var n tally
	calls := map[string]int{}
	for seed := range plans {
		rnd := rand.New(rand.NewPCG(uint64(seed), 4))
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		l := newLedger()
		begin := l.plan(rnd, 12)
		points := watchStorm(t, dir, begin, faulttest.Changing)
		for turn, k := range rnd.Perm(len(points)) {
			if turn == each {
				break
			}
			plan := begin
			if turn > 0 { // another life, so other calls; the nth of a name is as good as any
				plan = l.plan(rnd, 12)
			}
			f := faulttest.Fault{Point: points[k], Kill: true}
			l.read(runStorm(t, dir, plan, func(argv ...string) *exec.Cmd { return faulttest.Command(f, argv...) }))
			n.lives++
			if !l.ended {
				n.faults++
				calls[f.Call]++
			}
			if l.bad != "" || l.wrong > 0 {
				t.Errorf("the storm says: %s; %d wrong answers", l.bad, l.wrong)
			}
			n.answers += l.check(t, dir, false)
			n.answers += l.settle(t, dir)
			if t.Failed() {
				t.Fatalf("seed %d, turn %d, %s\n%s", seed, turn, f, f.Line)
			}
		}
		n.operations += l.done
	}
	t.Logf("%s; killed at %v", n, calls)
	if n.faults < n.lives/2 {
		t.Errorf("only %d of %d were killed", n.faults, n.lives)
	}
}

// A system call that fails — the disk is full, or answers with an error — once
// or several times in a row, is reported and survived: the same life tries
// again, and ends with everything done.
func TestKillNothingButFailEverySystemCall(t *testing.T) {
	faulttest.Need(t)
	t.Parallel()
	plans, each := 2, 10
	if torture {
		plans, each = 40, 50
	}
	var n tally
	calls := map[string]int{}
	for seed := range plans {
		rnd := rand.New(rand.NewPCG(uint64(seed), 5))
		l := newLedger()
		plan := l.plan(rnd, 14)
		template := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(template, 0o750); err != nil {
			t.Fatal(err)
		}
		points := watchStorm(t, template, plan, slices.Concat(faulttest.Changing, []string{"read", "pread64", "getdents64", "readlinkat"}))
		for turn, k := range rnd.Perm(len(points)) {
			if turn == each {
				break
			}
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.Mkdir(dir, 0o750); err != nil {
				t.Fatal(err)
			}
			f := faulttest.Fault{Point: points[k], Errno: []string{"EIO", "ENOSPC"}[rnd.IntN(2)], Times: 1}
			if f.Call != "unlinkat" { // the last resort: withdrawing CURRENT is one of these
				f.Times = 1 + rnd.IntN(3)
			}
			l := newLedger()
			l.faulty = true
			out := runStorm(t, dir, plan, func(argv ...string) *exec.Cmd { return faulttest.Command(f, argv...) })
			l.read(out)
			n.lives++
			n.faults++
			calls[f.Call]++
			// Where CURRENT cannot even be removed, the next try does it.
			if l.bad != "" || !l.ended || l.wrong > 0 && f.Call != "unlinkat" {
				t.Errorf("the storm says: %s", out)
			}
			n.answers += l.check(t, dir, false)
			n.answers += l.settle(t, dir)
			n.operations += l.done
			if t.Failed() {
				t.Fatalf("seed %d, turn %d, %s\n%s\n%s", seed, turn, f, f.Line, out)
			}
			os.RemoveAll(dir)
		}
	}
	t.Logf("%s; failed at %v", n, calls)
}
