package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/changes"
	"trust-worker/changes/webhook"
	"trust-worker/cluster"
	"trust-worker/cluster/replica"
	"trust-worker/scheduler"
	"trust-worker/server"
	"trust-worker/trust"
	"trust-worker/watcher"
)

// stopTimeout bounds a graceful stop: turns end after some 50 ms, and what is committed
// last is one transaction.
const stopTimeout = 15 * time.Second

func newServeCommand(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Example: `  trust-worker serve --root /var/lib/registry
  trust-worker serve --root /var/lib/registry --listen 127.0.0.1:8428   # with the status page
  trust-worker serve --config /etc/trust-worker/config.yaml`,
		Annotations: map[string]string{allSettings: "yes"},
		Long: `Run the daemon: verify what is in storage, follow changes of storage and of the
trust directories, and publish the answers.

Signals: INT and TERM stop within 15 seconds, a second one at once; HUP reloads
the trust directories and trustWorker.scopes; USR1 looks at all of storage again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			if err := server.CheckAccess(s.http.listen, s.http.auth(), s.http.tls(), s.http.defaultStore); err != nil {
				return usageError{err}
			}
			if err := s.http.gate.Check(); err != nil {
				return usageError{err}
			}
			if err := s.cluster.checkFiles(); err != nil {
				return err
			}
			return s.serve(cmd.Context(), nil)
		},
	}
	s.registerServe(c.Flags())
	return c
}

// registerServe declares the flags of `serve` that other commands do not have.
func (s *settings) registerServe(f *pflag.FlagSet) {
	s.http.register(f)
	s.cluster.register(f)
}

// serve runs the daemon until ctx ends. ready, if not nil, is called when the
// first pass is published.
func (s *settings) serve(ctx context.Context, ready func(context.Context) error) error {
	log, err := s.logger()
	if err != nil {
		return err
	}
	// From the first moment to the last: either would end the process.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1)
	defer signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1)
	for {
		err := s.onStore(log, s.lease, func(store *store.Store) error { return s.serveOnce(ctx, store, signals, log, ready) })
		switch {
		case err == nil:
			log.Info("stopped")
			return nil
		case ctx.Err() != nil:
			return err
		case errors.Is(err, store.ErrStateGone): // another daemon may have it by now, which Open tells
			log.Error("beginning anew", "error", err)
		case errors.Is(err, cache.ErrDamaged): // which Open tells
		default:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // a disk that damages everything must not spin
		}
	}
}

func (s *settings) serveOnce(ctx context.Context, store *store.Store, signals <-chan os.Signal, log *slog.Logger, ready func(context.Context) error) (err error) {
	roots, closeAll, err := s.storage()
	if err != nil {
		return err
	}
	defer func() {
		if !errors.Is(err, errStuck) {
			closeAll()
		}
	}()
	loader, err := s.loader(log)
	if err != nil {
		return err
	}
	told, err := s.observe(log)
	if err != nil {
		return err
	}
	defer func() {
		if !errors.Is(err, errStuck) {
			err = errors.Join(err, told.close())
		}
	}()
	hooks, err := webhook.New(s.webhooks, told.journal, s.state, nil, log)
	if errors.Is(err, webhook.ErrState) {
		return err
	}
	if err != nil {
		return usageError{err}
	}
	cfg := s.scheduler(store, roots, loader, log)
	cfg.MirrorPolicy, cfg.Published = s.mirrorPolicy, told.observer.Published
	watchdog := watchdogTimeout(log)
	if watchdog > 0 {
		cfg.ConfirmInterval = min(cfg.ConfirmInterval, watchdog/3)
	}
	if s.watch {
		cfg.Trust = watcher.NewTrust([]string{s.cosignDir, s.notationDir}, watcher.Options{Log: log})
		cfg.Repositories = watcher.NewRepositories(watcher.Options{Log: log})
	}
	peers, err := s.cluster.join(store, log)
	if err != nil {
		return err
	}
	if peers != nil {
		cfg.Peers, cfg.ConfirmInterval = peers, min(cfg.ConfirmInterval, time.Second)
	}
	sched, err := scheduler.New(cfg)
	if err != nil {
		return err
	}
	log.Info("serving", "root", s.root, "state", s.state, "pid", os.Getpid(), "version", versions().Version)
	for _, tool := range s.off() {
		log.Warn("this tool is off: images with its signatures alone read unsigned", "tool", tool)
	}
	others := s.clusterStatus(peers, sched)
	p := newParts(ctx)
	p.start("work", sched.Run)
	if peers != nil {
		p.start("cluster", func(ctx context.Context) error { return peers.Run(ctx, member{sched}) })
	}
	p.start("signals", func(ctx context.Context) error {
		return handleSignals(ctx, signals, sched, func() error { return s.reconfigure(loader, log) }, log)
	})
	p.start("webhooks", hooks.Run)
	p.start("status file", func(ctx context.Context) error { return s.writeStatus(ctx, store, sched, others, told, hooks) })
	p.start("systemd", func(parts context.Context) error {
		return s.notifySystemd(ctx, parts, func() condition { return conditionOf(sched.Status()) }, watchdog, log)
	})
	p.start("changes", told.observer.Run)
	p.start("memory", func(ctx context.Context) error {
		collectLess(ctx, func() bool { return sched.Status().FirstPass && told.observer.Totals() != nil })
		return nil
	})
	p.start("HTTP", func(ctx context.Context) error {
		return s.serveHTTP(ctx, &s.http, roots, sched, others, told, hooks, log)
	})
	p.start("first pass", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-sched.FirstPass():
		}
		log.Info("first pass is over", "work", sched.Work())
		if ready != nil {
			return ready(ctx)
		}
		return nil
	})
	return p.wait(stopTimeout)
}

// off returns the tools that are switched off.
func (s *settings) off() (tools []trust.Tool) {
	if !s.enable || !s.cosign {
		tools = append(tools, trust.Cosign)
	}
	if !s.enable || !s.notation {
		tools = append(tools, trust.Notation)
	}
	return tools
}

// handleSignals reloads at HUP and rescans at USR1.
func handleSignals(ctx context.Context, signals <-chan os.Signal, sched *scheduler.Scheduler, reconfigure func() error, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case sig := <-signals:
			log.Info("signal", "signal", sig.String())
			if sig == syscall.SIGHUP {
				if err := reconfigure(); err != nil {
					log.Error("the configuration cannot be used; what it said of scopes stays in force", "error", err)
				}
				sched.Reload()
			} else {
				sched.Rescan()
			}
		}
	}
}

// statusFile is what the daemon leaves for `status` in the state directory.
type statusFile struct {
	PID              int
	Version          string
	Started, Updated time.Time
	Generation       uint64
	Published        uint64 // publications of data since the start
	PrivateBytes     int64
	Rebuilt          string `json:",omitempty"`
	Lease            string
	Off              []trust.Tool     `json:",omitempty"`
	Webhooks         []webhook.Status `json:",omitempty"`
	// Counts is absent while the daemon counts, after its start.
	Counts *statusCounts `json:",omitempty"`
	// Replica says how a replica follows its source; what else is about storage and the
	// trust directories is then not known.
	Replica *replica.Status `json:",omitempty"`
	// Cluster says how this worker does among others.
	Cluster *cluster.Status `json:",omitempty"`
	scheduler.Status
}

// statusCounts are the images and signatures by state, as of a generation.
type statusCounts struct {
	Generation string
	*cache.Counts
}

func countsOf(t *changes.Totals) *statusCounts {
	if t == nil {
		return nil
	}
	return &statusCounts{t.Generation.String(), t.Counts}
}

func statusPath(state string) string { return filepath.Join(state, "status.json") }

// writeStatus leaves the daemon's condition in the state directory, every two
// seconds. It is for people; no answer rests on it.
func (s *settings) writeStatus(ctx context.Context, store *store.Store, sched *scheduler.Scheduler, others func() *cluster.Status, told *observed, hooks *webhook.Sender) error {
	st := statusFile{PID: os.Getpid(), Version: versions().Version, Started: time.Now(), Lease: s.lease.String(), Rebuilt: store.Rebuilt(), Off: s.off()}
	log, err := s.logger()
	if err != nil {
		return err
	}
	failed := false
	first := sched.FirstPass()
	for {
		st.Updated, st.Generation, st.Published = time.Now(), store.Generation(), store.Published()
		st.PrivateBytes, st.Status, st.Webhooks = store.PrivateSize(), sched.Status(), hooks.Status()
		st.Counts = countsOf(told.observer.Totals())
		if others != nil {
			st.Cluster = others()
		}
		failed = s.leaveStatus(&st, failed, log)
		select {
		case <-ctx.Done():
			return nil
		case <-first:
			first = nil // news that is worth writing at once
		case <-time.After(2 * time.Second):
		}
	}
}

// leaveStatus writes the status file. It says once that it cannot.
func (s *settings) leaveStatus(st *statusFile, failed bool, log *slog.Logger) (fails bool) {
	b, err := json.MarshalIndent(st, "", "  ")
	if err == nil {
		err = renameio.WriteFile(statusPath(s.state), append(b, '\n'), 0o640, renameio.WithTempDir(s.state))
	}
	if err != nil && !failed {
		log.Warn("cannot write the status file", "error", err)
	}
	return err != nil
}
