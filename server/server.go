package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"trust-worker/server/graph"
	"trust-worker/server/page"
)

// Server answers on its listeners. Make it with New, then Listen, then Serve.
type Server struct {
	cfg    Config
	log    *slog.Logger
	tokens []*tokenFile
	users  *users        // nil: none
	tls    *certificates // nil: plain

	cosign, notation *directory
	changes          chan struct{} // held over a change to the trust directories
	writes, fails    *clients
	hints            *clients
	pool             *pool   // of connections
	requests         *shares // but for health
	reads            *shares // what is done under a snapshot
	checks           *shares // for /api/v1/check, which waits for no search
	streams          *shares // of changes
	replicas         *shares // of what asks for publications
	layers           *shares // of what fetches large files
	smallLayers      *shares // and of what fetches small ones
	publications     *publications
	stopping         chan struct{} // closed when streams have to end
	stopOnce         sync.Once
	handler          http.Handler
	patterns         []string // of its routes
	endpoints        []*endpoint
	draining         atomic.Bool
	sending          sending
	metrics          *metrics
	gateToken        *tokenFile // nil: nobody may push through the gate
	gateLog          *rate.Limiter
	evidence         *evidence // nil: there is no storage
	gates            *shares   // of what the gate reads, by repository
	previews         *shares   // of which each may read everything that is published
	graph            *graph.Engine
	pages            *page.Pages
}

// New checks cfg, reads the files that it names, and makes the upload token of
// the state directory if there is none.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log,
		cosign: &directory{path: cfg.CosignDir}, notation: &directory{path: cfg.NotationDir},
		changes: make(chan struct{}, 1), reads: newShares(cfg.Limits.MaxReads, cfg.Limits.MaxReads*3/4),
		checks:   newShares(cfg.Limits.MaxReads, cfg.Limits.MaxReads),
		streams:  newShares(cfg.Limits.MaxStreams, cfg.Limits.MaxStreams/2),
		requests: newShares(cfg.Limits.MaxConns, cfg.Limits.MaxConns/2),
		replicas: newShares(cfg.Limits.MaxReplicas, cfg.Limits.MaxReplicas/2), smallLayers: newShares(cfg.Limits.MaxReplicas, cfg.Limits.MaxReplicas/2),
		layers: newShares(cfg.Limits.MaxLayers, cfg.Limits.MaxLayers/2), publications: newPublications(cfg.StateDir, cfg.Reader, cfg.Log),
		pool: newPool(cfg.Limits.MaxConns), stopping: make(chan struct{}),
		writes: newClients(cfg.Limits.WriteRate, cfg.Limits.WriteBurst),
		fails:  newClients(cfg.Limits.FailRate, cfg.Limits.FailBurst),
		hints:  newClients(cfg.Limits.HintRate, cfg.Limits.HintBurst),
	}
	if err := s.credentials(); err != nil {
		return nil, err
	}
	s.gates = newShares(cfg.Limits.MaxReads, max(2, cfg.Limits.MaxReads/4))
	s.previews = newShares(maxPreviews, maxPreviews)
	s.gateLog = rate.NewLimiter(gateLogRate, 20)
	if cfg.Gate.Open != nil {
		s.evidence = newEvidence(cfg.Gate.Open)
	}
	if cfg.TLS.CertFile != "" {
		var err error
		if s.tls, err = newCertificates(cfg.TLS, s.log); err != nil {
			return nil, err
		}
	}
	s.metrics = newMetrics(s)
	s.graph = graph.New(graph.Limits{Complexity: cfg.Limits.Complexity, Depth: cfg.Limits.Depth,
		Images: cfg.Limits.MaxPage, Scan: cfg.Limits.MaxScan}, cfg.RegistryNames, s.log)
	s.pages = page.New(cfg.Build.Version)
	s.handler = s.guard(s.routes())
	return s, nil
}

