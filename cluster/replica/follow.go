package replica

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"trust-worker/cache/mirror"
)

// Config says what a Follower follows, and where it keeps the copy.
type Config struct {
	Source Source
	// State is the replica's state directory, made if there is none.
	State string
	Log   *slog.Logger
}

// Follower keeps a replica. Make it with New, call Run once, then Close.
type Follower struct {
	log    *slog.Logger
	client *client
	mirror *mirror.Mirror

	news      chan struct{} // there may be data to fetch
	published func()

	mu     sync.Mutex
	latest *mirror.Publication // that the source told of; its trust was taken over
	wake   context.CancelFunc  // has the source asked anew; nil while nothing is asked
	woken  bool                // it was to be, while nothing was asked
	behind time.Time           // since when there are data that were not taken over; zero: there are none
	status Status
}

// New checks what it is told and takes the state directory.
func New(cfg Config) (*Follower, error) {
	c, err := newClient(cfg.Source)
	if err != nil {
		return nil, err
	}
	m, err := mirror.Open(cfg.State, cfg.Source.URL, cfg.Log)
	if err != nil {
		return nil, err
	}
	return &Follower{log: cfg.Log, client: c, mirror: m, news: make(chan struct{}, 1), published: func() {}, status: Status{Source: cfg.Source.URL}}, nil
}

// OnPublish has fn called when something was published. Set it before Run; fn must not
// wait.
func (f *Follower) OnPublish(fn func()) { f.published = fn }

// Close gives up the state directory.
func (f *Follower) Close() error {
	f.client.http.CloseIdleConnections()
	return f.mirror.Close()
}

// Run follows until ctx ends. It returns an error only if the state directory is another's.
func (f *Follower) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { f.follow(ctx); return nil })
	g.Go(func() error { f.fetchData(ctx); return nil })
	g.Go(func() error { return f.tend(ctx) })
	return g.Wait()
}

const (
	// longestWait is how long the source is asked to wait for news: after it, it confirms.
	longestWait = 5 * time.Second
	// A source that cannot be reached is asked again after longer and longer times.
	firstPause, longestPause = 50 * time.Millisecond, 3 * time.Second
)

// waitFor is how long to wait for news: a lease has to see several confirmations.
func waitFor(lease time.Duration) time.Duration {
	if lease <= 0 {
		return longestWait
	}
	return min(longestWait, max(lease/6, 100*time.Millisecond))
}

// follow asks what is published, again and again, and takes over the trust.
func (f *Follower) follow(ctx context.Context) {
	var pub *mirror.Publication
	tag := ""
	pause := pauses{}
	for ctx.Err() == nil {
		wait, began, known := waitFor(f.mirror.State().Lease), time.Now(), tag != ""
		asking, done := f.asking(ctx, known)
		t, err := f.client.ask(asking, tag, wait)
		if woken := done(); woken && ctx.Err() == nil && err != nil {
			tag = "" // what is here has been withdrawn
			continue
		}
		answered := err == nil || errors.Is(err, errWithdrawn)
		news := err == nil && t.pub != nil && (pub == nil || t.pub.Current != pub.Current || len(t.pub.Layers) != len(pub.Layers))
		switch {
		case err == nil && t.pub != nil:
			if err = f.takeTrust(ctx, t); err == nil {
				pub, tag = t.pub, t.tag
			}
		case err == nil:
			err = f.mirror.Confirm(pub, t.heard)
		case errors.Is(err, errWithdrawn):
			err = errors.Join(err, f.mirror.Withdraw())
		}
		if ctx.Err() != nil {
			return
		}
		f.asked(answered, err)
		if err != nil {
			tag = "" // everything is told anew
			pause.sleep(ctx)
			continue
		}
		f.told(pub)
		pause = pauses{}
		if known && !news && time.Since(began) < wait/2 { // something on the way has answered without waiting
			pause.last = wait / 2
			pause.sleep(ctx)
		}
	}
}

// asking is the context of a request, which again ends if it asks for what differs from what
// is known. done is called when the request is over, and says whether it was ended so.
func (f *Follower) asking(ctx context.Context, known bool) (asking context.Context, done func() (woken bool)) {
	asking, cancel := context.WithCancel(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wake = cancel
	if !known { // everything is told, and at once
		f.wake = func() {}
	}
	if f.woken {
		f.woken = false
		f.wake()
	}
	return asking, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.wake = nil
		woken := asking.Err() != nil
		cancel()
		return woken
	}
}

// again has the source asked at once: what was here has been withdrawn.
func (f *Follower) again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wake == nil {
		f.woken = true // the next request is for nothing
		return
	}
	f.wake()
}

