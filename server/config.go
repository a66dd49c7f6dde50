package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/changes/webhook"
	"trust-worker/cluster"
	"trust-worker/cluster/replica"
	"trust-worker/layout"
	"trust-worker/preview"
	"trust-worker/scheduler"
	"trust-worker/verifier/truststore"
)

// Trust is the daemon's side of a change to the trust directories. Its methods
// are safe for concurrent use.
type Trust interface {
	// ReloadNow loads the trust directories and returns nil once what is
	// published is what they hold: every snapshot taken afterwards has it. An
	// error means that nothing is known of what is published, except that it
	// trusts nobody whom the directories do not.
	ReloadNow(ctx context.Context) error
	// TrustStore is what was last loaded, nil before the first load: after
	// ReloadNow no older load's, also when nothing in force has changed by it
	// (the same key may have come in a second file).
	TrustStore() *truststore.TrustStore
}

// Config says what a Server serves. Reader, Trust, Status, Changes and
// StateDir are required, and the directory of each tool that is on.
type Config struct {
	// Listen are addresses: "host:port" or "unix:/path". The socket's mode is
	// 0660; port 0 takes a free one.
	Listen []string

	Reader *cache.Reader
	Trust  Trust
	// Status is the daemon's condition, for health and metrics.
	Status func() scheduler.Status
	// Totals returns the counts of everything that is published, nil while they are
	// not known; a nil Totals never knows.
	Totals func() *changes.Totals
	// Changes is the journal of trust changes.
	Changes *changes.Journal
	// Previewed is the trust that previews are about; without a Loader nobody can ask what a
	// change would cost.
	Previewed preview.Trust
	// LookAt asks for a look at one repository, which may not exist; nil: such
	// hints are not taken.
	LookAt func(repository string)
	// Measures are the daemon's, for metrics; nil: there are none.
	Measures func() scheduler.Measures
	// StateDir is where upload.token is.
	StateDir string

	// The tools that are on, and their directories. The routes of a tool that
	// is off do not exist.
	Cosign, Notation       bool
	CosignDir, NotationDir string
	// DefaultStore is the trust store of an upload that names none; empty: such
	// an upload is refused, as zot's documentation has it.
	DefaultStore string

	Auth   Auth
	Gate   Gate
	TLS    TLS
	Limits Limits
	// Webhooks tells how the receivers of changes do; nil: there are none.
	Webhooks func() []webhook.Status
	// RegistryNames are the hosts by which references name this storage's images.
	RegistryNames []string
	// HostNames are the names by which clients may call a loopback listener,
	// besides localhost and addresses. Without them a page in a browser could
	// reach it under a name of its own (DNS rebinding).
	HostNames []string

	// Replica tells how a replica follows its source; nil: what is published is made here.
	// A replica has no trust directories and no storage.
	Replica func() replica.Status

	// Cluster tells how a worker does among others; nil: there are none.
	Cluster func() *cluster.Status

	// Build is what trust_worker_build_info shows.
	Build Build
	Log   *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Build names versions.
type Build struct{ Version, Go, Cosign, Notation string }

// Auth says who may do what over TCP. Over a Unix socket its mode says so.
type Auth struct {
	// Reads is "open", "credential", or empty: open on loopback addresses, by
	// credential on others.
	Reads string
	// InsecureUploads lets anyone who can connect change what is trusted. It
	// has to be asked for in so many words.
	InsecureUploads bool
	// ReadTokens and WriteTokens are files of bearer tokens, one a line. A
	// write token may read as well. <StateDir>/upload.token is one of
	// WriteTokens unless InsecureUploads is set.
	ReadTokens, WriteTokens []string
	// HintTokens are files of tokens for a registry that tells of its events:
	// they may say where to look again, and nothing else.
	HintTokens []string
	// Htpasswd is a file of users with bcrypt hashes, who may read.
	Htpasswd string
	// CORSOrigins are the origins whose pages in a browser may read, as
	// scheme://host[:port]; none by default. They may change nothing.
	CORSOrigins []string
	// Admins are the users of Htpasswd, and the common names of client
	// certificates, that may write.
	Admins []string
}

// Gate says whether reverse proxies may ask which requests to let through.
type Gate struct {
	// Mode is GateEnforce, GateReport (everything passes; headers, the log and metrics say
	// what would not), or empty: there is no gate.
	Mode string
	// TokenFile is a file of tokens by which a proxy vouches that its client may push; empty:
	// nobody may.
	TokenFile string
	// Open opens a repository: manifests that are no images are read in storage. Required
	// with a mode.
	Open func(repository string) (*layout.Repository, error)
}

// Check finds mistakes in the settings of a gate.
func (g *Gate) Check() error {
	switch g.Mode {
	case "", GateEnforce, GateReport:
	default:
		return fmt.Errorf("gate %q: choose %s or %s", g.Mode, GateEnforce, GateReport)
	}
	if g.Mode == "" && g.TokenFile != "" {
		return errors.New("there is a token file for the gate and no gate: choose its mode as well")
	}
	return nil
}

// TLS serves TCP listeners over TLS if CertFile and KeyFile are set. Renewed
// files are picked up within a second.
type TLS struct {
	CertFile, KeyFile string
	// ClientCA is a file of CA certificates: clients with a certificate from
	// them may read.
	ClientCA string
}

// Limits bound what a client may take. Zero values mean the defaults beside.
type Limits struct {
	ReadHeaderTimeout time.Duration // 5 s
	ReadTimeout       time.Duration // 30 s, header and body
	WriteTimeout      time.Duration // 60 s
	IdleTimeout       time.Duration // 60 s
	DrainTimeout      time.Duration // 5 s at shutdown
	MaxHeaderBytes    int           // 16 KiB
	MaxConns          int           // 1024 on all listeners together
	MaxQueryBytes     int64         // 64 KiB of GraphQL
	MaxReads          int           // 16 searches at once
	MaxReplicas       int           // 256 requests of replicas at once,
	MaxLayers         int           // and 64 large files sent at once,
	StallTimeout      time.Duration // of which 256 KiB are taken within 10 s
	MaxStreams        int           // 64 streams of changes at once,
	StreamLife        time.Duration // each for 1 h at most,
	Heartbeat         time.Duration // with a sign of life every 15 s
	WriteRate         rate.Limit    // 20 changes a second from one client,
	WriteBurst        int           // after 100 at once
	HintRate          rate.Limit    // 100 events of a registry a second from one client,
	HintBurst         int           // after 1,000 at once
	FailRate          rate.Limit    // 1 wrong credential a second,
	FailBurst         int           // after 20 at once
	Complexity        int           // 2,000 for one GraphQL query
	Depth             int           // 12 levels of one
	MaxPage           int           // 5,000 images in one answer
	MaxScan           int           // 200,000 records looked at for one answer
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (l *Limits) complete() {
	orDefault(&l.ReadHeaderTimeout, 5*time.Second)
	orDefault(&l.ReadTimeout, 30*time.Second)
	orDefault(&l.WriteTimeout, time.Minute)
	orDefault(&l.IdleTimeout, time.Minute)
	orDefault(&l.DrainTimeout, 5*time.Second)
	orDefault(&l.MaxHeaderBytes, 16<<10)
	orDefault(&l.MaxConns, 1024)
	orDefault(&l.MaxQueryBytes, 64<<10)
	orDefault(&l.MaxReads, 16)
	orDefault(&l.MaxReplicas, 256)
	orDefault(&l.MaxLayers, 64)
	orDefault(&l.StallTimeout, 10*time.Second)
	orDefault(&l.MaxStreams, 64)
	orDefault(&l.StreamLife, time.Hour)
	orDefault(&l.Heartbeat, 15*time.Second)
	orDefault(&l.WriteRate, 20)
	orDefault(&l.WriteBurst, 100)
	orDefault(&l.HintRate, 100)
	orDefault(&l.HintBurst, 1000)
	orDefault(&l.FailRate, 1)
	orDefault(&l.FailBurst, 20)
	orDefault(&l.Complexity, 2000)
	orDefault(&l.Depth, 12)
	orDefault(&l.MaxPage, 5000)
	orDefault(&l.MaxScan, 200_000)
}

// CheckAccess finds mistakes in what an operator says about where to listen and
// who may do what, without reading any file or asking the network.
func CheckAccess(listen []string, auth Auth, tls TLS, defaultStore string) error {
	for _, address := range listen {
		if err := checkAddress(address); err != nil {
			return err
		}
	}
	switch auth.Reads {
	case "", "open", "credential":
	default:
		return fmt.Errorf("reads %q: choose open or credential", auth.Reads)
	}
	if (tls.CertFile == "") != (tls.KeyFile == "") {
		return errors.New("TLS needs both a certificate file and a key file")
	}
	if tls.ClientCA != "" && tls.CertFile == "" {
		return errors.New("client certificates need TLS: give a certificate file and a key file as well")
	}
	if len(auth.Admins) > 0 && auth.Htpasswd == "" && tls.ClientCA == "" {
		return errors.New("admins are users of an htpasswd file or names in client certificates: give one of these as well")
	}
	for _, origin := range auth.CORSOrigins {
		if err := checkOrigin(origin); err != nil {
			return err
		}
	}
	if defaultStore != "" {
		if err := truststore.ValidateStore("ca", defaultStore); err != nil {
			return fmt.Errorf("default trust store: %w", err)
		}
	}
	return nil
}

func checkAddress(address string) error {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return fmt.Errorf("address %q: give the socket's path, as unix:/path", address)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("address %q: give host:port or unix:/path (%w)", address, err)
	}
	return nil
}

// check validates once, and fills in defaults.
func (c *Config) check() error {
	if c.Reader == nil || c.Trust == nil || c.Status == nil || c.Changes == nil || c.StateDir == "" {
		return errors.New("server: reader, trust, status, changes and state directory are required")
	}
	if c.Cosign && c.CosignDir == "" || c.Notation && c.NotationDir == "" {
		return errors.New("server: the directory of a tool that is on is required")
	}
	if err := CheckAccess(c.Listen, c.Auth, c.TLS, c.DefaultStore); err != nil {
		return err
	}
	if err := c.Gate.Check(); err != nil {
		return err
	}
	if c.Gate.Mode != "" && c.Gate.Open == nil && c.Replica == nil {
		return errors.New("server: a gate needs storage")
	}
	c.Limits.complete()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}
