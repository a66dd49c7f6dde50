package changes

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

// lastLook bounds the look at the end: a publication of a hundred thousand new
// images takes longer, and the daemon has promised to stop in time.
const lastLook = 2 * time.Second

// Observer finds the changes and gives them to a Journal. It reads as any other
// process would, and holds the last generation that it has told of open.
type Observer struct {
	reader  *cache.Reader
	journal *Journal
	log     *slog.Logger
	now     func() time.Time

	seen      *cache.Snapshot // nil: nothing has been published yet
	at        time.Time       // what dates did until then is told
	dates     *dates
	signers   cache.Generation // of which it is told who came and went
	withdrawn bool
	maxDates  int
	lastLook  time.Duration

	wake   chan struct{}
	losses *losses
	totals atomic.Pointer[Totals]
}

// NewObserver begins where the journal ends, if that is what is published now:
// make it before anything new is published. now is the clock; nil means
// time.Now.
func NewObserver(reader *cache.Reader, journal *Journal, log *slog.Logger, now func() time.Time) *Observer {
	if now == nil {
		now = time.Now
	}
	o := &Observer{reader: reader, journal: journal, log: log, now: now, at: now(), maxDates: maxDates, lastLook: lastLook, losses: newLosses(log), wake: make(chan struct{}, 1)}
	o.dates = newDates(o.maxDates)
	snap, err := reader.Snapshot()
	if err != nil {
		return o // nothing to read: the first publication begins
	}
	id, generation, at := journal.told()
	if g := snap.Generation(); id == g.CacheID && generation == g.Number {
		o.seen = snap
		if !at.IsZero() && at.Before(o.at) {
			o.at = at // dates that came while nobody looked
		}
		return o
	}
	o.start(snap, "the process that told of changes ended before it had told of all")
	return o
}

// start begins with a snapshot without telling of anything in it.
func (o *Observer) start(snap *cache.Snapshot, why string) {
	o.close()
	o.seen, o.dates = snap, newDates(o.maxDates)
	o.totals.Store(nil)
	g := snap.Generation()
	o.journal.Begin(g.CacheID, g.Number, o.at, why)
}

func (o *Observer) close() {
	if o.seen != nil {
		o.seen.Close()
		o.seen = nil
	}
}

// Close looks for the last time, within a bound, and gives up what it holds. What
// it has not told by then is no error: whoever observes next begins with a reset.
func (o *Observer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), o.lastLook)
	defer cancel()
	err := o.Look(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		o.log.Warn("the last changes could not be told in time; the next start tells a reset")
		err = nil
	}
	o.close()
	return err
}

// Look tells of everything that has changed since the last look.
func (o *Observer) Look(ctx context.Context) error {
	snap, err := o.reader.Snapshot()
	if err != nil {
		o.unreadable(err)
		return nil
	}
	if o.withdrawn {
		o.withdrawn = false
		o.journal.Add(Change{Position: at(snap), Time: o.now(), Kind: Restored})
	}
	switch {
	case o.seen == nil:
		err = o.first(ctx, snap)
	case o.seen.Generation().CacheID != snap.Generation().CacheID:
		o.start(snap, "the cache was begun anew")
	case o.seen.Generation() == snap.Generation():
		snap.Close()
	default:
		err = o.publication(ctx, snap)
	}
	if err != nil {
		return err
	}
	return o.clock(ctx)
}

// wholly is the generation that everything in a snapshot is of: a replica's data may be
// behind its trust. Who goes on from there begins with a reset.
func wholly(s *cache.Snapshot) uint64 { return s.Generation().Data }

func at(s *cache.Snapshot) Position { return Position{Generation: s.Generation().Number} }

// unreadable tells that there are no answers, once.
func (o *Observer) unreadable(err error) {
	if o.seen == nil || o.withdrawn {
		return
	}
	o.withdrawn = true
	detail := "nothing is published: every answer is unknown"
	if !errors.Is(err, cache.ErrNoCache) {
		detail = "what is published cannot be read: every answer is unknown"
	}
	o.journal.Add(Change{Position: at(o.seen), Time: o.now(), Kind: Withdrawn, Detail: detail})
}

