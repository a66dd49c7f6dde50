package changes

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

var a, b, c = key("a"), key("b"), key("c")

// What an operator does, and what is told of it.
func TestWhatAnOperatorDoesIsTold(t *testing.T) {
	w := newWorld(t)
	w.trust(a)
	w.tells("signer-added")
	w.put("app", image{name: "1", signers: []trust.Signer{a}}, image{name: "2", signers: []trust.Signer{b}}, image{name: "3"})
	w.tells("signature-trusted app:1 >trusted")
	w.tells()
	w.trust(a, b)
	w.tells("signer-added", "signature-trusted app:2 untrusted>trusted")
	w.trust(b)
	w.tells("signer-removed", "signature-lost app:1 trusted>untrusted signer-removed")
	if c := w.journal.Newest(2)[0]; c.Signer != a.Fingerprint || c.Signatures != 1 {
		t.Errorf("told %+v", c)
	}

	// A second signature neither takes nor gives the image's trust.
	w.put("app", image{name: "1", signers: []trust.Signer{a}}, image{name: "2", signers: []trust.Signer{a, b}}, image{name: "3"})
	w.tells()
	w.trust(a, b)
	w.tells("signer-added", "signature-trusted app:1 untrusted>trusted", "signature-trusted app:2 trusted>trusted")

	// Gone from storage.
	w.put("app", image{name: "2", signers: []trust.Signer{a, b}}, image{name: "3"})
	w.tells("signature-lost app: trusted>")
	w.put("app", image{name: "2"}, image{name: "3"})
	w.tells("signature-lost app:2 trusted>unsigned", "signature-lost app:2 trusted>unsigned")
	w.trust()
	w.tells("signer-removed", "signer-removed")
}

// A repository that cannot be listed takes its trust with it, and gives it back.
func TestUnlistedRepositoryTakesItsTrustWithIt(t *testing.T) {
	w := newWorld(t)
	w.trust(a)
	w.put("app", image{name: "1", signers: []trust.Signer{a}})
	w.look()
	for _, unlisted := range []bool{true, false} {
		_, err := w.store.Commit(store.Batch{Place: "app", Update: &store.PlaceUpdate{Unlisted: &unlisted}})
		check(t, errors.Join(err, w.store.Publish(t.Context())))
		if unlisted {
			w.tells("signature-lost app:1 trusted>unknown io-error")
		} else {
			w.tells("signature-trusted app:1 unknown>trusted")
		}
	}
}

// A change that touches many images is one change, which says where to read on
// (L3).
func TestManyImagesAreOneChange(t *testing.T) {
	w := newWorld(t)
	w.trust(a)
	for r := range 3 {
		var images []image
		for i := range 40 {
			img := image{name: fmt.Sprint(i), signers: []trust.Signer{a}}
			if r == 0 && i < 25 {
				img.signers = append(img.signers, b)
			}
			images = append(images, img)
		}
		w.put(fmt.Sprint("r", r), images...)
	}
	w.tells("signer-added", "signature-trusted 120/120")
	w.trust(a, b)
	list := w.look()
	if len(list) != 2 || list[1].Count != 25 || list[1].Turned != 0 || list[1].Repository != "r0" ||
		list[1].Link != "/api/v1/images?repository=r0&signer="+b.Fingerprint.String() {
		t.Errorf("told %+v", list)
	}
	w.trust(b)
	list = w.look()
	if len(list) != 2 || short(&list[1]) != "signature-lost signer-removed 120/95" || list[1].Link != "/api/v1/images?reason=signer-removed" {
		t.Errorf("told %+v", list)
	}
	w.trust()
	w.tells("signer-removed", "signature-lost signer-removed 25/25")
	var many []trust.Signer
	var images []image
	for i := range 50 {
		many = append(many, key(fmt.Sprint(i)))
		for k := range 3 {
			images = append(images, image{name: fmt.Sprint(i, "-", k), signers: many[i:]})
		}
	}
	w.trust(many...)
	w.tells("signer-added 50/0")
	// By many signers, each of a few images.
	w.put("r4", images...)
	w.tells("signature-trusted 150/150")
	w.trust(many[1:]...)
	if list := w.look(); len(list) != 4 || list[1].Repository != "r4" || list[3].Kind != SignatureLost || list[3].Signer != many[0].Fingerprint {
		t.Errorf("told %+v", list)
	}
}

