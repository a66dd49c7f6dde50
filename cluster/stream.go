package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"trust-worker/cache/store"
	"trust-worker/trust"
)

const (
	// askTime is how long an answer of the stream is waited for, restTime for how long nobody
	// asks once there was none. After an answer that took longer than slowly, nobody asks for
	// restTimes as long. A worker whose processors are all at work has answers within a tenth
	// of a second; to verify what it could have taken would not help it.
	askTime   = 500 * time.Millisecond
	restTime  = time.Second
	slowly    = 250 * time.Millisecond
	restTimes = 4
	// askAtOnce is how many facts one request asks for; the server takes 1,024.
	askAtOnce = 256
	// tellAhead is how many facts wait to be told, tellBytes how many bytes of them; what is
	// beyond is not told.
	tellAhead = 4096
	tellBytes = 32 << 20
	// keptFacts are the facts of others that are kept here, of smallFact bytes at most each;
	// the stream has all of them. keptTold are the names of those that this worker has told.
	keptFacts = 4096
	smallFact = 4 << 10
	keptTold  = 1 << 16
	// maxStream bounds the stream that a worker makes where there is none, in bytes.
	maxStream = 1 << 30
	// checkTime is how often the stream is looked at.
	checkTime = 10 * time.Second
)

// checkStream has it looked at soon.
func (w *Worker) checkStream() {
	select {
	case w.check <- struct{}{}:
	default:
	}
}

// preparing sees to the stream: when there is a connection, when facts are lost, and now and
// then.
func (w *Worker) preparing(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.check:
		case <-time.After(wait):
		}
		wait = checkTime
		if !w.online() {
			continue
		}
		was := w.prepared.Load()
		err := w.prepare(ctx)
		w.see(err)
		switch {
		case err != nil:
			wait = restTime
		case !was:
			w.hearMembers(ctx)
			w.joined.Store(true)
		}
		select { // one look a second
		case <-ctx.Done():
			return nil
		case <-time.After(restTime):
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
	case problem == "" && !w.shares:
		w.cfg.Log.Info("facts are shared with other workers", "node", w.cfg.Node, "cluster", w.st.ID)
	}
	w.shares = problem == ""
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

// prepare makes the stream and the bucket unless they are there.
func (w *Worker) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	l := w.link.Load()
	if is := l.ConnectedServerVersion(); tooOld(is) {
		return fmt.Errorf("the NATS server is version %s; %d.%d or later is needed, which gives many facts at once", is, needsMajor, needsMinor)
	}
	replicas := 1
	if l.ConnectedClusterName() != "" {
		replicas = 3
	}
	stream, err := l.js.Stream(ctx, w.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		for ; ; replicas = 1 {
			stream, err = l.js.CreateStream(ctx, jetstream.StreamConfig{Name: w.stream, Description: "facts about signatures, by trust-worker; may be deleted",
				Subjects: []string{w.prefix + "fact.>"}, MaxMsgsPerSubject: 1, MaxBytes: maxStream, MaxMsgSize: maxFact + 1024, Discard: jetstream.DiscardOld,
				Storage: jetstream.FileStorage, Replicas: replicas, AllowDirect: true})
			if err == nil || replicas == 1 || ctx.Err() != nil {
				break
			}
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another was quicker
			stream, err = l.js.Stream(ctx, w.stream)
		}
	}
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fmt.Errorf("the NATS server has no JetStream for this account (nats-server -js): %w", err)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", w.stream, err)
	}
	c := stream.CachedInfo().Config
	if c.MaxMsgsPerSubject != 1 || !c.AllowDirect || c.NoAck || c.Sealed || c.Retention != jetstream.LimitsPolicy || !slices.Contains(c.Subjects, w.prefix+"fact.>") {
		return fmt.Errorf("stream %s is not as a worker makes it: it needs one message per subject, direct gets, acknowledgements, retention by limits, and the subject %sfact.>; edit or delete it", w.stream, w.prefix)
	}
	w.count(func(st *Status) { st.StreamReplicas = c.Replicas })
	if _, err := l.js.KeyValue(ctx, w.stream); errors.Is(err, jetstream.ErrBucketNotFound) {
		// Who finds no bucket hears of the others all the same.
		_, err = l.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: w.stream, Description: "members of a cluster of trust-worker", TTL: 2 * memberTime,
			History: 1, MaxBytes: 4 << 20, Storage: jetstream.MemoryStorage, Replicas: c.Replicas})
		if err != nil {
			w.cfg.Log.Debug("no bucket for members", "error", err)
		}
	}
	return nil
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
	under, did := w.told.Get(f.Key())
	w.count(func(st *Status) {
		st.Heard++
		st.Lag = max(0, time.Since(f.At))
		if did && under == f.TrustStore {
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
		if until := w.rests.Load(); !w.online() || until != nil && time.Now().Before(*until) {
			break
		}
		began := time.Now()
		more, err := w.ask(ctx, part)
		for _, f := range more {
			found[f.Key()] = f
		}
		rest := restTime
		switch took := time.Since(began); {
		case ctx.Err() != nil:
			return found
		case err != nil:
			w.count(func(st *Status) { st.AskFailed++ })
			w.cfg.Log.Debug("the stream of facts gives no answer", "error", err)
		case took < slowly:
			continue
		default:
			rest = restTimes * took
		}
		until := time.Now().Add(rest)
		w.rests.Store(&until)
	}
	return found
}

// ask asks the stream, in a goroutine of its own: a frozen line holds up whoever writes to it.
func (w *Worker) ask(ctx context.Context, subjects []string) ([]*store.Shared, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	type answer struct {
		facts []*store.Shared
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		facts, err := w.lastOf(ctx, subjects)
		answered <- answer{facts, err}
	}()
	select {
	case a := <-answered:
		return a.facts, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *Worker) lastOf(ctx context.Context, subjects []string) (facts []*store.Shared, err error) {
	wanted := make(map[string]bool, len(subjects))
	for _, subject := range subjects {
		wanted[subject] = true
	}
	messages, err := jetstreamext.GetLastMsgsFor(ctx, w.link.Load().js, w.stream, subjects)
	if err != nil {
		return nil, err
	}
	for m, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return facts, nil
		}
		if err != nil {
			return facts, err
		}
		if !wanted[m.Subject] {
			continue
		}
		if f, ok := w.read(m.Subject, m.Data); ok {
			facts = append(facts, f)
		}
	}
	return facts, ctx.Err() // at its end the answers end, too, and nobody says so
}

