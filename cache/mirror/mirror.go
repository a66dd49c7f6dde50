package mirror

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Mirror is the state directory of a replica. Its methods are safe for concurrent use.
type Mirror struct {
	dir  string // of what is published
	lock *os.File
	log  *slog.Logger

	mu sync.Mutex
	// cur is what CURRENT says, zero if nothing is published; files is what it said last,
	// whose files are kept.
	cur, files format.Current
	// unsynced: CURRENT says what it is to say, and may not after a power cut.
	unsynced bool
	// trust is the trust that was taken over last, which CURRENT names if there are data.
	trust taken
	// sums are what files of these names hold.
	sums map[string]File
	// wanted are the layers that are being fetched, parts those that are open.
	wanted []File
	parts  map[*Part]bool
	// left are files that an earlier process left: they may be wanted, until data have been
	// taken over.
	left []string
	// superseded is since when a file is not named any more.
	superseded map[string]time.Time
	retention  time.Duration
	heard      Heard
}

// taken is trust that was taken over.
type taken struct {
	id, generation uint64 // of the publication; no id: none was
	file           File
	number         uint64 // the generation that made the file
	published      int64  // by the source's clock, Unix nanoseconds
	lease          time.Duration
}

// retention is how long superseded files stay: readers may be about to open them.
const retention = 30 * time.Second

// ErrOlder is returned for a publication that comes before one that was taken over: the
// source is slower than the one that was asked before it. It is no confirmation.
var ErrOlder = errors.New("the source publishes what comes before that which this replica has: one replica has one source")

// NeedsTrust reports whether the publication's trust is another than was taken over last.
func (m *Mirror) NeedsTrust(p *Publication) (bool, error) {
	c, err := p.parse()
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trust.id != c.ID || m.trust.file != p.Trust, nil
}

// TakeTrust takes over a publication's trust, as it was confirmed: it rules over the data
// that are here. b is the trust file; nil if that was not needed. If it cannot be
// published, nothing is.
func (m *Mirror) TakeTrust(p *Publication, b []byte, heard Heard) error {
	c, err := p.parse()
	if err != nil {
		return err
	}
	var t *format.TrustFile
	if b != nil {
		if int64(len(b)) != p.Trust.Size || trust.SumOf(b) != p.Trust.SHA256 {
			return fmt.Errorf("%s: %w", p.Trust.Name, errContent)
		}
		if t, err = format.ReadTrust(p.Trust.Name, b); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t == nil && (m.trust.id != c.ID || m.trust.file != p.Trust) {
		return fmt.Errorf("%w: without its trust file", errPublication)
	}
	if err := m.follows(c, p, t); err != nil {
		return err
	}
	if t == nil {
		m.trust.generation = c.Generation
		return m.confirm(heard)
	}
	if err := m.publishTrust(c, p, b, heard); err != nil {
		return m.withdraw(fmt.Errorf("publish trust: %w", err))
	}
	if was := m.trust.file.Name; was != "" && was != p.Trust.Name && m.cur.Base == 0 {
		m.superseded[was] = time.Now()
	}
	m.trust = taken{c.ID, c.Generation, p.Trust, c.Trusts, t.Published, time.Duration(t.Lease)}
	m.heard = heard
	return nil
}

// follows checks that a publication goes on from what was taken over. If it does not
// because it is another cache's, or because the source's comes from a backup, all that is
// here is given up.
func (m *Mirror) follows(c format.Current, p *Publication, t *format.TrustFile) error {
	was := &m.trust
	// Within one cache a later generation has the same trust file or a later one, and one
	// generation has one.
	continues := func() bool {
		return c.Generation >= was.generation && c.Trusts >= was.number && (c.Generation > was.generation || c.Trusts == was.number) &&
			(c.Trusts > was.number || was.file.Name == "" || was.file == p.Trust)
	}
	why := ""
	switch {
	case was.id == 0:
	case was.id != c.ID:
		why = "the source has another cache"
	case !continues() && (t == nil || t.Published <= was.published):
		return ErrOlder
	case !continues():
		why = "the source's cache comes from a backup"
	}
	if why == "" {
		return nil
	}
	m.log.Warn("everything is fetched anew", "reason", why)
	return m.giveUp()
}

// giveUp forgets everything that is here: nothing of it may be published together with
// what comes.
func (m *Mirror) giveUp() error {
	if err := format.RemoveCurrent(m.dir); err != nil {
		return fmt.Errorf("withdraw what is published: %w", err)
	}
	for name := range m.sums {
		m.superseded[name] = time.Now()
	}
	m.supersede(format.Current{})
	m.want(nil)
	for _, name := range append(m.left, m.trust.file.Name) {
		if name != "" {
			m.superseded[name] = time.Now()
		}
	}
	m.cur, m.trust, m.sums, m.left = format.Current{}, taken{}, map[string]File{}, nil
	return nil
}

// publishTrust writes a trust file and has CURRENT name it, if there are data.
func (m *Mirror) publishTrust(c format.Current, p *Publication, b []byte, heard Heard) error {
	path := filepath.Join(m.dir, p.Trust.Name)
	err := format.WriteFile(path, b, heard.at(Now()))
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		m.dropParts() // data wait for trust
		err = format.WriteFile(path, b, heard.at(Now()))
	}
	if err != nil || m.files.Base == 0 {
		return err
	}
	// Also where nothing is published at present: the data of before are still here. They
	// are of this cache, and may be later ones than the publication has.
	next := m.files
	next.Generation, next.Trusts = c.Generation, c.Trusts
	return m.setCurrent(next)
}

