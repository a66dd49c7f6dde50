package cluster

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// startTime is for how long a worker that has just started waits for the servers.
const startTime = 2 * time.Second

// maxHeartbeat bounds the message of a member, in bytes.
const maxHeartbeat = 4 << 10

// memberSubject is where a member says that it is there: a key of the bucket, so that who
// comes later finds it, too. Others hear it at once, also while the bucket has no leader.
func (w *Worker) memberSubject(node string) string { return "$KV." + w.stream + "." + node }

// heartbeats says every half second that this worker is there.
func (w *Worker) heartbeats(ctx context.Context, l Listener) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	connected := 0 // beats ago
	for beat := uint64(1); ; beat++ {
		m := l.Load()
		m.Node, m.Version, m.Epoch, m.Boot, m.Beat = w.cfg.Node, w.cfg.Version, w.cfg.Epoch, w.boot, beat
		w.turns.be(m)
		if connected++; !w.online() {
			connected = 0
		} else if time.Duration(connected)*heartbeat > memberTime { // before, nobody could be heard
			w.sayMembers()
		}
		if w.online() {
			subject := w.memberSubject(w.cfg.Node)
			body, err := json.Marshal(m)
			if err == nil {
				err = w.link.Load().Publish(subject, w.cfg.Key.seal(subject, body))
			}
			if err != nil {
				w.cfg.Log.Debug("no heartbeat", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sayMembers logs who has come and gone, and who is not counted on.
func (w *Worker) sayMembers() {
	now := map[string]string{}
	for _, m := range w.turns.status() {
		now[m.Node] = m.Why
		switch was, known := w.members[m.Node]; {
		case known && was == m.Why || !known && !m.Heard:
		case m.Alike:
			w.cfg.Log.Info("a worker is heard, and counted on", "worker", m.Node)
		case !m.Heard:
			w.cfg.Log.Warn("a worker is not heard any more; the others do its part", "worker", m.Node)
		default:
			w.cfg.Log.Info("a worker is not counted on", "worker", m.Node, "reason", m.Why)
		}
	}
	w.members = now
}

// hearMember hears a member.
func (w *Worker) hearMember(subject string, message []byte) {
	if len(message) > maxHeartbeat {
		w.refuse(refusedForm, subject)
		return
	}
	body, ok := w.cfg.Key.open(subject, message)
	if !ok {
		w.refuse(refusedSeal, subject)
		return
	}
	var m Member
	if err := json.Unmarshal(body, &m); err != nil || subject != w.memberSubject(m.Node) || m.Owed < 0 {
		w.refuse(refusedForm, subject)
		return
	}
	if m.Node == w.cfg.Node {
		w.hearName(m)
		return
	}
	w.turns.hear(m)
}

// hearName hears a member of this worker's own name, which is another process: the one
// before this, or one that was given the same name.
func (w *Worker) hearName(m Member) {
	const sure = 3 // messages: what is left of a process before this is one
	if m.Boot == w.boot || !w.turns.twin(m, sure) {
		return
	}
	w.count(func(st *Status) { st.Twin = time.Now() })
	w.warn("another worker has this one's name; give each a name of its own", "node", w.cfg.Node)
}

// hearMembers hears the members that the bucket knows, for one who has just come.
func (w *Worker) hearMembers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, netTime)
	defer cancel()
	kv, err := w.link.Load().js.KeyValue(ctx, w.stream)
	if err != nil {
		return
	}
	keys, err := kv.Keys(ctx)
	if err != nil {
		return
	}
	for _, key := range keys[:min(len(keys), maxMembers)] {
		if e, err := kv.Get(ctx, key); err == nil && !strings.Contains(key, ".") {
			w.hearMember(w.memberSubject(key), e.Value())
		}
	}
}

// Wait says for how long not to verify what is new in a repository that is owed since a time:
// 0 if it is this worker's turn, or nobody else is there.
//
// A worker that has just started waits for the servers first, where nobody hurries: what it has
// to verify may be known.
func (w *Worker) Wait(repository string, since time.Time, hurry bool) time.Duration {
	switch {
	case !hurry && !w.joined.Load() && time.Since(w.made) < startTime:
		return startTime / 10
	case !w.online() || !w.prepared.Load(): // nothing would be told
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