// takeTrust takes over the trust of a publication, which it fetches if it is another.
func (f *Follower) takeTrust(ctx context.Context, t *told) error {
	needed, err := f.mirror.NeedsTrust(t.pub)
	if err != nil {
		return err
	}
	var b []byte
	if needed {
		if b, err = f.client.trust(ctx, t.pub.Trust); err != nil {
			return err
		}
		f.fetched(int64(len(b)))
	}
	if err := f.mirror.TakeTrust(t.pub, b, t.heard); err != nil {
		return err
	}
	if needed {
		f.published()
	}
	return nil
}

// told notes which data there are to fetch.
func (f *Follower) told(pub *mirror.Publication) {
	upToDate := f.mirror.Has(pub)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latest = pub
	if upToDate {
		f.behind = time.Time{}
		return
	}
	if f.behind.IsZero() {
		f.behind = time.Now()
	}
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// asked notes how asking went, and what was told was taken over, and says so when that
// changes.
func (f *Follower) asked(answered bool, err error) {
	problem := oneLine(err)
	f.mu.Lock()
	was, connected := f.status.Problem, f.status.Connected
	f.status.Problem, f.status.Connected = problem, answered
	if answered {
		f.status.LastHeard = time.Now()
	}
	f.mu.Unlock()
	switch {
	case problem == was:
	case problem != "":
		f.log.Warn("the source is not followed at present; will retry", "source", f.client.URL, "error", problem)
	case !connected:
		f.log.Info("the source answers again", "source", f.client.URL)
	default:
		f.log.Info("the source is followed again", "source", f.client.URL)
	}
}

// oneLine is an error for a log and a table.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// fetchData fetches layers and publishes them.
func (f *Follower) fetchData(ctx context.Context) {
	pause := pauses{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.news:
		}
		for ctx.Err() == nil {
			f.mu.Lock()
			pub := f.latest
			f.mu.Unlock()
			if len(pub.Layers) == 0 || f.mirror.Has(pub) {
				break // more is told when there is more
			}
			before := f.Status().Bytes
			err := f.fetch(ctx, pub)
			f.progress(nil, 0, err)
			if f.Status().Bytes > before {
				pause = pauses{} // what is cut off is fetched on at once
			}
			if err == nil {
				f.taken(pub)
				f.published()
				continue
			}
			if errors.Is(err, errNewer) {
				continue
			}
			if !f.mirror.State().Published {
				f.again()
			}
			pause.sleep(ctx)
		}
	}
}

// errNewer: there are newer data than those that are being fetched.
var errNewer = errors.New("newer data are published")

// restless is how long fetching a layer may take before newer data are looked for.
const restless = time.Second

// fetch fetches what is missing of a publication, oldest first: those last longest at the
// source. Then it publishes the data.
func (f *Follower) fetch(ctx context.Context, pub *mirror.Publication) error {
	published := f.mirror.State().Published
	missing, err := f.mirror.Missing(ctx, pub)
	if published && !f.mirror.State().Published {
		f.again() // while data come
	}
	if err != nil {
		return err
	}
	for i, file := range missing {
		began := time.Now()
		if err := f.fetchLayer(ctx, file); err != nil {
			var a *answerError
			if errors.As(err, &a) && a.status == http.StatusNotFound && f.superseded(pub) {
				return errNewer
			}
			return err
		}
		if i+1 < len(missing) && time.Since(began) > restless && f.superseded(pub) {
			return errNewer
		}
	}
	err = f.mirror.TakeData(pub)
	if errors.Is(err, fs.ErrNotExist) && f.superseded(pub) {
		return errNewer
	}
	return err
}

func (f *Follower) superseded(pub *mirror.Publication) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latest != pub
}

func (f *Follower) fetchLayer(ctx context.Context, file mirror.File) (err error) {
	part, err := f.mirror.Part(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, part.Close()) }()
	f.progress(&file, part.Have(), nil)
	if part.Have() < file.Size {
		w := writerFunc(func(b []byte) (int, error) {
			n, err := part.Write(b)
			f.fetched(int64(n))
			f.progress(&file, part.Have(), nil)
			return n, err
		})
		if err := f.client.fetch(ctx, file, part.Have(), w, part.Restart); err != nil {
			return err
		}
	}
	return part.Commit()
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

// tend tends the copy every second.
func (f *Follower) tend(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	was := ""
	for {
		published := f.mirror.State().Published
		err := f.mirror.Tend()
		if published && !f.mirror.State().Published {
			f.again()
		}
		if errors.Is(err, mirror.ErrStateGone) {
			return err
		}
		problem := oneLine(err)
		if problem != "" && problem != was {
			f.log.Warn("the replica's files", "problem", problem)
		}
		was = problem
		f.mu.Lock()
		f.status.Tended = time.Now()
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// pauses are longer and longer, each with some chance, so that many replicas of one
// source do not all ask at once.
type pauses struct{ last time.Duration }

func (p *pauses) sleep(ctx context.Context) {
	p.last = min(longestPause, max(firstPause, 2*p.last))
	timer := time.NewTimer(p.last/2 + rand.N(p.last))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
