package integration

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"trust-worker/internal/signtest"
)

// world is what one case plays in: a registry with trust directories, signers,
// and what is expected of every image. T is trusted everywhere, E nowhere.
type world struct {
	*signtest.Storage // the registry
	t                 *testing.T
	ts                *testscript.TestScript
	work, binary      string
	keys              map[string]*signtest.Key
	authorities       map[string]*signtest.Chain
	leaves            map[string]*signtest.Chain
	stamps            map[string]*signtest.TSA
	images            map[string]signtest.Image
	layers            map[string][]made // by signature tag
	last              signtest.Image    // the signature stored last
	expected          map[string]*expectation
	order             []string        // what is expected since the last scan
	ready             map[string]bool // repositories with all their good images
	worth             int             // good signatures that no scan has met yet
	scanned           int
	unseen            bool // something is expected that no scan has looked at
	daemon            *daemon
	address           string
	logs              []string // what the processes wrote
}

// expectation is what an image has to read.
type expectation struct {
	state   string
	reasons []string // distinct ones of its signatures, sorted
	ours    bool     // a good image, not one of the case
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world {
	w := ts.Value(worldKey{}).(*world)
	w.ts = ts
	return w
}

// shared are the signers that all cases have in common, so that one daemon can
// look at what all of them left.
var shared = sync.OnceValue(func() (s struct {
	key, stranger     *signtest.Key
	authority, outlaw *signtest.Chain
	leaf, outlawLeaf  *signtest.Chain
}) {
	s.key, s.stranger = signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	s.authority = signtest.NewRoot(signtest.CertOptions{CommonName: "Trusted"})
	s.outlaw = signtest.NewRoot(signtest.CertOptions{CommonName: "Evil"})
	s.leaf = s.authority.Leaf(signtest.CertOptions{CommonName: "Trusted release"})
	s.outlawLeaf = s.outlaw.Leaf(signtest.CertOptions{CommonName: "Evil release"})
	return s
})

// plainBinary is the program without the race detector, with which a process
// takes five times as long to begin and end, and the corpus has hundreds.
var plainBinary = sync.OnceValues(func() (string, error) {
	if !raceDetector {
		return binary, nil
	}
	file := filepath.Join(filepath.Dir(binary), "plain", "trust-worker")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", file, "../cmd/trust-worker").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return file, nil
})

// newWorld lays out the registry before the case's first line. The repository
// beside has a good image of each kind: whatever a case does elsewhere, it must
// read trusted.
func newWorld(e *testscript.Env) error {
	s := shared()
	w := &world{
		Storage: signtest.NewStorage(filepath.Join(e.WorkDir, "registry")), t: e.T().(scriptT).T, work: e.WorkDir,
		keys:        map[string]*signtest.Key{"T": s.key, "E": s.stranger},
		authorities: map[string]*signtest.Chain{"T": s.authority, "E": s.outlaw},
		leaves:      map[string]*signtest.Chain{"T": s.leaf, "E": s.outlawLeaf},
		stamps:      map[string]*signtest.TSA{}, images: map[string]signtest.Image{}, layers: map[string][]made{},
		expected: map[string]*expectation{}, ready: map[string]bool{"beside": true},
	}
	e.Values[worldKey{}] = w
	var err error
	if w.binary, err = plainBinary(); err != nil {
		return err
	}
	e.Setenv("PATH", filepath.Dir(w.binary)+string(os.PathListSeparator)+e.Getenv("PATH"))
	hint, public := s.key.Fingerprint(), pemBody(s.stranger.PEM())
	for name, value := range map[string]string{
		"T_HINT": base64.StdEncoding.EncodeToString(hint[:]), "T_FINGERPRINT": hint.String(), "E_PUBLIC_KEY": public,
		"E_CERTIFICATE": base64.StdEncoding.EncodeToString(s.outlawLeaf.Cert().Raw), "MANY": "1100", "FLOOD": "100",
	} {
		e.Setenv(name, value)
	}
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		e.Setenv("MANY", "9900")
		e.Setenv("FLOOD", "10000")
	}
	w.TrustKey("T.pub", s.key)
	w.TrustCert("ca:T", "T.pem", s.authority.Cert())
	for _, form := range []string{"simple", "bundle", "jws", "cose"} {
		w.good("beside:"+form, form)
	}
	w.good("app:valid-first", "simple")
	e.Defer(w.end)
	return nil
}

