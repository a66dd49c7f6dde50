package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/internal/imageref"
	"trust-worker/internal/inert"
	"trust-worker/layout"
	"trust-worker/trust"
)

// parseReference reads what a user names an image by.
func parseReference(s string) (imageref.Ref, error) {
	r, err := imageref.Parse(s)
	if err != nil {
		return r, usageError{fmt.Errorf("%.300q: %w (--no-trunc shows it whole)", s, err)}
	}
	return r, nil
}

// named returns a reference with the name that its repository has in this storage.
func (s *settings) named(r imageref.Ref, here func(name string) (bool, error)) (imageref.Ref, error) {
	r, err := r.In(s.registryNames, here)
	var host *imageref.HostError
	var name *imageref.NameError
	switch {
	case errors.As(err, &host), errors.As(err, &name):
		return r, usageError{err}
	case err != nil:
		return r, err
	case r.Name != "" && layout.Reserved(r.Name):
		if is, err := here(r.Name); err != nil {
			return r, err
		} else if !is {
			return r, &codeError{trust.ExitNotFound, fmt.Errorf("%s: %w", r.Name, layout.ErrReserved)}
		}
	}
	return r, nil
}

func newGetCommand(s *settings) *cobra.Command {
	var o output
	var wait time.Duration
	c := &cobra.Command{
		Use:   "get REPO:TAG | REPO@DIGEST | REPO:TAG@DIGEST | DIGEST",
		Short: "Say what the cache knows of an image, read as any other process would",
		Example: `  trust-worker get team/app:1.0 --root /var/lib/registry
  trust-worker get team/app@sha256:… -o json
  trust-worker get team/app:1.0 --wait 30s && deploy      # once it is decided`,
		Long: `Say what the cache knows of an image, read as any other process would.

Of a tag and a digest the digest decides. A name that begins with a registry's
host is taken for this storage's if --registry-name says so.

Exit codes: 0 trusted, 10 unsigned, 11 not found, 12 signed but not trusted,
14 not decided; with several answers the worst of them.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseReference(args[0])
			if err != nil {
				return err
			}
			if wait < 0 {
				return usageError{fmt.Errorf("--wait %s: a time to wait is not negative", wait)}
			}
			if err := s.complete(cmd, false); err != nil {
				return err
			}
			r, err := s.reader()
			for began := time.Now(); errors.Is(err, fs.ErrNotExist) && time.Since(began) < wait && cmd.Context().Err() == nil; {
				time.Sleep(50 * time.Millisecond) // a daemon that is being started makes it
				r, err = s.reader()
			}
			if err != nil {
				return err
			}
			defer r.Close()
			images, err := s.getWaiting(cmd.Context(), r, ref, wait)
			if err != nil {
				return answerError(err, ref)
			}
			return printAnswers(cmd.OutOrStdout(), &o, images, ref.Name != "")
		},
	}
	o.register(c)
	c.Flags().DurationVar(&wait, "wait", 0, "wait this long for an answer: until the image is known, signed and decided")
	c.ValidArgsFunction = func(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		return completeReference(cmd, s, toComplete)
	}
	return c
}

// unlistedRemedy is what to do about storage that cannot be listed, by why.
func unlistedRemedy(why ...string) string {
	if slices.ContainsFunc(why, func(w string) bool { return strings.Contains(w, "permission denied") }) {
		return "run trust-worker as a user who may read storage"
	}
	return "mend it; the daemon, or the next scan, reads it again"
}

// answerError gives the exit code of an answer that is none.
func answerError(err error, ref imageref.Ref) error {
	name := ref.String()
	switch {
	case errors.Is(err, cache.ErrUnlisted):
		return &codeError{trust.ExitUndecided, fmt.Errorf("%s: unknown (io-error): %w; %s", name, err, unlistedRemedy(err.Error()))}
	case errors.Is(err, cache.ErrPartial):
		return &codeError{trust.ExitUndecided, fmt.Errorf("%s: pending (new): %w", name, err)}
	case errors.Is(err, cache.ErrNotFound):
		hint := ""
		if ref.Name == "sha256" { // what a terminal shows of a digest reads as a repository and a tag
			hint = "; a digest is given with all its digits: --no-trunc shows them"
		}
		return &codeError{trust.ExitNotFound, fmt.Errorf("%s is not in the cache%s", name, hint)}
	case errors.Is(err, fs.ErrPermission):
		return &codeError{trust.ExitUndecided, fmt.Errorf("unknown (no-cache): %w", err)}
	case errors.Is(err, cache.ErrNoCache):
		return &codeError{trust.ExitUndecided, fmt.Errorf("unknown (no-cache): %w; is the daemon running?", err)}
	case errors.Is(err, cache.ErrDamaged):
		return &codeError{trust.ExitUndecided, fmt.Errorf("unknown (no-cache): %w; see: trust-worker cache check", err)}
	}
	return err
}

// getWaiting asks until the answer is a decision or the time is over.
func (s *settings) getWaiting(ctx context.Context, r *cache.Reader, ref imageref.Ref, wait time.Duration) ([]cache.Image, error) {
	deadline := time.Now().Add(wait)
	for {
		images, err := s.get(r, ref)
		settled := err != nil && !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, cache.ErrNoCache)
		if err == nil {
			code := foldAll(images)
			settled = code == trust.ExitTrusted || code == trust.ExitNotTrusted
		}
		if settled || time.Now().After(deadline) {
			return images, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *settings) get(r *cache.Reader, ref imageref.Ref) ([]cache.Image, error) {
	snap, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	ref, err = s.named(ref, snap.HasRepository)
	if err != nil {
		return nil, err
	}
	var img cache.Image
	switch {
	case ref.Name == "":
		return snap.Digest(ref.Digest)
	case ref.Digest != (trust.Digest{}):
		img, err = snap.Image(ref.Name, ref.Digest)
	case ref.Tag != "":
		img, err = snap.Tag(ref.Name, ref.Tag)
	default:
		return nil, needsTag(snap, ref.Name)
	}
	return []cache.Image{img}, err
}

// needsTag is the usage error for REPO alone: it lists what there is.
func needsTag(snap *cache.Snapshot, repository string) error {
	var tags []string
	err := snap.Tags(repository, func(tag string, _ trust.Digest) error {
		if len(tags) < 50 {
			tags = append(tags, tag)
		}
		return nil
	})
	switch ok, hasErr := snap.HasRepository(repository); {
	case err != nil:
		return err
	case hasErr == nil && !ok:
		return snap.Missing(repository)
	case len(tags) == 0:
		return usageError{fmt.Errorf("%s: name an image by digest: it has no tags (see: trust-worker list %s)", repository, repository)}
	}
	return usageError{fmt.Errorf("%s: name a tag or a digest; its tags are: %s", repository, strings.Join(tags, ", "))}
}

func foldAll(images []cache.Image) int {
	code := trust.ExitTrusted
	for i := range images {
		code = trust.Worst(code, images[i].Code())
	}
	return code
}

// imageList is several answers as one object.
type imageList struct{ Images []cache.Image }

// printAnswers prints one object for one named image, a list otherwise, and
// ends with the exit code.
func printAnswers(w io.Writer, o *output, images []cache.Image, single bool) error {
	var v any = imageList{images}
	if single && len(images) == 1 {
		v = images[0]
	}
	err := o.print(w, v, func(t *table) {
		for i := range images {
			explain(t, &images[i])
		}
	})
	if code := foldAll(images); err == nil && code != 0 {
		return &codeError{code: code}
	}
	return err
}

// explain prints one image with each of its signatures and the reasons.
func explain(t *table, img *cache.Image) {
	name := img.RepoName
	if img.Tag != "" {
		name += ":" + img.Tag
	}
	t.row("image", name+"@"+img.DigestText())
	t.row("state", stateText(img.State(), img.SignatureInfo, img.Reason()))
	if len(img.SignatureInfo) == 0 && img.SignaturesOmitted == 0 {
		e := img.Reason().Explain()
		if img.Reason() == "" {
			e = trust.Unsigned
		}
		t.row("  means", e.What)
		t.row("  to do", e.Do)
	}
	t.row("as of", t.when(img.AsOf))
	for i := range img.SignatureInfo {
		explainSignature(t, &img.SignatureInfo[i])
	}
	if img.SignaturesOmitted > 0 {
		t.row("signatures", fmt.Sprintf("and %d more, which are not listed; the state is that of all", img.SignaturesOmitted))
	}
	for i := range img.Attestations {
		a := &img.Attestations[i]
		word := string(a.Status)
		if a.Reason != "" {
			word += " (" + string(a.Reason) + ")"
		}
		t.row("attestation", fmt.Sprintf("%s  %s  layer %d of %s", cmp.Or(a.PredicateType, "not read"), word, a.Layer, a.Digest))
		if by := cmp.Or(a.Subject, a.SignerFile); by != "" {
			t.row("  by", by)
		}
	}
	if img.AttestationsOmitted > 0 {
		t.row("attestations", fmt.Sprintf("and %d more, which are not listed", img.AttestationsOmitted))
	}
	if len(img.Manifests) == 1 && img.Manifests[0].Digest == img.Digest {
		return
	}
	widest := 0
	for _, m := range img.Manifests {
		widest = max(widest, len(m.Platform)+1)
	}
	for _, m := range img.Manifests {
		state := stateText(m.State(), m.SignatureInfo, m.Reason())
		t.row("manifest", strings.TrimSpace(fmt.Sprintf("%-*s%s", widest, m.Platform, m.DigestText()))+"  "+state)
	}
}

// stateText is a state, with its reason if no signature that is shown has it.
func stateText(state string, shown []cache.Signature, r trust.Reason) string {
	if len(shown) == 0 && r != "" {
		return state + " (" + string(r) + ")"
	}
	return state
}

func explainSignature(t *table, sig *cache.Signature) {
	word := string(sig.Status)
	if sig.Reason != "" {
		word += " (" + string(sig.Reason) + ")"
	}
	for _, n := range sig.Notes {
		word += " [" + string(n) + "]"
	}
	t.row("signature", fmt.Sprintf("%-8s  %s  layer %d of %s", sig.Tool, word, sig.Layer, sig.Digest))
	if e := sig.Reason.Explain(); e != (trust.Explanation{}) {
		t.row("  means", e.What)
		if sig.Detail != "" {
			t.row("  detail", sig.Detail)
		}
		t.row("  to do", e.Do)
	}
	if sig.Author != "" {
		t.row("  author", authorLine(sig, t.whole))
	}
	if sig.Issuer != "" {
		t.row("  issuer", sig.Issuer)
	}
	if sig.SignedAt != nil {
		t.row("  signed", t.when(*sig.SignedAt))
	}
	if sig.Root != "" {
		t.row("  root", sig.Root)
	}
	if sig.SignerFingerprint != (trust.Digest{}) {
		t.row("  signer", sig.SignerFingerprint.String())
	}
	if sig.SignerFile != "" {
		t.row("  file", sig.SignerFile)
	}
	if sig.Since != nil {
		t.row("  since", t.when(*sig.Since))
	}
	if sig.ValidFrom != nil {
		t.row("  from", t.when(*sig.ValidFrom))
	}
	if sig.ValidUntil != nil {
		t.row("  until", t.when(*sig.ValidUntil))
	}
}

// authorLine is the author on one line: a PEM text without its armour, and
// without its middle unless whole.
func authorLine(sig *cache.Signature, whole bool) string {
	if sig.Tool != trust.Cosign || sig.Subject != "" {
		return sig.Author
	}
	var b strings.Builder
	for line := range strings.Lines(sig.Author) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			b.WriteString(line)
		}
	}
	if whole {
		return b.String()
	}
	return cutMiddle(inert.Text(b.String()), 48)
}

func completeReference(cmd *cobra.Command, s *settings, toComplete string) ([]string, cobra.ShellCompDirective) {
	if s.complete(cmd, false) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	r, err := s.reader()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer snap.Close()
	var found []string
	if name, _, ok := strings.Cut(toComplete, ":"); ok {
		_ = snap.Tags(name, func(tag string, _ trust.Digest) error { // a completion that fails offers less
			found = append(found, name+":"+tag)
			return nil
		})
		return found, cobra.ShellCompDirectiveNoFileComp
	}
	_ = snap.Repositories(func(name string) error { // as above
		if strings.HasPrefix(name, toComplete) {
			found = append(found, name+":")
		}
		return nil
	})
	return found, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}
