package revocation

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	nrevocation "github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/crl"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/revocation/result"
	"golang.org/x/sync/errgroup"
)

// Bounds.
const (
	// MaxAge is how long a response is believed after it was fetched, however far
	// away its next update is: CRLs of 30 days are not rare, and a revocation
	// should be known within a day.
	MaxAge = 24 * time.Hour

	maxOCSP    = 20 << 10 // bytes of a response; notation-core-go's own bound
	maxCRL     = 32 << 20 // likewise
	askers     = 8        // goroutines
	perHost    = 2        // of them, about chains that name the same host first
	maxWaiting = 10_000   // chains that wait to be asked about
	maxAnswers = 20_000   // chains whose answers are kept
	maxEntries = 10_000   // responses kept
	maxBytes   = 64 << 20 // bytes of responses kept

	askTimeout  = 10 * time.Second // for all requests about one chain
	ocspTimeout = 3 * time.Second
	crlTimeout  = 8 * time.Second

	// unknownFor is how long a chain that nothing could be learnt of is not asked
	// about again: longer than [Soon], so that whoever asked learns of it.
	unknownFor = 15 * time.Second
)

// Soon is the longest time after which to come back for an answer that is Pending.
const Soon = 10 * time.Second

// State is what an answer says of the chain as a whole.
type State uint8

// The states. The zero value decides nothing.
const (
	Unknown State = iota
	Good
	Revoked
)

// Answer is what is known of a chain.
type Answer struct {
	State State
	// Results has one element per certificate, as notation-core-go made it.
	Results []*result.CertRevocationResult
	// Until is when the answer ends. Zero for Unknown, and for chains without
	// addresses, which have nothing to ask.
	Until time.Time
	// Pending is set beside Unknown while the chain is being asked about: more
	// is known soon.
	Pending bool
}

// Options configures a [Checker]. The zero value is for use.
type Options struct {
	// Transport carries the requests; nil dials.
	Transport http.RoundTripper
	Log       *slog.Logger
}

// Checker knows what revocation services said. It is safe for concurrent use.
type Checker struct {
	log        *slog.Logger
	base       http.RoundTripper
	validators map[purpose.Purpose]nrevocation.Validator
	responses  *responses

	mu      sync.Mutex
	changed *sync.Cond // something was queued, or an ask has ended
	known   *bounded[chainID, *known]
	queue   queue
	stats   Stats
}

// Stats counts what was asked since the start.
type Stats struct {
	// Good, Revoked and Unknown count asks about a chain by their outcome.
	Good, Revoked, Unknown int64
	// Requests counts those sent; asks that the cache answered need none.
	Requests int64
	// Dropped counts chains that were not asked about because too many waited.
	Dropped int64
	// Waiting is how many chains are being or still to be asked about.
	Waiting int
}

// known is the last answer about one chain.
type known struct {
	Answer
	until   time.Time // the answer, Unknown included, stands until here
	refresh time.Time // from here on it is asked anew ahead of its end
}

// New returns a Checker that knows nothing. It asks while [Checker.Run] runs.
func New(o Options) *Checker {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: ocspTimeout}).DialContext,
			// Each host is asked now and then: no connection is worth keeping,
			// nor what a server could do with one.
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
		}
	}
	c := &Checker{log: o.Log, base: o.Transport, known: newBounded[chainID, *known](maxAnswers, maxAnswers),
		responses: newResponses(), queue: newQueue(), validators: map[purpose.Purpose]nrevocation.Validator{}}
	c.changed = sync.NewCond(&c.mu)
	ocsp := &http.Client{Transport: &transport{c: c, limit: maxOCSP, timeout: ocspTimeout, judge: judgeOCSP}}
	fetcher, err := crl.NewHTTPFetcher(&http.Client{Transport: &transport{c: c, limit: maxCRL, timeout: crlTimeout, judge: judgeCRL}})
	if err != nil {
		panic(err) // only of a nil client
	}
	for _, p := range []purpose.Purpose{purpose.CodeSigning, purpose.Timestamping} {
		v, err := nrevocation.NewWithOptions(nrevocation.Options{OCSPHTTPClient: ocsp, CRLFetcher: fetcher, CertChainPurpose: p})
		if err != nil {
			panic(err) // only of an unknown purpose
		}
		c.validators[p] = v
	}
	return c
}

// chainID names a question: the chain, its purpose, and the authentic signing time
// if there is one.
type chainID [sha256.Size]byte

func idOf(chain []*x509.Certificate, p purpose.Purpose, signed time.Time) chainID {
	h := sha256.New()
	var b [24]byte // the zero time has seconds of its own
	binary.BigEndian.PutUint64(b[:], uint64(p))
	binary.BigEndian.PutUint64(b[8:], uint64(signed.Unix()))
	binary.BigEndian.PutUint64(b[16:], uint64(signed.Nanosecond()))
	h.Write(b[:])
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		h.Write(sum[:])
	}
	return chainID(h.Sum(nil))
}

// Check says what is known of a chain, leaf first, that ends at a trusted
// certificate (R4). signed is the authentic signing time, zero if there is none.
// What is unknown, or soon will be, is asked about in the background.
func (c *Checker) Check(chain []*x509.Certificate, p purpose.Purpose, signed time.Time) Answer {
	if !HasAddress(chain) {
		return Answer{State: Good, Results: unasked(chain)}
	}
	id, now := idOf(chain, p, signed), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.known.get(id)
	if ok && !now.Before(k.until) {
		ok = false
	}
	pending := false
	if !ok || !now.Before(k.refresh) {
		if pending = c.queue.push(&ask{id: id, chain: chain, purpose: p, signed: signed}); !pending {
			c.stats.Dropped++
		}
		c.changed.Broadcast()
	}
	if !ok {
		return Answer{Results: unasked(chain), Pending: pending}
	}
	return k.Answer
}

