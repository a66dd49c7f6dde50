package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
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
	"github.com/synadia-io/orbit.go/jetstreamext"
	"golang.org/x/sync/errgroup"

	"trust-worker/cache/store"
	"trust-worker/trust"
)

const (
	// askTime is how long an answer of the stream is waited for, and restTime for how long
	// nobody asks once there was none.
	askTime  = 500 * time.Millisecond
	restTime = time.Second
	// askAtOnce is how many facts one request asks for; the server takes 1,024.
	askAtOnce = 256
	// tellAhead is how many facts wait to be told; what is beyond is not told.
	tellAhead = 4096
	// keptFacts are the facts of others that are kept here, of smallFact bytes at most each;
	// the stream has all of them. keptTold are the names of those that this worker has told.
	keptFacts = 4096
	smallFact = 4 << 10
	keptTold  = 1 << 16
	// maxStream bounds the stream that a worker makes where there is none, in bytes.
	maxStream = 1 << 30
)

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

// Worker is this worker's place in the cluster. Its methods are safe for concurrent use, and
// none but Run waits for the network for longer than half a second.
type Worker struct {
	cfg    Config
	prefix string // of subjects, with the dot
	stream string // and the bucket
	turns  *turns
	boot   uint64

	link atomic.Pointer[link] // nil before Run

	kept  *lru.Cache[string, *store.Shared]
	told  *lru.Cache[store.FactKey, struct{}]
	tell  chan *store.Shared
	rests atomic.Int64 // Unix nanoseconds until when nobody asks
	// prepared: the stream and the bucket are there, as far as is known.
	prepared atomic.Bool

	hints hints

	mu     sync.Mutex
	st     Status
	warned time.Time // of a refusal
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
		boot: binary.BigEndian.Uint64(boot[:]), tell: make(chan *store.Shared, tellAhead)}
	w.kept, _ = lru.New[string, *store.Shared](keptFacts)  // fails with a size below 1 alone
	w.told, _ = lru.New[store.FactKey, struct{}](keptTold) // likewise
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

// Run takes part until ctx ends. What keeps it from the servers it tries again, for ever, and
// says so in its status.
func (w *Worker) Run(ctx context.Context, l Listener) error {
	nc, err := w.connect()
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	defer nc.Close()
	for subject, handle := range map[string]func(*nats.Msg){
		w.prefix + "fact.>":      func(m *nats.Msg) { w.arrived(m, l) },
		w.prefix + "hint.*":      func(m *nats.Msg) { w.hinted(m, l) },
		"$KV." + w.stream + ".*": w.beat,
		w.cfg.Events:             func(m *nats.Msg) { w.event(m, l) },
	} {
		if subject == "" {
			continue
		}
		sub, err := nc.Subscribe(subject, handle)
		if err != nil {
			return fmt.Errorf("cluster: subscribe to %s: %w", subject, err)
		}
		if err := sub.SetPendingLimits(1<<16, 64<<20); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.heartbeats(ctx, l) })
	g.Go(func() error { return w.telling(ctx) })
	g.Go(func() error { return w.hinting(ctx) })
	return g.Wait()
}

