package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"trust-worker/internal/natstest"
	"trust-worker/internal/signtest"
)

func TestMain(m *testing.M) {
	defaultConfig = filepath.Join(os.Getenv("WORK"), "etc", "config.yaml") // a script's own, and never this machine's
	testscript.Main(m, map[string]func(){"trust-worker": main, "nats-server": natstest.Program})
}

// TestScripts runs testdata/script: the command line, specified by example. In
// them, `exec trust-worker` is this program, and the commands below lay out
// storage with real signatures.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Values[shopKey{}] = &shop{map[string]*signtest.Storage{}, map[string]*signtest.Key{}, map[string]*signtest.Chain{}, map[string]*signtest.Sigstore{}, map[string]string{}}
			e.Setenv("TMPDIR", e.WorkDir)
			port, err := natstest.Port()
			if err != nil {
				return err
			}
			e.Setenv("NATSPORT", strconv.Itoa(port))
			e.Setenv("ESC", "\x1bc")
			e.Setenv("BIDI", "\u202e")
			e.Setenv("GORACE", "atexit_sleep_ms=10") // else each command sleeps for a second before it ends
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"image": cmdImage, "distribution": cmdDistribution, "index": cmdIndex, "sign": cmdSign, "notarize": cmdNotarize, "attest": cmdAttest, "keyless": cmdKeyless, "root": cmdRoot, "public": cmdPublic, "damage": cmdDamage,
			"trust": cmdTrust, "untrust": cmdUntrust, "sample": cmdSample, "digest": cmdDigest,
			"exit": cmdExit, "until": cmdUntil, "notified": cmdNotified,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// shop is one script's storage directories and keys. A key is made when its
// name is first used.
type shop struct {
	storage map[string]*signtest.Storage
	keys    map[string]*signtest.Key
	chains  map[string]*signtest.Chain
	clouds  map[string]*signtest.Sigstore
	content map[string]string // of images that are the same as another, by name
}

type shopKey struct{}

func shopOf(ts *testscript.TestScript) *shop { return ts.Value(shopKey{}).(*shop) }

func (s *shop) dir(ts *testscript.TestScript, name string) *signtest.Storage {
	dir := ts.MkAbs(name)
	if s.storage[dir] == nil {
		s.storage[dir] = signtest.NewStorage(dir)
	}
	return s.storage[dir]
}

func (s *shop) key(name string) *signtest.Key {
	if s.keys[name] == nil {
		s.keys[name] = signtest.NewKey(signtest.P256)
	}
	return s.keys[name]
}

// chain is a root by that name with a leaf below it.
func (s *shop) chain(name string) *signtest.Chain {
	if s.chains[name] == nil {
		s.chains[name] = signtest.NewRoot(signtest.CertOptions{CommonName: name}).Leaf(signtest.CertOptions{CommonName: name + " release"})
	}
	return s.chains[name]
}

// usage ends the script unless there are between least and most arguments.
func usage(ts *testscript.TestScript, neg bool, args []string, least, most int, text string) {
	if neg || len(args) < least || len(args) > most {
		ts.Fatalf("usage: %s", text)
	}
}

func split(ts *testscript.TestScript, name string) (repo, tag string) {
	repo, tag, ok := strings.Cut(name, ":")
	if !ok {
		ts.Fatalf("%q is not REPO:TAG", name)
	}
	return repo, tag
}

func (s *shop) image(ts *testscript.TestScript, dir, name string) signtest.Image {
	repo, tag := split(ts, name)
	content := s.content[name]
	if content == "" {
		content = name
	}
	return s.dir(ts, dir).Content(repo, tag, content)
}

// image DIR REPO:TAG [as REPO:TAG]: an image, different from every other unless
// it is to be the same as another, in another repository.
func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 4, "image DIR REPO:TAG [as REPO:TAG]")
	s := shopOf(ts)
	if len(args) == 4 {
		s.content[args[1]] = args[3]
	}
	s.image(ts, args[0], args[1])
}

// distribution DIR: storage of CNCF distribution's from here on.
func cmdDistribution(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1, "distribution DIR")
	shopOf(ts).dir(ts, args[0]).Distribution = true
}

// index DIR REPO:TAG CHILD-TAG...: an index over images of the repository.
func cmdIndex(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 10, "index DIR REPO:TAG CHILD-TAG...")
	repo, tag := split(ts, args[1])
	s := shopOf(ts)
	var children []signtest.Image
	for _, child := range args[2:] {
		children = append(children, s.image(ts, args[0], repo+":"+child))
	}
	s.dir(ts, args[0]).Index(repo, tag, children...)
}

// sign DIR REPO:TAG KEY [simple|referrer|bundle]: as cosign does. The image is
// made if need be.
func cmdSign(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 4, "sign DIR REPO:TAG KEY [simple|referrer|bundle]")
	s := shopOf(ts)
	st, img, key := s.dir(ts, args[0]), s.image(ts, args[0], args[1]), s.key(args[2])
	switch form := append(args, "simple")[3]; form {
	case "simple":
		st.SignSimple(img, key, signtest.CosignOptions{})
	case "referrer":
		st.SignSimple(img, key, signtest.CosignOptions{Referrer: true})
	case "bundle":
		st.SignBundle(img, key, signtest.CosignOptions{})
	default:
		ts.Fatalf("no such form: %s", form)
	}
}