// setCurrent is format.SetCurrent, and notes what is superseded. After an error CURRENT
// may say either: it is read again, and has to be made to last.
func (m *Mirror) setCurrent(next format.Current) error {
	err := format.SetCurrent(m.dir, next)
	if err != nil {
		if _, named, readErr := format.ReadCurrent(m.dir); readErr != nil || named != next {
			return err
		}
	}
	m.supersede(next)
	m.cur, m.unsynced = next, err != nil
	return err
}

// supersede has the files of one publication take the place of those before.
func (m *Mirror) supersede(by format.Current) {
	for _, name := range filesOf(m.files) {
		m.superseded[name] = time.Now()
	}
	for _, name := range filesOf(by) {
		delete(m.superseded, name)
	}
	m.files = by
}

func filesOf(c format.Current) []string {
	if c.Base == 0 {
		return nil
	}
	return c.Files()
}

// Withdraw removes CURRENT: the source publishes nothing. The files stay for when it does
// again.
func (m *Mirror) Withdraw() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.withdraw(nil)
}

func (m *Mirror) withdraw(cause error) error {
	if name := m.trust.file.Name; name != "" && !slices.Contains(filesOf(m.files), name) {
		m.superseded[name] = time.Now()
	}
	m.cur, m.trust.file = format.Current{}, File{} // the trust is fetched again
	return errors.Join(cause, format.RemoveCurrent(m.dir))
}

// Confirm notes that the publication is still what the source publishes. It is no
// confirmation of any other trust than that which was taken over.
func (m *Mirror) Confirm(p *Publication, heard Heard) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, err := p.parse(); err != nil || m.trust.id != c.ID || m.trust.file != p.Trust {
		return errors.Join(err, errors.New("what the source confirms is not here any more"))
	}
	return m.confirm(heard)
}

// confirm notes a confirmation of the trust that was taken over. It may be older than
// one that was heard before: then it says nothing new.
func (m *Mirror) confirm(heard Heard) error {
	if now := Now(); heard.age(now) > m.heard.age(now) {
		return nil
	}
	if m.cur.Base != 0 && m.cur.Trusts != m.trust.number {
		return m.withdraw(errors.New("what is published is not what is confirmed")) // never, unless something is wrong here
	}
	m.heard = heard
	return m.stamp(Now())
}

// stamp sets the time of the trust file to that of the confirmation.
func (m *Mirror) stamp(now Instant) error {
	if m.trust.file.Name == "" {
		return nil
	}
	return os.Chtimes(filepath.Join(m.dir, m.trust.file.Name), time.Time{}, m.heard.at(now))
}

// State says what a Mirror has.
type State struct {
	CacheID          string // empty: nothing was taken over yet
	Generation, Data uint64 // of the trust and of the data; 0: none
	Lease            time.Duration
	// Age is how old the last confirmation is, at most.
	Age time.Duration
	// Published is set while there are answers.
	Published bool
}

// State says what the mirror has now.
func (m *Mirror) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trust.id == 0 {
		return State{}
	}
	return State{CacheID: fmt.Sprintf("%016x", m.trust.id), Generation: m.trust.generation, Data: m.cur.Data, Lease: m.trust.lease,
		Age: m.heard.age(Now()), Published: m.cur.Base != 0}
}