// HasAddress reports whether some certificate below the root names an OCSP
// responder or a CRL.
func HasAddress(chain []*x509.Certificate) bool {
	for i, c := range chain {
		if i < len(chain)-1 && hasAddress(c) {
			return true
		}
	}
	return false
}

func hasAddress(c *x509.Certificate) bool {
	return len(c.OCSPServer) > 0 || len(c.CRLDistributionPoints) > 0
}

// unasked are the results for a chain that nobody was asked about: certificates
// with an address are unknown; others, and the root, cannot be revoked.
func unasked(chain []*x509.Certificate) []*result.CertRevocationResult {
	results := make([]*result.CertRevocationResult, len(chain))
	for i, cert := range chain {
		r := result.ResultNonRevokable
		if i < len(chain)-1 && hasAddress(cert) {
			r = result.ResultUnknown
		}
		results[i] = &result.CertRevocationResult{Result: r, ServerResults: []*result.ServerResult{result.NewServerResult(r, "", nil)}}
	}
	return results
}

// Stats returns the counters.
func (c *Checker) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Waiting = c.queue.waiting()
	return s
}

// Run asks until ctx ends. Requests in progress end with it.
func (c *Checker) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.wake)
	defer stop()
	var g errgroup.Group
	for range askers {
		g.Go(func() error {
			for {
				a := c.next(ctx)
				if a == nil {
					return nil
				}
				c.finish(ctx, a, c.ask(ctx, a))
			}
		})
	}
	return g.Wait()
}

func (c *Checker) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed.Broadcast()
}

// next waits for a chain to ask about; nil when ctx ends.
func (c *Checker) next(ctx context.Context) *ask {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ctx.Err() == nil {
		if a := c.queue.pop(); a != nil {
			return a
		}
		c.changed.Wait()
	}
	return nil
}

// Settle waits until nothing waits to be asked about any more, or ctx ends. Run
// must be running.
func (c *Checker) Settle(ctx context.Context) {
	stop := context.AfterFunc(ctx, c.wake)
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for ctx.Err() == nil && c.queue.waiting() > 0 {
		c.changed.Wait()
	}
}

// ask lets notation-core-go find out about one chain.
func (c *Checker) ask(ctx context.Context, a *ask) (answer Answer) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, askKey{}, a), askTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("revocation check panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			answer = Answer{Results: unasked(a.chain)}
		}
	}()
	results, err := c.validators[a.purpose].ValidateContext(ctx, nrevocation.ValidateContextOptions{
		CertChain: a.chain, AuthenticSigningTime: a.signed})
	if err != nil {
		c.log.Warn("revocation cannot be checked", "subject", a.chain[0].Subject.String(), "error", err)
		return Answer{Results: unasked(a.chain)}
	}
	answer = Answer{State: overall(results, len(a.chain)), Results: results, Until: a.ends()}
	if answer.State == Unknown || !time.Now().Before(answer.Until) { // R2: an answer without an end is none
		c.log.Warn("revocation is unknown", "subject", a.chain[0].Subject.String(), "error", firstError(results))
		return Answer{Results: unasked(a.chain)}
	}
	return answer
}

// overall folds the results as notation-go does: one revoked certificate revokes
// the chain, and it is good only if every one is.
func overall(results []*result.CertRevocationResult, want int) State {
	state := Good
	for _, r := range results {
		switch {
		case r == nil:
			state = Unknown
		case r.Result == result.ResultRevoked:
			return Revoked
		case r.Result != result.ResultOK && r.Result != result.ResultNonRevokable:
			state = Unknown
		}
	}
	if len(results) != want {
		return Unknown
	}
	return state
}

func firstError(results []*result.CertRevocationResult) error {
	for _, r := range results {
		if r == nil {
			continue
		}
		for _, s := range r.ServerResults {
			if s != nil && s.Error != nil {
				return s.Error
			}
		}
	}
	return nil
}

// finish records what was found. An answer that still stands is not lost because
// asking ahead of its end failed.
func (c *Checker) finish(ctx context.Context, a *ask, answer Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.changed.Broadcast()
	c.queue.done(a)
	if answer.State == Unknown && ctx.Err() != nil {
		return // cancelled: nothing was learnt
	}
	now := time.Now()
	switch answer.State {
	case Good:
		c.stats.Good++
	case Revoked:
		c.stats.Revoked++
	default:
		c.stats.Unknown++
		k := &known{Answer: answer, until: now.Add(unknownFor), refresh: now.Add(unknownFor)}
		if old, ok := c.known.get(a.id); ok && old.State != Unknown && now.Before(old.until) {
			k = &known{Answer: old.Answer, until: old.until, refresh: now.Add(unknownFor)}
		}
		c.known.put(a.id, k, 1)
		return
	}
	c.known.put(a.id, &known{Answer: answer, until: answer.Until, refresh: Refresh(now, answer.Until)}, 1)
}

// Refresh is when to ask again for something that ends at until, so that a new
// answer is there before: after three quarters of what is left of it.
func Refresh(now, until time.Time) time.Time {
	return now.Add(max(until.Sub(now), 0) / 4 * 3)
}
