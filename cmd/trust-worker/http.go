package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"trust-worker/cache"
	"trust-worker/changes/webhook"
	"trust-worker/cluster"
	"trust-worker/layout"
	"trust-worker/scheduler"
	"trust-worker/server"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// httpSettings are what `serve` may be told about HTTP. It is off unless there is
// an address to listen on.
type httpSettings struct {
	listen                  []string
	reads                   string
	insecureUploads         bool
	readTokens, writeTokens []string
	hintTokens              []string
	corsOrigins             []string
	htpasswd                string
	admins                  []string
	tlsCert, tlsKey         string
	clientCA                string
	hostNames               []string
	defaultStore            string
	profiles                string
	gate                    server.Gate
}

// register declares the flags of `serve`.
func (h *httpSettings) register(f *pflag.FlagSet) {
	h.registerReading(f)
	f.BoolVar(&h.insecureUploads, "insecure-uploads", false, "let anyone who can connect change what is trusted")
	f.StringSliceVar(&h.writeTokens, "http-write-token-file", nil, "file of bearer tokens that may also upload and delete (repeatable)")
	f.StringSliceVar(&h.hintTokens, "http-hint-token-file", nil, "file of bearer tokens for a registry that tells of its events, good for nothing else (repeatable)")
	f.StringSliceVar(&h.admins, "http-admin", nil, "user, or common name of a client certificate, that may also upload and delete (repeatable)")
	f.StringVar(&h.defaultStore, "truststore-name", "", "trust store of certificate uploads that name none (default: such uploads are refused)")
}

// registerReading declares those of whatever serves HTTP.
func (h *httpSettings) registerReading(f *pflag.FlagSet) {
	f.StringSliceVar(&h.listen, "listen", nil, "serve HTTP on host:port or unix:/path (repeatable; default off)")
	f.StringVar(&h.reads, "http-reads", "", "who may read over TCP: open or credential (default open on loopback, credential elsewhere)")
	f.StringSliceVar(&h.readTokens, "http-read-token-file", nil, "file of bearer tokens that may read, one a line (repeatable)")
	f.StringSliceVar(&h.corsOrigins, "http-cors-origin", nil, "origin whose pages in a browser may read, as https://host[:port] (repeatable; default none)")
	f.StringVar(&h.htpasswd, "http-htpasswd", "", "file of users with bcrypt hashes, who may read")
	f.StringVar(&h.tlsCert, "tls-cert", "", "TLS certificate file; renewed files are picked up")
	f.StringVar(&h.tlsKey, "tls-key", "", "TLS key file")
	f.StringVar(&h.clientCA, "tls-client-ca", "", "CA certificates of clients, who may read")
	f.StringSliceVar(&h.hostNames, "http-host-name", nil, "name by which clients call a loopback listener, besides localhost (repeatable)")
	f.StringVar(&h.gate.Mode, "gate", "", "let reverse proxies ask which requests to let through: enforce or report (default off)")
	f.StringVar(&h.gate.TokenFile, "gate-token-file", "", "file of tokens by which a proxy vouches that its client may push (default nobody may)")
	f.StringVar(&h.profiles, "pprof", "", "serve profiles on this loopback address (default off)")
}

func (h *httpSettings) auth() server.Auth {
	return server.Auth{Reads: h.reads, InsecureUploads: h.insecureUploads, ReadTokens: h.readTokens,
		WriteTokens: h.writeTokens, HintTokens: h.hintTokens, CORSOrigins: h.corsOrigins,
		Htpasswd: h.htpasswd, Admins: h.admins}
}

func (h *httpSettings) tls() server.TLS {
	return server.TLS{CertFile: h.tlsCert, KeyFile: h.tlsKey, ClientCA: h.clientCA}
}

// httpDaemon is the scheduler, as the server needs it.
type httpDaemon interface {
	server.Trust
	Status() scheduler.Status
	Measures() scheduler.Measures
	LookAt(repository string)
	VerifyCandidate(ctx context.Context, under *truststore.TrustStore, c *cache.Candidate) ([]trust.Verdict, error)
}

// serveHTTP listens, says how to upload, and serves until ctx ends. The cache's
// state directory must exist. It returns at once when HTTP is off.
func (s *settings) serveHTTP(ctx context.Context, h *httpSettings, roots []scheduler.Storage, d httpDaemon, others func() *cluster.Status, told *observed, hooks *webhook.Sender, log *slog.Logger) (err error) {
	g, ctx := errgroup.WithContext(ctx)
	if h.profiles != "" {
		g.Go(func() error { return server.ServeProfiles(ctx, h.profiles) })
	}
	if len(h.listen) > 0 {
		g.Go(func() error { return s.serveAPI(ctx, h, roots, d, others, told, hooks, log) })
	}
	return g.Wait()
}

func (s *settings) serveAPI(ctx context.Context, h *httpSettings, roots []scheduler.Storage, d httpDaemon, others func() *cluster.Status, told *observed, hooks *webhook.Sender, log *slog.Logger) (err error) {
	reader, err := s.reader() // as any other process reads
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	gate := h.gate
	gate.Open = func(name string) (*layout.Repository, error) {
		return scheduler.OpenRepository(roots, name)
	}
	previewed := s.previewed(nil)
	previewed.Verify = d.VerifyCandidate
	v := versions()
	srv, err := server.New(server.Config{
		Listen: h.listen, Reader: reader, Trust: d, Status: d.Status, StateDir: s.state,
		Totals: told.observer.Totals, Changes: told.journal, LookAt: d.LookAt, Webhooks: hooks.Status, Measures: d.Measures,
		Cosign: s.enable && s.cosign, Notation: s.enable && s.notation, CosignDir: s.cosignDir, NotationDir: s.notationDir,
		DefaultStore: h.defaultStore, HostNames: h.hostNames, RegistryNames: s.registryNames, Build: server.Build{Version: v.Version, Go: v.Go, Cosign: v.Cosign, Notation: v.Notation}, Log: log,
		Auth: h.auth(), TLS: h.tls(), Gate: gate, Previewed: previewed, Cluster: others,
	})
	if err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	s.greet(srv.PageURL(), srv.Curl(), log)
	return srv.Serve(ctx)
}

// greet says where the status page is and how to upload a key, unless they are
// empty: to people as lines to copy, to what reads JSON as records like the others.
func (s *settings) greet(page, upload string, log *slog.Logger) {
	json := s.logFormat == "json"
	switch {
	case page == "":
	case json:
		log.Info("status page", "url", page)
	default:
		fmt.Fprintf(os.Stderr, "Status page: %s\n", page)
	}
	switch {
	case upload == "":
	case json:
		log.Info("to trust another key", "command", upload)
	default:
		fmt.Fprintf(os.Stderr, "To trust another key:\n  %s\n", upload)
	}
}
