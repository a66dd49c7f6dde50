package scheduler

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// A repository that comes with many signatures which are known from elsewhere is read in
// turns: what has not been read here is pending, not trusted, and in the end all is.
func TestWhatIsKnownIsReadInTurns(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	const n = 3*turnSize + 5
	var images []signtest.Image
	w.st.Batch(func() {
		for i := range n {
			img := w.st.Content("a", fmt.Sprint("t", i), fmt.Sprint(i))
			w.st.SignSimple(img, k, simple)
			images = append(images, img)
		}
	})
	w.scan()
	w.copyOf("a", "copy", nil)
	// One of the last is damaged there.
	bad := images[n-1]
	bad.Repo = "copy"
	if err := os.WriteFile(w.st.BlobPath("copy", bad.Descriptor), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := w.scheduler()
	if err := s.reloadTrust(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.followTrust(); err != nil {
		t.Fatal(err)
	}
	r, err := s.scanTurn(t.Context(), "copy", &work{scan: true})
	if err != nil {
		t.Fatal(err)
	}
	if read := s.Work().Reread; read > turnSize {
		t.Errorf("%d signatures read in one turn", read)
	}
	r.item = item{repository: "copy"}
	if _, err := s.commit([]result{r}); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	pending := 0
	for _, img := range images {
		img.Repo = "copy"
		switch got := w.image(img); {
		case got.State() == "pending" && got.Reason() == trust.New:
			pending++
		case got.State() == "trusted" && img.Trust() != bad.Trust():
		case img.Trust() != bad.Trust():
			t.Errorf("%s reads %s (%s)", img.Trust(), got.State(), got.Reason())
		}
	}
	if pending < n-turnSize-1 {
		t.Errorf("%d pending after one turn", pending)
	}
	if work := w.scan(); work.Calls != 0 {
		t.Errorf("%d verifications of what is known", work.Calls)
	}
	for _, img := range images {
		img.Repo = "copy"
		if want := "trusted"; img.Trust() != bad.Trust() {
			w.want(img, want)
		}
	}
	w.reason(bad, trust.DigestMismatch)
}

// One image with more signatures than a turn looks at is settled, retried and re-read to
// its end, each signature once.
func TestOneImageOfManySignatures(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("a", "1", "x")
	const n = 2*turnSize + 9
	w.st.Batch(func() {
		for range n {
			w.st.SignBundle(img, k, signtest.CosignOptions{})
		}
	})
	work := w.scan()
	if got := len(w.image(img).SignatureInfo); got != n || work.Verified != n {
		t.Errorf("%d signatures, %d verified", got, work.Verified)
	}
	w.want(img, "trusted")
	if work = w.scan(); work.Reread != n || work.Verified != 0 {
		t.Errorf("%d read again, %d verified", work.Reread, work.Verified)
	}
	path := w.manifestPath(img)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.scan()
	w.reason(img, trust.BlobMissing)
	if a := w.image(img); a.Statuses()[trust.Unknown] != n {
		t.Errorf("statuses %v", a.Statuses())
	}
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
	w.scan()
	if a := w.image(img); a.Statuses()[trust.Trusted] != n {
		t.Errorf("statuses %v", a.Statuses())
	}
}

// A scan that takes longer than a turn may is begun again as a long one, with the same
// answers, and is an ordinary one again once it is quick.
func TestAScanThatTakesLong(t *testing.T) {
	w := newWorld(t)
	key := signtest.NewKey(signtest.P256)
	w.st.TrustKey("key.pub", key)
	img := w.st.Image("repo", "1")
	w.st.SignSimple(img, key, signtest.CosignOptions{})
	pass := func(scanTime time.Duration, scans int64, long bool) {
		t.Helper()
		s := w.scheduler()
		s.scanTime = scanTime
		s.agenda.took(repo("repo"), !long) // as if it had been otherwise before
		if err := s.Scan(context.Background(), false); err != nil {
			t.Fatal(err)
		}
		if n := s.Work(); n.Scanned != scans || n.Errors != 0 {
			t.Errorf("%+v, want %d scans", n, scans)
		}
		if s.agenda.long[repo("repo")] != long {
			t.Errorf("long %v, want %v", !long, long)
		}
		w.want(img, "trusted")
	}
	pass(time.Nanosecond, 2, true)
	pass(time.Hour, 1, false)
}

// Rows and references of which nothing is due cost time too: when that of a turn is over,
// the next one goes on where it ended.
func TestAWalkThroughRowsEndsInTime(t *testing.T) {
	w := newWorld(t)
	s := w.scheduler()
	const n = 2*rowsAtOnce + 9
	rows := make([]store.Row, n)
	for i := range rows {
		rows[i] = store.Row{Digest: trust.Digest(sha256.Sum256(fmt.Append(nil, "image", i))), Present: true}
	}
	if _, err := w.store.Commit(store.Batch{Place: "app", Rows: rows}); err != nil {
		t.Fatal(err)
	}
	over := func() *visit {
		return &visit{examiner: &s.examiner, opened: opened{name: "app"}, left: &allowance{left: turnSize}}
	}
	var at place
	seen := map[trust.Digest]bool{}
	for done := false; !done; {
		visited := 0
		var err error
		done, err = s.eachRow(over(), &at, func(row *store.Row) (bool, error) {
			visited++
			seen[row.Digest] = true
			return false, nil
		})
		if err != nil || visited > 1 { // the first is always allowed
			t.Fatalf("a turn went through %d rows, %v", visited, err)
		}
	}
	if len(seen) != n {
		t.Errorf("%d rows", len(seen))
	}

	row := store.Row{Digest: trust.Digest(sha256.Sum256([]byte("signed")))}
	for i := range 2*looksAtOnce + 9 {
		row.References = append(row.References, store.Reference{Digest: trust.Digest(sha256.Sum256(fmt.Append(nil, i)))})
	}
	slices.SortFunc(row.References, func(a, b store.Reference) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	looks := 0
	at = place{}
	for more := true; more; {
		v, before := over(), looks
		v.at = at
		var err error
		more, err = v.references(&row, func(*store.Reference) (bool, error) { looks++; return false, nil })
		if at = v.at; err != nil || looks-before > looksAtOnce {
			t.Fatalf("a turn went through %d references, %v", looks-before, err)
		}
	}
	if looks != len(row.References) {
		t.Errorf("%d of %d references were looked at", looks, len(row.References))
	}
}

// A pass over all of storage is marked in transactions of bounded size, each repository in
// one of them, and what is remembered of the pass comes last.
func TestPassesAreMarkedInParts(t *testing.T) {
	w := newWorld(t)
	s := w.scheduler()
	var places []store.Batch
	for i := range 2*markAtOnce + 5 {
		places = append(places, store.Batch{Place: fmt.Sprintf("r%05d", i), Update: &store.PlaceUpdate{}})
	}
	if _, err := w.store.Commit(places...); err != nil {
		t.Fatal(err)
	}
	before, err := w.store.Sequence()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.resume(); err != nil { // of an epoch that is not known yet
		t.Fatal(err)
	}
	after, err := w.store.Sequence()
	if err != nil || after-before != 4 {
		t.Errorf("%d transactions, %v", after-before, err)
	}
	known, err := w.store.Places()
	if err != nil || len(known) != len(places) || s.agenda.size() != len(places) {
		t.Fatalf("%d places, %d queued, %v", len(known), s.agenda.size(), err)
	}
	for _, p := range known {
		if !p.Unsettled {
			t.Fatalf("%s is not marked", p.Name)
		}
	}
	if err := s.resume(); err != nil { // it is known now
		t.Fatal(err)
	}
	if again, err := w.store.Sequence(); err != nil || again != after {
		t.Errorf("%d transactions more, %v", again-after, err)
	}
}
