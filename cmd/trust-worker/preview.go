package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/preview"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

func newPreviewCommand(s *settings) *cobra.Command {
	var o output
	var remove, add []string
	var policy string
	c := &cobra.Command{
		Use:   "preview",
		Short: "Show which images a change of keys, identities or policy would cost and gain",
		Long: `Show which images would stop being trusted, which others would keep, and which would
be gained, if files were removed from the trust directories or added to them. Nothing is
changed. Removals, scopes, identities and lists of stores are exact: it is the daemon's
own decision over what it has verified, with other trust. What a new key, certificate or
root may have made is verified in storage, up to 1,000 signatures and for a second; of the
rest it says how many there are at most.

--remove takes a file as keys shows it (_cosign/team.pub), or a fingerprint; --add a file,
and @ with where it is to lie: @team-a for a scope, @ca:acme for a trust store.

Exit codes: 0 nothing is lost, 12 images are.`,
		Example: `  trust-worker keys preview --remove _cosign/team.pub
  trust-worker keys preview --add new.pub@team-a --remove sha256:…
  trust-worker keys preview --add identities.yaml@team-a -o json
  trust-worker keys preview --policy trustpolicy.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			change, err := readChange(remove, add, policy)
			if err != nil {
				return err
			}
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			reader, err := s.reader()
			if err != nil {
				return err
			}
			defer reader.Close()
			snap, err := reader.Snapshot()
			if err != nil {
				return err
			}
			defer snap.Close()
			most := 0
			if o.format == "text" {
				most = shownPreviews
			}
			roots, closeAll, err := s.storage()
			if err == nil {
				defer closeAll()
			} // else nothing is verified, which the answer says by a number
			a, err := preview.Ask(cmd.Context(), snap, s.previewed(roots), change, most)
			var wrong *preview.ChangeError
			if errors.As(err, &wrong) {
				return usageError{err}
			}
			if err != nil {
				return err
			}
			if err := o.print(cmd.OutOrStdout(), a, func(t *table) { previewText(t, a) }); err != nil {
				return err
			}
			if a.Counts.Lost > 0 {
				return &codeError{code: trust.ExitNotTrusted}
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&remove, "remove", nil, "`FILE` or fingerprint that would go (repeatable)")
	c.Flags().StringSliceVar(&add, "add", nil, "`FILE[@PLACE]` that would come: a key, trusted root, identities.yaml or certificate (repeatable)")
	c.Flags().StringVar(&policy, "policy", "", "`FILE` that would be the notation trust policy")
	o.register(c)
	return c
}

// readChange reads the files that are named.
func readChange(remove, add []string, policy string) (*preview.Change, error) {
	change := &preview.Change{Remove: remove}
	for _, what := range add {
		file, place, _ := strings.Cut(what, "@")
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, usageError{fmt.Errorf("--add: %w", err)}
		}
		change.Add = append(change.Add, preview.Addition{Name: filepath.Base(file), Place: place, Content: b})
	}
	if policy != "" {
		b, err := os.ReadFile(policy)
		if err != nil {
			return nil, usageError{fmt.Errorf("--policy: %w", err)}
		}
		change.Policy = b
	}
	if change.IsEmpty() {
		return nil, usageError{errors.New("say what would change: --remove, --add or --policy")}
	}
	return change, nil
}

// previewed is where the trust in force comes from, and the storage that signatures are
// verified in.
func (s *settings) previewed(roots []scheduler.Storage) preview.Trust {
	t := preview.Trust{CosignDir: s.cosignDir, NotationDir: s.notationDir, Loader: func(cosignDir, notationDir string) (*truststore.Loader, error) {
		other := *s
		other.cosignDir, other.notationDir = cosignDir, notationDir
		return other.loader(slog.New(slog.DiscardHandler))
	}}
	if len(roots) > 0 {
		t.Verify = func(ctx context.Context, then *truststore.TrustStore, c *cache.Candidate) ([]trust.Verdict, error) {
			return scheduler.VerifyCandidate(ctx, roots, then, c)
		}
	}
	return t
}

func previewText(t *table, a *preview.Answer) {
	t.columns(column{fit: wrap})
	t.row(fmt.Sprintf("of generation %s, as of %s", a.Generation, t.when(a.AsOf)))
	list := func(title string, n int, images []preview.Image, who func(*preview.Image) string) {
		t.columns(column{fit: wrap})
		t.row(fmt.Sprintf("%s: %s", title, plural(n, "image", "images")))
		t.columns(column{}, column{fit: middle}, column{fit: end}, column{fit: keep})
		for i := range images {
			img := &images[i]
			name := img.RepoName + "@" + img.Digest.String()
			if img.Tag != "" {
				name = img.RepoName + ":" + img.Tag
			}
			t.row("", name, who(img), img.State)
		}
		if more := n - len(images); more > 0 {
			t.columns(column{fit: wrap})
			t.row(fmt.Sprintf("and %d more (-o json has all)", more))
		}
	}
	list("lost", a.Counts.Lost, a.Lost, func(p *preview.Image) string { return strings.Join(p.Signers, ", ") })
	list("kept", a.Counts.Kept, a.Kept, func(p *preview.Image) string { return "by " + strings.Join(p.By, ", ") })
	list("gained", a.Counts.Gained, a.Gained, func(p *preview.Image) string { return strings.Join(p.Signers, ", ") })
	t.columns(column{fit: wrap})
	if a.ToVerify > 0 {
		t.row(fmt.Sprintf("%s to be verified again before more can be said", plural(a.ToVerify, "signature has", "signatures have")))
	}
	if a.AtMost > 0 {
		t.row(fmt.Sprintf("at most %s more may turn trusted: who made them is known when they have been verified", plural(int(a.AtMost), "signature", "signatures")))
	}
	if a.Attestations > 0 {
		t.row(plural(a.Attestations, "attestation would", "attestations would") + " no longer be trusted")
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