// first tells of the first publication: everything in it is new, unless a
// journal from before says that it is not.
func (o *Observer) first(ctx context.Context, snap *cache.Snapshot) error {
	if id, _, _ := o.journal.told(); id != "" {
		o.start(snap, "nothing was published for a while")
		return nil
	}
	g := snap.Generation()
	o.journal.Begin(g.CacheID, g.Number-1, o.at, "") // g is not told yet
	return o.publication(ctx, snap)
}

// publication tells what is different in snap. Who may sign is told first: it is
// known at once, what follows from it when every image has been looked at.
func (o *Observer) publication(ctx context.Context, snap *cache.Snapshot) (err error) {
	defer func() {
		if err != nil {
			snap.Close()
		}
	}()
	var was *trust.InForce
	if o.seen != nil {
		was = o.seen.InForce()
	}
	if list := signers(was, snap.InForce()); o.signers != snap.Generation() { // or a look that failed has told
		if err := o.rested(list); err != nil {
			return err
		}
		o.addAt(snap, list)
		o.signers = snap.Generation()
	}
	t := newTally(snap)
	before, after := cache.NewCounts(), cache.NewCounts()
	err = snap.Compare(o.seen, o.at, o.at, false, o.visit(ctx, func(d *cache.Difference) {
		t.image(d)
		o.dates.image(d)
		d.Count(before, after)
	}))
	if err != nil {
		return err
	}
	o.addAt(snap, t.changes())
	if o.seen == nil { // before it there was nothing
		o.totals.Store(&Totals{snap.Generation(), after})
	} else {
		o.count(snap.Generation(), before, after)
	}
	o.close()
	o.seen = snap
	o.journal.tell(wholly(snap), o.at)
	return nil
}

// rested notes how many signatures rested on the signers that were removed.
func (o *Observer) rested(list []Change) error {
	if !slices.ContainsFunc(list, func(c Change) bool { return c.Kind == SignerRemoved }) {
		return nil
	}
	t := o.totals.Load()
	if t == nil { // not counted yet
		all, err := o.seen.Count()
		if err != nil {
			return err
		}
		t = &Totals{Counts: all}
	}
	for i := range list {
		if c := &list[i]; c.Kind == SignerRemoved && c.Count == 0 {
			storeType, store, _ := strings.Cut(c.Store, ":")
			c.Signatures = t.Signers[trust.Signer{Tool: c.Tool, StoreType: storeType, StoreName: store, Fingerprint: c.Signer}.ID()]
		}
	}
	return nil
}

func (o *Observer) addAt(snap *cache.Snapshot, list []Change) {
	for i := range list {
		list[i].Position, list[i].Time = at(snap), o.now().UTC()
	}
	if len(list) > 0 {
		o.journal.Add(list...)
		o.losses.tell(list)
	}
}

// visit wraps what is done with each image: it stops when ctx ends, and leaves
// half of a processor to others while many are looked at.
func (o *Observer) visit(ctx context.Context, fn func(*cache.Difference)) func(*cache.Difference) error {
	const slice = 2 * time.Millisecond
	n, began := 0, time.Now()
	return func(d *cache.Difference) error {
		fn(d)
		if n++; n%256 != 0 {
			return nil
		}
		if took := time.Since(began); took > slice {
			select {
			case <-ctx.Done():
			case <-time.After(took):
			}
			began = time.Now()
		}
		return ctx.Err()
	}
}

