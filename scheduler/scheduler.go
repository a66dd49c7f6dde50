package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/verifier/truststore"
	"trust-worker/watcher"
)

// Scheduler keeps a cache in step with storage and trust directories.
type Scheduler struct {
	cfg Config
	examiner
	stored *storageLog
	// tampered tells of stored bytes that have changed, with a rate of its own.
	tampered *storageLog

	agenda  *agenda
	results chan result
	room    *semaphore.Weighted // for results that wait

	// loaded is what was last loaded and published, trust what workers verify
	// under: the store has recorded it.
	loaded atomic.Pointer[truststore.TrustStore]
	trust  atomic.Pointer[trustInUse]
	// trustMu serialises loads and their publication, and guards publishOwed: the
	// last one was not published. Nothing that takes long is waited for under it.
	trustMu     sync.Mutex
	publishOwed bool
	refused     []truststore.Refusal // by the last load
	policySaid  string               // of the last load
	// followMu serialises what follows a change of trust. followOwed: the last
	// time it did not come to its end; owedChange is what has changed since it last
	// did.
	followMu   sync.Mutex
	followOwed bool
	owedChange store.TrustChange
	started    atomic.Bool   // somebody follows, or has
	mirrorSaid string        // the last error of mirrorPolicy
	follow     chan struct{} // there may be something to follow

	// fatal is the first error after which nothing more can be done here.
	fatalMu sync.Mutex
	fatal   error

	// rootsListed is set when the last walk could list every root.
	rootsListed atomic.Bool
	listed      atomic.Pointer[listing] // the last walk's, if it could
	walking     sync.Mutex              // one walk at a time
	watching    map[string]watcher.Dir  // the walk's: what the watcher was last told
	layoutSaid  layout.Layout           // the walk's, in the log
	firstPass   chan struct{}           // closed once the first pass over storage is queued and worked off
	passOnce    sync.Once

	rescan chan struct{}
	reload chan struct{}
	wakeup chan struct{} // the retry timer looks again

	waits *waits // for other workers
	// hinted: another worker has said that trust has changed, and a look is due; followed is
	// when the last was.
	hinted   atomic.Bool
	followed atomic.Pointer[time.Time]

	state stateOfScan
	// impatient is set for a single pass, which does not wait for the time of
	// a retry: nobody would be there when it comes.
	impatient bool

	scanTime time.Duration // tests shorten it
}

// New checks the configuration.
func New(cfg Config) (*Scheduler, error) {
	if len(cfg.Storage) == 0 || cfg.Loader == nil || cfg.Store == nil {
		return nil, errors.New("scheduler: storage, loader and store are required")
	}
	if cfg.Workers <= 0 {
		cfg.Workers = max(2, runtime.GOMAXPROCS(0))
	}
	setDefault(&cfg.ScanInterval, time.Minute)
	setDefault(&cfg.ConfirmInterval, 10*time.Second)
	setDefault(&cfg.SlowInterval, 24*time.Hour)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Scheduler{
		cfg: cfg, examiner: newExaminer(cfg.Store, cfg.Now, cfg.Log), scanTime: scanTime + indexWait,
		stored: newStorageLog(cfg.Log, cfg.Now), tampered: newStorageLog(cfg.Log, cfg.Now),
		agenda:  newAgenda(),
		results: make(chan result, maxBatch), room: semaphore.NewWeighted(maxResults),
		firstPass: make(chan struct{}),
		rescan:    make(chan struct{}, 1), reload: make(chan struct{}, 1), wakeup: make(chan struct{}, 1),
		follow: make(chan struct{}, 1),
		waits:  newWaits(),
	}
	cfg.Store.OnPublish(func(asOf time.Time) {
		s.measures.published(asOf)
		s.published()
	})
	return s, nil
}

