package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"trust-worker/cache/store"
	"trust-worker/cluster"
	"trust-worker/internal/phrase"
	"trust-worker/scheduler"
	"trust-worker/server"
	"trust-worker/verifier"
)

// clusterSettings are what `serve` may be told about other workers over the same storage. There
// are none unless NATS servers are named.
type clusterSettings struct {
	servers           []string
	key, credentials  string
	ca, cert, certKey string
	events, node      string
}

func (c *clusterSettings) register(f *pflag.FlagSet) {
	f.StringSliceVar(&c.servers, "cluster", nil, "`URL` of a NATS server with JetStream, over which workers share what they have verified (repeatable; default none)")
	f.StringVar(&c.key, "cluster-key", "", "`FILE` with 32 bytes in base64 that all workers of the cluster have; whoever has it can make anything trusted")
	f.StringVar(&c.credentials, "cluster-credentials", "", "`FILE` with NATS credentials (.creds)")
	f.StringVar(&c.ca, "cluster-ca", "", "`FILE` with the CA certificates of the NATS servers (default the system's)")
	f.StringVar(&c.cert, "cluster-cert", "", "`FILE` with this worker's certificate for the NATS servers")
	f.StringVar(&c.certKey, "cluster-cert-key", "", "`FILE` with the key to it")
	f.StringVar(&c.events, "cluster-events", "", "NATS `SUBJECT` to which zot sends its events (the channel of its sink)")
	f.StringVar(&c.node, "cluster-node", "", "`NAME` of this worker among the others (default the host's name and a part of the cache's id)")
}

// check finds what can be wrong without a network.
func (c *clusterSettings) check() error {
	if len(c.servers) == 0 {
		for name, value := range map[string]string{"key": c.key, "credentials": c.credentials, "node": c.node, "ca": c.ca, "cert": c.cert, "cert-key": c.certKey, "events": c.events} {
			if value != "" {
				return usageError{fmt.Errorf("--cluster-%s needs --cluster: name the NATS servers", name)}
			}
		}
		return nil
	}
	if c.key == "" {
		return usageError{errors.New("--cluster needs --cluster-key FILE: make the file once with: (umask 077; head -c 32 /dev/urandom | base64 > cluster.key), and give it to every worker")}
	}
	if (c.cert == "") != (c.certKey == "") {
		return usageError{errors.New("--cluster-cert and --cluster-cert-key go together")}
	}
	return nil
}

// checkFiles is check with the files.
func (c *clusterSettings) checkFiles() error {
	if err := c.check(); err != nil || len(c.servers) == 0 {
		return err
	}
	key, err := cluster.ReadKey(c.key)
	if err == nil {
		_, err = cluster.New(c.config(key, cmp.Or(c.node, "check"), nil))
	}
	if err != nil {
		return usageError{err}
	}
	return nil
}

// shown are the servers without what is secret in their URLs.
func (c *clusterSettings) shown() string {
	urls := make([]string, len(c.servers))
	for i, u := range c.servers {
		urls[i] = cluster.Redact(u)
	}
	return "[" + strings.Join(urls, ",") + "]"
}

func (c *clusterSettings) config(key cluster.Key, node string, log *slog.Logger) cluster.Config {
	return cluster.Config{URLs: c.servers, Key: key, Credentials: c.credentials, CA: c.ca, Cert: c.cert, CertKey: c.certKey,
		Events: c.events, ReadEvent: server.ReadZotEvent, Node: node, Version: versions().Version, Epoch: verifier.Epoch, Log: log}
}

// join makes this worker's place in the cluster, nil if there is none.
func (c *clusterSettings) join(store *store.Store, log *slog.Logger) (*cluster.Worker, error) {
	if len(c.servers) == 0 {
		return nil, nil
	}
	key, err := cluster.ReadKey(c.key)
	if err != nil {
		return nil, err
	}
	if fi, err := os.Stat(c.key); err == nil && fi.Mode().Perm()&0o004 != 0 {
		log.Warn("everybody on this machine can read the cluster key, and with it make anything trusted", "path", c.key)
	}
	node := c.node
	if node == "" {
		host, _ := os.Hostname() // the id is enough
		node = fmt.Sprintf("%.80s-%08x", cluster.NodeName(host), uint32(store.ID()>>32))
	}
	w, err := cluster.New(c.config(key, node, log))
	if err != nil {
		return nil, usageError{err}
	}
	return w, nil
}