// clock tells what dates have done since the last look.
func (o *Observer) clock(ctx context.Context) error {
	if o.seen == nil {
		return nil
	}
	now := o.now()
	if now.Unix() <= o.at.Unix() { // dates are whole seconds; a clock that is set back waits
		return nil
	}
	due, all := o.dates.due(now)
	if len(due) == 0 && !all {
		o.at = now
		return nil
	}
	o.dates.filled = false // until those that were taken are told
	next, t := o.dates, newTally(o.seen)
	before, after := cache.NewCounts(), cache.NewCounts()
	note := func(d *cache.Difference) {
		t.image(d)
		next.image(d)
		d.Count(before, after)
	}
	if all {
		next = newDates(o.maxDates)
		if err := o.seen.Compare(o.seen, o.at, now, true, o.visit(ctx, note)); err != nil {
			return err
		}
	} else {
		for _, i := range due {
			d, err := o.seen.CompareImage(o.seen, o.at, now, i.repository, i.digest)
			if err != nil {
				return err
			}
			note(d)
		}
	}
	next.filled = true
	o.dates = next
	if g := o.seen.Generation(); all {
		o.totals.Store(&Totals{g, after})
	} else {
		o.count(g, before, after)
	}
	o.addAt(o.seen, t.changes())
	o.at = now
	o.journal.tell(wholly(o.seen), now)
	return nil
}

// signers tells who came and went, losses first.
func signers(was, is *trust.InForce) (list []Change) {
	for _, m := range was.Terms().Materials {
		if !is.Has(m.Signer.ID()) {
			list = append(list, ofSigner(SignerRemoved, m))
		}
	}
	a, b := was.Terms(), is.Terms()
	if detail := policyDifference(a, b); was != nil && detail != "" {
		list = append(list, Change{Kind: PolicyChanged, Detail: detail, Link: linkSigners})
	}
	for _, m := range b.Materials {
		if !was.Has(m.Signer.ID()) {
			list = append(list, ofSigner(SignerAdded, m))
		}
	}
	return aggregate(list)
}

func ofSigner(k Kind, m trust.Material) Change {
	c := Change{Kind: k, Tool: m.Signer.Tool, Signer: m.Signer.Fingerprint, Store: m.Signer.Store(), File: m.File, Link: linkSigners}
	if m.Signer.Tool == trust.Notation {
		c.Detail = m.Author
	}
	return c
}

// aggregate makes one change of signers that come or go by the hundred: a trust
// store that is mounted or lost is one event.
func aggregate(list []Change) []Change {
	counts := map[Kind]int{}
	for _, c := range list {
		counts[c.Kind]++
	}
	var out []Change
	for _, c := range list {
		if counts[c.Kind] <= maxNamed {
			out = append(out, c)
		} else if !slices.ContainsFunc(out, func(o Change) bool { return o.Kind == c.Kind }) {
			out = append(out, Change{Kind: c.Kind, Count: counts[c.Kind], Link: linkSigners})
		}
	}
	return out
}

// policyDifference says in words what of the policy differs, or "".
func policyDifference(a, b trust.Terms) string {
	switch {
	case a.Cosign != b.Cosign || a.Notation != b.Notation:
		return "the tools that are verified have changed"
	case b.PolicyProblem != "" && a.PolicyProblem != b.PolicyProblem:
		return "the notation trust policy cannot be used: " + string(b.PolicyProblem)
	case a.PolicyProblem != b.PolicyProblem:
		return "the notation trust policy can be used again"
	case !slices.Equal(a.RegistryNames, b.RegistryNames):
		return "the registry's names have changed"
	}
	same := slices.EqualFunc(a.Statements, b.Statements, func(x, y trust.Statement) bool {
		return x.Policy == y.Policy && x.Verifies == y.Verifies && slices.Equal(x.Scopes, y.Scopes) && slices.Equal(x.Stores, y.Stores)
	})
	if !same {
		return "the statements of the notation trust policy have changed"
	}
	switch {
	case !slices.Equal(a.Identities, b.Identities):
		return "the identities that may sign have changed"
	case !slices.Equal(a.Scopes, b.Scopes):
		return "the scopes of the configuration have changed"
	case !slices.EqualFunc(a.Roots, b.Roots, func(x, y trust.Root) bool { return x.File == y.File && slices.Equal(x.Authorities, y.Authorities) }):
		return "the trusted roots have changed"
	case !trust.SameScopes(a, b):
		return "the scopes of keys have changed"
	}
	return ""
}
