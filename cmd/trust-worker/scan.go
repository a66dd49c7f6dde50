package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"trust-worker/cache"
	"trust-worker/cache/store"
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
}

func newScanCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "scan",
		Short: "Do one full pass over storage, print a summary, and exit",
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
			return o.print(cmd.OutOrStdout(), summary, summary.text)
		},
	}
	o.register(c)
	return c
}

func (sum *scanSummary) text(t *table) {
	t.row("repositories", fmt.Sprint(sum.Repositories))
	t.row("images", fmt.Sprint(sum.Images))
	t.row("signatures", fmt.Sprint(sum.Signatures))
	t.row("verified now", fmt.Sprint(sum.Verified))
	t.row("trusted", fmt.Sprint(sum.Trusted))
	t.row("untrusted", fmt.Sprint(sum.Untrusted))
	t.row("expired", fmt.Sprint(sum.Expired))
	t.row("unknown", fmt.Sprint(sum.Unknown))
	t.row("errors", fmt.Sprint(sum.Errors))
	t.row("seconds", fmt.Sprintf("%.2f", sum.Seconds))
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
	var work scheduler.Work
	pass := func(store *store.Store) (err error) {
		work, err = s.pass(ctx, stderr, store, log)
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
	sum.Verified, sum.Errors, sum.Seconds = work.Calls, work.Errors, time.Since(start).Seconds()
	return sum, nil
}

// pass is one pass over storage with an open cache.
func (s *settings) pass(ctx context.Context, stderr io.Writer, store *store.Store, log *slog.Logger) (work scheduler.Work, err error) {
	roots, closeAll, err := s.storage()
	if err != nil {
		return work, err
	}
	defer closeAll()
	loader, err := s.loader(log)
	if err != nil {
		return work, err
	}
	sched, err := scheduler.New(s.scheduler(store, roots, loader, log))
	if err != nil {
		return work, err
	}
	told, err := s.observe(log)
	if err != nil {
		return work, err
	}
	done := showProgress(stderr, sched)
	err = sched.Scan(ctx, true)
	done()
	return sched.Work(), errors.Join(err, told.close())
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
	sum := &scanSummary{}
	err = snap.Repositories(func(name string) error {
		sum.Repositories++
		return snap.Each(name, func(img cache.Image) error {
			sum.Images++
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
		bar.Abort(false)
		p.Wait()
	}
}
