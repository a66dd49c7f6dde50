package integration

import (
	"context"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

func TestPushesShow(t *testing.T) {
	s := newSample(t)
	stranger := signtest.NewKey(signtest.P256)
	s.Image("app", "later")
	replaced := s.Image("app", "replaced")
	s.SignSimple(replaced, stranger, signtest.CosignOptions{})
	d := serve(t, s.Dir)
	r := open(t, d.state)
	r.becomes("app", "later", "unsigned")
	r.becomes("app", "replaced", "untrusted")

	t.Run("a replaced .sig tag", func(t *testing.T) {
		s.SignSimple(replaced, s.team, signtest.CosignOptions{})
		r.becomes("app", "replaced", "trusted")
		if n := len(r.image("app", "replaced").SignatureInfo); n != 2 {
			t.Errorf("%d signatures, want one for each of the two layers", n)
		}
	})
	t.Run("a referrer in a repository that is there", func(t *testing.T) {
		img := s.Image("app", "referred")
		s.SignSimple(img, s.team, signtest.CosignOptions{Referrer: true})
		r.becomes("app", "referred", "trusted")
		img = s.Image("app", "bundled")
		s.SignBundle(img, s.team, signtest.CosignOptions{})
		r.becomes("app", "bundled", "trusted")
		img = s.Image("app", "notarized")
		s.SignNotation(img, s.root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
		r.becomes("app", "notarized", "trusted")
	})
	t.Run("a signature before its image", func(t *testing.T) {
		early := signtest.NewStorage(filepath.Join(t.TempDir(), "elsewhere")).Image("app", "early")
		s.SignSimple(early, s.team, signtest.CosignOptions{})
		s.Image("app", "between") // shows that the signature was seen without its image
		r.becomes("app", "between", "unsigned")
		if state := r.state("app", "early"); state != "absent" {
			t.Errorf("an image that is not there reads %s", state)
		}
		s.Image("app", "early")
		r.becomes("app", "early", "trusted")
	})
	t.Run("a new repository", func(t *testing.T) {
		s.SignSimple(s.Image("fresh", "1"), s.team, signtest.CosignOptions{})
		r.becomes("fresh", "1", "trusted")
	})
	t.Run("new repositories below one and beside it", func(t *testing.T) {
		s.SignBundle(s.Image("app/api/v2", "1"), s.team, signtest.CosignOptions{})
		r.becomes("app/api/v2", "1", "trusted")
		s.SignBundle(s.Image("app/api", "1"), s.team, signtest.CosignOptions{})
		r.becomes("app/api", "1", "trusted")
		s.SignSimple(s.Image("a/b/c/d", "1"), s.team, signtest.CosignOptions{})
		r.becomes("a/b/c/d", "1", "trusted")
	})
	t.Run("a tag that moves and one that goes", func(t *testing.T) {
		s.Content("app", "later", "other content")
		s.Tag(s.first, "later")
		r.becomes("app", "later", "trusted")
		s.Remove(signtest.Image{Repo: "app", Tag: "later", Descriptor: s.first.Descriptor})
		r.becomes("app", "later", "absent")
		r.becomes("app", "1", "trusted")
	})
	if e := d.status(t, "any", func(*report) bool { return true }); e.Work.Errors > 0 {
		t.Errorf("%d errors while images were pushed", e.Work.Errors)
	}
}

// Events are a hint, the passes are the guarantee: without any event all of it
// shows, later.
func TestPassesAreTheGuarantee(t *testing.T) {
	s := newSample(t)
	replaced := s.Image("app", "replaced")
	d := serve(t, s.Dir, "--watch=false", "--scan-interval", "100ms", "--lease", "3s") // the trust directories: lease / 3
	r := open(t, d.state)
	r.becomes("app", "replaced", "unsigned")
	s.SignSimple(replaced, s.team, signtest.CosignOptions{})
	r.becomes("app", "replaced", "trusted")
	s.SignBundle(s.Image("app/nested/new", "1"), s.team, signtest.CosignOptions{})
	r.becomes("app/nested/new", "1", "trusted")
	spare := signtest.NewKey(signtest.P256)
	s.SignBundle(s.Image("app", "spare"), spare, signtest.CosignOptions{})
	r.becomes("app", "spare", "untrusted")
	s.TrustKey("spare.pub", spare)
	r.becomes("app", "spare", "trusted")
	s.Untrust("_cosign/spare.pub")
	r.becomes("app", "spare", "untrusted")
	s.Remove(signtest.Image{Repo: "app", Tag: "spare", Descriptor: s.Image("app", "spare").Descriptor})
	r.becomes("app", "spare", "absent")
}

// A co-signature replaces the .sig manifest under its tag. The image was trusted
// and stays so, at every moment, for every reader.
func TestCoSignatureNeverFlickers(t *testing.T) {
	const rounds = 50
	s := newSample(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	r.becomes("app", "1", "trusted")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := new(errgroup.Group)
	reads := 0
	g.Go(func() error {
		for ; ctx.Err() == nil; reads++ {
			snap, err := r.Snapshot()
			if err != nil {
				t.Errorf("read %d: %v", reads, err)
				return nil
			}
			img, err := snap.Tag("app", "1")
			if err != nil || img.Code() != trust.ExitTrusted {
				t.Errorf("read %d, generation %s: %v %s %v", reads, snap.Generation(), err, img.State(), reasons(img))
			}
			snap.Close()
			if t.Failed() {
				return nil
			}
		}
		return nil
	})
	signers := []*signtest.Key{signtest.NewKey(signtest.P256), s.team, signtest.NewKey(signtest.P384)}
	for i := range rounds {
		s.SignSimple(s.first, signers[i%len(signers)], signtest.CosignOptions{})
		if i%5 == 4 { // the others come while the daemon is at work on one before
			eventually(t, "the co-signature shows", func() bool { return len(r.image("app", "1").SignatureInfo) == i+2 })
		}
	}
	cancel()
	_ = g.Wait() // reports by t
	if reads < rounds {
		t.Errorf("only %d reads during %d co-signatures", reads, rounds)
	}
}
