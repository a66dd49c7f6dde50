package changes

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/trust"
)

var quiet = slog.New(slog.DiscardHandler)

// keep gives a journal a history.
func keep(t *testing.T, j *Journal, dir string, days int) *History {
	t.Helper()
	h := OpenHistory(dir, days, quiet)
	j.Keep(h)
	return h
}

// told reads the whole history, by details.
func told(t *testing.T, dir string, q *Query) (details []string) {
	t.Helper()
	_, end, err := ReadHistory(t.Context(), dir, q, Place{}, 0, func(c *Change, _ Place) error {
		details = append(details, c.Detail)
		return nil
	})
	if err != nil || !end {
		t.Fatalf("end %t, %v", end, err)
	}
	return details
}

func on(day, generation int, detail string) Change {
	return Change{Kind: SignerAdded, Position: Position{Generation: uint64(generation)}, Detail: detail,
		Time: time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, day).Add(time.Hour)}
}

// What is told is kept for its days, across restarts, each change once, also when a write was
// cut off, when the journal is lost, and when a cache is begun anew.
func TestHistory(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	keep(t, j, dir, 3)
	j.Begin(id, 1, time.Now(), "")
	j.Add(on(-4, 2, "too old"), on(-2, 3, "a"), on(-2, 3, "b"))
	j.Add(on(-1, 4, "c"), on(0, 5, "d"))
	want := func(step string, details ...string) {
		t.Helper()
		if got := told(t, dir, &Query{}); !slices.Equal(got, details) {
			t.Errorf("%s: %q, want %q", step, got, details)
		}
	}
	want("as it comes", "a", "b", "c", "d")
	for turn := range 2 {
		check(t, j.Close())
		j = openJournal(t, dir)
		keep(t, j, dir, 3)
		want(fmt.Sprint("restart ", turn), "a", "b", "c", "d")
	}
	// A line was cut off, and with it what came after.
	check(t, j.Close())
	today := filepath.Join(dir, HistoryName, on(0, 0, "").Time.Format(dayLayout)+daySuffix)
	b := must(os.ReadFile(today))(t)
	check(t, os.WriteFile(today, b[:len(b)-10], 0o640))
	want("cut off", "a", "b", "c")
	j = openJournal(t, dir)
	keep(t, j, dir, 3)
	want("mended from the journal", "a", "b", "c", "d")
	// The journal is lost, and its numbers begin again.
	check(t, j.Close())
	check(t, os.Remove(filepath.Join(dir, FileName)))
	j = openJournal(t, dir)
	keep(t, j, dir, 3)
	j.Begin(id, 6, time.Now(), "")
	j.Add(on(0, 7, "e"))
	want("journal lost", "a", "b", "c", "d", "e")
	j.Begin("fedcba9876543210", 1, on(0, 0, "").Time, "the cache was begun anew")
	j.Add(on(0, 2, "f"))
	want("another cache", "a", "b", "c", "d", "e", "the cache was begun anew", "f")
	if got := told(t, dir, &Query{Since: on(0, 0, "").Time}); !slices.Equal(got, []string{"d", "e", "the cache was begun anew", "f"}) {
		t.Errorf("of today: %q", got)
	}
	// Fewer days are kept from now on; none; and then days again.
	check(t, j.Close())
	j = openJournal(t, dir)
	keep(t, j, dir, 1)
	want("one day", "d", "e", "the cache was begun anew", "f")
	check(t, j.Close())
	j = openJournal(t, dir)
	keep(t, j, dir, 0)
	j.Add(on(0, 3, "g"))
	want("none")
}

// A day is bounded, and all are; what is not kept is said.
func TestHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	h := OpenHistory(dir, 90, quiet)
	h.most, h.mostOf = 4*maxLine, 2*maxLine
	j.Keep(h)
	j.Begin(id, 1, time.Now(), "")
	long := strings.Repeat("x", 1000)
	for day := -4; day <= 0; day++ {
		for n := range 300 {
			j.Add(on(day, 10000+300*day+n, fmt.Sprint(day, long)))
		}
	}
	total := int64(0)
	days := must(listDays(h.dir))(t)
	for _, day := range days {
		fi := must(os.Stat(filepath.Join(h.dir, day+daySuffix)))(t)
		if total += fi.Size(); fi.Size() > h.mostOf+1000 {
			t.Errorf("%s has %d bytes", day, fi.Size())
		}
	}
	resets, of := 0, map[string]int{}
	_, _, err := ReadHistory(t.Context(), dir, &Query{}, Place{}, 0, func(c *Change, _ Place) error {
		if of[c.Time.Format(dayLayout)]++; c.Kind == Reset {
			resets++
		}
		return nil
	})
	if err != nil || total > h.most+h.mostOf || len(days) > 3 || resets != len(days) {
		t.Errorf("%d bytes in %v, %d say that there were more: %v, %v", total, days, resets, of, err)
	}
	// A day that is full stays full after a restart, and says so once.
	check(t, j.Close())
	j = openJournal(t, dir)
	again := OpenHistory(dir, 90, quiet)
	again.most, again.mostOf = h.most, h.mostOf
	j.Keep(again)
	j.Add(on(0, 50000, "more"))
	n := 0
	for _, d := range told(t, dir, &Query{Since: on(0, 0, "").Time}) {
		if strings.Contains(d, "is not kept") {
			n++
		} else if d == "more" {
			t.Error("more is kept")
		}
	}
	if n != 1 {
		t.Errorf("it is said %d times that the day is full", n)
	}
}