func (w *Worker) connect() (*link, error) {
	o := []nats.Option{nats.Name("trust-worker " + w.cfg.Node), nats.NoEcho(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(heartbeat), nats.ReconnectJitter(heartbeat, heartbeat), nats.ReconnectBufSize(-1), nats.Timeout(2 * time.Second),
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(*nats.Conn) { w.connected("") }),
		nats.ReconnectHandler(func(*nats.Conn) { w.connected("") }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { w.connected(fmt.Sprint("disconnected: ", cause(err))) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { w.connected(fmt.Sprint("not connected: ", cause(err))) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			about := ""
			if sub != nil {
				about = sub.Subject
			}
			w.cfg.Log.Warn("NATS reports an error", "error", err, "subject", about)
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
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(tellAhead), jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
		w.lost(err.Error())
	}))
	if err != nil {
		nc.Close()
		return nil, err
	}
	l := &link{nc, js}
	w.link.Store(l)
	if nc.IsConnected() {
		w.connected("")
	}
	return l, nil
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
	w.rests.Store(0)
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

// online reports whether there is a connection.
func (w *Worker) online() bool { return w.link.Load() != nil && w.link.Load().IsConnected() }

// lost counts a fact that the others will not be told.
func (w *Worker) lost(why string) { w.count(func(st *Status) { st.Lost++; st.LostWhy = why }) }

// heartbeats says every half second that this worker is there, and sees to the stream and the
// bucket.
func (w *Worker) heartbeats(ctx context.Context, l Listener) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	beats := uint64(0)
	tried := time.Time{}
	for {
		m := l.Load()
		beats++
		m.Node, m.Version, m.Epoch, m.Boot, m.Beat = w.cfg.Node, w.cfg.Version, w.cfg.Epoch, w.boot, beats
		w.turns.be(m)
		if w.online() {
			if w.lostSince(&tried) || !w.prepared.Load() {
				w.see(w.prepare(ctx))
				tried = time.Now()
			}
			body, err := json.Marshal(m)
			if err == nil {
				subject := "$KV." + w.stream + "." + w.cfg.Node
				// The bucket keeps it; others hear it, also while the bucket has no leader.
				err = w.link.Load().Publish(subject, w.cfg.Key.seal(subject, body))
			}
			if err != nil {
				w.cfg.Log.Debug("no heartbeat", "error", err)
			}
		} else {
			w.prepared.Store(false)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// see notes whether the stream can be used, and says so when that has changed.
func (w *Worker) see(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	w.prepared.Store(err == nil)
	w.mu.Lock()
	was := w.st.StreamProblem
	w.st.StreamProblem = problem
	w.mu.Unlock()
	switch {
	case problem != "" && was == "":
		w.cfg.Log.Warn("the stream of facts cannot be used; this worker verifies everything itself meanwhile", "error", err)
	case problem == "" && was != "":
		w.cfg.Log.Info("the stream of facts can be used again")
	}
}

// lostSince reports whether facts have been lost since the last call that was long enough ago:
// the stream may be gone.
func (w *Worker) lostSince(last *time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.st.Lost == w.st.lostSeen || time.Since(*last) < 2*time.Second {
		return false
	}
	w.st.lostSeen = w.st.Lost
	return true
}

// prepare makes the stream and the bucket unless they are there, and hears the members that
// the bucket knows.
func (w *Worker) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if is := w.link.Load().ConnectedServerVersion(); tooOld(is) {
		return fmt.Errorf("the NATS server is version %s; %d.%d or later is needed, which gives many facts at once", is, needsMajor, needsMinor)
	}
	replicas := 1
	if w.link.Load().ConnectedClusterName() != "" {
		replicas = 3
	}
	stream, err := w.link.Load().js.Stream(ctx, w.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		for ; ; replicas = 1 {
			stream, err = w.link.Load().js.CreateStream(ctx, jetstream.StreamConfig{Name: w.stream, Description: "facts about signatures, by trust-worker; may be deleted",
				Subjects: []string{w.prefix + "fact.>"}, MaxMsgsPerSubject: 1, MaxBytes: maxStream, MaxMsgSize: maxFact + 1024, Discard: jetstream.DiscardOld,
				Storage: jetstream.FileStorage, Replicas: replicas, AllowDirect: true})
			if err == nil || replicas == 1 {
				break
			}
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another was quicker
			stream, err = w.link.Load().js.Stream(ctx, w.stream)
		}
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", w.stream, err)
	}
	if c := stream.CachedInfo().Config; c.MaxMsgsPerSubject != 1 || !c.AllowDirect || !slices.Contains(c.Subjects, w.prefix+"fact.>") {
		return fmt.Errorf("stream %s is not as a worker makes it: it needs one message per subject, direct gets, and the subject %sfact.>", w.stream, w.prefix)
	}
	w.count(func(st *Status) { st.Replicas = stream.CachedInfo().Config.Replicas })
	kv, err := w.link.Load().js.KeyValue(ctx, w.stream)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = w.link.Load().js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: w.stream, Description: "members of a cluster of trust-worker", TTL: 2 * memberTime,
			History: 1, Storage: jetstream.MemoryStorage, Replicas: stream.CachedInfo().Config.Replicas})
	}
	if err != nil {
		return fmt.Errorf("bucket %s: %w", w.stream, err)
	}
	keys, err := kv.Keys(ctx)
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil
	}
	for _, key := range keys[:min(len(keys), maxMembers)] {
		if e, err := kv.Get(ctx, key); err == nil {
			w.hearMember("$KV."+w.stream+"."+key, e.Value())
		}
	}
	return err
}

// The first version of nats-server with batched direct gets (ADR-31 of NATS).
const needsMajor, needsMinor = 2, 11

// tooOld reports whether a server of that version does not know what is asked of it. One that
// does not say its version as others do is believed to.
func tooOld(version string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor) // 2, or it is not known
	return n == 2 && (major < needsMajor || major == needsMajor && minor < needsMinor)
}

// beat hears a member.
func (w *Worker) beat(m *nats.Msg) { w.hearMember(m.Subject, m.Data) }

func (w *Worker) hearMember(subject string, message []byte) {
	body, ok := w.cfg.Key.open(subject, message)
	if !ok {
		w.refuse(refusedSeal, subject)
		return
	}
	var m Member
	if err := json.Unmarshal(body, &m); err != nil || !strings.HasSuffix(subject, "."+m.Node) || m.Owed < 0 {
		w.refuse(refusedForm, subject)
		return
	}
	w.turns.hear(m)
}

