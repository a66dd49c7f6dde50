package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/inert"
	"trust-worker/internal/phrase"
	"trust-worker/layout"
	"trust-worker/scheduler"
	"trust-worker/trust"
)

// scanSummary is what `scan -o json` prints.
type scanSummary struct {
	Repositories int     `json:"repositories"`
	Images       int     `json:"images"`
	Signatures   int     `json:"signatures"` // SignatureInfo entries
	Verified     int64   `json:"verified"`   // verifier calls in this pass
	Trusted      int     `json:"trusted"`
	Untrusted    int     `json:"untrusted"`
	Expired      int     `json:"expired"`
	Unknown      int     `json:"unknown"`
	Errors       int64   `json:"errors"`
	Seconds      float64 `json:"seconds"`

	states   map[string]int // images by state
	unlisted []string       // directories of storage that could not be read
	refused  []string       // directories of storage that were not entered, each with why
}

func newScanCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "scan",
		Short: "Do one full pass over storage, print a summary, and exit",
		Example: `  trust-worker scan --root /var/lib/registry
  trust-worker scan --root /mnt/registry --state /tmp/state   # storage that is only read`,
		Annotations: map[string]string{allSettings: "yes"},
		Long: `Do one full pass over storage, print a summary, and exit.

What an earlier pass could not decide is tried again.

What it publishes is believed without a daemon that confirms it: keys that are
removed later are noticed only by the next scan. Readers that mind can ask for
a maximum age.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			summary, err := s.scan(cmd.Context(), cmd.ErrOrStderr(), false)
			if err != nil {
				return err
			}
			return s.printScan(cmd, &o, summary)
		},
	}
	o.register(c)
	return c
}

func (sum *scanSummary) text(t *table) {
	count := func(total int, of map[string]int) string {
		text, separator := phrase.Number(total), ": "
		for _, state := range imageStates {
			if n := of[state]; n > 0 {
				text += separator + phrase.Number(n) + " " + state
				separator = ", "
			}
		}
		return text
	}
	t.row("repositories", phrase.Number(sum.Repositories))
	t.row("images", count(sum.Images, sum.states))
	t.row("signatures", count(sum.Signatures, map[string]int{string(trust.Trusted): sum.Trusted, string(trust.Untrusted): sum.Untrusted,
		string(trust.Expired): sum.Expired, string(trust.Unknown): sum.Unknown}))
	t.row("verified now", phrase.Count(int(sum.Verified), "signature", "signatures"))
	t.row("errors", phrase.Number(sum.Errors))
	t.row("time", fmt.Sprintf("%.2f s", sum.Seconds))
}

// printScan prints what a pass came to. What it could not read of storage ends the
// command with 1, since that was not scanned.
func (s *settings) printScan(cmd *cobra.Command, o *output, sum *scanSummary) error {
	if err := o.print(cmd.OutOrStdout(), sum, sum.text); err != nil {
		return err
	}
	for _, dir := range sum.refused[:min(len(sum.refused), 20)] {
		fmt.Fprintf(cmd.ErrOrStderr(), "trust-worker: not entered: %s\n", inert.Text(dir))
	}
	if n := len(sum.refused) - 20; n > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "trust-worker: … nor were %d more directories\n", n)
	}
	if len(sum.unlisted) > 0 {
		return fmt.Errorf("%s could not be read: %s; %s", phrase.Count(len(sum.unlisted), "directory of storage", "directories of storage"),
			strings.Join(sum.unlisted[:min(len(sum.unlisted), 20)], ", "), unlistedRemedy(sum.unlisted...))
	}
	if sum.Repositories == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "trust-worker: there is no repository below %s%s\n", inert.Text(s.root), layout.Instead(s.root))
	}
	return nil
}

// scan does one pass. When it meets damage in the cache, that is set aside, and the
// pass is made again, once. anew sets the cache aside as it is.
func (s *settings) scan(ctx context.Context, stderr io.Writer, anew bool) (*scanSummary, error) {
	start := time.Now()
	log, err := s.logger()
	if err != nil {
		return nil, err
	}
	s.anew = anew
	var after scheduler.Status
	pass := func(store *store.Store) (err error) {
		after, err = s.pass(ctx, stderr, store, log)
		return err
	}
	if err = s.onStore(log, -1, pass); errors.Is(err, cache.ErrDamaged) && ctx.Err() == nil {
		err = s.onStore(log, -1, pass)
	}
	if err != nil {
		return nil, err
	}
	sum, err := s.summarize()
	if err != nil {
		return nil, err
	}
	sum.Verified, sum.Errors, sum.Seconds = after.Work.Calls, after.Work.Errors, time.Since(start).Seconds()
	sum.refused = after.RefusedDirs
	return sum, nil
}

// pass is one pass over storage with an open cache.
func (s *settings) pass(ctx context.Context, stderr io.Writer, store *store.Store, log *slog.Logger) (after scheduler.Status, err error) {
	roots, closeAll, err := s.storage()
	if err != nil {
		return after, err
	}
	defer closeAll()
	loader, err := s.loader(log)
	if err != nil {
		return after, err
	}
	sched, err := scheduler.New(s.scheduler(store, roots, loader, log))
	if err != nil {
		return after, err
	}
	told, err := s.observe(log)
	if err != nil {
		return after, err
	}
	done := showProgress(stderr, sched)
	err = sched.Scan(ctx, true)
	done()
	return sched.Status(), errors.Join(err, told.close())
}

// summarize counts what is published, as any reader sees it.
func (s *settings) summarize() (*scanSummary, error) {
	r, err := s.reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	sum := &scanSummary{states: map[string]int{}}
	if sum.unlisted, err = unlisted(snap, ""); err != nil {
		return nil, err
	}
	err = snap.Repositories(func(name string) error {
		sum.Repositories++
		return snap.Each(name, func(img cache.Image) error {
			sum.Images++
			sum.states[img.State()]++
			for status, n := range img.Statuses() {
				sum.Signatures += n
				switch status {
				case trust.Trusted:
					sum.Trusted += n
				case trust.Untrusted:
					sum.Untrusted += n
				case trust.Expired:
					sum.Expired += n
				default:
					sum.Unknown += n
				}
			}
			return nil
		})
	})
	return sum, err
}

// showProgress draws a bar while a pass runs, when stderr is a terminal.
func showProgress(stderr io.Writer, sched *scheduler.Scheduler) (done func()) {
	f, ok := terminal(stderr)
	if !ok {
		return func() {}
	}
	p := mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
	bar := p.AddBar(0, mpb.PrependDecorators(decor.Name("repositories "), decor.CountersNoUnit("%d / %d")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			return fmt.Sprintf("%d signatures verified", sched.Work().Verified)
		})))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			st := sched.Status()
			bar.SetTotal(int64(max(st.Repositories, 1)), false)
			bar.SetCurrent(int64(max(st.Repositories-st.Queue, 0)))
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		bar.Abort(true) // it is gone from the terminal before the summary comes
		p.Wait()
	}
}
