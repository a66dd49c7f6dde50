package scheduler

import (
	"errors"
	"time"

	"trust-worker/cache/store"
	"trust-worker/trust"
)

// What one turn may take. Whoever waits for a new signature waits for the turns that
// are in progress, so a turn is short, whatever a repository holds.

// turnSize is how many signature manifests one turn looks at, turnTime after how long
// it begins no further one.
const (
	turnSize = 64
	turnTime = 50 * time.Millisecond
)

// scanTime is how long a repository may be read and compared in an ordinary turn. A
// scan is not done in parts, since it is of one index.json; one that takes longer is
// begun again where only such scans wait for each other.
const scanTime = 100 * time.Millisecond

// longIndex is the size of an index.json, in bytes, whose scan is taken for long before it
// is begun.
const longIndex = 2 << 20

// indexWait is how long the reading of an index.json that changes may wait for it to hold
// still: that costs nobody anything.
const indexWait = 80 * time.Millisecond

// errLong: a scan takes longer than an ordinary turn may.
var errLong = errors.New("the scan takes longer than a turn may")

// allowance is what is left of one turn. The first look is always allowed, so that
// each turn gets on.
type allowance struct {
	left  int
	until time.Time // of the monotonic clock
}

func newAllowance() *allowance { return &allowance{left: turnSize, until: time.Now().Add(turnTime)} }

// take reports whether there may be one more look, and counts it.
func (a *allowance) take() bool {
	if a.spent() {
		return false
	}
	a.left--
	return true
}

func (a *allowance) spent() bool { return a.left <= 0 || a.left < turnSize && a.late() }

// late reports whether the time of the turn is over.
func (a *allowance) late() bool { return time.Now().After(a.until) }

// place is how far a turn has come: all rows up to one, and of the next, which is
// row if it is still there, the references up to one.
type place struct {
	after, row, ref trust.Digest
}

// passes reports whether a reference of a row has been dealt with by the turns before.
func (p *place) passes(row *store.Row, ref *store.Reference) bool {
	return p.row == row.Digest && p.ref != (trust.Digest{}) && !after(ref.Digest, p.ref)
}

func after(d, than trust.Digest) bool { return string(d[:]) > string(than[:]) }

// unread marks a signature that is known from elsewhere and has not been read in this
// repository yet: it is pending until it has.
var unread = []store.Problem{{Layer: -1, Reason: trust.New}}

func isUnread(ref *store.Reference) bool {
	return ref != nil && len(ref.Problems) == 1 && ref.Problems[0] == unread[0]
}
