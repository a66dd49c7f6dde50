package changes

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const id = "0123456789abcdef"

func openJournal(t *testing.T, dir string) *Journal {
	t.Helper()
	j := OpenJournal(dir, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { check(t, j.Close()) })
	return j
}

func (j *Journal) addOne(generation uint64) {
	j.Add(Change{Position: Position{Generation: generation}, Kind: SignerAdded, Time: time.Unix(int64(generation), 0).UTC()})
}

func TestPositions(t *testing.T) {
	for _, s := range []string{id + "-42", id + "-42.7", id + "-0"} {
		if p, err := ParsePosition(s); err != nil || p.String() != s {
			t.Errorf("%s: %v, %v", s, p, err)
		}
	}
	for _, s := range []string{"", "-", id, id + "-", id + "-x", id + "-1.", id + "-1.0", id + "-01", id + "-1.2.3", id + "--1"} {
		if p, err := ParsePosition(s); !errors.Is(err, ErrPosition) || p != (Position{}) {
			t.Errorf("%q: %v, %v", s, p, err)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add(id + "-42.7")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePosition(s); err == nil && p.String() != s || err != nil && p != (Position{}) {
			t.Errorf("%q: %v, %v", s, p, err)
		}
	})
}

// Which positions can be followed from, before and after a restart.
func TestPositionsThatCanBeFollowed(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	if _, _, ok := j.After(j.Last(), 1); !ok {
		t.Error("of a journal that has not begun one cannot wait for the beginning")
	}
	j.Begin(id, 5, time.Unix(5, 0), "")
	for g := uint64(6); g < 9; g++ { // numbers 1 to 6
		j.addOne(g)
		j.addOne(g)
	}
	for turn := range 2 {
		for _, c := range []struct {
			from string
			n    int // -1: not held
		}{
			{"-0", 6}, {id + "-4", -1}, {id + "-5", 6}, {id + "-6", 6}, {id + "-7", 4}, {id + "-8", 2}, {id + "-9", 0},
			{id + "-6.1", 5}, {id + "-6.2", 4}, {id + "-8.6", 0}, {id + "-8.7", -1}, {id + "-7.2", -1}, {"another-6.1", -1}, {"another-6", -1},
		} {
			p := must(ParsePosition(c.from))(t)
			list, _, ok := j.After(p, 100)
			if n := len(list); ok != (c.n >= 0) || ok && n != c.n {
				t.Errorf("turn %d: after %s: %d changes, %t", turn, c.from, n, ok)
			}
		}
		check(t, j.Close())
		j = openJournal(t, dir)
	}
	if list, _, _ := j.After(Position{CacheID: id, Generation: 5}, 2); len(list) != 2 || list[1].Position.Number != 2 {
		t.Errorf("the first two: %v", list)
	}
}

// What is held is bounded in memory and on disk; what is dropped is known.
func TestWhatIsHeldIsBounded(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	j.Begin(id, 1, time.Unix(1, 0), "")
	batch := make([]Change, 500)
	for g := uint64(2); g < 22; g++ {
		for i := range batch {
			batch[i] = Change{Kind: SignerAdded, Position: Position{Generation: g}, Detail: strings.Repeat("d", 100)}
		}
		j.Add(batch...)
	}
	for turn := range 2 {
		if n := len(j.Newest(1 << 20)); n != MaxHeld {
			t.Fatalf("turn %d: %d are held", turn, n)
		}
		first := j.Newest(MaxHeld)[0].Position
		if first.Number != 8001 {
			t.Errorf("the first is %s", first)
		}
		for from, ok := range map[string]bool{id + "-17.8000": true, id + "-17.7999": false, id + "-17": false, id + "-18": true, id + "-1": false} {
			if _, _, held := j.After(must(ParsePosition(from))(t), 1); held != ok {
				t.Errorf("turn %d: after %s: %t", turn, from, held)
			}
		}
		if n := j.Missed(must(ParsePosition(id + "-4.1500"))(t)); n != 6500 {
			t.Errorf("turn %d: %d missed", turn, n)
		}
		fi := must(os.Stat(filepath.Join(dir, FileName)))(t)
		if fi.Size() > 3*MaxHeld*400 {
			t.Errorf("the file has %d bytes", fi.Size())
		}
		check(t, j.Close())
		j = openJournal(t, dir)
	}
}

