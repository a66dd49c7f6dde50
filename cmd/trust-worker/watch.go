package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/internal/inert"
	"trust-worker/trust"
)

func newWatchCommand(s *settings) *cobra.Command {
	var format string
	var last int
	var noTrunc bool
	c := &cobra.Command{
		Use:   "watch",
		Short: "Show trust changes as they come: keys, images that turn trusted or cease to be, expiry",
		Example: `  trust-worker watch --root /var/lib/registry
  trust-worker watch -o json | jq .`,
		Long: `Show trust changes as they come, until interrupted: keys and certificates that
are added and removed, images that turn trusted or cease to be and why, what
expires, and when answers cannot be believed. It reads the journal in the state
directory, needs no HTTP, and waits for a daemon that is not running.

A change that touches many images is one line with their number. "reset" means
that changes before it are not known: read everything again.

On a terminal times are local, digests are short and long lines go on in the
next; elsewhere, and with --no-trunc, a change is one line with everything whole.
Colours are used on a terminal, unless NO_COLOR is set.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("-o %s: choose text or json", format)}
			}
			if last < 0 {
				return usageError{errors.New("--last: choose 0 or more")}
			}
			r, err := s.answers(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			w := &changeWriter{w: cmd.OutOrStdout(), json: format == "json", noTrunc: noTrunc}
			w.colour = !w.json && colours(w.w)
			return watch(cmd.Context(), s.state, r, last, w.write)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text, or json for one object a line")
	registerNoTrunc(c, &noTrunc)
	c.Flags().IntVar(&last, "last", 10, "show this many of the last changes first")
	c.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// watch calls fn with the last n changes and with each that comes, until ctx
// ends. Whether answers can be believed it looks at itself: a daemon that has
// ended tells nothing.
func watch(ctx context.Context, state string, r *cache.Reader, n int, fn func(changes.Change) error) error {
	var mu sync.Mutex
	tell := func(c changes.Change) error {
		mu.Lock()
		defer mu.Unlock()
		return fn(c)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return changes.Follow(ctx, state, n, func(c changes.Change) error {
			if c.Kind == changes.Withdrawn || c.Kind == changes.Restored {
				return nil
			}
			return tell(c)
		})
	})
	g.Go(func() error { return watchBelief(ctx, r, tell) })
	return g.Wait()
}

// watchBelief tells when answers cease to be believed, and when they are again.
func watchBelief(ctx context.Context, r *cache.Reader, fn func(changes.Change) error) error {
	was := changes.Restored
	timer := time.NewTicker(time.Second)
	defer timer.Stop()
	for {
		now, detail := belief(r)
		if now != was {
			if err := fn(changes.Change{Time: time.Now().UTC(), Kind: now, Detail: detail}); err != nil {
				return err
			}
			was = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
	}
}

func belief(r *cache.Reader) (changes.Kind, string) {
	snap, err := r.Snapshot()
	if err != nil {
		return changes.Withdrawn, "every answer is unknown: " + err.Error()
	}
	defer snap.Close()
	if snap.Stale() {
		return changes.Stale, "every answer is unknown: last confirmed " + snap.AsOf().Format(time.RFC3339)
	}
	return changes.Restored, "answers are confirmed"
}

// colours reports whether w is a terminal that is to be written to in colour.
func colours(w io.Writer) bool {
	_, ok := terminal(w)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// changeWriter writes a change a line.
type changeWriter struct {
	w                     io.Writer
	json, colour, noTrunc bool
}

func (w *changeWriter) write(c changes.Change) error {
	if w.json {
		e := json.NewEncoder(inert.Writer{W: w.w})
		e.SetEscapeHTML(false)
		return e.Encode(c)
	}
	line := changeLine(screenOf(w.w, w.noTrunc), &c)
	if w.colour {
		word := string(c.Kind)
		line = strings.Replace(line, word, kindColour(c.Kind)+word+"\x1b[0m", 1)
	}
	_, err := io.WriteString(w.w, line+"\n")
	return err
}

// changeLine is a change on a screen. What stands on a terminal for hours says
// the time of day: "3 minutes ago" would not stay true.
func changeLine(s screen, c *changes.Change) string {
	when, text := s.when(c.Time), inert.Text(sentence(c))
	if !s.whole {
		when, text = c.Time.Local().Format("Jan _2 15:04:05"), shortDigests(text, digestLength([]string{text}))
	}
	line := fmt.Sprintf("%s  %s  %s", when, inert.Text(fmt.Sprintf("%-17s", c.Kind)), text)
	if s.width == 0 {
		return line
	}
	return strings.Join(wrapText(line, s.width, s.width-len(hanging)), "\n"+hanging)
}

const hanging = "    " // before the lines that a change goes on in

// kindColour: red for what is lost, green for what is trusted now, yellow for
// the rest. The word says it too.
func kindColour(k changes.Kind) string {
	switch {
	case k.Lost():
		return "\x1b[31m"
	case k == changes.SignatureTrusted || k == changes.SignerAdded || k == changes.Restored:
		return "\x1b[32m"
	}
	return "\x1b[33m"
}

// sentence says what a change is about.
func sentence(c *changes.Change) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch signers := c.Kind == changes.SignerAdded || c.Kind == changes.SignerRemoved; {
	case c.Count > 0 && signers:
		add("%d signers", c.Count)
	case c.Count > 0 && c.Repository != "":
		add("%d images of %s", c.Count, c.Repository)
	case c.Count > 0:
		add("%d images", c.Count)
	case c.Tag != "":
		add("%s:%s@%s", c.Repository, c.Tag, c.Digest)
	case c.Repository != "":
		add("%s@%s", c.Repository, c.Digest)
	}
	if c.Signer != (trust.Digest{}) {
		what := "key"
		if c.Store != "" {
			what = "certificate in " + c.Store
		} else if c.Tool == trust.Notation {
			what = "certificate"
		}
		add("%s %s %s", c.Tool, what, c.Signer)
	}
	if c.File != "" {
		add("%s", c.File)
	}
	switch {
	case c.Count > 0 && c.Turned != c.Count && c.Turned > 0:
		add("(%d of them turn to another state)", c.Turned)
	case c.Was != c.State && c.State == "":
		add("was %s, is gone", c.Was)
	case c.Was != c.State && c.Was == "":
		add("new, is %s", c.State)
	case c.Was != c.State:
		add("was %s, is %s", c.Was, c.State)
	case c.State != "":
		add("still %s", c.State)
	}
	if c.Reason != "" {
		add("(%s)", c.Reason)
	}
	if c.Signatures > 0 {
		add("signatures made by it: %d", c.Signatures)
	}
	if c.Detail != "" {
		add("%s", c.Detail)
	}
	return strings.Join(parts, "  ")
}
