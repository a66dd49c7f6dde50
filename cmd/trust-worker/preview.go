package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// preview is what `keys preview` says: which images another trust would cost, keep and
// gain.
type preview struct {
	Generation string
	AsOf       time.Time
	Lost       []previewed // no longer trusted
	Kept       []previewed // trusted, though a signer of theirs is not
	Gained     []previewed // trusted then
	// ToVerify is how many signatures would have to be verified again before anything
	// could be said of them: an edited policy means something else for them.
	ToVerify int
	// AtMost is how many signatures, not trusted now, a new key, certificate or root may
	// turn out to have made.
	AtMost int64
	// Warnings are what would be refused, or is odd, in the trust directories then.
	Warnings []truststore.Refusal
}

// previewed is one image. Signers are those that it would lose or gain, By those that
// keep it.
type previewed struct {
	RepoName string
	Tag      string
	Digest   trust.Digest
	Signers  []string `json:",omitempty"`
	By       []string `json:",omitempty"`
	State    string   // then
}

func newPreviewCommand(s *settings) *cobra.Command {
	var o output
	var change previewChange
	c := &cobra.Command{
		Use:   "preview",
		Short: "Show which images a change of keys, identities or policy would cost and gain",
		Long: `Show which images would stop being trusted, which others would keep, and which would
be gained, if files were removed from the trust directories or added to them. Nothing is
changed. Removals, scopes, identities and lists of stores are exact: it is the daemon's
own decision over what it has verified, with other trust. What a new key made is not known
before it is verified: then it says how many signatures at most.

--remove takes a file as keys shows it (_cosign/team.pub), or a fingerprint; --add a file,
and @ with where it is to lie: @team-a for a scope, @ca:acme for a trust store.

Exit codes: 0 nothing is lost, 12 images are.`,
		Example: `  trust-worker keys preview --remove _cosign/team.pub
  trust-worker keys preview --add new.pub@team-a --remove sha256:…
  trust-worker keys preview --add identities.yaml@team-a -o json
  trust-worker keys preview --policy trustpolicy.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(change.remove)+len(change.add) == 0 && change.policy == "" {
				return usageError{errors.New("say what would change: --remove, --add or --policy")}
			}
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			reader, err := s.reader()
			if err != nil {
				return err
			}
			defer reader.Close()
			a, err := s.preview(cmd.Context(), reader, &change)
			if err != nil {
				return err
			}
			if err := o.print(cmd.OutOrStdout(), a, a.text); err != nil {
				return err
			}
			if len(a.Lost) > 0 {
				return &codeError{code: trust.ExitNotTrusted}
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&change.remove, "remove", nil, "`FILE` or fingerprint that would go (repeatable)")
	c.Flags().StringSliceVar(&change.add, "add", nil, "`FILE[@PLACE]` that would come: a key, trusted root, identities.yaml or certificate (repeatable)")
	c.Flags().StringVar(&change.policy, "policy", "", "`FILE` that would be the notation trust policy")
	o.register(c)
	return c
}

// preview loads the trust directories as they are and as they would be, and compares what
// is published under both.
func (s *settings) preview(ctx context.Context, reader *cache.Reader, change *previewChange) (*preview, error) {
	now, err := s.loadFrom(ctx, s.cosignDir, s.notationDir)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "trust-worker-preview-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cosignDir, notationDir := filepath.Join(dir, filepath.Base(s.cosignDir)), filepath.Join(dir, filepath.Base(s.notationDir))
	for from, to := range map[string]string{s.cosignDir: cosignDir, s.notationDir: notationDir} {
		if err := copyTrust(from, to); err != nil {
			return nil, err
		}
	}
	if err := change.apply(now, cosignDir, notationDir); err != nil {
		return nil, err
	}
	then, err := s.loadFrom(ctx, cosignDir, notationDir)
	if err != nil {
		return nil, err
	}
	snap, err := reader.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	a := &preview{Generation: snap.Generation().String(), AsOf: snap.AsOf(), Lost: []previewed{}, Kept: []previewed{}, Gained: []previewed{}, Warnings: []truststore.Refusal{}}
	for _, r := range slices.Concat(then.Refused(), then.Warnings()) {
		if !slices.Contains(now.Refused(), r) && !slices.Contains(now.Warnings(), r) {
			a.Warnings = append(a.Warnings, r)
		}
	}
	var tags tagsOf
	if err := snap.Preview(now.InForce(), then.InForce(), func(d *cache.Difference) error { return a.add(snap, &tags, d) }); err != nil {
		return nil, err
	}
	return a, a.mayGain(snap, now, then)
}

func (s *settings) loadFrom(ctx context.Context, cosignDir, notationDir string) (*truststore.TrustStore, error) {
	other := *s
	other.cosignDir, other.notationDir = cosignDir, notationDir
	loader, err := other.loader(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return loader.Load(ctx, time.Now())
}

// add files one image.
func (a *preview) add(snap *cache.Snapshot, tags *tagsOf, d *cache.Difference) error {
	before, after := trustedBy(d.Before), trustedBy(d.After)
	for i := range d.After {
		if s := &d.After[i]; s.Reason == trust.PolicyChanged {
			a.ToVerify++
		}
	}
	one := previewed{RepoName: d.Repository, Digest: d.Digest, State: d.Is}
	lost := slices.DeleteFunc(slices.Clone(before), func(s string) bool { return slices.Contains(after, s) })
	var to *[]previewed
	switch {
	case len(before) > 0 && len(after) == 0:
		one.Signers, to = before, &a.Lost
	case len(lost) > 0:
		one.Signers, one.By, to = lost, after, &a.Kept
	case len(before) == 0 && len(after) > 0:
		one.Signers, to = after, &a.Gained
	default:
		return nil
	}
	var err error
	if one.Tag, err = tags.of(snap, d.Repository, d.Digest); err != nil {
		return err
	}
	*to = append(*to, one)
	return nil
}

// trustedBy names those by whom an image is trusted, each once.
func trustedBy(all []cache.Signature) (by []string) {
	for i := range all {
		s := &all[i]
		if !s.IsTrusted {
			continue
		}
		who := s.SignerFile
		if s.Subject != "" || s.Tool == trust.Notation {
			who = s.Author + " (" + s.SignerFile + ")"
		}
		if !slices.Contains(by, who) {
			by = append(by, who)
		}
	}
	slices.Sort(by)
	return by
}

// tagsOf are the first tags of the images of one repository after another.
type tagsOf struct {
	repository string
	first      map[trust.Digest]string
}

func (t *tagsOf) of(snap *cache.Snapshot, repository string, digest trust.Digest) (string, error) {
	if t.first == nil || t.repository != repository {
		t.repository, t.first = repository, map[trust.Digest]string{}
		err := snap.Tags(repository, func(tag string, d trust.Digest) error {
			if _, known := t.first[d]; !known {
				t.first[d] = tag
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return t.first[digest], nil
}

// mayGain counts what a signer that comes may have made.
func (a *preview) mayGain(snap *cache.Snapshot, now, then *truststore.TrustStore) error {
	reasons := map[trust.Reason]bool{}
	for _, m := range then.InForce().Terms().Materials {
		switch {
		case now.InForce().Has(m.Signer.ID()):
		case m.Signer.StoreType == trust.RootStore:
			for _, r := range []trust.Reason{trust.NoTrustedRoot, trust.AuthorityRemoved, trust.NotLogged, trust.NoSignedTime, trust.SCTMissing, trust.IdentityNotTrusted} {
				reasons[r] = true
			}
		default:
			reasons[trust.NoTrustedKey], reasons[trust.SignerRemoved], reasons[trust.TimestampInvalid] = true, true, true
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	counts, err := snap.Count()
	if err != nil {
		return err
	}
	for r := range reasons {
		a.AtMost += counts.Reasons[r]
	}
	return nil
}

func (a *preview) text(t *table) {
	t.columns(column{fit: wrap})
	t.row(fmt.Sprintf("of generation %s, as of %s", a.Generation, t.when(a.AsOf)))
	list := func(title string, images []previewed, who func(*previewed) string) {
		t.columns(column{fit: wrap})
		t.row(fmt.Sprintf("%s: %s", title, plural(len(images), "image", "images")))
		t.columns(column{}, column{fit: middle}, column{fit: end}, column{fit: keep})
		for i := range images[:min(len(images), shownPreviews)] {
			img := &images[i]
			name := img.RepoName + "@" + img.Digest.String()
			if img.Tag != "" {
				name = img.RepoName + ":" + img.Tag
			}
			t.row("", name, who(img), img.State)
		}
		if more := len(images) - shownPreviews; more > 0 {
			t.columns(column{fit: wrap})
			t.row(fmt.Sprintf("and %d more (-o json has all)", more))
		}
	}
	list("lost", a.Lost, func(p *previewed) string { return strings.Join(p.Signers, ", ") })
	list("kept", a.Kept, func(p *previewed) string { return "by " + strings.Join(p.By, ", ") })
	list("gained", a.Gained, func(p *previewed) string { return strings.Join(p.Signers, ", ") })
	t.columns(column{fit: wrap})
	if a.ToVerify > 0 {
		t.row(fmt.Sprintf("%s to be verified again before more can be said", plural(a.ToVerify, "signature has", "signatures have")))
	}
	if a.AtMost > 0 {
		t.row(fmt.Sprintf("at most %s more may turn trusted: who made them is known when they have been verified", plural(int(a.AtMost), "signature", "signatures")))
	}
	t.columns(column{}, column{fit: middle}, column{fit: wrap})
	for _, w := range a.Warnings {
		t.row("warning", w.Path, w.Reason)
	}
}

// shownPreviews is how many images of each list are shown to people.
const shownPreviews = 100

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
