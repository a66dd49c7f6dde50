package cluster

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"trust-worker/trust"
)

// Whose turn it is: pure rules over what members say of themselves. Times are this
// process's own; no clock of another machine is believed.

const (
	// heartbeat is how often a member says that it is there, and memberTime after how long
	// without that it is taken for gone.
	heartbeat  = 500 * time.Millisecond
	memberTime = 4 * heartbeat
	// turnDelay is how long each rank waits longer than the one before it.
	turnDelay = 500 * time.Millisecond
	// look is how often a wait for a member that is at work looks again.
	look = 500 * time.Millisecond
	// stuckTime is after how long without any work done a member that owes some is not
	// waited for.
	stuckTime = 4 * time.Second
	// maxWait bounds every wait: then a worker that has nothing else to do helps one that is
	// slower.
	maxWait = 10 * time.Second
	// shownTime is for how long a member that is gone is shown.
	shownTime = time.Minute
	// maxMembers bounds what is remembered of members.
	maxMembers = 256
)

// Member is what a worker says of itself with each heartbeat.
type Member struct {
	Node    string
	Version string `json:",omitempty"`
	// Epoch and TrustStore say what it verifies by: only members of the same are waited for.
	Epoch      uint32
	TrustStore trust.Digest
	// Owed is for how long the first of the repositories has been owed that it owes and
	// that nobody waits for; 0: none is.
	Owed time.Duration
	// Done counts what it has done, of anything: while it grows the member is at work.
	Done int64
	// Boot is a random number of the process, and Beat counts what it has said: a message that
	// somebody has kept and sends again says nothing.
	Boot, Beat uint64
}

// heard is a member, and when this process heard it.
type heard struct {
	Member
	order
	last  time.Time // it said something
	moved time.Time // Done grew
}

// order knows which messages of a node are new: those of each of its processes come in order.
type order struct{ processes []process }

// process is one by its random number, and the last message of it that was heard.
type process struct{ boot, count uint64 }

// maxProcesses bounds what is remembered of a node's processes, the last ones.
const maxProcesses = 64

// isNew reports whether a message is new, and notes it.
func (o *order) isNew(boot, count uint64) bool {
	for i := range o.processes {
		if p := &o.processes[i]; p.boot == boot {
			if count <= p.count {
				return false
			}
			p.count = count
			return true
		}
	}
	o.processes = append(o.processes[max(0, len(o.processes)-maxProcesses+1):], process{boot, count})
	return true
}

// turns knows the members that are heard.
type turns struct {
	mu      sync.Mutex
	self    Member
	members map[string]*heard
	own     order // other processes of this worker's name
	// twins counts what the last of them has said.
	twins    int
	twinBoot uint64
}

// newTurns knows nobody but self.
func newTurns(self string) *turns {
	return &turns{self: Member{Node: self}, members: map[string]*heard{}}
}

// be is what this worker says of itself now.
func (t *turns) be(m Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.self = m
}

// hear notes what another says of itself.
func (t *turns) hear(m Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	h := t.members[m.Node]
	if m.Node == t.self.Node {
		return
	}
	if h == nil {
		if t.forget(); len(t.members) >= maxMembers {
			return
		}
		h = &heard{moved: now}
		t.members[m.Node] = h
	}
	if !h.isNew(m.Boot, m.Beat) {
		return
	}
	if m.Boot != h.Boot || m.Done != h.Done {
		h.moved = now
	}
	h.Member, h.last = m, now
}

// twin hears another process of this worker's own name, and reports whether it has just said
// something new, and has so often before as sure says.
func (t *turns) twin(m Member, sure int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.own.isNew(m.Boot, m.Beat) {
		return false
	}
	if t.twins++; t.twinBoot != m.Boot {
		t.twins, t.twinBoot = 1, m.Boot
	}
	return t.twins >= sure
}

// forget makes room for a member by forgetting the one that has been gone for longest. What is
// remembered of others keeps their old messages from being taken for new ones. mu is held.
func (t *turns) forget() {
	if len(t.members) < maxMembers {
		return
	}
	gone := ""
	for name, h := range t.members {
		if time.Since(h.last) > memberTime && (gone == "" || h.last.Before(t.members[gone].last)) {
			gone = name
		}
	}
	delete(t.members, gone)
}

// alike reports whether the member is heard and verifies as this worker does. mu is held.
func (t *turns) alike(h *heard, now time.Time) bool {
	return now.Sub(h.last) < memberTime && h.Epoch == t.self.Epoch && h.TrustStore == t.self.TrustStore
}

// before are the members whose turn a repository is before this worker's: rendezvous order
// (Thaler and Ravishankar, "Using name-based mappings to increase hit rates"). mu is held.
func (t *turns) before(repository string, now time.Time) (first []*heard) {
	mine := weight(t.self.Node, repository)
	for name, h := range t.members {
		if t.alike(h, now) && bytes.Compare(weight(name, repository), mine) > 0 {
			first = append(first, h)
		}
	}
	return first
}

func weight(node, repository string) []byte {
	sum := sha256.Sum256([]byte(node + "\n" + repository))
	return sum[:]
}

// rank is how many members come before this worker.
func (t *turns) rank(repository string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.before(repository, time.Now()))
}

// wait says for how long not to verify what is new in a repository, which is owed since a
// time: 0 if it is this worker's turn. Where somebody waits for it (hurry) that is a delay
// for each member before this one. Else it lasts, too, while one of them is at work on what
// it has owed for as long as this: it may be that.
func (t *turns) wait(repository string, since time.Time, hurry bool) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	first := t.before(repository, now)
	delay := time.Duration(len(first)) * turnDelay
	switch left := since.Add(delay).Sub(now); {
	case len(first) == 0 || now.Sub(since) > maxWait:
		return 0
	case left > 0:
		return left
	case hurry:
		return 0
	}
	for _, h := range first {
		if h.Owed > 0 && now.Sub(h.moved) < stuckTime && !h.last.Add(-h.Owed).After(since.Add(look)) {
			return look
		}
	}
	return 0
}

// MemberStatus is a member as `status` shows it.
type MemberStatus struct {
	Node    string
	Version string `json:",omitempty"`
	// Silence is for how long it has not been heard.
	Silence time.Duration
	Heard   bool // within the time after which a member is taken for gone
	// Alike: it is waited for. Else Why says why it is not.
	Alike bool
	Why   string `json:",omitempty"`
}

// status are the members but this worker, by name.
func (t *turns) status() []MemberStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	all := []MemberStatus{}
	for _, h := range t.members {
		if now.Sub(h.last) > shownTime {
			continue
		}
		m := MemberStatus{Node: h.Node, Version: h.Version, Silence: now.Sub(h.last), Heard: now.Sub(h.last) < memberTime, Alike: t.alike(h, now)}
		switch {
		case !m.Heard:
			m.Why = "not heard"
		case h.TrustStore == (trust.Digest{}):
			m.Why = "it has not read its trust directories yet"
		case t.self.TrustStore == (trust.Digest{}):
			m.Why = "this worker has not read its trust directories yet"
		case h.Epoch != t.self.Epoch:
			m.Why = "its version verifies by other rules"
		case h.TrustStore != t.self.TrustStore:
			m.Why = "its trust directories or settings differ"
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b MemberStatus) int { return cmp.Compare(a.Node, b.Node) })
	return all
}