// A history that cannot be written is written when it can be, from what the journal holds.
func TestHistoryAfterAFullDisk(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, HistoryName)
	check(t, os.WriteFile(blocked, nil, 0o600)) // where the directory belongs
	j := openJournal(t, dir)
	keep(t, j, dir, 90)
	j.Begin(id, 1, time.Now(), "")
	j.Add(on(0, 2, "a"))
	j.Add(on(0, 3, "b"))
	check(t, os.Remove(blocked))
	j.Add(on(0, 4, "c"))
	if got := told(t, dir, &Query{}); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("%q", got)
	}
}

// Pages together are the whole, whatever a page may read; what is no change is passed over.
func TestHistoryInPages(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	h := keep(t, j, dir, 90)
	j.Begin(id, 1, time.Now(), "")
	var want []string
	for day := -2; day <= 0; day++ {
		for n := range 20 {
			want = append(want, fmt.Sprint(day, "/", n))
			j.Add(on(day, 100+20*day+n, want[len(want)-1]))
		}
		f := must(os.OpenFile(filepath.Join(h.dir, on(day, 0, "").Time.Format(dayLayout)+daySuffix), os.O_APPEND|os.O_WRONLY, 0))(t)
		_, err := f.WriteString("no change\n{}\n" + strings.Repeat("x", 2*maxLine) + "\n")
		check(t, err)
		fi := must(f.Stat())(t)
		h.size = fi.Size()
		check(t, f.Close())
	}
	for _, most := range []int64{1, 100, 1000, 1 << 20} {
		var got []string
		at, end := Place{}, false
		for turn := 0; !end && turn < 1000; turn++ {
			var err error
			if at, end, err = ReadHistory(t.Context(), dir, &Query{}, at, most, func(c *Change, _ Place) error {
				got = append(got, c.Detail)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			at = must(ParsePlace(at.String()))(t)
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d bytes: %q", most, got)
		}
	}
	for _, s := range []string{"x", "2026-01-01", "2026-01-01.", "2026-01-01.-1", "2026-01-01.01", "2026-13-01.0", "../x.0"} {
		if p, err := ParsePlace(s); err == nil {
			t.Errorf("%q is %v", s, p)
		}
	}
}

// A question about an image gets what names it, and what stands for many and may be about
// it; one about a signer what it did.
func TestHistoryQueries(t *testing.T) {
	d, other := trust.SumOf([]byte("d")), trust.SumOf([]byte("other"))
	key, another := trust.SumOf([]byte("key")), trust.SumOf([]byte("another"))
	all := map[string]Change{
		"image":             {Kind: SignatureLost, Repository: "a", Digest: d, Signer: key},
		"tag, moved on":     {Kind: SignatureLost, Repository: "a", Tag: "1", Digest: other, Signer: key},
		"another image":     {Kind: SignatureLost, Repository: "a", Digest: other, Signer: another},
		"another's":         {Kind: SignatureLost, Repository: "b", Digest: d, Signer: another},
		"many here":         {Kind: SignatureLost, Repository: "a", Count: 11, Signer: another},
		"many by the key":   {Kind: SignatureLost, Count: 11, Signer: key},
		"many by another":   {Kind: SignatureLost, Count: 11, Signer: another},
		"many by anybody":   {Kind: SignatureTrusted, Count: 1000},
		"the key":           {Kind: SignerRemoved, Signer: key},
		"another key":       {Kind: SignerAdded, Signer: another},
		"many keys":         {Kind: SignerRemoved, Count: 100},
		"policy":            {Kind: PolicyChanged},
		"reset":             {Kind: Reset},
		"nothing published": {Kind: Withdrawn},
	}
	always := []string{"many by anybody", "many keys", "nothing published", "policy", "reset"}
	for name, c := range map[string]struct {
		q    Query
		also []string
	}{
		"by digest":     {Query{Repository: "a", Digest: d, Signers: []trust.Digest{key}}, []string{"image", "many by the key", "many here", "the key"}},
		"by tag":        {Query{Repository: "a", Tag: "1", Digest: d, Signers: []trust.Digest{key}}, []string{"image", "many by the key", "many here", "tag, moved on", "the key"}},
		"of nobody":     {Query{Repository: "a", Digest: d}, []string{"image", "many here"}},
		"a repository":  {Query{Repository: "b"}, []string{"another's", "many by another", "many by the key"}},
		"by signer":     {Query{Signers: []trust.Digest{key}}, []string{"image", "many by the key", "tag, moved on", "the key"}},
		"image, signer": {Query{Repository: "b", Digest: d, Signers: []trust.Digest{another}}, []string{"another key", "another's", "many by another"}},
	} {
		var got []string
		for what, change := range all {
			change.Time = time.Now()
			if c.q.Wants(&change) {
				got = append(got, what)
			}
		}
		want := append(slices.Clone(always), c.also...)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if old := (&Change{Time: time.Now().Add(-time.Hour), Kind: Reset}); (&Query{Since: time.Now()}).Wants(old) {
		t.Error("what is too old is wanted")
	}
}
