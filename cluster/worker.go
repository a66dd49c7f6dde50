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

// retryTime is after how long a connection is tried again that could not even begin.
const retryTime = 5 * time.Second

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
	HintRepository(name string, hurry bool)
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
	// stopping: what becomes of the connection is of no interest any more.
	stopping atomic.Bool

	kept  *lru.Cache[string, *store.Shared]
	told  *lru.Cache[store.FactKey, trust.Digest] // under which trust store
	tell  chan telling
	ahead atomic.Int64              // bytes in tell
	rests atomic.Pointer[time.Time] // until when nobody asks
	made  time.Time
	// joined: the stream was there once, and the members that the bucket knew are heard.
	joined atomic.Bool
	// prepared: the stream is there, as far as is known; check: look again whether it is.
	prepared atomic.Bool
	check    chan struct{}

	hints   hints
	members map[string]string // what was last said of them, see sayMembers
	shares  bool              // as was last said

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
	cfg.URLs = slices.Clone(cfg.URLs)
	for i, u := range cfg.URLs {
		if !strings.Contains(u, "://") {
			u = "nats://" + u
			cfg.URLs[i] = u
		}
		parsed, err := url.Parse(u)
		if err != nil || parsed.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, parsed.Scheme) {
			return nil, fmt.Errorf("%s: not the URL of a NATS server, such as nats://nats.example:4222", Redact(u))
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
	for what, file := range map[string]string{"credentials": cfg.Credentials, "CA certificates": cfg.CA, "certificate": cfg.Cert, "certificate's key": cfg.CertKey} {
		if file != "" {
			if _, err := os.Stat(file); err != nil {
				return nil, fmt.Errorf("%s for the NATS servers: %w", what, err)
			}
		}
	}
	if NodeName(cfg.Node) != cfg.Node || len(cfg.Node) > 100 { // it is one token of a subject
		return nil, fmt.Errorf("%.120q cannot be the name of a worker: it has letters, digits, - and _, 100 at most", cfg.Node)
	}
	var boot [8]byte
	rand.Read(boot[:]) // cannot fail
	id := cfg.Key.ID()
	w := &Worker{cfg: cfg, prefix: "trust-worker." + id + ".", stream: "trust-worker-" + id, turns: newTurns(cfg.Node),
		boot: binary.BigEndian.Uint64(boot[:]), tell: make(chan telling, tellAhead), check: make(chan struct{}, 1), made: time.Now()}
	w.kept, _ = lru.New[string, *store.Shared](keptFacts)      // fails with a size below 1 alone
	w.told, _ = lru.New[store.FactKey, trust.Digest](keptTold) // likewise
	w.st = Status{Node: cfg.Node, ID: id, Problem: notYet, Refused: map[string]int64{}, Left: map[string]int64{}}
	for _, u := range cfg.URLs {
		w.st.Servers = append(w.st.Servers, Redact(u))
	}
	w.hints.more = make(chan struct{}, 1)
	w.hints.heard, _ = lru.New[string, *order](2 * maxMembers) // likewise
	return w, nil
}

// NodeName makes a name of a worker of a host's.
func NodeName(host string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-_", r) || r < 128 && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '-'
	}, host)
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

// Run takes part until ctx ends. Whatever keeps it from the servers, files that cannot be read
// and credentials that are refused among it, it tries again, for ever, and says so in its status.
func (w *Worker) Run(ctx context.Context, l Listener) error {
	nc, err := w.connect()
	for ; err != nil; nc, err = w.connect() { // a file that cannot be read now
		w.connected(fmt.Sprint("not connected: ", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryTime):
		}
	}
	defer nc.end()
	stop := context.AfterFunc(ctx, func() { w.stopping.Store(true) })
	defer stop()
	for subject, handle := range map[string]func(*nats.Msg){
		w.prefix + "fact.>":          func(m *nats.Msg) { w.arrived(m, l) },
		w.prefix + "hint.trust":      func(m *nats.Msg) { w.hinted(m, l) }, // not behind those about repositories
		w.prefix + "hint.repository": func(m *nats.Msg) { w.hinted(m, l) },
		"$KV." + w.stream + ".*":     func(m *nats.Msg) { w.hearMember(m.Subject, m.Data) },
		w.cfg.Events:                 func(m *nats.Msg) { w.event(m, l) },
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
	g.Go(func() error { return w.tellAll(ctx) })
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
			if !w.up.Load() && slices.ContainsFunc([]error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired}, func(e error) bool { return errors.Is(err, e) }) {
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
	nc, err := nats.Connect(strings.Join(w.cfg.URLs, ","), o...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(tellAhead), jetstream.WithPublishAsyncTimeout(netTime),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
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
	if w.st.Problem, w.st.Connected = problem, problem == ""; !w.st.Connected {
		w.st.StreamProblem = "" // that of another connection
		w.st.Failures++
	}
	w.mu.Unlock()
	w.rests.Store(nil)
	w.up.Store(problem == "")
	w.prepared.Store(false)
	w.checkStream()
	switch {
	case w.stopping.Load():
	case problem == "" && was != "":
		w.cfg.Log.Info("NATS is connected")
	case problem != "" && (was == "" || was == notYet):
		w.cfg.Log.Warn("NATS is not connected; this worker verifies everything itself meanwhile", "error", problem)
	}
}

// notYet is the problem before the first attempt has ended.
const notYet = "not connected yet"

func (w *Worker) count(change func(*Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.st)
}

// online reports whether there is a connection. It asks the connection nothing.
func (w *Worker) online() bool { return w.up.Load() && w.link.Load() != nil }

// lost counts a fact that the others will not be told.
func (w *Worker) lost(why string) { w.count(func(st *Status) { st.Lost++; st.LostWhy = why }) }
