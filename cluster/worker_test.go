package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"trust-worker/cache/store"
	"trust-worker/internal/natstest"
	"trust-worker/trust"
)

// ask asks until a fact is known.
func ask(t *testing.T, w *Worker, f *store.Shared) *store.Shared {
	t.Helper()
	var found *store.Shared
	eventually(t, "the fact is known", func() bool {
		found = w.Ask(t.Context(), []store.FactKey{f.Key(), aFact(200).Key()})[f.Key()]
		return found != nil
	})
	return found
}

func TestFactsAreShared(t *testing.T) {
	url, k := natstest.InProcess(t), key(t, 1)
	a, heardA := join(t, url, "a", k)
	b, heardB := join(t, url, "b", k)
	together(t, a, b)
	a.Tell(aFact(1))
	eventually(t, "b hears of the image", func() bool {
		n := 0
		heardB.note(func() { n = len(heardB.facts) })
		return n == 1
	})
	if got := ask(t, b, aFact(1)); got.Node != "a" || got.Subject != aFact(1).Subject || len(got.Verdicts) != 1 || got.Hints[0] != aFact(1).Hints[0] {
		t.Errorf("b knows %+v", got)
	}
	heardA.note(func() {
		if len(heardA.facts) != 0 {
			t.Error("a hears what it has told itself")
		}
	})
	// One who comes later has all of it from the stream.
	c, _ := join(t, url, "c", k)
	together(t, a, b, c)
	if got := ask(t, c, aFact(1)); got.Node != "a" {
		t.Errorf("c knows %+v", got)
	}
	if st := a.Status(); st.Given != 1 || st.Lost != 0 {
		t.Errorf("a has given %d, lost %d: %s", st.Given, st.Lost, st.LostWhy)
	}
	// Both verify the same: each counts it.
	b.Tell(aFact(1))
	eventually(t, "double work is counted", func() bool { return a.Status().Double == 1 && b.Status().Double == 1 })
}

func TestAskTellsMany(t *testing.T) {
	url, k := natstest.InProcess(t), key(t, 1)
	a, _ := join(t, url, "a", k)
	together(t, a)
	var keys []store.FactKey
	const many = 2*askAtOnce + 10
	for i := range many {
		f := aFact(1)
		f.Signature = trust.SumOf([]byte{byte(i), byte(i >> 8)})
		keys = append(keys, f.Key())
		a.Tell(f)
	}
	eventually(t, "all are told", func() bool { return a.Status().Given == many })
	b, _ := join(t, url, "b", k)
	together(t, a, b)
	eventually(t, "all are known", func() bool { return len(b.Ask(t.Context(), keys)) == many })
	if st := a.Status(); st.Lost != 0 {
		t.Errorf("%d lost: %s", st.Lost, st.LostWhy)
	}
}

// What no holder of the key has sealed for that subject, what is of another epoch and what
// is cut is refused and counted, wherever it comes from.
func TestWhatIsRefused(t *testing.T) {
	url, k := natstest.InProcess(t), key(t, 1)
	a, heardA := join(t, url, "a", k)
	together(t, a)
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	seal := func(k Key, subject string, f *store.Shared) []byte {
		f.Node, f.At = "z", time.Now()
		b, err := f.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return k.seal(subject, b)
	}
	foreign := aFact(3)
	foreign.Epoch = epoch + 1
	older := aFact(3)
	older.Verdicts[0].Epoch = epoch - 1
	subject := func(n byte) string { return a.factSubject(aFact(n).Key()) }
	good := seal(k, subject(3), aFact(3))
	flipped := []byte(string(good))
	flipped[len(flipped)-1] ^= 1
	noise := append(k.sum([]byte("message"), []byte(subject(3)), []byte("noise")), "noise"...)
	for _, c := range []struct {
		name, reason string
		message      []byte
	}{
		{"nothing", refusedSeal, nil},
		{"truncated", refusedSeal, good[:len(good)-1]},
		{"only its sum", refusedSeal, good[:32]},
		{"poisoned", refusedSeal, flipped},
		{"of another cluster", refusedSeal, seal(key(t, 9), subject(3), aFact(3))},
		{"replayed for another image", refusedSeal, seal(k, subject(4), aFact(4))},
		{"about another image", refusedSubject, seal(k, subject(3), aFact(4))},
		{"of another epoch", refusedEpoch, seal(k, subject(3), foreign)},
		{"with a verdict of another epoch", refusedEpoch, seal(k, subject(3), older)},
		{"in another form", refusedForm, noise},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := a.Status().Refused[c.reason]
			if err := nc.Publish(subject(3), c.message); err != nil {
				t.Fatal(err)
			}
			// Once as it arrives, and each time that the stream gives it as an answer.
			eventually(t, "it is refused as "+c.reason, func() bool { return a.Status().Refused[c.reason] > before })
			eventually(t, "and from the stream", func() bool {
				if a.Ask(t.Context(), []store.FactKey{aFact(3).Key()})[aFact(3).Key()] != nil {
					t.Fatal("it is believed")
				}
				return a.Status().Refused[c.reason] > before+1
			})
		})
	}
	heardA.note(func() {
		if len(heardA.facts) > 0 {
			t.Error("somebody was told to look")
		}
	})
	// The same, whole and in its place, is taken.
	if err := nc.Publish(subject(3), good); err != nil {
		t.Fatal(err)
	}
	ask(t, a, aFact(3))
}