func setDefault(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

func (s *Scheduler) published() {
	if s.cfg.Published != nil {
		s.cfg.Published()
	}
}

// Rescan asks for a pass over storage that believes no stamp.
func (s *Scheduler) Rescan() { poke(s.rescan) }

// Reload asks for a look at the trust directories.
func (s *Scheduler) Reload() { poke(s.reload) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// FirstPass is closed once everything found by the first pass over storage has
// been decided or reads unknown, and is published.
func (s *Scheduler) FirstPass() <-chan struct{} { return s.firstPass }

// Run works until ctx ends, then finishes the turns in progress, commits them
// and returns nil. It returns an error when nothing more can be done here: an
// error that is cache.ErrDamaged or cache.ErrStateGone asks for a new Store.
func (s *Scheduler) Run(ctx context.Context) error {
	watch := func(ctx context.Context, g *errgroup.Group) {
		if s.cfg.Trust != nil {
			g.Go(func() error { return s.cfg.Trust.Run(ctx) })
		}
		g.Go(func() error { return s.trustLoop(ctx) })
	}
	return s.run(ctx, watch, func(ctx context.Context, g *errgroup.Group) {
		if s.cfg.Repositories != nil {
			g.Go(func() error { return s.cfg.Repositories.Run(ctx) })
		}
		g.Go(func() error { return s.scanLoop(ctx) })
		g.Go(func() error { return s.retryLoop(ctx) })
		g.Go(func() error { return s.watchFirstPass(ctx) })
	})
}

// Scan does one full pass: it loads the trust directories, looks at every
// repository, verifies what is new, tries once more what was not decided, reads the
// bytes of signatures and their images again, and publishes. believe says whether
// unchanged stamps are believed.
func (s *Scheduler) Scan(ctx context.Context, believe bool) error {
	finished := errors.New("finished")
	s.impatient = true
	err := s.run(ctx, func(context.Context, *errgroup.Group) {}, func(ctx context.Context, g *errgroup.Group) {
		g.Go(func() error {
			if err := s.oweUndecided(); err != nil {
				return err
			}
			if err := s.walk(ctx, !believe); err != nil {
				return err
			}
			if err := s.oweRehash(); err != nil { // nobody else makes a slow pass here
				return err
			}
			for asked := int64(0); ; {
				select {
				case <-ctx.Done():
					return nil
				case <-s.agenda.quiet():
				}
				n, more, err := s.awaitRevocation(ctx, asked)
				if err != nil || !more {
					return cmp.Or(err, finished)
				}
				asked = n
			}
		})
	})
	if errors.Is(err, finished) {
		err = nil
	}
	if err == nil && ctx.Err() == nil {
		err = s.cfg.Store.Publish(ctx)
	}
	if err == nil && ctx.Err() == nil {
		err = s.cfg.Store.SetWhole(s.rootsListed.Load())
	}
	return errors.Join(err, ctx.Err())
}

// run publishes the trust in force and starts what keeps it so (watch). Only then
// comes what may take long: recording what is new, publishing what an earlier run
// left, and resuming its work. Then it starts the workers, the committer, the
// publisher and whatever start adds, and waits for all of them.
func (s *Scheduler) run(ctx context.Context, watch, start func(context.Context, *errgroup.Group)) error {
	if err := s.reloadTrust(ctx); ctx.Err() != nil {
		return nil // stopped before it began
	} else if err != nil && (s.impatient || !errors.Is(err, errTrustNotPublished)) {
		return err
	}
	outer := ctx
	g, ctx := errgroup.WithContext(ctx)
	recorded := make(chan struct{})
	s.started.Store(true)
	g.Go(func() error { return s.followLoop(ctx, recorded) })
	g.Go(func() error {
		<-ctx.Done()
		s.agenda.end()
		return nil
	})
	watch(ctx, g)
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-recorded:
		}
		if err := s.cfg.Store.Publish(ctx); errors.Is(err, cache.ErrDamaged) {
			return s.fail(err)
		} else if err != nil && ctx.Err() == nil {
			s.log.Error("cannot publish at start; will retry", "error", err)
		}
		if err := s.resume(); err != nil {
			return s.fail(err)
		}
		s.quarantine.open(s.cfg.Store, s.log)
		var workers sync.WaitGroup
		for n := range s.cfg.Workers + 1 {
			kind := ordinary
			if n == 0 {
				kind = longScans
			}
			workers.Add(1)
			g.Go(func() error { defer workers.Done(); return s.work(ctx, kind) })
		}
		// The committer and the publisher outlive the workers, so that the turns
		// in progress at shutdown are kept.
		g.Go(func() error {
			defer close(s.results)
			workers.Wait()
			return nil
		})
		g.Go(func() error { return s.commitLoop() })
		if s.cfg.Revocation != nil {
			g.Go(func() error { return s.cfg.Revocation.Run(ctx) })
		}
		g.Go(func() error { return s.cfg.Store.Run(ctx) })
		start(ctx, g)
		return nil
	})
	err := g.Wait()
	s.quarantine.close() // nothing is in flight any more
	if fatal := s.failure(); fatal != nil {
		return fatal
	}
	if outer.Err() != nil && !errors.Is(err, cache.ErrDamaged) {
		return nil
	}
	return err
}