func (s *Server) credentials() error {
	write := s.cfg.Auth.WriteTokens
	if !s.cfg.Auth.InsecureUploads && s.cfg.Replica == nil {
		path := filepath.Join(s.cfg.StateDir, uploadToken)
		if err := makeToken(path); err != nil {
			return err
		}
		write = append([]string{path}, write...)
	}
	for _, set := range []struct {
		paths []string
		may   right
	}{{write, toWrite}, {s.cfg.Auth.ReadTokens, toRead}, {s.cfg.Auth.HintTokens, toHint}} {
		for _, path := range set.paths {
			f, err := newTokenFile(path, set.may, s.log)
			if err != nil {
				return err
			}
			s.tokens = append(s.tokens, f)
		}
	}
	if s.cfg.Gate.TokenFile != "" {
		var err error
		if s.gateToken, err = newTokenFile(s.cfg.Gate.TokenFile, toNone, s.log); err != nil {
			return err
		}
	}
	if s.cfg.Auth.Htpasswd != "" {
		var err error
		s.users, err = newUsers(s.cfg.Auth.Htpasswd, s.log)
		return err
	}
	return nil
}

// Listen opens the configured addresses. Nothing is served before Serve.
func (s *Server) Listen() error {
	for _, address := range s.cfg.Listen {
		e, err := s.listen(address)
		if err != nil {
			s.closeListeners()
			return err
		}
		s.endpoints = append(s.endpoints, e)
		s.log.Info("listening", "address", address, "at", e.Addr().String(), "tls", s.tls != nil && e.socket == "",
			"uploads", s.uploadsNeed(e), "reads", s.readsNeed(e))
		if e.socket == "" && s.cfg.Auth.InsecureUploads {
			s.log.Warn("anyone who can connect can change what is trusted", "address", e.Addr().String())
		}
	}
	return nil
}

func (s *Server) uploadsNeed(e *endpoint) string {
	switch {
	case s.cfg.Replica != nil:
		return "none here"
	case e.socket != "":
		return "socket mode"
	case s.cfg.Auth.InsecureUploads:
		return "open"
	}
	return "credential"
}

func (s *Server) readsNeed(e *endpoint) string {
	if e.socket != "" {
		return "socket mode"
	}
	if s.readsOpen(&peer{endpoint: e}) {
		return "open"
	}
	return "credential"
}

func (s *Server) closeListeners() {
	for _, e := range s.endpoints {
		_ = e.Close() // nothing was served on it
	}
	s.endpoints = nil
}

// Addresses are those listened on, in the configured order.
func (s *Server) Addresses() []net.Addr {
	out := make([]net.Addr, 0, len(s.endpoints))
	for _, e := range s.endpoints {
		out = append(out, e.Addr())
	}
	return out
}

// PageURL is the status page's address on the first TCP listener, or "".
func (s *Server) PageURL() string {
	for _, e := range s.endpoints {
		if e.socket == "" {
			scheme := "http://"
			if s.tls != nil {
				scheme = "https://"
			}
			return scheme + e.at() + page.Root
		}
	}
	return ""
}

// Curl returns a command line for an upload that works as it stands, or "".
func (s *Server) Curl() string {
	if !s.cfg.Cosign && !s.cfg.Notation || len(s.endpoints) == 0 {
		return ""
	}
	e := s.endpoints[0]
	var line strings.Builder
	line.WriteString("curl")
	host := "http://" + e.at()
	switch {
	case e.socket != "":
		fmt.Fprintf(&line, " --unix-socket %s", shellQuote(e.socket))
		host = "http://localhost"
	case !s.cfg.Auth.InsecureUploads:
		fmt.Fprintf(&line, ` -H "Authorization: Bearer $(cat %s)"`, shellQuote(filepath.Join(s.cfg.StateDir, uploadToken)))
	}
	if s.tls != nil && e.socket == "" {
		host = "https" + strings.TrimPrefix(host, "http")
	}
	if s.cfg.Cosign {
		fmt.Fprintf(&line, " --data-binary @cosign.pub %s/v2/_zot/ext/cosign", host)
	} else {
		fmt.Fprintf(&line, ` --data-binary @certificate.crt "%s/v2/_zot/ext/notation?truststoreType=ca&truststoreName=default"`, host)
	}
	return line.String()
}

