package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"trust-worker/cache/store"
	"trust-worker/trust"
)

// netTime bounds what is done on the network: a connection, a write, an acknowledgement.
const netTime = 2 * time.Second

// maxPending bounds what one subscription keeps until it is read.
const maxPending, maxPendingBytes = 1 << 14, 8 << 20

// Config is how a worker takes part in a cluster. URLs, Key, Node and Epoch are required.
type Config struct {
	// URLs are those of the NATS servers.
	URLs []string
	Key  Key
	// Credentials is a file with a JWT and an nkey seed; CA, Cert and CertKey are files
	// with certificates and a key for TLS. All may be empty.
	Credentials, CA, Cert, CertKey string
	// Events, if not empty, is the subject to which a registry sends its events, and ReadEvent
	// finds the repository in one.
	Events    string
	ReadEvent func(body []byte, header map[string][]string) (repository string, err error)
	// Node names this worker among the others.
	Node    string
	Version string
	Epoch   uint32 // of the verifier
	Log     *slog.Logger
}

// Listener is the worker that takes part, package scheduler's.
type Listener interface {
	// FactArrived says that another has told a fact about an image.
	FactArrived(subject trust.Digest)
	// HintRepository and HintTrust say that something may have changed; they are hints.
	HintRepository(name string)
	HintTrust()
	// Load is what the heartbeat says; the rest of it is filled in.
	Load() Member
}

// Worker is this worker's place in the cluster. Its methods are safe for concurrent use. Of
// those that others call while Run runs, Ask alone waits for the network, for half a second at
// most; none touches a lock of the connection, which may be held while the line is frozen.
type Worker struct {
	cfg    Config
	prefix string // of subjects, with the dot
	stream string // and the bucket
	turns  *turns
	boot   uint64

	link atomic.Pointer[link] // nil before Run
	up   atomic.Bool          // there is a connection, as its handlers say

	kept  *lru.Cache[string, *store.Shared]
	told  *lru.Cache[store.FactKey, trust.Digest] // under which trust store
	tell  chan *store.Shared
	rests atomic.Pointer[time.Time] // until when nobody asks
	// prepared: the stream is there, as far as is known; check: look again whether it is.
	prepared atomic.Bool
	check    chan struct{}

	hints hints

	mu     sync.Mutex
	st     Status
	warned map[string]time.Time // when what was last said
}

// link is the connection to the servers.
type link struct {
	*nats.Conn
	js jetstream.JetStream
}

// New checks the configuration, and connects to nobody.
func New(cfg Config) (*Worker, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, u := range cfg.URLs {
		parsed, err := url.Parse(u)
		if err != nil || parsed.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, parsed.Scheme) {
			return nil, fmt.Errorf("%q is no URL of a NATS server, such as nats://nats.example:4222", Redact(u))
		}
	}
	if len(cfg.URLs) == 0 || cfg.Node == "" || cfg.Key == (Key{}) {
		return nil, errors.New("a cluster needs the URL of a NATS server, a key and a name")
	}
	if bad := slices.ContainsFunc(strings.Split(cfg.Events, "."), func(token string) bool {
		return token == "" || strings.ContainsAny(token, " \t\r\n")
	}); cfg.Events != "" && bad {
		return nil, fmt.Errorf("%q is no subject of NATS, such as zot.events", cfg.Events)
	}
	for _, file := range []string{cfg.Credentials, cfg.CA, cfg.Cert, cfg.CertKey} {
		if file != "" {
			if _, err := os.Stat(file); err != nil {
				return nil, fmt.Errorf("cluster: %w", err)
			}
		}
	}
	cfg.Node = strings.Map(func(r rune) rune { // it is one token of a subject
		if strings.ContainsRune("-_", r) || r < 128 && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '-'
	}, cfg.Node)
	var boot [8]byte
	rand.Read(boot[:]) // cannot fail
	id := cfg.Key.ID()
	w := &Worker{cfg: cfg, prefix: "trust-worker." + id + ".", stream: "trust-worker-" + id, turns: newTurns(cfg.Node),
		boot: binary.BigEndian.Uint64(boot[:]), tell: make(chan *store.Shared, tellAhead), check: make(chan struct{}, 1)}
	w.kept, _ = lru.New[string, *store.Shared](keptFacts)      // fails with a size below 1 alone
	w.told, _ = lru.New[store.FactKey, trust.Digest](keptTold) // likewise
	w.st = Status{Node: cfg.Node, ID: id, Refused: map[string]int64{}}
	for _, u := range cfg.URLs {
		w.st.Servers = append(w.st.Servers, Redact(u))
	}
	w.hints.more = make(chan struct{}, 1)
	return w, nil
}