// Dates end trust without a publication: at their second, once, and also those
// that came while nobody looked.
func TestDatesAreToldWhenTheyCome(t *testing.T) {
	w := newWorld(t)
	w.trust(a, b)
	in := func(d time.Duration) time.Time { return w.now.Add(d) }
	w.put("app", image{name: "10s", signers: []trust.Signer{a}, until: in(10 * time.Second)},
		image{name: "20s", signers: []trust.Signer{a}, until: in(20 * time.Second)},
		image{name: "1h", signers: []trust.Signer{a}, until: in(time.Hour)})
	if n := len(w.look()); n != 5 {
		t.Fatalf("%d changes", n)
	}
	steps := func(d time.Duration, want ...string) {
		t.Helper()
		w.now = w.now.Add(d)
		w.tells(want...)
	}
	steps(time.Second)
	steps(8500 * time.Millisecond)
	steps(500*time.Millisecond, "expired app:10s trusted>expired signature-expired")
	steps(time.Second)
	w.restart(true)
	steps(8 * time.Second)
	w.restart(true)
	steps(time.Minute, "expired app:20s trusted>expired signature-expired")
	w.restart(false) // killed: what was told was told
	steps(time.Minute)
	// What has come meanwhile has its date, too.
	w.put("app2", image{name: "1m", signers: []trust.Signer{b}, until: in(time.Minute)})
	steps(time.Second, "signature-trusted app2:1m >trusted")
	steps(time.Hour, "expired app2:1m trusted>expired signature-expired", "expired app:1h trusted>expired signature-expired")
}

// However many dates there are, what is kept is bounded and none is missed.
func TestManyDates(t *testing.T) {
	w := newWorld(t)
	w.o.maxDates, w.o.dates.most = 64, 64
	w.trust(a)
	const n = 300
	var images []image
	for i := range n {
		images = append(images, image{name: fmt.Sprint(i), signers: []trust.Signer{a}, until: w.now.Add(time.Duration(60+i) * time.Second)})
	}
	for i := range 100 { // one date of many
		images = append(images, image{name: fmt.Sprint("same", i), signers: []trust.Signer{a}, until: w.now.Add(200 * time.Second)})
	}
	w.put("app", images...)
	w.look()
	expired := 0
	for range 50 {
		w.now = w.now.Add(10 * time.Second)
		for _, c := range w.look() {
			if expired += max(1, c.Count); c.Kind != Expired {
				t.Errorf("told %+v", c)
			}
		}
		if len(w.o.dates.at) > 64 {
			t.Fatalf("%d dates are kept", len(w.o.dates.at))
		}
	}
	if expired != n+100 {
		t.Errorf("%d of %d expiries told", expired, n+100)
	}
}

// Answers that cannot be read are told, and that they can be again.
func TestWithdrawnAnswersAreTold(t *testing.T) {
	w := newWorld(t)
	w.trust(a)
	w.put("app", image{name: "1", signers: []trust.Signer{a}})
	w.look()
	current := filepath.Join(w.dir, "published", "CURRENT")
	target := must(os.Readlink(current))(t)
	check(t, os.Remove(current))
	w.tells("withdrawn")
	w.tells()
	check(t, os.Symlink(target, current))
	w.tells("restored")
	w.tells()
}

// Another cache, and a process that was killed before it had told of what was
// published, are a reset, never silence (L2).
func TestWhatCannotBeToldIsAReset(t *testing.T) {
	w := newWorld(t)
	w.trust(a)
	w.put("app", image{name: "1", signers: []trust.Signer{a}})
	w.look()
	w.restart(true)
	w.tells()
	w.trust()
	w.restart(false)
	w.tells("reset")
	w.trust(a)
	w.restart(true)
	w.tells("signer-added", "signature-trusted app:1 untrusted>trusted")

	check(t, w.store.Close())
	check(t, os.RemoveAll(filepath.Join(w.dir, "private")))
	w.store = must(store.Open(w.dir, store.Options{Lease: -1}))(t)
	w.trust(a)
	w.tells("reset")
	w.put("app", image{name: "1", signers: []trust.Signer{a}})
	w.tells("signature-trusted app:1 >trusted")
}