// fail notes an error after which nothing more can be done here, before whoever
// met it says that its work is over: it counts, whatever else ends the run.
func (s *Scheduler) fail(err error) error {
	s.fatalMu.Lock()
	defer s.fatalMu.Unlock()
	s.fatal = cmp.Or(s.fatal, err)
	return err
}

func (s *Scheduler) failure() error {
	s.fatalMu.Lock()
	defer s.fatalMu.Unlock()
	return s.fatal
}

// work takes turns of a kind until the queue is shut down.
func (s *Scheduler) work(ctx context.Context, kind int) error {
	for {
		i, w, shutdown := s.agenda.get(kind)
		if shutdown {
			return nil
		}
		if ctx.Err() != nil {
			s.agenda.done(i)
			continue
		}
		began := time.Now()
		r, err := s.turn(ctx, i, w)
		if errors.Is(err, cache.ErrDamaged) {
			s.fail(err)
			s.agenda.done(i)
			return err
		}
		if errors.Is(err, errLong) {
			s.agenda.took(i, true)
			s.agenda.add(i, w.level, func(owed *work) { owed.merge(w) })
			s.agenda.done(i)
			continue
		}
		if err != nil {
			s.postpone(ctx, i, w, err)
			s.agenda.done(i)
			continue
		}
		r.item, r.began, r.waited = i, began, w.level <= fresh
		if kind == longScans { // what it holds is much: no other is begun beside it
			r.over = make(chan struct{})
		}
		s.hand(r)
		if r.over != nil {
			select {
			case <-r.over:
			case <-ctx.Done(): // it is scanned again
			}
		}
	}
}

// turn does one turn of an item. A panic costs the turn, not the process.
func (s *Scheduler) turn(ctx context.Context, i item, w *work) (r result, err error) {
	defer s.recovered(&err)
	switch {
	case !i.isRepository():
		return s.signerTurn(ctx, i, w)
	case w.scan:
		return s.scanTurn(ctx, i.repository, w)
	default:
		return s.visitTurn(ctx, i.repository, w)
	}
}

// recovered, deferred, turns a panic into an error: it is counted, and what was
// being done is tried again later.
func (s *Scheduler) recovered(err *error) {
	if p := recover(); p != nil {
		s.counters.panics.Add(1)
		s.log.Error("work panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = fmt.Errorf("panic: %v", p)
	}
}

// watchFirstPass notices when the first pass is over.
func (s *Scheduler) watchFirstPass(ctx context.Context) error {
	var quiet time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.agenda.quiet():
		}
		// A wait that ends is owed before it is forgotten: it is asked about in between.
		if s.counters.walks.Load() > 0 && s.agenda.size() == 0 && s.waitedEnough(&quiet) && s.agenda.size() == 0 {
			err := s.cfg.Store.Publish(ctx)
			if err == nil {
				err = s.cfg.Store.SetWhole(s.rootsListed.Load())
			}
			if errors.Is(err, cache.ErrDamaged) {
				return s.fail(err)
			}
			if err == nil {
				s.passOnce.Do(func() { close(s.firstPass) })
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}