// member is the scheduler, as a cluster needs it.
type member struct{ *scheduler.Scheduler }

func (m member) Load() cluster.Member {
	l := m.Scheduler.Load()
	return cluster.Member{TrustStore: l.TrustStore, Owed: l.Owed, Done: l.Done}
}

// clusterStatus returns what tells of the cluster, nil if there is none.
func (s *settings) clusterStatus(w *cluster.Worker, sched *scheduler.Scheduler) func() *cluster.Status {
	if w == nil {
		return nil
	}
	var mu sync.Mutex
	var looked time.Time
	var with, mounts []string
	var first, repositories int
	return func() *cluster.Status {
		st := w.Status()
		var now []string
		for _, m := range st.Members {
			if m.Alike {
				now = append(now, m.Node)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		st.Waiting = sched.Waiting()
		// Whose turn each repository is takes a while to count.
		if time.Since(looked) > 10*time.Second || !slices.Equal(now, with) {
			looked, with, mounts = time.Now(), now, nil
			first, repositories = sched.Turns()
			for _, dir := range []string{s.root, s.cosignDir, s.notationDir} {
				if p := cluster.MountProblem(dir); p != "" {
					mounts = append(mounts, p)
				}
			}
		}
		st.Mounts, st.First, st.Repositories = mounts, first, repositories
		return st
	}
}

// twinShown is for how long another worker of the same name is spoken of.
const twinShown = 15 * time.Second

// clusterText says how a worker does among the others.
func clusterText(t *table, c *cluster.Status) {
	line := c.Node + ", connected to NATS"
	if !c.Connected {
		line = fmt.Sprintf("%s, alone: NATS %s; this worker verifies everything itself", c.Node, c.Problem)
	}
	t.row("cluster", line+"; cluster "+c.ID)
	if c.StreamProblem != "" {
		t.row("  problem", "facts are not shared: "+c.StreamProblem)
	}
	if time.Since(c.Twin) < twinShown {
		t.row("  problem", "another worker has this one's name: give each a --cluster-node of its own")
	}
	for i, m := range c.Members {
		text := m.Node
		switch {
		case !m.Heard:
			text += fmt.Sprintf(": not heard for %s", m.Silence.Round(time.Second))
		case !m.Alike:
			text += ": not counted on: " + m.Why
		}
		t.row(map[bool]string{true: "members"}[i == 0], text)
	}
	if len(c.Members) == 0 {
		t.row("members", "no other is heard; those with another key are in another cluster")
	}
	t.row("turns", fmt.Sprintf("first for %d of %s; %d wait for another's fact", c.First, phrase.Count(c.Repositories, "repository", "repositories"), c.Waiting))
	line = fmt.Sprintf("%d given, %d taken, %d verified twice (here and by another), %d lost", c.Given, c.Taken, c.Double, c.Lost)
	if c.Heard > 0 {
		line += fmt.Sprintf("; the last was %s on its way", c.Lag.Round(time.Millisecond))
	}
	t.row("facts", line)
	if c.LostWhy != "" {
		t.row("  last lost", c.LostWhy)
	}
	byReason(t, "  refused", c.Refused)
	byReason(t, "  not taken", c.Left)
	for _, m := range c.Mounts {
		t.row("mount", m)
	}
}

func byReason(t *table, what string, counts map[string]int64) {
	var words []string
	for reason, n := range counts {
		words = append(words, fmt.Sprintf("%d %s", n, reason))
	}
	if len(words) > 0 {
		slices.Sort(words)
		t.row(what, strings.Join(words, ", "))
	}
}