// A daemon that is stopped just after it has published much stops in time: what it
// cannot tell by then is a reset at the next start, not an error (L2).
func TestCloseInTime(t *testing.T) {
	w := newWorld(t)
	w.trust(a)
	var many []image
	for i := range 300 {
		many = append(many, image{name: fmt.Sprint(i), signers: []trust.Signer{a}})
	}
	w.put("first", many...)
	w.o.lastLook = 0
	w.restart(true)
	w.tells("reset")
	w.put("second", many...)
	w.o.lastLook = 0
	w.restart(true)
	w.tells("reset")
	w.restart(true)
	w.tells()
	// Who may sign is told before the images are looked at: that is not all.
	w.trust(b)
	w.o.lastLook = 0
	w.restart(true)
	w.tells("reset")
}

// trusted is what a reader sees: who makes which image trusted.
func (w *world) trusted(at time.Time) map[string]bool {
	w.t.Helper()
	snap := must(w.reader.Snapshot())(w.t)
	defer snap.Close()
	seen := map[string]bool{}
	check(w.t, snap.Compare(nil, at, at, true, func(d *cache.Difference) error {
		for _, s := range d.After {
			if s.IsTrusted {
				seen[d.Repository+"@"+d.Digest.String()+" by "+s.SignerFingerprint.String()] = true
			}
		}
		return nil
	}))
	return seen
}

// counted holds the totals to what a count of everything finds.
func (w *world) counted(when string) {
	w.t.Helper()
	got := w.o.Totals()
	snap := must(w.reader.Snapshot())(w.t)
	defer snap.Close()
	want := cache.NewCounts()
	check(w.t, snap.Compare(nil, w.now, w.now, true, func(d *cache.Difference) error { d.Count(nil, want); return nil }))
	if got == nil || got.Generation != snap.Generation() || !reflect.DeepEqual(got.Counts, want) {
		w.t.Fatalf("%s: the totals are %+v, a count finds %+v", when, got, want)
	}
}

// After a start nothing is counted until everything has been looked at once; who was
// removed by then is told with what rested on it all the same.
func TestTotalsAfterAStart(t *testing.T) {
	w := newWorld(t)
	w.trust(a, b)
	w.put("r", image{name: "1", signers: []trust.Signer{a}}, image{name: "2", signers: []trust.Signer{a, b}}, image{name: "3"})
	w.look()
	w.counted("at first")
	if n := w.o.Totals().Signers[a.ID()]; n != 2 {
		t.Errorf("%d signatures rest on a signer", n)
	}
	w.restart(true)
	if got := w.o.Totals(); got != nil {
		t.Errorf("counted at once: %+v", got)
	}
	w.trust(b)
	for _, c := range w.look() {
		if c.Kind == SignerRemoved && c.Signatures != 2 {
			t.Errorf("%+v", c)
		}
	}
	if got := w.o.Totals(); got != nil {
		t.Errorf("counted by a publication: %+v", got)
	}
	w.now = w.now.Add(time.Second)
	w.look()
	w.counted("after a second")
}

