package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/internal/inert"
	"trust-worker/trust"
)

func newHistoryCommand(s *settings) *cobra.Command {
	var format, signer string
	var noTrunc bool
	var since sinceFlag
	c := &cobra.Command{
		Use:   "history [REPO | REPO:TAG | REPO@DIGEST]",
		Short: "Show what has changed, when and why: of an image, of a signer, or of all",
		Example: `  trust-worker history team/app:1.0 --root /var/lib/registry
  trust-worker history --signer team.pub --since 30d
  trust-worker history --since 2026-11-01 -o json | jq .`,
		Long: `Show the changes of trust that the daemon has told, oldest first: when an image turned
trusted or ceased to be, by whom, and why; which keys and certificates came and went. They
are kept for trustWorker.historyDays (90). No daemon is needed.

Of an image it shows what names the image, what happened to those who signed it, and
changes of many images at once that it may be among. Such a change has their number, and
names no image. watch is what shows changes as they come.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("-o %s: choose text or json", format)}
			}
			r, err := s.answers(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			q := &changes.Query{}
			now, missing := "", "" // what is to be said at the end
			if since.text != "" {
				q.Since = since.from(time.Now())
			}
			if len(args) > 0 || signer != "" {
				snap, err := r.Snapshot()
				if err != nil {
					return err
				}
				defer snap.Close()
				if len(args) > 0 {
					ref, err := parseReference(args[0])
					if err != nil {
						return err
					}
					if ref, err = s.named(ref, snap.HasRepository); err != nil {
						return err
					}
					if ref.Name == "" {
						return usageError{fmt.Errorf("%.300q names no repository: give REPO, REPO:TAG or REPO@sha256:…", args[0])}
					}
					if err := q.About(snap, ref.Name, ref.Tag, ref.Digest); err != nil {
						return err
					}
					if now, missing, err = present(snap, q, args[0]); err != nil {
						return err
					}
				}
				if signer != "" && !q.By(snap, signer) {
					return usageError{fmt.Errorf("--signer %.300q: no key or certificate of that file or subject is or was in force, as far as is known; a fingerprint is taken always", signer)}
				}
			}
			w := &changeWriter{w: cmd.OutOrStdout(), json: format == "json", noTrunc: noTrunc}
			w.colour = !w.json && colours(w.w)
			n := 0
			_, _, err = changes.ReadHistory(cmd.Context(), s.state, q, changes.Place{}, 0, func(c *changes.Change, _ changes.Place) error {
				n++
				return w.write(*c)
			})
			switch {
			case err != nil || w.json:
			case n == 0 && missing != "":
				fmt.Fprintln(cmd.ErrOrStderr(), missing+", and no change that is kept names it")
			case n == 0:
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing that is kept has changed in that time; trustWorker.historyDays says for how long changes are kept")
			case now != "":
				fmt.Fprintln(cmd.OutOrStdout(), now)
			}
			return err
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text, or json for one object a line")
	c.Flags().StringVar(&signer, "signer", "", "only what is about this `SIGNER`: a file such as team.pub, a fingerprint, or a certificate's subject")
	c.Flags().Var(&since, "since", "only what came after `TIME`: as long ago as 12h, 7d or 4w, or a date such as 2026-11-01")
	registerNoTrunc(c, &noTrunc)
	c.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// present says what the image that is asked about reads now, or that what is asked about is
// not there.
func present(snap *cache.Snapshot, q *changes.Query, name string) (now, missing string, err error) {
	missing = inert.Text(name) + " is not in the cache"
	if q.Tag == "" && q.Digest == (trust.Digest{}) {
		if ok, err := snap.HasRepository(q.Repository); err != nil || ok {
			return "", "", err
		}
		return "", missing, nil
	}
	img, err := snap.Image(q.Repository, q.Digest)
	if errors.Is(err, cache.ErrNotFound) {
		return "", missing, nil
	} else if err != nil {
		return "", "", err
	}
	now = inert.Text(name) + " is now " + img.State()
	if r := img.Reason(); r != "" {
		now += " (" + string(r) + ")"
	}
	return now, "", nil
}

// sinceFlag is a time in the past: a distance from now, or a date.
type sinceFlag struct {
	text string
	ago  time.Duration
	at   time.Time
}

func (f *sinceFlag) String() string { return f.text }
func (f *sinceFlag) Type() string   { return "time" }

func (f *sinceFlag) Set(text string) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, strings.TrimSpace(text)); err == nil {
			*f = sinceFlag{text: text, at: t}
			return nil
		}
	}
	var d days
	if err := d.Set(text); err != nil {
		return fmt.Errorf("%w, or a date such as 2026-11-01 (UTC)", err)
	}
	*f = sinceFlag{text: text, ago: time.Duration(d)}
	return nil
}

func (f *sinceFlag) from(now time.Time) time.Time {
	if !f.at.IsZero() {
		return f.at
	}
	return now.Add(-f.ago)
}