// A file that was cut off at any byte is read up to there or begins anew; it
// never claims more than it holds.
func TestTortureTornFile(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	j.Begin(id, 1, time.Unix(1, 0), "")
	for g := uint64(2); g < 8; g++ {
		j.addOne(g)
		j.tell(g, time.Unix(int64(g), 0))
	}
	whole := must(os.ReadFile(filepath.Join(dir, FileName)))(t)
	step := 13
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		step = 1
	}
	for cut := 0; cut < len(whole); cut += step {
		torn := t.TempDir()
		check(t, os.WriteFile(filepath.Join(torn, FileName), whole[:cut], 0o640))
		j := OpenJournal(torn, slog.New(slog.DiscardHandler))
		list := j.Newest(100)
		if lines := strings.Count(string(whole[:cut]), "\n") - 1; len(list) != max(0, lines) {
			t.Fatalf("cut at %d: %d changes of %d lines", cut, len(list), lines)
		}
		if j.head.CacheID == "" {
			j.Begin(id, 8, time.Unix(8, 0), "")
		}
		j.addOne(9)
		check(t, j.Close())
		j = OpenJournal(torn, slog.New(slog.DiscardHandler))
		if again := j.Newest(100); len(again) != len(list)+1 {
			t.Fatalf("cut at %d: %d changes, and after one more %d", cut, len(list), len(again))
		}
		check(t, j.Close())
	}
	for name, content := range map[string]string{"no journal": "x\n", "another format": strings.Replace(string(whole), `"Format":1`, `"Format":2`, 1),
		"a change is missing": strings.Replace(string(whole), id+"-3.2", id+"-3.9", 1)} {
		torn := t.TempDir()
		check(t, os.WriteFile(filepath.Join(torn, FileName), []byte(content), 0o640))
		if list := openJournal(t, torn).Newest(100); len(list) != 0 {
			t.Errorf("%s: %d changes", name, len(list))
		}
	}
}

// A disk that is full costs the file, not what is told in the process; the file
// has it all once there is room.
func TestJournalIsWholeOnceThereIsRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	j := openJournal(t, dir)
	j.Begin(id, 1, time.Unix(1, 0), "")
	j.addOne(2)
	if list, _, ok := j.After(Position{CacheID: id, Generation: 1}, 9); !ok || len(list) != 1 {
		t.Errorf("%v, %t", list, ok)
	}
	check(t, os.Mkdir(dir, 0o755))
	j.addOne(3)
	if list := openJournal(t, dir).Newest(9); len(list) != 2 {
		t.Errorf("the file has %v", list)
	}
	// Somebody removes it: the next change brings it back.
	check(t, os.Remove(filepath.Join(dir, FileName)))
	j.addOne(4)
	if list := openJournal(t, dir).Newest(9); len(list) != 3 {
		t.Errorf("the file has %v", list)
	}
}

// Another process sees each change once, in order, also while the file is
// replaced by new ones; what it came too late for is a reset.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := make(chan Change)
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, dir, 3, func(c Change) error {
			select {
			case got <- c:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	defer func() { cancel(); check(t, <-done) }()
	next := func() Change {
		t.Helper()
		select {
		case c := <-got:
			return c
		case <-ctx.Done():
			t.Fatal("nothing came")
		}
		return Change{}
	}
	j := openJournal(t, dir)
	j.Begin(id, 1, time.Unix(1, 0), "")
	j.addOne(2)
	if c := next(); c.Position.Number != 1 {
		t.Fatalf("%+v", c)
	}
	const n = 3*MaxHeld + 100
	go func() {
		for i := uint64(2); i <= n; i += 100 {
			batch := make([]Change, min(100, n-i+1))
			for k := range batch {
				batch[k] = Change{Kind: SignerAdded, Position: Position{Generation: i}}
			}
			j.Add(batch...)
		}
	}()
	last, resets := uint64(1), 0
	for last < n {
		c := next()
		switch {
		case c.Kind == Reset:
			resets++
			last = c.Position.Number
		case c.Position.Number != last+1:
			t.Fatalf("after %d comes %s", last, c.Position)
		default:
			last++
		}
	}
	t.Logf("%d changes, %d resets", n, resets)
	// The daemon begins again.
	j.Begin("fedcba9876543210", 1, time.Unix(9, 0), "the cache was begun anew")
	if c := next(); c.Kind != Reset || c.Detail != "the cache was begun anew" {
		t.Errorf("%+v", c)
	}
	check(t, j.Close())
	check(t, os.Remove(filepath.Join(dir, FileName)))
	j2 := openJournal(t, dir)
	j2.Begin(id, 7, time.Unix(9, 0), "")
	j2.addOne(8)
	if c := next(); c.Kind != Reset {
		t.Errorf("%+v", c)
	}
	if c := next(); c.Position.Generation != 8 {
		t.Errorf("%+v", c)
	}
}
