package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

func serveCommand(root string, args ...string) *exec.Cmd {
	return exec.Command(binary, append([]string{"serve", "--root", root}, args...)...)
}

// Without watching and with passes a day apart, only USR1 can have done it.
func TestUSR1LooksAtStorageAgain(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir, "--watch=false", "--scan-interval", "24h")
	r := open(t, d.state)
	for _, tag := range []string{"a", "b", "c"} {
		s.SignSimple(s.Image("app", tag), s.team, signtest.CosignOptions{})
		s.SignSimple(s.Image("repo/"+tag, "1"), s.team, signtest.CosignOptions{})
		if state := r.state("app", tag); state != "absent" {
			t.Errorf("app:%s reads %s before anybody looked", tag, state)
		}
		d.signal(t, syscall.SIGUSR1)
		r.becomes("app", tag, "trusted")
		r.becomes("repo/"+tag, "1", "trusted")
	}
}

// The slow pass finds what no stamp tells of: bytes that rot or go.
func TestSlowPassFindsRot(t *testing.T) {
	s := newSample(t)
	s.SignSimple(s.Image("app", "rots"), s.team, signtest.CosignOptions{})
	d := serve(t, s.Dir, "--slow-interval", "200ms", "--scan-interval", "200ms")
	r := open(t, d.state)
	r.becomes("app", "1", "trusted")
	r.becomes("app", "rots", "trusted")
	blob := func(tag string) ocispec.Descriptor {
		manifest := signtest.Image{Repo: "app", Descriptor: signatureOf(t, r, "app", tag)}
		return s.Signatures(manifest)[0]
	}
	s.RemoveBlob("app", blob("1"))
	s.Corrupt("app", blob("rots"))
	r.becomes("app", "1", "unknown")
	r.becomes("app", "rots", "untrusted")
	if got := slices.Concat(reasons(r.image("app", "1")), reasons(r.image("app", "rots"))); !slices.Equal(got, []trust.Reason{trust.BlobMissing, trust.DigestMismatch}) {
		t.Errorf("reasons %v", got)
	}
	r.becomes("app", "2", "trusted")
}

// It also makes the published base anew, so that what a fault took from it comes
// back though nothing has changed.
func TestSlowPassMakesTheBaseAnew(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir, "--slow-interval", "200ms", "--scan-interval", "200ms")
	r := open(t, d.state)
	r.becomes("app", "1", "trusted")
	base := func() string {
		target, err := os.Readlink(filepath.Join(d.state, "published", "CURRENT"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(target, ".")[3]
	}
	first := base()
	eventually(t, "there is a new base", func() bool { return base() != first })
	r.becomes("app", "1", "trusted")
}

func TestHUPReloadsTheTrustDirectories(t *testing.T) {
	s := newSample(t)
	spare := signtest.NewKey(signtest.P256)
	s.SignSimple(s.Image("app", "spare"), spare, signtest.CosignOptions{})
	d := serve(t, s.Dir, "--watch=false", "--scan-interval", "24h")
	r := open(t, d.state)
	r.becomes("app", "spare", "untrusted")
	for range 3 {
		s.TrustKey("spare.pub", spare)
		d.signal(t, syscall.SIGHUP)
		r.becomes("app", "spare", "trusted")
		s.Untrust("_cosign/spare.pub")
		d.signal(t, syscall.SIGHUP)
		r.becomes("app", "spare", "untrusted")
	}
	if !d.log.contains("signal=hangup") {
		t.Error("the log does not tell of HUP")
	}
}

func TestSignalsEndTheDaemonGracefully(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			s := manySamples(t)
			// At any moment: before, during and after the first pass.
			for _, moment := range []string{"serving", "trust in force", "first pass is over"} {
				d := start(t, serveCommand(s.Dir), filepath.Join(s.Dir, "_trust"))
				eventually(t, moment, func() bool { return d.log.contains(moment) })
				code := d.stop(t, sig)
				if code != 0 {
					t.Errorf("exit code %d at %v after %q, want 0", code, sig, moment)
				}
			}
			must(t, nil, "cache", "check", "--root", s.Dir)
		})
	}
}

// Storage that may only be read, with the state elsewhere: all works but the
// mirror of the policy, which is given up without a fuss.
func TestReadOnlyStorage(t *testing.T) {
	s := newSample(t)
	script := `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"`
	inMount := func(args ...string) *exec.Cmd {
		return exec.Command("unshare", append([]string{"-rm", "--propagation", "private", "sh", "-c", script, s.Dir}, args...)...)
	}
	if out, err := inMount("true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces here: %v: %s", err, out)
	}
	if err := inMount("touch", filepath.Join(s.Dir, "written")).Run(); err == nil {
		t.Skip("the mount is not read-only")
	}
	state := filepath.Join(t.TempDir(), "state")
	d := start(t, inMount(binary, "serve", "--root", s.Dir, "--state", state), state)
	d.ready(t)
	r := open(t, state)
	r.becomes("app", "1", "trusted")
	r.becomes("app", "2", "trusted")
	s.SignSimple(s.Image("app", "3"), s.team, signtest.CosignOptions{})
	r.becomes("app", "3", "trusted")
	s.Untrust("_cosign/team.pub")
	r.becomes("app", "1", "untrusted")
	if code := d.stop(t, syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, name := range []string{"_trust", "_notation/trustpolicy.json"} {
		if _, err := os.Lstat(filepath.Join(s.Dir, name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if e := command(t, "get", "app:2", "--state", state); e.code != 0 {
		t.Errorf("get --state ends with %d: %s", e.code, e.stderr)
	}
}
