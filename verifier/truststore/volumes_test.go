package truststore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
)

// W10: Kubernetes volumes. A swap gives the old set or the new, never a mixture,
// also while it goes on all the time.
func TestKubernetesSwaps(t *testing.T) {
	d := newDirs(t)
	mount := filepath.Join(d.dir, "_cosign")
	type set map[string]*signtest.Key
	sets := []set{}
	for i := range 2 {
		s := set{}
		for j := range 4 {
			s[fmt.Sprint("k", j+2*i)] = signtest.NewKey(signtest.P256) // two names in both, two in one alone
		}
		sets = append(sets, s)
	}
	publish := func(generation int, s set) {
		dated := fmt.Sprintf("..2026_%d", generation)
		if err := os.Mkdir(filepath.Join(mount, dated), 0o755); err != nil {
			t.Error(err)
		}
		for name, k := range s {
			if err := os.WriteFile(filepath.Join(mount, dated, name), k.PEM(), 0o644); err != nil {
				t.Error(err)
			}
		}
		old, _ := os.Readlink(filepath.Join(mount, "..data"))
		if err := errors.Join(os.Symlink(dated, filepath.Join(mount, "..data_tmp")),
			os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data"))); err != nil {
			t.Error(err)
		}
		for name := range s { // kubelet makes and removes these after the swap
			_ = os.Symlink(filepath.Join("..data", name), filepath.Join(mount, name))
		}
		entries, _ := os.ReadDir(mount)
		for _, e := range entries {
			if s[e.Name()] == nil && !strings.HasPrefix(e.Name(), "..") {
				_ = os.Remove(filepath.Join(mount, e.Name()))
			}
		}
		if old != "" {
			_ = os.RemoveAll(filepath.Join(mount, old))
		}
	}
	publish(0, sets[0])
	ts := d.load()
	if len(ts.Loaded()) != 4 || len(ts.Refused()) != 0 || ts.Ignored() != 0 {
		t.Fatalf("loaded %v, refused %v", ts.Loaded(), ts.Refused())
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 1; ; i++ {
			select {
			case <-stop:
				publish(i, sets[0])
				return
			default:
				publish(i, sets[i%2])
			}
		}
	}()
	loads := 300
	if testing.Short() {
		loads = 50
	}
	l := d.loader()
	seen := map[int]int{}
	for range loads {
		ts := load(t, l, time.Now())
		count := [2]int{}
		for i, s := range sets {
			for _, k := range s {
				if in(ts, k.Signer()) {
					count[i]++
				}
			}
		}
		switch count {
		case [2]int{4, 0}:
			seen[0]++
		case [2]int{0, 4}:
			seen[1]++
		case [2]int{0, 0}: // it never held still
			seen[2]++
		default:
			t.Fatalf("mixed set: %v of each", count)
		}
	}
	close(stop)
	<-done
	if ts = load(t, l, time.Now()); len(ts.Loaded()) != 4 || !in(ts, sets[0]["k0"].Signer()) {
		t.Errorf("after the last swap: loaded %v, refused %v", ts.Loaded(), ts.Refused())
	}
	t.Logf("old, new, neither: %v", seen)
}

// A swap in the middle of a reading is noticed when it is done. The last attempt
// gives up what it has read, and falls back on what was good.
func TestSwapWhileReading(t *testing.T) {
	d := newDirs(t)
	k := signtest.NewKey(signtest.P256)
	d.write("_cosign/..1/k", k.PEM())
	d.write("_cosign/..2/k", signtest.NewKey(signtest.P256).PEM())
	link := filepath.Join(d.dir, "_cosign/..data")
	if err := os.Symlink("..1", link); err != nil {
		t.Fatal(err)
	}
	l := d.loader()
	good := load(t, l, time.Now())
	p := l.newPass(time.Now())
	p.before = l.memory
	swap := func(tr *tree) error {
		if err := p.readCosign(t.Context(), tr, ".", ""); err != nil {
			return err
		}
		now, _ := os.Readlink(link)
		return errors.Join(os.Remove(link), os.Symlink(map[string]string{"..1": "..2", "..2": "..1"}[now], link))
	}
	if err := p.inTree(d.cfg.CosignDir, l.cosignLabel, swap); !errors.Is(err, errSwapped) {
		t.Errorf("%v, want %v", err, errSwapped)
	}
	p = l.newPass(time.Now())
	p.before, p.last = l.memory, true
	if err := p.inTree(d.cfg.CosignDir, l.cosignLabel, swap); err != nil {
		t.Error(err)
	}
	if ts := p.build(); len(ts.Loaded()) != 1 || !in(ts, k.Signer()) || len(good.Loaded()) != 1 {
		t.Errorf("loaded %v, refused %v", ts.Loaded(), ts.Refused())
	}
}

// The same for a notation volume whose layout is within ..data.
func TestKubernetesNotation(t *testing.T) {
	d := newDirs(t)
	root := signtest.NewRoot(signtest.CertOptions{})
	d.write("_notation/..2026/truststore/x509/ca/acme/root.crt", signtest.CertPEM(root.Cert()))
	d.write("_notation/..2026/trustpolicy.json", []byte(signtest.Policy("permissive", "", "ca:acme")))
	for link, target := range map[string]string{"..data": "..2026", "truststore": "..data/truststore", "trustpolicy.json": "..data/trustpolicy.json"} {
		if err := os.Symlink(target, filepath.Join(d.dir, "_notation", link)); err != nil {
			t.Fatal(err)
		}
	}
	ts := d.load()
	if !in(ts, signtest.CertSigner("ca", "acme", root.Cert())) || ts.Policy().Source != PolicyOperator || len(ts.Refused()) > 0 {
		t.Errorf("loaded %v, refused %v, policy %s", ts.Loaded(), ts.Refused(), ts.Policy())
	}
	if p := ts.Loaded()[0].Path; p != "_notation/truststore/x509/ca/acme/root.crt" {
		t.Errorf("path %s", p)
	}
}

// A ..data that leads out, or through directories, is not followed.
func TestKubernetesEscape(t *testing.T) {
	for _, target := range []string{"/etc", "../elsewhere", "..", ".", "a/b"} {
		d := newDirs(t)
		d.write("elsewhere/k.pub", signtest.NewKey(signtest.P256).PEM())
		d.write("_cosign/a/b/k.pub", signtest.NewKey(signtest.P256).PEM())
		if err := os.Symlink(target, filepath.Join(d.dir, "_cosign/..data")); err != nil {
			t.Fatal(err)
		}
		if ts := d.load(); len(ts.Loaded()) > 0 || len(ts.Refused()) == 0 {
			t.Errorf("%s: loaded %v, refused %v", target, ts.Loaded(), ts.Refused())
		}
	}
}
