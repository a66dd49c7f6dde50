package truststore

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// ways is a state directory and trust directories to which things are done. Its
// documents trust the store short alone, but for the default's, which trusts acme
// as well: whether acme is trusted shows whether trust has widened.
type ways struct {
	*trustDirs
	l           *Loader
	state       string
	memory      *Memory
	short, acme *x509.Certificate
	later       time.Duration
}

func newWays(t *testing.T) *ways {
	w := &ways{trustDirs: newDirs(t), state: t.TempDir(), short: signtest.NewRoot(signtest.CertOptions{}).Cert(), acme: signtest.NewRoot(signtest.CertOptions{}).Cert()}
	w.cert("ca/short", "r.pem", w.short).cert("ca/acme", "r.pem", w.acme)
	w.restart(false)
	return w
}

func (w *ways) restart(withCache bool) {
	w.t.Helper()
	var err error
	if w.memory, err = OpenMemory(w.state, withCache, nil); err != nil {
		w.t.Fatal(err)
	}
	w.cfg.Memory = w.memory
	w.l = w.loader()
}

func zotDocument(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/zot/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// do does one thing, in words.
func (w *ways) do(step string) {
	w.t.Helper()
	words := strings.Fields(step)
	in := func(name string) string { return filepath.Join(w.dir, "_notation", name) }
	check := func(err error) {
		if err != nil {
			w.t.Fatal(step, ": ", err)
		}
	}
	switch words[0] {
	case "write":
		var b []byte
		switch words[2] {
		case "operator":
			b = []byte(signtest.Policy("strict", "", "ca:short"))
		case "operator2":
			b = []byte(signtest.Policy("permissive", "", "ca:short"))
		case "edited": // the default with one store less
			b = defaultDocument([]string{"ca:short"})
		case "default":
			var err error
			b, err = w.l.DefaultPolicy(w.t.Context(), time.Now())
			check(err)
		case "zot", "zot-old":
			b = zotDocument(w.t, map[string]string{"zot": "v2.1.19", "zot-old": "v2.0.0-to-v2.1.18"}[words[2]])
		case "half":
			b = []byte(signtest.Policy("strict", "", "ca:short")[:40])
		case "nonsense":
			b = []byte(`{"version":"1.0"}`)
		}
		check(os.MkdirAll(filepath.Dir(in(words[1])), 0o755))
		check(os.WriteFile(in(words[1]), b, 0o644))
		// Steps come faster than the clock of change times ticks.
		at := time.Now().Add(w.later + 5*clockGrain)
		check(os.Chtimes(in(words[1]), at, at))
	case "move":
		check(os.Rename(in(words[1]), in(words[2])))
	case "remove":
		check(os.RemoveAll(in(words[1])))
	case "hide":
		check(os.Rename(in("truststore/x509/ca/"+words[1]), filepath.Join(w.state, "hidden")))
	case "show":
		check(os.Rename(filepath.Join(w.state, "hidden"), in("truststore/x509/ca/"+words[1])))
	case "touch": // as a volume makes its files anew
		b, err := os.ReadFile(in(words[1]))
		check(err)
		check(os.Remove(in(words[1])))
		check(os.WriteFile(in(words[1]), b, 0o644))
	case "chmod":
		check(os.Chmod(in(words[1]), 0o600))
	case "mkdir":
		check(os.MkdirAll(in(words[1]), 0o755))
	case "half-mirrored": // the hashes are there, the file could not be written
		w.says()
		m := w.memory.get()
		m.Defaults = append([]trust.Digest{trust.SumOf(defaultDocument([]string{"ca:acme", "ca:short"}))}, m.Defaults...)
		check(w.memory.set(w.memory.get(), m))
	case "link":
		check(os.Symlink(words[1], in(words[2])))
	case "store":
		w.cert("ca/"+words[1], "r.pem", signtest.NewRoot(signtest.CertOptions{}).Cert())
	case "empty":
		check(os.RemoveAll(in("truststore/x509/ca")))
	case "wait":
		d, err := time.ParseDuration(words[1])
		check(err)
		w.later += d
	case "restart":
		w.restart(true)
	case "anew": // the state directory is lost as a whole
		check(os.RemoveAll(w.state))
		check(os.Mkdir(w.state, 0o755))
		w.restart(false)
	case "lose": // the memory alone
		check(os.Remove(filepath.Join(w.state, MemoryFile)))
		w.restart(true)
	case "damage":
		check(os.WriteFile(filepath.Join(w.state, MemoryFile), []byte(words[1]), 0o644))
		w.restart(true)
	case "older": // a memory of a version to come
		check(os.WriteFile(filepath.Join(w.state, MemoryFile), []byte(`{"format":1,"operatorPolicy":false,"narrowing":true}`), 0o644))
		w.restart(true)
	case "zotPolicy":
		w.cfg.ZotPolicy = words[1] == "on"
		w.restart(true)
	case "mirror":
		w.says()
		if _, err := w.l.MirrorDefaultPolicy(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	default:
		w.t.Fatal("unknown step ", step)
	}
}

// says is what rules, and whether acme is trusted.
func (w *ways) says() string {
	ts := load(w.t, w.l, time.Now().Add(w.later))
	s := string(ts.Policy().Source)
	trusted := false
	for _, st := range ts.InForce().Terms().Statements {
		trusted = trusted || slices.Contains(st.Stores, "ca:acme")
	}
	if trusted {
		s += " acme"
	}
	return s
}

// Every way from one policy to another, in and out: what rules after each step.
// A step is "DO → WHAT RULES"; acme is trusted where it says so, and nowhere else.
func TestRuling(t *testing.T) {
	for name, steps := range map[string][]string{
		"nothing":                 {"mirror → default acme", "mirror → default acme", "store b → default acme", "mirror → default acme", "restart → default acme"},
		"the default, edited":     {"mirror → default acme", "write trustpolicy.json edited → operator", "mirror → operator", "restart → operator", "mirror → operator"},
		"its name from the start": {"write trustpolicy.json edited → operator", "mirror → operator"},
		"the edit taken back":     {"mirror → default acme", "write trustpolicy.json edited → operator", "write trustpolicy.json default → default acme", "remove trustpolicy.json → default acme"},
		"removed":                 {"write trustpolicy.json operator → operator", "remove trustpolicy.json → invalid", "mirror → invalid", "restart → invalid", "write trustpolicy.json operator → operator"},
		"removed, and the default given back": {"write trustpolicy.json operator → operator", "remove trustpolicy.json → invalid", "write trustpolicy.json default → default acme",
			"store b → default acme", "mirror → default acme", "restart → default acme", "remove trustpolicy.json → default acme"},
		"the default given back counts as written":            {"write trustpolicy.json operator → operator", "write trustpolicy.json default → default acme", "store b → default acme", "store c → default acme"},
		"renamed to the other name":                           {"write trustpolicy.json operator → operator", "move trustpolicy.json trustpolicy.oci.json → operator", "mirror → operator", "restart → operator"},
		"and back":                                            {"write trustpolicy.json operator → operator", "move trustpolicy.json trustpolicy.oci.json → operator", "move trustpolicy.oci.json trustpolicy.json → operator"},
		"the first vanishes before an older second":           {"write trustpolicy.json operator2 → operator", "wait 1s → operator", "write trustpolicy.oci.json operator → operator", "remove trustpolicy.oci.json → invalid", "restart → invalid", "remove trustpolicy.json → invalid"},
		"the first vanishes before an older default":          {"mirror → default acme", "wait 1s → default acme", "write trustpolicy.oci.json operator → operator", "remove trustpolicy.oci.json → invalid", "restart → invalid"},
		"as notation imports":                                 {"mirror → default acme", "write trustpolicy.oci.json operator → operator", "remove trustpolicy.json → operator", "mirror → operator", "remove trustpolicy.oci.json → invalid", "restart → invalid"},
		"the first is broken":                                 {"write trustpolicy.json operator2 → operator", "write trustpolicy.oci.json nonsense → invalid", "restart → invalid"},
		"the first is half there":                             {"mirror → default acme", "write trustpolicy.oci.json half → invalid", "wait 6s → invalid", "remove trustpolicy.oci.json → invalid"},
		"a default under the first name":                      {"write trustpolicy.oci.json default → default acme", "store b → default acme", "mirror → default acme", "restart → default acme"},
		"truncated":                                           {"write trustpolicy.json operator → operator", "write trustpolicy.json half → operator", "wait 4s → operator", "wait 2s → invalid", "remove trustpolicy.json → invalid"},
		"half a file is no policy for five seconds":           {"write trustpolicy.json half → invalid", "remove trustpolicy.json → default acme"},
		"then it is one that cannot be used":                  {"write trustpolicy.json half → invalid", "wait 6s → invalid", "remove trustpolicy.json → invalid"},
		"also for one look":                                   {"write trustpolicy.json half → invalid", "wait 6s → invalid", "restart → invalid", "remove trustpolicy.json → invalid"},
		"complete and of no use":                              {"write trustpolicy.json nonsense → invalid", "remove trustpolicy.json → invalid"},
		"zot's, without the setting":                          {"write trustpolicy.json zot → operator", "mirror → operator", "remove trustpolicy.json → invalid", "zotPolicy on → invalid", "write trustpolicy.json zot → default acme"},
		"an older zot's":                                      {"write trustpolicy.json zot-old → operator", "zotPolicy on → default acme", "mirror → default acme"},
		"zot's, with the setting":                             {"zotPolicy on → default acme", "mirror → default acme", "write trustpolicy.json zot → default acme", "mirror → default acme", "remove trustpolicy.json → default acme", "mirror → default acme"},
		"the setting goes":                                    {"zotPolicy on → default acme", "write trustpolicy.json zot → default acme", "zotPolicy off → operator"},
		"zot overwrites an operator's":                        {"write trustpolicy.json operator → operator", "write trustpolicy.json zot → invalid", "restart → invalid", "write trustpolicy.json operator → operator"},
		"zot overwrites an operator's, the setting":           {"zotPolicy on → default acme", "write trustpolicy.json operator → operator", "write trustpolicy.json zot → invalid", "mirror → invalid"},
		"zot overwrites the default":                          {"mirror → default acme", "write trustpolicy.json zot → operator", "mirror → operator"},
		"the state is lost, an operator's":                    {"write trustpolicy.json operator → operator", "anew → operator", "remove trustpolicy.json → invalid"},
		"the state is lost, the default":                      {"mirror → default acme", "anew → default acme", "store b → default acme"},
		"the memory is lost":                                  {"write trustpolicy.json operator → operator", "remove trustpolicy.json → invalid", "lose → invalid", "write trustpolicy.json default → default acme", "restart → default acme"},
		"the memory is lost, no policy ever":                  {"restart → default acme", "lose → invalid", "mirror → invalid", "write trustpolicy.json default → default acme", "remove trustpolicy.json → default acme"},
		"the memory is damaged":                               {"damage {\"for → invalid", "restart → invalid", "mirror → invalid", "write trustpolicy.json default → default acme", "restart → default acme", "remove trustpolicy.json → default acme"},
		"the memory is empty":                                 {"damage {} → invalid"},
		"a memory that says more":                             {"older → invalid"},
		"another spelling":                                    {"write trustPolicy.json operator → invalid", "mirror → invalid", "remove trustPolicy.json → default acme"},
		"with comments":                                       {"write trustpolicy.jsonc operator → invalid"},
		"yaml":                                                {"write trust-policy.yaml operator → invalid"},
		"one level too deep":                                  {"write truststore/trustpolicy.json operator → invalid", "write trustpolicy.json operator → operator"},
		"one level too deep, its own":                         {"write policies/trustpolicy.oci.json operator → invalid"},
		"a backup is nothing":                                 {"write trustpolicy.json.bak operator → default acme", "write trustpolicy.blob.json operator → default acme"},
		"a spelling beside the default":                       {"mirror → default acme", "write trustpolicy.txt operator → default acme"},
		"no stores":                                           {"empty → default", "mirror → default", "write trustpolicy.json default → default", "store acme → default acme"},
		"a store goes and comes back under an edited default": {"mirror → default acme", "write trustpolicy.json edited → operator", "hide acme → operator", "show acme → operator", "mirror → operator", "restart → operator"},
		"the same across restarts":                            {"mirror → default acme", "write trustpolicy.json edited → operator", "hide acme → operator", "restart → operator", "show acme → operator", "restart → operator"},
		"the memory is lost, and the first has gone":          {"mirror → default acme", "write trustpolicy.oci.json operator → operator", "remove trustpolicy.oci.json → invalid", "lose → invalid", "restart → invalid", "mirror → invalid"},
		"it is damaged, and the first has gone":               {"mirror → default acme", "write trustpolicy.oci.json operator → operator", "remove trustpolicy.oci.json → invalid", "damage {} → invalid", "restart → invalid"},
		"a second is made anew with the same bytes":           {"write trustpolicy.json operator2 → operator", "write trustpolicy.oci.json operator → operator", "wait 1s → operator", "remove trustpolicy.oci.json → invalid", "touch trustpolicy.json → invalid", "restart → invalid", "write trustpolicy.json operator → operator"},
		"its owner changes":                                   {"mirror → default acme", "write trustpolicy.oci.json operator → operator", "remove trustpolicy.oci.json → invalid", "chmod trustpolicy.json → invalid", "restart → invalid", "write trustpolicy.json default → default acme"},
		"the clock goes back":                                 {"mirror → default acme", "write trustpolicy.oci.json operator → operator", "wait -1h → operator", "remove trustpolicy.oci.json → invalid", "wait 1h → invalid", "restart → invalid"},
		"the clock was ahead":                                 {"wait 100h → default acme", "write trustpolicy.oci.json operator → operator", "remove trustpolicy.oci.json → invalid", "wait -100h → invalid", "write trustpolicy.json default → default acme"},
		"a mirror that failed":                                {"hide acme → default", "mirror → default", "show acme → default acme", "half-mirrored → default acme", "write trustpolicy.json default → default acme", "write trustpolicy.json edited → operator"},
		"a memory that lacks something":                       {"damage {\"format\":1} → invalid"},
		"no volume behind the link":                           {"mkdir ..data → default acme", "write ..data/trustpolicy.json operator → default acme", "link ..data/trustpolicy.json trustpolicy.json → operator"},
		"a link":                                              {"write elsewhere operator → default acme", "link elsewhere trustpolicy.json → operator", "mirror → operator", "remove elsewhere → invalid", "remove trustpolicy.json → invalid"},
		"the directory goes and comes back":                   {"write trustpolicy.json operator → operator", "remove truststore → operator", "store acme → operator"},
		"a default linked into a volume is not ours":          {"write elsewhere default → default acme", "link elsewhere trustpolicy.json → default acme", "store b → default acme", "mirror → default acme"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWays(t)
			for _, step := range steps {
				do, want, _ := strings.Cut(step, " → ")
				before := w.files()
				w.do(do)
				if got := w.says(); got != want {
					t.Fatalf("after %q: %s, want %s", do, got, want)
				}
				if do == "mirror" && !strings.HasPrefix(want, "default") && w.files() != before {
					t.Fatalf("%q wrote: %s, before %s", do, w.files(), before)
				}
			}
		})
	}
}

// files are the names and contents that lie in _notation beside the stores.
func (w *ways) files() string {
	entries, err := os.ReadDir(filepath.Join(w.dir, "_notation"))
	if err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		b, _ := os.ReadFile(filepath.Join(w.dir, "_notation", e.Name())) // directories have none
		all = append(all, fmt.Sprintf("%s %s %x", e.Name(), e.Type(), trust.SumOf(b)))
	}
	return strings.Join(all, "\n")
}