// telling is a fact on its way to the others.
type telling struct {
	key        store.FactKey
	trustStore trust.Digest
	subject    string
	message    []byte
}

// Tell tells the others a fact that this worker has verified. It does not wait: while there is
// nobody to tell, facts are kept for later, as many as there is room for.
func (w *Worker) Tell(f *store.Shared) {
	f.Node, f.At = w.cfg.Node, time.Now()
	body, err := f.Marshal()
	if err != nil || len(body) > maxFact {
		w.lost("it is too large")
		return
	}
	t := telling{key: f.Key(), trustStore: f.TrustStore, subject: w.factSubject(f.Key())}
	t.message = w.cfg.Key.seal(t.subject, body)
	if w.ahead.Add(int64(len(t.message))) > tellBytes {
		w.ahead.Add(-int64(len(t.message)))
		w.lost("too many wait to be told")
		return
	}
	select {
	case w.tell <- t:
	default:
		w.ahead.Add(-int64(len(t.message)))
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

func (w *Worker) tellAll(ctx context.Context) error {
	for {
		var t telling
		select {
		case <-ctx.Done():
			return nil
		case t = <-w.tell:
		}
		w.ahead.Add(-int64(len(t.message)))
		if !w.ready(ctx) {
			return nil
		}
		w.told.Add(t.key, t.trustStore)
		other, double := w.kept.Get(t.subject)
		if _, err := w.link.Load().js.PublishAsync(t.subject, t.message); err != nil {
			w.lost(err.Error())
			continue
		}
		w.count(func(st *Status) {
			st.Given++
			if double && other.TrustStore == t.trustStore {
				st.Double++
			}
		})
	}
}

// Took counts a fact of another that was taken.
func (w *Worker) Took() { w.count(func(st *Status) { st.Taken++ }) }

// Leave counts a fact that was not, with the reason.
func (w *Worker) Leave(reason string) { w.count(func(st *Status) { st.Left[reason]++ }) }

// refuse counts a message that is not believed, and says so now and then. It returns false.
func (w *Worker) refuse(reason, subject string) bool {
	w.count(func(st *Status) { st.Refused[reason]++ })
	w.warn("a message of the cluster is refused", "reason", reason, "subject", subject)
	return false
}

// warn says something once a minute at most.
func (w *Worker) warn(what string, attrs ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.warned == nil {
		w.warned = map[string]time.Time{}
	}
	if time.Since(w.warned[what]) > time.Minute {
		w.warned[what] = time.Now()
		w.cfg.Log.Warn(what, attrs...)
	}
}
