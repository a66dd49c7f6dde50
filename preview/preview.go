package preview

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Answer says which images a change would cost, keep and gain.
type Answer struct {
	// Generation is the publication that is compared, AsOf when it was confirmed.
	Generation string
	AsOf       time.Time
	Lost       []Image // no longer trusted
	Kept       []Image // trusted, though a signer of theirs is not
	Gained     []Image // trusted then
	// Counts are of all images, also of those that the lists leave out.
	Counts Counts
	// ToVerify is how many signatures would have to be verified again before anything
	// could be said of them: an edited policy means something else for them.
	ToVerify int
	// AtMost is how many signatures, not trusted now, a new key, certificate or root may
	// turn out to have made.
	AtMost int64
	// Attestations is how many attestations, trusted now, would not be. They count for no image.
	Attestations int
	// Warnings are what would be refused, or is odd, in the trust directories then.
	Warnings []truststore.Refusal
}

// Counts are numbers of images.
type Counts struct{ Lost, Kept, Gained int }

// Image is one image. Signers are those that it would lose or gain, By those that keep it.
type Image struct {
	RepoName string
	Tag      string
	Digest   trust.Digest
	Signers  []string `json:",omitempty"`
	By       []string `json:",omitempty"`
	State    string   // then
}

// Trust is where the trust in force comes from.
type Trust struct {
	CosignDir, NotationDir string
	// Loader makes a loader as the daemon's, for other directories.
	Loader func(cosignDir, notationDir string) (*truststore.Loader, error)
	// Verify verifies a signature from storage under trust that is not in force; nil: nothing
	// is verified. An error means that it cannot be decided now.
	Verify func(ctx context.Context, then *truststore.TrustStore, c *cache.Candidate) ([]trust.Verdict, error)
	// VerifyTime is how long signatures are verified for one answer; 0: a second.
	VerifyTime time.Duration
	// Temp is where copies are made; empty: the system's directory for such.
	Temp string
}

// Ask compares what the snapshot holds under the trust directories as they are and as they
// would be. Of each list it keeps so many images (0: all).
func Ask(ctx context.Context, snap *cache.Snapshot, t Trust, change *Change, most int) (*Answer, error) {
	load := func(cosignDir, notationDir string) (*truststore.TrustStore, error) {
		loader, err := t.Loader(cosignDir, notationDir)
		if err != nil {
			return nil, err
		}
		return loader.Load(ctx, time.Now())
	}
	now, err := load(t.CosignDir, t.NotationDir)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(t.Temp, "trust-worker-preview-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cosignDir, notationDir := filepath.Join(dir, "1", filepath.Base(t.CosignDir)), filepath.Join(dir, "2", filepath.Base(t.NotationDir))
	if err := errors.Join(copyTrust(t.CosignDir, cosignDir), copyTrust(t.NotationDir, notationDir)); err != nil {
		return nil, err
	}
	if err := change.apply(now, t, cosignDir, notationDir); err != nil {
		return nil, err
	}
	then, err := load(cosignDir, notationDir)
	if err != nil {
		return nil, err
	}
	a := &Answer{Generation: snap.Generation().String(), AsOf: snap.AsOf(), Lost: []Image{}, Kept: []Image{}, Gained: []Image{}, Warnings: []truststore.Refusal{}}
	for _, r := range slices.Concat(then.Refused(), then.Warnings()) {
		if !slices.Contains(now.Refused(), r) && !slices.Contains(now.Warnings(), r) {
			a.Warnings = append(a.Warnings, r)
		}
	}
	verified, err := a.mayGain(ctx, snap, t, now, then)
	if err != nil {
		return nil, err
	}
	var tags tagsOf
	n := 0
	err = snap.Preview(now.InForce(), then.InForce(), verified, func(p *cache.Previewed) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return a.add(snap, &tags, p, most)
	})
	return a, err
}