// What the daemon writes, and over what.
func TestMirror(t *testing.T) {
	w := newWays(t)
	file := filepath.Join(w.dir, "_notation", secondPolicyFile)
	mirror := func() (written string) {
		t.Helper()
		load(t, w.l, time.Now())
		written, err := w.l.MirrorDefaultPolicy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return written
	}
	content := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if mirror() != file || content() != string(defaultDocument([]string{"ca:acme", "ca:short"})) {
		t.Errorf("wrote %s", content())
	}
	before, _ := os.Stat(file)
	if mirror() != "" {
		t.Error("written anew with nothing different")
	}
	if after, _ := os.Stat(file); !os.SameFile(before, after) {
		t.Error("replaced with nothing different")
	}
	w.do("store b")
	if mirror() != file || !strings.Contains(content(), `"ca:b"`) {
		t.Errorf("wrote %s", content())
	}
	if d := w.memory.get().Defaults; len(d) != 1 || d[0] != trust.SumOf([]byte(content())) {
		t.Errorf("remembers %s", d)
	}
	// Without stores nothing is written: an empty list would end the trust of
	// whoever reads the file as well.
	w.do("empty")
	if was := content(); mirror() != "" || content() != was {
		t.Errorf("wrote %s", content())
	}
	w.do("store b")
	mirror()
	// An operator who writes between the load and the mirror is not overwritten.
	w.do("store c")
	load(t, w.l, time.Now())
	w.do("write trustpolicy.json operator")
	was := content()
	if written, err := w.l.MirrorDefaultPolicy(t.Context()); written != "" || err != nil || content() != was {
		t.Errorf("wrote %q over an operator's policy (%v)", content(), err)
	}
	entries, _ := os.ReadDir(filepath.Join(w.dir, "_notation"))
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	// Nothing to write into.
	if err := os.RemoveAll(filepath.Join(w.dir, "_notation")); err != nil {
		t.Fatal(err)
	}
	mirror()
	if _, err := os.Stat(filepath.Join(w.dir, "_notation")); err == nil {
		t.Error("made the trust directory")
	}
}