// arrived takes note of a fact that another has told.
func (w *Worker) arrived(m *nats.Msg, l Listener) {
	f, ok := w.read(m.Subject, m.Data)
	if !ok || f.Node == w.cfg.Node {
		return
	}
	if len(m.Data) <= smallFact {
		w.kept.Add(m.Subject, f)
	}
	double := w.told.Contains(f.Key())
	w.count(func(st *Status) {
		st.Heard++
		st.Lag = max(0, time.Since(f.At))
		if double {
			st.Double++
		}
	})
	l.FactArrived(f.Subject)
}

// Ask returns what others have told of these, as far as it can be had soon.
func (w *Worker) Ask(ctx context.Context, keys []store.FactKey) map[store.FactKey]*store.Shared {
	found := map[store.FactKey]*store.Shared{}
	var subjects []string
	for _, k := range keys {
		subject := w.factSubject(k)
		if f, ok := w.kept.Get(subject); ok {
			found[k] = f
		} else {
			subjects = append(subjects, subject)
		}
	}
	for part := range slices.Chunk(subjects, askAtOnce) {
		if !w.online() || time.Now().UnixNano() < w.rests.Load() {
			break
		}
		if err := w.ask(ctx, part, found); err != nil && ctx.Err() == nil {
			w.rests.Store(time.Now().Add(restTime).UnixNano())
			w.count(func(st *Status) { st.AskFailed++ })
			w.cfg.Log.Debug("the stream of facts gives no answer", "error", err)
		}
	}
	return found
}

func (w *Worker) ask(ctx context.Context, subjects []string, found map[store.FactKey]*store.Shared) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	wanted := make(map[string]bool, len(subjects))
	for _, subject := range subjects {
		wanted[subject] = true
	}
	messages, err := jetstreamext.GetLastMsgsFor(ctx, w.link.Load().js, w.stream, subjects)
	if err != nil {
		return err
	}
	for m, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return nil
		}
		if err != nil {
			return err
		}
		if !wanted[m.Subject] {
			continue
		}
		if f, ok := w.read(m.Subject, m.Data); ok {
			found[f.Key()] = f
		}
	}
	return nil
}

// Tell tells the others a fact that this worker has verified. It does not wait: while there is
// nobody to tell, facts are kept for later, as many as there is room for.
func (w *Worker) Tell(f *store.Shared) {
	select {
	case w.tell <- f:
	default:
		w.lost("too many wait to be told")
	}
}

// ready waits until facts can be told. It returns false when ctx ends.
func (w *Worker) ready(ctx context.Context) bool {
	for !w.prepared.Load() || !w.online() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(heartbeat / 5):
		}
	}
	return true
}

func (w *Worker) telling(ctx context.Context) error {
	for {
		var f *store.Shared
		select {
		case <-ctx.Done():
			return nil
		case f = <-w.tell:
		}
		if !w.ready(ctx) {
			return nil
		}
		f.Node, f.At = w.cfg.Node, time.Now()
		body, err := f.Marshal()
		if err != nil || len(body) > maxFact {
			w.lost("it is too large")
			continue
		}
		subject := w.factSubject(f.Key())
		w.told.Add(f.Key(), struct{}{})
		if w.kept.Contains(subject) {
			w.count(func(st *Status) { st.Double++ })
		}
		if _, err := w.link.Load().js.PublishAsync(subject, w.cfg.Key.seal(subject, body)); err != nil {
			w.lost(err.Error())
			continue
		}
		w.count(func(st *Status) { st.Given++ })
	}
}

// Wait says for how long not to verify what is new in a repository that is owed since a time:
// 0 if it is this worker's turn, or nobody else is there.
func (w *Worker) Wait(repository string, since time.Time, hurry bool) time.Duration {
	if !w.online() {
		return 0
	}
	return w.turns.wait(repository, since, hurry)
}

// Rank is how many members come before this worker in a repository.
func (w *Worker) Rank(repository string) int {
	if !w.online() {
		return 0
	}
	return w.turns.rank(repository)
}

// Took counts a fact of another that was taken.
func (w *Worker) Took() { w.count(func(st *Status) { st.Taken++ }) }

// Refuse counts a fact that was not, with the reason.
func (w *Worker) Refuse(reason string) { w.count(func(st *Status) { st.refuse(reason) }) }

// refuse counts a message that is not believed, and says so now and then. It returns false.
func (w *Worker) refuse(reason, subject string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.st.refuse(reason)
	if time.Since(w.warned) > time.Minute {
		w.warned = time.Now()
		w.cfg.Log.Warn("a message of the cluster is refused", "reason", reason, "subject", subject, "refused", w.st.Refused[reason])
	}
	return false
}