// add files one image.
func (a *Answer) add(snap *cache.Snapshot, tags *tagsOf, p *cache.Previewed, most int) error {
	a.ToVerify += p.ToVerify
	a.Attestations += p.Attestations
	one := Image{RepoName: p.Repository, Digest: p.Digest, State: p.Is}
	var to *[]Image
	var n *int
	var signers []cache.Trustee
	switch {
	case len(p.Before) > 0 && len(p.After) == 0:
		signers, to, n = p.Before, &a.Lost, &a.Counts.Lost
	case slices.ContainsFunc(p.Before, func(t cache.Trustee) bool { return !slices.Contains(p.After, t) }):
		signers, to, n = slices.DeleteFunc(slices.Clone(p.Before), func(t cache.Trustee) bool { return slices.Contains(p.After, t) }), &a.Kept, &a.Counts.Kept
		one.By = namesOf(p.After)
	case len(p.Before) == 0 && len(p.After) > 0:
		signers, to, n = p.After, &a.Gained, &a.Counts.Gained
	default:
		return nil
	}
	if *n++; most > 0 && len(*to) >= most {
		return nil
	}
	one.Signers = namesOf(signers)
	var err error
	if one.Tag, err = tags.of(snap, p.Repository, p.Digest); err != nil {
		return err
	}
	*to = append(*to, one)
	return nil
}

// namesOf are signers as people read them.
func namesOf(all []cache.Trustee) (names []string) {
	for _, t := range all {
		name := t.File
		if t.Author != "" {
			name = t.Author + " (" + t.File + ")"
		}
		names = append(names, name)
	}
	return names
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

// maxVerified is how many signatures are verified for one answer.
const maxVerified = 1000

// mayGain verifies what a signer that comes may have made, up to a budget, and counts the rest.
func (a *Answer) mayGain(ctx context.Context, snap *cache.Snapshot, t Trust, now, then *truststore.TrustStore) (cache.Verified, error) {
	reasons := map[trust.Reason]bool{}
	var came []trust.Material
	for _, m := range then.InForce().Terms().Materials {
		if now.InForce().Has(m.Signer.ID()) {
			continue
		}
		came = append(came, m)
		if m.Signer.StoreType == trust.RootStore {
			for _, r := range []trust.Reason{trust.NoTrustedRoot, trust.AuthorityRemoved, trust.NotLogged, trust.NoSignedTime, trust.SCTMissing, trust.CertificateInvalid, trust.IdentityNotTrusted} {
				reasons[r] = true
			}
			continue
		}
		reasons[trust.NoTrustedKey], reasons[trust.SignerRemoved] = true, true
		if m.Signer.Tool == trust.Notation { // what a TSA's certificate may cure
			reasons[trust.TimestampInvalid], reasons[trust.CertificateExpired] = true, true
		}
	}
	if len(came) == 0 {
		return nil, nil
	}
	verified, tried := cache.Verified{}, map[cache.VerifiedKey]bool{}
	verifying, cancel := context.WithTimeout(ctx, cmp.Or(t.VerifyTime, time.Second))
	defer cancel()
	n, layers := 0, 0
	// Under the trust to come: what a signer that was there before has made is decided.
	err := snap.Candidates(then.InForce(), reasons, func(c *cache.Candidate) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !slices.ContainsFunc(came, func(m trust.Material) bool {
			return m.Signer.Tool == c.Tool && (c.Tool != trust.Cosign || trust.Governs(m.Scope, c.Repository))
		}) {
			return nil
		}
		k := cache.VerifiedKey{Subject: c.Subject, Signature: c.Signature}
		if c.Tool == trust.Notation {
			k.Policy, _ = then.InForce().Policy(c.Repository, trust.Notation) // none: it cannot be verified
			k.MediaType = c.MediaType
		}
		if t.Verify != nil && !tried[k] && layers+c.Layers <= maxVerified && verifying.Err() == nil {
			tried[k] = true
			layers += c.Layers
			if verdicts, err := t.Verify(verifying, then, c); err == nil {
				verified[k] = verdicts
			}
		}
		if verified[k] == nil {
			a.AtMost += int64(c.Layers)
		}
		return ctx.Err()
	})
	return verified, err
}
