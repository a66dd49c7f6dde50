package cluster

import (
	"maps"
	"time"
)

// Status is a worker's place in the cluster: what `trust-worker status` shows.
type Status struct {
	// Node is this worker's name, and ID the cluster's.
	Node, ID string
	Servers  []string
	// Connected to a NATS server. Else Problem says why it is not, and this worker verifies
	// everything itself.
	Connected bool
	Problem   string `json:",omitempty"`
	Failures  int64  // connections that were lost, and attempts that failed
	// StreamProblem is why facts cannot be told, or "". StreamReplicas is how many NATS
	// servers have the stream.
	StreamProblem  string `json:",omitempty"`
	StreamReplicas int    `json:",omitempty"`
	// Twin is when another worker of this name was last heard.
	Twin time.Time `json:",omitzero"`
	// Members are the others.
	Members []MemberStatus
	// Facts since the start: Given to the others, Heard from them, Taken instead of a
	// verification. Double counts those that this worker has verified and another too. Lost
	// are those that could not be told, LostWhy why the last one was not. Refused are
	// messages that were not believed, Left facts that were not taken, by reason.
	Given, Heard, Taken, Double, Lost int64
	LostWhy                           string           `json:",omitempty"`
	Refused, Left                     map[string]int64 `json:",omitempty"`
	AskFailed                         int64            `json:",omitempty"` // requests to the stream without an answer
	// Hints from other workers, Events from the registry.
	Hints, Events int64
	// Lag is how long the last fact that was heard has been on its way, by two machines'
	// clocks.
	Lag time.Duration
	// First is of how many of Repositories it is this worker's turn first; Waiting are those
	// in which another's fact is waited for. Package scheduler knows.
	First, Repositories, Waiting int
	// Mounts says of directories why a look may not see what is there.
	Mounts []string `json:",omitempty"`
}

// Status returns the present condition.
func (w *Worker) Status() *Status {
	w.mu.Lock()
	st := w.st
	st.Refused, st.Left = maps.Clone(st.Refused), maps.Clone(st.Left)
	w.mu.Unlock()
	st.Members = w.turns.status()
	return &st
}