// attest DIR REPO:TAG KEY PREDICATE [att|bundle|buildkit]: as cosign attest does, or as
// BuildKit does, which signs nothing: TAG-built is then an index of the image and of that.
func cmdAttest(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 4, 5, "attest DIR REPO:TAG KEY PREDICATE [att|bundle|buildkit]")
	s := shopOf(ts)
	st, img, o := s.dir(ts, args[0]), s.image(ts, args[0], args[1]), signtest.CosignOptions{PredicateType: args[3]}
	switch form := append(args, "att")[4]; form {
	case "att":
		st.Attest(img, s.key(args[2]), o)
	case "bundle":
		st.SignBundle(img, s.key(args[2]), o)
	case "buildkit":
		st.BuildKit(img, args[3], img.Tag+"-built")
	default:
		ts.Fatalf("no such form: %s", form)
	}
}

// notarize DIR REPO:TAG CHAIN [expired|3days]: as notation does; it may expire.
func cmdNotarize(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 4, "notarize DIR REPO:TAG CHAIN [expired|3days]")
	s := shopOf(ts)
	o := signtest.NotationOptions{}
	switch {
	case len(args) == 4 && args[3] == "3days":
		o.Expiry = time.Now().AddDate(0, 0, 3)
	case len(args) == 4:
		o.Time, o.Expiry = time.Now().AddDate(0, -2, 0), time.Now().AddDate(0, -1, 0)
	}
	s.dir(ts, args[0]).SignNotation(s.image(ts, args[0], args[1]), s.chain(args[2]), o)
}

// damage DIR REPO:TAG: the payload of the image's .sig is lost.
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "damage DIR REPO:TAG")
	s := shopOf(ts)
	st, img := s.dir(ts, args[0]), s.image(ts, args[0], args[1])
	st.RemoveBlob(img.Repo, st.Blob(img.Repo, signtest.Payload(img.Trust())))
}

// trust DIR KEY, trust DIR STORE CHAIN: drops KEY.pub into _cosign, or the
// chain's root into a store such as ca:acme.
func cmdTrust(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 3, "trust DIR KEY | trust DIR STORE CHAIN")
	s := shopOf(ts)
	if st := s.dir(ts, args[0]); len(args) == 2 {
		st.TrustKey(args[1]+".pub", s.key(args[1]))
	} else {
		st.TrustCert(args[1], args[2]+".pem", s.chain(args[2]).Root())
	}
}

// instance is a private sigstore instance by that name.
func (s *shop) instance(name string) *signtest.Sigstore {
	if s.clouds[name] == nil {
		s.clouds[name] = signtest.NewSigstore(name)
	}
	return s.clouds[name]
}

// keyless DIR REPO:TAG INSTANCE ISSUER SUBJECT [simple|bundle]: as cosign signs with an
// identity.
func cmdKeyless(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 5, 6, "keyless DIR REPO:TAG INSTANCE ISSUER SUBJECT [simple|bundle]")
	s := shopOf(ts)
	st, img, o := s.dir(ts, args[0]), s.image(ts, args[0], args[1]), signtest.KeylessOptions{Issuer: args[3], Subject: args[4]}
	if len(args) == 6 && args[5] == "bundle" {
		st.SignKeylessBundle(img, s.instance(args[2]), o)
	} else {
		st.SignKeyless(img, s.instance(args[2]), o)
	}
}

// public FILE KEY: writes its public half.
func cmdPublic(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "public FILE KEY")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), shopOf(ts).key(args[1]).PEM(), 0o644))
}

// root FILE INSTANCE: writes its trusted root.
func cmdRoot(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "root FILE INSTANCE")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), shopOf(ts).instance(args[1]).Root().JSON(), 0o644))
}

// untrust DIR KEY: removes KEY.pub from _cosign.
func cmdUntrust(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "untrust DIR KEY")
	shopOf(ts).dir(ts, args[0]).Untrust(filepath.Join("_cosign", args[1]+".pub"))
}

// sample DIR: a registry with an image in every state. Trusted are the key team
// and the chain acme in the store ca:acme.
//
//	app:good       trusted, by team                app:both      trusted, by team and by acme
//	app:stranger   untrusted                       app:plain     unsigned
//	app:old        expired, by acme                app:lost      unknown: its payload is lost
//	app:multi      an index; its child app:good is trusted, the index unsigned
func cmdSample(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1, "sample DIR")
	dir := args[0]
	cmdTrust(ts, false, []string{dir, "team"})
	cmdTrust(ts, false, []string{dir, "ca:acme", "acme"})
	cmdSign(ts, false, []string{dir, "app:good", "team"})
	cmdSign(ts, false, []string{dir, "app:both", "team", "bundle"})
	cmdNotarize(ts, false, []string{dir, "app:both", "acme"})
	cmdSign(ts, false, []string{dir, "app:stranger", "stranger"})
	cmdImage(ts, false, []string{dir, "app:plain"})
	cmdNotarize(ts, false, []string{dir, "app:old", "acme", "expired"})
	cmdSign(ts, false, []string{dir, "app:lost", "team"})
	cmdDamage(ts, false, []string{dir, "app:lost"})
	cmdIndex(ts, false, []string{dir, "app:multi", "good", "plain"})
}

// digest VARIABLE DIR REPO:TAG: puts the image's digest into the environment.
func cmdDigest(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 3, "digest VARIABLE DIR REPO:TAG")
	ts.Setenv(args[0], shopOf(ts).image(ts, args[1], args[2]).Digest.String())
}

// exit CODE COMMAND...: the command ends with exactly this code.
func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := codeOfCommand(ts, args[1:]); got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// until CODE COMMAND...: the command is run until it ends with this code.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for end := time.Now().Add(90 * time.Second); codeOfCommand(ts, args[1:]) != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s never ended with %d", strings.Join(args[1:], " "), want)
		}
	}
}

func codeOfCommand(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v: %v", args, err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}