// What rules is remembered before anything rests on it: where the memory cannot be
// written, no policy is used.
func TestMemoryBeforeTrust(t *testing.T) {
	w := newWays(t)
	if got := w.says(); got != "default acme" {
		t.Fatal(got)
	}
	if err := os.Rename(w.state, w.state+"-gone"); err != nil {
		t.Fatal(err)
	}
	w.do("write trustpolicy.json operator")
	if got := w.says(); got != "invalid" {
		t.Errorf("%s, with a memory that cannot be written", got)
	}
	if err := os.Rename(w.state+"-gone", w.state); err != nil {
		t.Fatal(err)
	}
	if got := w.says(); got != "operator" {
		t.Errorf("%s once it can be", got)
	}
	w.do("remove trustpolicy.json")
	w.do("restart")
	if got := w.says(); got != "invalid" {
		t.Errorf("%s after a restart", got)
	}
}

// A process that finds its state directory replaced takes what it remembers along.
func TestMemoryOutlivesItsDirectory(t *testing.T) {
	w := newWays(t)
	w.do("write trustpolicy.json operator")
	w.says()
	w.do("remove trustpolicy.json")
	if err := os.Remove(filepath.Join(w.state, MemoryFile)); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMemory(w.state, false, w.memory)
	if err != nil {
		t.Fatal(err)
	}
	w.cfg.Memory = m
	w.l = w.loader()
	if got := w.says(); got != "invalid" {
		t.Error(got)
	}
	w.do("restart")
	if got := w.says(); got != "invalid" {
		t.Errorf("%s after a restart", got)
	}
}

// The messages of a look say which file it is and what to do.
func TestRulingSaysWhatToDo(t *testing.T) {
	for _, c := range []struct{ do, want string }{
		{"write trustpolicy.json operator; remove trustpolicy.json", "trust-worker policy default --root ROOT > ROOT/_notation/trustpolicy.json"},
		{"write trustPolicy.json operator", "trustPolicy.json, which is not read; move it"},
		{"write trustpolicy.json zot", "--zot-policy"},
		{"write trustpolicy.json operator; write trustpolicy.json zot", "zot writes at its start"},
		{"write trustpolicy.oci.json operator", "trustpolicy.oci.json"},
	} {
		w := newWays(t)
		for step := range strings.SplitSeq(c.do, "; ") {
			w.do(step)
			w.says()
		}
		if got := load(t, w.l, time.Now()).Policy().String(); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q does not say %q", c.do, got, c.want)
		}
	}
	w := newWays(t)
	w.do("write trustpolicy.oci.json operator")
	w.do("write trustpolicy.json operator2")
	if ts := load(t, w.l, time.Now()); len(ts.Refused()) != 1 || ts.Refused()[0].Path != "_notation/trustpolicy.json" {
		t.Errorf("two policies that differ: refused %v", ts.Refused())
	}
}
