package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/cluster/replica"
	"trust-worker/internal/phrase"
	"trust-worker/scheduler"
	"trust-worker/server"
	"trust-worker/verifier/truststore"
)

func newFollowCommand(s *settings) *cobra.Command {
	var source replica.Source
	c := &cobra.Command{
		Use:   "follow URL",
		Short: "Keep a replica of the answers of a worker on another machine",
		Example: `  trust-worker follow https://worker.example:8428 --state /var/lib/trust-replica --token-file token
  trust-worker follow unix:/run/trust-worker/http.sock --state /var/lib/trust-replica
  trust-worker get team/app:1.0 --state /var/lib/trust-replica`,
		Long: `Keep a replica of the answers of a worker that runs on another machine: what the
worker publishes, fetched over HTTP into a state directory of its own, which
other processes read as beside the worker. Whoever answers at URL decides what
is trusted here.

What the worker says of keys rules at once, data follow. While the worker cannot
be reached, answers are believed until the worker's lease ends, and then read
unknown, stale; when it comes back, the replica goes on by itself.

With --listen the replica serves HTTP itself, to be read: the page, REST, GraphQL,
the gate, and other replicas. /etc/trust-worker/config.yaml is not read.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			source.URL = args[0]
			if s.config == "" {
				s.config = "none" // the default one is a worker's
			}
			if s.state == "" && os.Getenv(envName("state")) == "" && singleStateDirectory() == "" {
				return usageError{errors.New("no directory for the replica: give --state DIR")}
			}
			if err := s.complete(cmd, false); err != nil {
				return err
			}
			if err := source.Check(); err != nil {
				return usageError{err}
			}
			if err := server.CheckAccess(s.http.listen, s.http.auth(), s.http.tls(), ""); err != nil {
				return usageError{err}
			}
			if err := s.http.gate.Check(); err != nil {
				return usageError{err}
			}
			return s.follow(cmd.Context(), source)
		},
	}
	f := c.Flags()
	f.StringVar(&source.TokenFile, "token-file", "", "`FILE` whose first line is a token that may read at the source")
	f.StringVar(&source.CAFile, "tls-ca", "", "`FILE` of the CA certificates that the source's certificate is to be from (default the system's)")
	f.StringVar(&source.CertFile, "source-cert", "", "`FILE` of a client certificate for the source")
	f.StringVar(&source.KeyFile, "source-key", "", "`FILE` of the key to it")
	f.BoolVar(&source.Insecure, "insecure-source", false, "follow http:// on another machine: whoever is on the way can make anything trusted here")
	s.http.registerReading(f)
	return c
}

// follow runs a replica until ctx ends.
func (s *settings) follow(ctx context.Context, source replica.Source) (err error) {
	log, err := s.logger()
	if err != nil {
		return err
	}
	f, err := replica.New(replica.Config{Source: source, State: s.state, Log: log})
	if err != nil {
		return err
	}
	stuck := false
	defer func() {
		if !stuck {
			err = errors.Join(err, f.Close())
		}
	}()
	told, err := s.observe(log)
	if err != nil {
		return err
	}
	f.OnPublish(told.observer.Published)
	log.Info("following", "source", source.URL, "state", s.state, "pid", os.Getpid(), "version", versions().Version)
	watchdog := watchdogTimeout(log)
	p := newParts(ctx)
	p.start("following", f.Run)
	p.start("status file", func(ctx context.Context) error { return s.writeReplicaStatus(ctx, f, told, log) })
	p.start("systemd", func(parts context.Context) error {
		return s.notifySystemd(ctx, parts, func() condition { return replicaCondition(f.Status()) }, watchdog, log)
	})
	p.start("changes", told.observer.Run)
	if len(s.http.listen) > 0 {
		p.start("HTTP", func(ctx context.Context) error { return s.serveReplica(ctx, f, told, log) })
	}
	if err = p.wait(stopTimeout); errors.Is(err, errStuck) {
		stuck = true
		return err
	}
	if err = errors.Join(err, told.close()); err == nil {
		log.Info("stopped")
	}
	return err
}

// replicaCondition is what a service manager is told of a replica.
func replicaCondition(st replica.Status) condition {
	return condition{ready: st.Published, looked: st.Tended, line: replicaLine(&st)}
}

// replicaLine is a replica's condition in a sentence.
func replicaLine(st *replica.Status) string {
	switch {
	case st.Problem != "":
		return "Problem: " + st.Problem
	case !st.Published:
		return "Fetching from " + st.Source
	case st.DataProblem != "":
		return "Problem: " + st.DataProblem
	}
	return "Following " + st.Source
}

// asScheduler is a replica's condition for what shows a worker's.
func asScheduler(st replica.Status) scheduler.Status {
	out := scheduler.Status{FirstPass: st.Published, Problem: st.Problem}
	if out.Problem == "" && st.DataProblem != "" {
		out.Problem = "new data cannot be fetched: " + st.DataProblem
	}
	return out
}

// writeReplicaStatus is writeStatus for a replica.
func (s *settings) writeReplicaStatus(ctx context.Context, f *replica.Follower, told *observed, log *slog.Logger) error {
	file := statusFile{PID: os.Getpid(), Version: versions().Version, Started: time.Now()}
	failed := false
	for {
		st := f.Status()
		file.Updated, file.Generation, file.Lease, file.Counts, file.Replica = time.Now(), st.Generation, st.Lease.String(), countsOf(told.observer.Totals()), &st
		file.Status = asScheduler(st)
		failed = s.leaveStatus(&file, failed, log)
		pause := time.Second
		if !st.Published {
			pause = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// elsewhere stands for the trust directories, which a replica has none of.
type elsewhere struct{}

func (elsewhere) ReloadNow(context.Context) error {
	return errors.New("a replica has no trust directories")
}
func (elsewhere) TrustStore() *truststore.TrustStore { return nil }

// serveReplica serves what a replica has, to be read.
func (s *settings) serveReplica(ctx context.Context, f *replica.Follower, told *observed, log *slog.Logger) (err error) {
	reader, err := s.reader()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	v := versions()
	srv, err := server.New(server.Config{
		Listen: s.http.listen, Reader: reader, Trust: elsewhere{}, Status: func() scheduler.Status { return asScheduler(f.Status()) }, Replica: f.Status,
		StateDir: s.state, Totals: told.observer.Totals, Changes: told.journal, HostNames: s.http.hostNames, RegistryNames: s.registryNames,
		Build: server.Build{Version: v.Version, Go: v.Go, Cosign: v.Cosign, Notation: v.Notation}, Log: log,
		Auth: s.http.auth(), TLS: s.http.tls(), Gate: s.http.gate,
	})
	if err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	s.greet(srv.PageURL(), "", log)
	return srv.Serve(ctx)
}

// replicaText shows how a replica follows.
func replicaText(t *table, st *replica.Status) {
	t.row("replica of", st.Source)
	how := "answers"
	if !st.Connected {
		how = "has not answered yet"
		if !st.LastHeard.IsZero() {
			how = "last answered " + t.when(st.LastHeard)
		}
	}
	t.row("source", how)
	if st.CacheID != "" {
		t.row("trust", fmt.Sprintf("generation %d", st.Generation))
		data := fmt.Sprintf("generation %d", st.Data)
		if st.Data == 0 {
			data = "none yet"
		}
		if st.Behind > 0 {
			data += fmt.Sprintf("; newer data have been there for %v", st.Behind.Round(10*time.Millisecond))
		}
		t.row("data", data)
	}
	if st.Fetching != "" {
		t.row("fetching", fmt.Sprintf("%s: %s of %s bytes", st.Fetching, phrase.Number(int(st.Fetched)), phrase.Number(int(st.Of))))
	}
	if st.DataProblem != "" {
		t.row("problem", "new data cannot be fetched: "+st.DataProblem)
	}
	t.row("fetched", fmt.Sprintf("%s bytes, %s, since the start", phrase.Number(int(st.Bytes)), phrase.Count(int(st.Publications), "publication of data", "publications of data")))
}