func pemBody(text []byte) string {
	block, _ := pem.Decode(text)
	return base64.StdEncoding.EncodeToString(block.Bytes)
}

// good stores an image that T has signed.
func (w *world) good(name, form string) {
	last := w.last
	defer func() { w.last = last }()
	img := w.image(name)
	w.attach(img, form, "", w.make(img, "T", form, options{}))
	w.expected[name] = &expectation{state: "trusted", ours: true}
	w.worth++
}

// surround puts good images at the end of every repository of the case: they come
// after whatever is wrong in it.
func (w *world) surround() {
	for name, x := range w.expected {
		if repo, _, _ := strings.Cut(name, ":"); !x.ours && x.state != "absent" {
			w.surroundOne(repo)
		}
	}
}

func (w *world) surroundOne(repo string) {
	if w.ready[repo] {
		return
	}
	w.ready[repo] = true
	w.good(repo+":valid-last", "bundle")
	w.good(repo+":valid-referrer", "referrer")
}

// end looks at what has to hold when a case is over.
func (w *world) end() {
	if (w.scanned == 0 || w.unseen) && !w.t.Failed() && !w.t.Skipped() {
		w.t.Error("the case does not look at all that it expects: end it with scan or settle")
	}
}

func (w *world) fail(format string, args ...any) { w.ts.Fatalf(format, args...) }

func (w *world) check(err error) {
	if err != nil {
		w.fail("%v", err)
	}
}

// path is a file of the case, relative to its directory.
func (w *world) path(name string) string { return w.ts.MkAbs(name) }

func (w *world) read(name string) []byte {
	b, err := os.ReadFile(w.path(name))
	w.check(err)
	return b
}

func (w *world) write(name string, b []byte) {
	w.check(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.check(os.WriteFile(w.path(name), b, 0o644))
}

// image is the image of that name, REPO:TAG, made when it is first named.
func (w *world) image(name string) signtest.Image {
	img, ok := w.images[name]
	if !ok {
		repo, tag, ok := strings.Cut(name, ":")
		if !ok {
			w.fail("%q is not REPO:TAG", name)
		}
		img = w.Image(repo, tag)
		w.images[name] = img
	}
	return img
}

// key is a key pair, P-256 unless the command key has made it before.
func (w *world) key(name string) *signtest.Key {
	if w.keys[name] == nil {
		w.keys[name] = signtest.NewKey(signtest.P256)
	}
	return w.keys[name]
}

// pairs keeps keys that take long to make for all cases.
var pairs sync.Map

func (w *world) newKey(name string, kind signtest.Kind) {
	kind = signtest.Kind(strings.Replace(string(kind), "RSA-", "RSA ", 1))
	if !strings.HasPrefix(string(kind), "RSA") {
		w.keys[name] = signtest.NewKey(kind)
		return
	}
	make, _ := pairs.LoadOrStore(name+string(kind), sync.OnceValue(func() *signtest.Key { return signtest.NewKey(kind) }))
	w.keys[name] = make.(func() *signtest.Key)()
}

// leaf is who signs with notation under a name: a leaf below the authority of
// that name, unless the command leaf says more.
func (w *world) leaf(name string) *signtest.Chain {
	if w.leaves[name] == nil {
		w.leaves[name] = w.authority(name).Leaf(signtest.CertOptions{CommonName: name + " release"})
	}
	return w.leaves[name]
}

func (w *world) authority(name string) *signtest.Chain {
	if w.authorities[name] == nil {
		w.authorities[name] = signtest.NewRoot(signtest.CertOptions{CommonName: name})
	}
	return w.authorities[name]
}

// certificate is the certificate of a leaf or else of an authority.
func (w *world) certificate(name string) *x509.Certificate {
	if root, ok := strings.CutPrefix(name, "ca:"); ok {
		return w.authority(root).Cert()
	}
	return w.leaf(name).Cert()
}