// shellQuote quotes a path where it needs that.
func shellQuote(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// Serve answers until ctx ends, then finishes the requests in progress within
// Limits.DrainTimeout and returns nil.
func (s *Server) Serve(ctx context.Context) error {
	if len(s.endpoints) == 0 {
		<-ctx.Done()
		return nil
	}
	l := &s.cfg.Limits
	g, gctx := errgroup.WithContext(ctx)
	for _, e := range s.endpoints {
		srv := &http.Server{
			Handler: s.handler, ReadHeaderTimeout: l.ReadHeaderTimeout, ReadTimeout: l.ReadTimeout,
			WriteTimeout: l.WriteTimeout, IdleTimeout: l.IdleTimeout, MaxHeaderBytes: l.MaxHeaderBytes,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), ConnContext: e.connContext,
			ConnState: connState,
		}
		g.Go(func() error {
			if err := srv.Serve(e); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", e.name, err)
			}
			return nil
		})
		g.Go(func() error {
			<-gctx.Done()
			s.draining.Store(true)
			s.stopOnce.Do(func() { close(s.stopping) })
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.DrainTimeout)
			defer cancel()
			if err := srv.Shutdown(stop); err != nil {
				s.log.Warn("requests were cut off at shutdown", "address", e.name, "error", err)
				return errors.Join(srv.Close(), e.Close())
			}
			return nil
		})
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// guard is what every request passes before it is routed.
func (s *Server) guard(next http.Handler) http.Handler {
	var cross http.CrossOriginProtection
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, refuse(http.StatusForbidden, codeDenied, "requests from another origin are refused", ""))
	}))
	next = s.cors(cross.Handler(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				s.fail(w, r, errors.New("panic"))
			}
		}()
		if !s.hostAllowed(r) {
			s.fail(w, r, refuse(http.StatusMisdirectedRequest, codeDenied, "this server is not called that",
				"use localhost or an address, or start the daemon with --http-host-name"))
			return
		}
		if r.ContentLength != 0 {
			// A body that nobody reads to its end is not waited for: whoever sends
			// it slowly would hold the connection after the answer.
			b := &watchedBody{ReadCloser: r.Body}
			r.Body = b
			defer func() {
				if !b.ended {
					_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // there is none in HTTP/2, which does not wait
				}
			}()
		}
		if !isHealth(r.URL.Path) {
			if c := peerOf(r.Context()).conn; c != nil && c.reserved {
				h.Set("Connection", "close")
				s.fail(w, r, refuse(http.StatusServiceUnavailable, codeTooMany, "all connections are in use", "only health is answered"))
				return
			}
			leave := s.requests.tryTake(clientOf(r))
			if leave == nil {
				h.Set("Connection", "close")
				s.fail(w, r, refuse(http.StatusServiceUnavailable, codeTooMany, "too many requests at once", "one client may have half of the places"))
				return
			}
			defer leave()
		}
		if s.pool.pressed() && r.ProtoMajor == 1 {
			h.Set("Connection", "close") // nobody is kept while others wait
		}
		next.ServeHTTP(w, r)
	})
}

// watchedBody knows whether it has been read to its end.
type watchedBody struct {
	io.ReadCloser
	ended bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

// hostAllowed refuses names on loopback listeners that are not ours: a page in a
// browser on this machine could give its own name the address 127.0.0.1, and
// would then be of the same origin (DNS rebinding).
func (s *Server) hostAllowed(r *http.Request) bool {
	if !peerOf(r.Context()).endpoint.loopback {
		return true
	}
	host := hostOf(r)
	if isLocal(host) {
		return true
	}
	for _, name := range s.cfg.HostNames {
		if strings.EqualFold(name, host) {
			return true
		}
	}
	return false
}

// hostOf is the name that a client calls us by, without the port.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// isLocal: nobody can give these a meaning of their own.
func isLocal(host string) bool { return host == "localhost" || net.ParseIP(host) != nil }