// Redact is a server's URL without what is secret in it.
func Redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "a URL that cannot be read"
	}
	if u.User != nil {
		u.User = url.User("xxxxx")
	}
	return u.String()
}

// Run takes part until ctx ends. Whatever keeps it from the servers, credentials that they do
// not take among it, it tries again, for ever, and says so in its status.
func (w *Worker) Run(ctx context.Context, l Listener) error {
	nc, err := w.connect()
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	defer nc.end()
	for subject, handle := range map[string]func(*nats.Msg){
		w.prefix + "fact.>":      func(m *nats.Msg) { w.arrived(m, l) },
		w.prefix + "hint.*":      func(m *nats.Msg) { w.hinted(m, l) },
		"$KV." + w.stream + ".*": func(m *nats.Msg) { w.hearMember(m.Subject, m.Data) },
		w.cfg.Events:             func(m *nats.Msg) { w.event(m, l) },
	} {
		if subject == "" {
			continue
		}
		sub, err := nc.Subscribe(subject, handle)
		if err != nil {
			return fmt.Errorf("cluster: subscribe to %s: %w", subject, err)
		}
		if err := sub.SetPendingLimits(maxPending, maxPendingBytes); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.heartbeats(ctx, l) })
	g.Go(func() error { return w.preparing(ctx) })
	g.Go(func() error { return w.telling(ctx) })
	g.Go(func() error { return w.hinting(ctx) })
	return g.Wait()
}

func (w *Worker) connect() (*link, error) {
	o := []nats.Option{nats.Name("trust-worker " + w.cfg.Node), nats.NoEcho(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(heartbeat), nats.ReconnectJitter(heartbeat, heartbeat), nats.ReconnectBufSize(-1), nats.Timeout(netTime), nats.FlusherTimeout(netTime), nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(*nats.Conn) { w.connected("") }),
		nats.ReconnectHandler(func(*nats.Conn) { w.connected("") }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { w.connected(fmt.Sprint("disconnected: ", cause(err))) }),
		nats.ClosedHandler(func(*nats.Conn) { w.connected("the connection is closed") }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { w.connected(fmt.Sprint("not connected: ", cause(err))) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			about := ""
			if sub != nil {
				about = sub.Subject
			}
			if !w.up.Load() { // credentials that are refused
				w.connected(fmt.Sprint("not connected: ", err))
			}
			w.warn("NATS reports an error", "error", err, "subject", about)
		})}
	if w.cfg.Credentials != "" {
		o = append(o, nats.UserCredentials(w.cfg.Credentials))
	}
	if w.cfg.CA != "" {
		o = append(o, nats.RootCAs(w.cfg.CA))
	}
	if w.cfg.Cert != "" {
		o = append(o, nats.ClientCert(w.cfg.Cert, w.cfg.CertKey))
	}
	w.setProblem("not connected yet")
	nc, err := nats.Connect(strings.Join(w.cfg.URLs, ","), o...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(tellAhead), jetstream.WithPublishAsyncTimeout(netTime),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
			w.count(func(st *Status) { st.Given-- })
			w.lost(err.Error())
			w.checkStream()
		}))
	if err != nil {
		nc.Close()
		return nil, err
	}
	l := &link{nc, js}
	w.link.Store(l)
	return l, nil
}

// end closes the connection, and does not wait for a line that is frozen.
func (l *link) end() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		l.Close()
	}()
	select {
	case <-closed:
	case <-time.After(netTime):
	}
}

func cause(err error) error {
	if err == nil {
		return errors.New("the server closed the connection")
	}
	return err
}

// connected notes what has become of the connection: problem is empty while there is one.
func (w *Worker) connected(problem string) {
	w.mu.Lock()
	was := w.st.Problem
	w.st.Problem, w.st.Connected = problem, problem == ""
	w.mu.Unlock()
	w.rests.Store(nil)
	w.up.Store(problem == "")
	w.prepared.Store(false)
	w.checkStream()
	switch {
	case problem == "" && was != "":
		w.cfg.Log.Info("NATS is connected; facts are shared with other workers", "node", w.cfg.Node)
	case problem != "" && was == "":
		w.cfg.Log.Warn("NATS is not connected; this worker verifies everything itself meanwhile", "error", problem)
	}
}

func (w *Worker) setProblem(p string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.st.Problem, w.st.Connected = p, p == ""
}

func (w *Worker) count(change func(*Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.st)
}

// online reports whether there is a connection. It asks the connection nothing.
func (w *Worker) online() bool { return w.up.Load() && w.link.Load() != nil }

// lost counts a fact that the others will not be told.
func (w *Worker) lost(why string) { w.count(func(st *Status) { st.Lost++; st.LostWhy = why }) }