// Whoever has read everything once and follows knows what readers see, whatever
// happens: random histories of signers, images, dates, stops and kills. A kill
// may cost a reset, and nothing else does.
func TestTortureFollowerKnows(t *testing.T) {
	turns := 100
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		turns = 4_000
	}
	r := rand.New(rand.NewPCG(3, 4))
	w := newWorld(t)
	w.trust()
	w.look()
	follower := map[string]bool{}
	all := []trust.Signer{a, b, c}
	kinds := map[Kind]int{}
	for turn := range turns {
		killed := false
		for range 1 + r.IntN(3) {
			switch r.IntN(8) {
			case 0, 1:
				w.trust(all[r.IntN(4):]...)
			case 2:
				w.now = w.now.Add(time.Duration(r.IntN(90)) * time.Second)
			case 3:
				w.restart(true)
			case 4:
				w.restart(false)
				killed = true
			default:
				var images []image
				for i := range r.IntN(4) {
					img := image{name: fmt.Sprint(i)}
					for _, s := range all {
						if r.IntN(2) == 0 {
							img.signers = append(img.signers, s)
						}
					}
					if r.IntN(2) == 0 {
						img.until = time.Unix(w.now.Unix()/60*60+int64(r.IntN(5))*60, 0)
					}
					images = append(images, img)
				}
				w.put(fmt.Sprint("r", r.IntN(2)), images...)
			}
		}
		w.now = w.now.Add(time.Second) // dates are told at the next second
		want := w.trusted(w.now)
		again := false // after a reset: what has been read may be told
		for _, c := range w.look() {
			kinds[c.Kind]++
			name := c.Repository + "@" + c.Digest.String() + " by " + c.Signer.String()
			switch c.Kind {
			case SignatureTrusted:
				if follower[name] && !again {
					t.Errorf("turn %d: %s is told twice", turn, name)
				}
				follower[name] = true
			case SignatureLost, Expired:
				if !follower[name] && !again {
					t.Errorf("turn %d: %s is lost, and was not told", turn, name)
				}
				delete(follower, name)
			case Reset:
				if !killed {
					t.Errorf("turn %d: a reset that no kill explains", turn)
				}
				follower, again = maps.Clone(want), true
			}
		}
		w.counted(fmt.Sprint("turn ", turn))
		if !maps.Equal(follower, want) {
			t.Fatalf("turn %d: the follower believes\n%s\nreaders see\n%s", turn, list(follower), list(want))
		}
	}
	t.Logf("%d turns: %v", turns, kinds)
	for _, k := range []Kind{SignerAdded, SignerRemoved, SignatureTrusted, SignatureLost, Expired, Reset} {
		if kinds[k] == 0 {
			t.Errorf("no change was %s: the test tries too little", k)
		}
	}
}

func list(m map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(m)), "\n") }

// Each image that is no longer trusted has a line in the log; with very many, a total.
func TestLossesAreLogged(t *testing.T) {
	w := newWorld(t)
	lines := func() (lines []string) {
		for line := range strings.Lines(w.log.String()) {
			_, line, _ = strings.Cut(line, "level=")
			lines = append(lines, strings.TrimSpace(line))
		}
		w.log.Reset()
		return lines
	}
	w.trust(a, b)
	w.put("app", image{name: "1", signers: []trust.Signer{a, b}}, image{name: "2", signers: []trust.Signer{a}})
	w.look()
	if got := lines(); len(got) != 0 {
		t.Errorf("logged %q", got)
	}
	w.trust(b) // 1 is trusted still
	w.look()
	if got := lines(); len(got) != 1 || !strings.HasPrefix(got[0], `WARN msg="image is no longer trusted" repository=app tag=2 digest=`+digest("app2").String()+" state=untrusted reason=signer-removed tool=cosign signer="+a.Fingerprint.String()) {
		t.Errorf("logged %q", got)
	}
	w.put("app") // gone
	w.look()
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], "repository=app digest="+digest("app1").String()+` state="gone from storage"`) {
		t.Errorf("logged %q", got)
	}
	var images []image
	for i := range 40 {
		images = append(images, image{name: fmt.Sprint(i), signers: []trust.Signer{b}})
	}
	w.put("many", images...)
	w.look()
	w.trust()
	w.look()
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], `"images are no longer trusted"`) || !strings.Contains(got[0], "images=40") {
		t.Errorf("logged %q", got)
	}
	// One by one, faster than anybody reads.
	w.trust(b)
	w.look()
	lines()
	named, more := 0, 0
	for i := range lossesBurst + 20 {
		w.put("fast", image{name: fmt.Sprint(i), signers: []trust.Signer{b}})
		w.look()
	}
	w.now = w.now.Add(time.Minute)
	w.put("fast")
	w.look()
	for _, line := range lines() {
		switch {
		case strings.Contains(line, `"image is no longer trusted"`):
			named++
		case strings.Contains(line, `"more images are no longer trusted`):
			var n int
			_, after, _ := strings.Cut(line, "images=")
			if _, err := fmt.Sscan(after, &n); err != nil {
				t.Fatal(err)
			}
			more += n
		}
	}
	if named < lossesBurst-5 || named > lossesBurst || named+more != lossesBurst+20 {
		t.Errorf("%d named, %d more", named, more)
	}
}
