package watcher

// Cause is why a notice was sent; of several that were merged, the last. It is
// for logs and metrics: what to do is the same for all.
type Cause string

const (
	CauseStart  Cause = "start"  // the first look
	CauseEvents Cause = "events" // a burst of events ended
	CausePoll   Cause = "poll"   // the poll's time came
	CauseLost   Cause = "lost"   // events were lost, or the event source was replaced
)

// Notice tells the caller to read the trust directories now and compare with
// what it has loaded.
type Notice struct {
	// Seq grows by one with each look. A merged notice has the highest, so gaps
	// are normal.
	Seq   uint64
	Cause Cause
	// Rescan is set on the first notice and when events may have been lost
	// since the previous one: what a caller would skip for want of a visible
	// change (equal mtime, say) it must read this time.
	Rescan bool
}

// mailbox is a channel of one notice whose single sender never waits: a notice
// that was not taken yet is merged into the next.
type mailbox chan Notice

// put must not be called concurrently. After the pending notice is taken out,
// by this function or by the receiver, there is room, and nobody else to fill
// it: the second round always sends.
func (m mailbox) put(n Notice) {
	for {
		select {
		case m <- n:
			return
		default:
		}
		select {
		case old := <-m:
			n.Rescan = n.Rescan || old.Rescan
		default:
		}
	}
}