func TestHints(t *testing.T) {
	url, k := natstest.InProcess(t), key(t, 1)
	a, heardA := join(t, url, "a", k)
	b, heardB := join(t, url, "b", k, func(c *Config) {
		c.Events = "zot.events"
		c.ReadEvent = func(body []byte, _ map[string][]string) (string, error) { return string(body), nil }
	})
	together(t, a, b)
	a.HintTrust()
	a.HintRepository("team/app", true)
	eventually(t, "b is told", func() bool { return heardB.heard("team/app") })
	trusts := func() (n int) { heardB.note(func() { n = heardB.trusts }); return n }
	eventually(t, "of trust, too", func() bool { return trusts() == 1 })
	if heardA.heard("team/app") {
		t.Error("a is told what it has told")
	}
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	kept := make(chan *nats.Msg, 10)
	if _, err := nc.ChanSubscribe(a.prefix+"hint.trust", kept); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	a.HintTrust()
	old := <-kept
	eventually(t, "of trust again", func() bool { return trusts() == 2 })
	if err := nc.Publish(old.Subject, old.Data); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what is kept and sent again is refused", func() bool { return b.Status().Refused[refusedOld] == 1 })
	for _, forged := range []string{"trust", "repository"} {
		if err := nc.Publish(a.prefix+"hint."+forged, key(t, 9).seal(a.prefix+"hint."+forged, []byte(`{"Node":"z","Repositories":["forged"]}`))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "forged hints are counted", func() bool { return b.Status().Refused[refusedSeal] == 2 })
	for _, name := range []string{"../etc", "zot/app"} {
		if err := nc.Publish("zot.events", []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the registry's event is a hint", func() bool { return heardB.heard("zot/app") })
	if heardB.heard("forged") || heardB.heard("../etc") || b.Status().Events != 1 {
		t.Errorf("b was told of what it must not be: %v", heardB.names)
	}
}

// Without servers nobody waits and nobody is asked; when they are there all goes on, also if
// they have lost what they had.
func TestServersGoAndCome(t *testing.T) {
	servers, k := natstest.Servers(t, 1), key(t, 1)
	a, _ := join(t, servers[0].URL, "a", k)
	b, _ := join(t, servers[0].URL, "b", k)
	together(t, a, b)
	theirs := "r"
	for n := 0; a.Rank(theirs) == 0; n++ {
		theirs += "r"
	}
	if a.Wait(theirs, time.Now(), true) == 0 || b.Wait(theirs, time.Now(), true) != 0 {
		t.Error("it is nobody's turn, or everybody's")
	}
	servers[0].Kill()
	eventually(t, "a notices", func() bool { return !a.online() })
	if a.Wait(theirs, time.Now(), true) != 0 || a.Rank(theirs) != 0 {
		t.Error("a waits for one whom it cannot hear")
	}
	if known := a.Ask(context.Background(), []store.FactKey{aFact(1).Key()}); len(known) != 0 {
		t.Errorf("known: %v", known)
	}
	a.Tell(aFact(1)) // nobody to tell: it is kept
	if st := a.Status(); st.Connected || st.Problem == "" {
		t.Errorf("status %+v", st)
	}
	if err := os.RemoveAll(servers[0].Store()); err != nil {
		t.Fatal(err)
	}
	servers[0].Start(t)
	together(t, a, b)
	ask(t, b, aFact(1))
	eventually(t, "facts are told again", func() bool {
		a.Tell(aFact(2))
		return b.Ask(t.Context(), []store.FactKey{aFact(2).Key()})[aFact(2).Key()] != nil
	})
}

// The stream may be deleted while all are there; that others hear what is published keeps
// nobody from noticing.
func TestTheStreamIsMadeAgain(t *testing.T) {
	url, k := natstest.InProcess(t), key(t, 1)
	a, _ := join(t, url, "a", k)
	b, _ := join(t, url, "b", k)
	together(t, a, b)
	if err := a.link.Load().js.DeleteStream(t.Context(), a.stream); err != nil {
		t.Fatal(err)
	}
	js := a.link.Load().js
	var stream jetstream.Stream
	eventually(t, "it is made again", func() (made bool) {
		a.Tell(aFact(2)) // or the next look finds it
		var err error
		stream, err = js.Stream(t.Context(), a.stream)
		return err == nil
	})
	eventually(t, "facts are stored again", func() bool {
		a.Tell(aFact(2))
		b.kept.Purge()
		return b.Ask(t.Context(), []store.FactKey{aFact(2).Key()})[aFact(2).Key()] != nil
	})
	// One that is altered is named, and used again when it is as it was.
	was := stream.CachedInfo().Config
	altered := was
	altered.NoAck = true
	if _, err := js.UpdateStream(t.Context(), altered); err != nil {
		t.Fatal(err)
	}
	a.checkStream()
	eventually(t, "it is named", func() bool { return strings.Contains(a.Status().StreamProblem, "acknowledgements") })
	theirs := "r"
	for n := 0; a.Rank(theirs) == 0; n++ {
		theirs += "r"
	}
	if a.Wait(theirs, time.Now(), true) != 0 {
		t.Error("a waits for facts that cannot be told")
	}
	if _, err := js.UpdateStream(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is used again", func() bool { return a.Status().StreamProblem == "" && a.Wait(theirs, time.Now(), true) > 0 })
}

// A server that hangs holds up nobody but the goroutines that talk to it.
func TestAFrozenLine(t *testing.T) {
	servers, k := natstest.Servers(t, 1), key(t, 1)
	a, _ := join(t, servers[0].URL, "a", k)
	b, _ := join(t, servers[0].URL, "b", k)
	together(t, a, b)
	for attempt := 1; ; attempt++ {
		servers[0].Signal(t, syscall.SIGSTOP)
		for range 300 { // more than the socket takes
			a.tell <- telling{subject: a.prefix + "fact.large", message: make([]byte, 60<<10)}
		}
		for left := 0; left == 0 || left != len(a.tell); { // until the line takes no more
			left = len(a.tell)
			time.Sleep(20 * time.Millisecond)
		}
		// Whoever waited for the connection's lock would have it when the write has failed, and
		// the connection with it.
		for range 100 {
			a.HintTrust()
			a.HintRepository("team/app", true)
			a.Wait("team/app", time.Now(), true)
			a.Rank("team/app")
			a.Tell(aFact(2))
		}
		nobody := a.Status().Connected
		a.Ask(t.Context(), []store.FactKey{aFact(3).Key()})
		eventually(t, "it is noticed", func() bool { return !a.Status().Connected })
		servers[0].Signal(t, syscall.SIGCONT)
		if nobody {
			break
		}
		if attempt == 5 { // once or twice the machine may have stopped for as long
			t.Fatal("somebody has waited for the network")
		}
		together(t, a, b)
	}
}

// Servers that refuse the credentials for a while are tried again.
func TestRefusedCredentials(t *testing.T) {
	servers, k := natstest.Servers(t, 1), key(t, 1)
	a, _ := join(t, servers[0].URL, "a", k)
	b, _ := join(t, servers[0].URL, "b", k)
	together(t, a, b)
	servers[0].Kill()
	servers[0].Password("another")
	servers[0].Start(t)
	eventually(t, "it is said", func() bool { return strings.Contains(a.Status().Problem, "uthorization") })
	before := a.Status().Failures
	eventually(t, "and tried again and again", func() bool { return a.Status().Failures >= before+4 })
	servers[0].Kill()
	servers[0].Password("")
	servers[0].Start(t)
	together(t, a, b)
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	k, err := ReadKey(write(good + "\n"))
	if err != nil || k.secret[31] != 31 {
		t.Errorf("%v: %v", k, err)
	}
	if id := k.ID(); len(id) != 16 || id == key(t, 2).ID() {
		t.Errorf("id %q", id)
	}
	for _, bad := range []string{"", "AAEC", good + good, strings.Repeat("A", 43) + "=", "not base64 at all", strings.Repeat("A", 1000)} {
		if _, err := ReadKey(write(bad)); err == nil || !strings.Contains(err.Error(), "head -c 32 /dev/urandom | base64 > cluster.key") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := ReadKey(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there")
	}
}

func TestOldServers(t *testing.T) {
	for version, old := range map[string]bool{"2.10.29": true, "1.4.1": true, "2.11.0": false, "2.15.3": false, "3.0.0-RC.1": false, "": false, "dev": false} {
		if tooOld(version) != old {
			t.Errorf("%q: too old is %v", version, !old)
		}
	}
}

func TestConfig(t *testing.T) {
	good := Config{URLs: []string{"nats://user:secret@127.0.0.1:1"}, Key: key(t, 1), Node: "some-host"}
	w, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if st := w.Status(); st.Node != "some-host" || NodeName("some.host") != "some-host" || strings.Contains(st.Servers[0], "secret") || strings.Contains(st.Servers[0], "user") {
		t.Errorf("%+v", st)
	}
	short := good
	short.URLs = []string{"127.0.0.1:4222"}
	if w, err := New(short); err != nil || w.Status().Servers[0] != "nats://127.0.0.1:4222" || short.URLs[0] != "127.0.0.1:4222" {
		t.Errorf("without a scheme: %v", err)
	}
	for _, edit := range []func(*Config){
		func(c *Config) { c.URLs = nil },
		func(c *Config) { c.URLs = []string{"http://x"} },
		func(c *Config) { c.Node = "some.host" },
		func(c *Config) { c.Node = "*" },
		func(c *Config) { c.Key = Key{} },
		func(c *Config) { c.Node = "" },
		func(c *Config) { c.Credentials = "/none" },
		func(c *Config) { c.Events = "zot events" },
		func(c *Config) { c.Events = "zot." },
	} {
		cfg := good
		if edit(&cfg); func() bool { _, err := New(cfg); return err == nil }() {
			t.Errorf("taken: %+v", cfg)
		}
	}
}
