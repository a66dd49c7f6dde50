package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/mirror"
	"trust-worker/trust"
)

// Replicas (package replica) copy what is published: they ask what it is, and are told
// when it changes or a time has passed, and fetch the files by name. Each file is hashed
// once and what is told is encoded once, however many ask.

const (
	// headerAge is how many seconds ago what is published was confirmed, at least: the
	// lease goes on from there.
	headerAge = "Trust-Age"
	// headerNonce is the request's parameter nonce again: an answer that some cache on
	// the way has kept is no confirmation.
	headerNonce = "Trust-Nonce"

	// maxPublicationWait bounds how long a request waits for news.
	maxPublicationWait = 20 * time.Second
	// publicationLook is how often CURRENT is looked at while anybody waits for it.
	publicationLook = 20 * time.Millisecond

	// layerChunk is what a client has to take within Limits.StallTimeout.
	layerChunk = 256 << 10
	// A file has layerGrace and one second for each layerRate bytes: who is slower goes on
	// from where it was, after others.
	layerGrace = time.Minute
	layerRate  = 128 << 10
	// layerWait is how long a request for a layer waits for its turn.
	layerWait = 10 * time.Second
	// smallLayer does not wait for large ones.
	smallLayer = 4 << 20
)

func (s *Server) publicationRoutes(t router) {
	t.handle("GET "+pathAPI+"/publication", toRead, s.publication)
	t.handle("GET "+pathAPI+"/publication/{file}", toRead, s.publishedFile)
}

// publications are what replicas are told.
type publications struct {
	source *mirror.Source
	reader *cache.Reader

	mu      sync.Mutex
	last    offer
	waiting int
	looking bool
	moved   chan struct{} // closed when last is of no use any more
}

// offer is an answer to "what is published".
type offer struct {
	of      *cache.Publication // the files that it tells of
	current string
	whole   bool // the layers are told, too
	tag     string
	body    []byte
}

func newPublications(state string, reader *cache.Reader, log *slog.Logger) *publications {
	return &publications{source: mirror.NewSource(state, log), reader: reader, moved: make(chan struct{})}
}

// now returns what is published, and how long ago that was confirmed at least. moved is
// closed when it changes, as long as somebody waits.
func (p *publications) now() (o offer, age time.Duration, moved <-chan struct{}, err error) {
	snap, err := p.reader.Snapshot()
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last = offer{}
		return offer{}, 0, p.moved, err
	}
	defer snap.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	// What CURRENT says is not enough: files from a backup may have the same names.
	if snap.SamePublication(p.last.of) && (p.last.whole || !p.source.Idle()) {
		return p.last, snap.Age(), p.moved, nil
	}
	told, err := p.source.Publication(snap)
	if err != nil {
		return offer{}, 0, p.moved, err
	}
	body, err := json.Marshal(told)
	if err != nil {
		return offer{}, 0, p.moved, err
	}
	sum := trust.SumOf(body)
	p.last = offer{of: snap.Publication(), current: snap.Current(), whole: len(told.Layers) > 0, tag: fmt.Sprintf(`"%x"`, sum[:16]), body: body}
	return p.last, snap.Age(), p.moved, nil
}

// wait has somebody look while anybody waits.
func (p *publications) wait() (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting++; !p.looking {
		p.looking = true
		go p.look()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waiting--
	}
}

func (p *publications) look() {
	tick := time.NewTicker(publicationLook)
	defer tick.Stop()
	for range tick.C {
		current := p.source.Current()
		p.mu.Lock()
		if p.waiting == 0 {
			p.looking = false
			p.mu.Unlock()
			return
		}
		if current != p.last.current || current != "" && !p.last.whole && p.source.Idle() {
			close(p.moved)
			p.moved = make(chan struct{})
		}
		p.mu.Unlock()
	}
}

// publication tells what is published: at once if it is not what If-None-Match names,
// else when it changes, or after the time that the parameter wait says, 304.
func (s *Server) publication(w http.ResponseWriter, r *http.Request, _ identity) error {
	q, err := queryOf(r, "wait", "nonce")
	if err != nil {
		return err
	}
	var most time.Duration
	if text := q.Get("wait"); text != "" {
		if most, err = time.ParseDuration(text); err != nil || most < 0 {
			return refuse(http.StatusBadRequest, codeInvalid, "wait is no time", "write it as 5s")
		}
	}
	nonce := q.Get("nonce")
	if len(nonce) > 64 || headerSafe(nonce) != nonce {
		return refuse(http.StatusBadRequest, codeInvalid, "the nonce cannot be sent back", "choose at most 64 letters and digits")
	}
	leave := s.replicas.tryTake(clientOf(r))
	if leave == nil {
		return refuse(http.StatusServiceUnavailable, codeTooMany, "too many replicas at once", "")
	}
	defer leave()
	defer s.publications.wait()()
	timer := time.NewTimer(min(most, maxPublicationWait))
	defer timer.Stop()
	if nonce != "" {
		w.Header().Set(headerNonce, nonce)
	}
	for known := r.Header.Get("If-None-Match"); ; {
		o, age, moved, err := s.publications.now()
		if errors.Is(err, cache.ErrNoCache) && s.publications.source.Withdrawn() {
			return refuse(http.StatusServiceUnavailable, codeWithdrawn, "nothing is published", "")
		}
		if errors.Is(err, fs.ErrNotExist) {
			return refuse(http.StatusServiceUnavailable, codeNoCache, "what is published is being replaced", "ask again")
		}
		if err == nil && o.tag != known {
			h := w.Header()
			h.Set("ETag", o.tag)
			h.Set("Content-Type", "application/json")
			setAge(h, age)
			_, _ = w.Write(o.body) // the client is gone
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-moved:
			continue
		case <-timer.C:
		case <-s.stopping:
		case <-r.Context().Done():
			return nil
		}
		if o, age, _, err = s.publications.now(); err == nil && o.tag == known {
			w.Header().Set("ETag", o.tag)
			setAge(w.Header(), age)
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		timer.Reset(0)
	}
}

func setAge(h http.Header, age time.Duration) {
	h.Set(headerAge, strconv.FormatFloat(math.Ceil(age.Seconds()*1000)/1000, 'f', 3, 64))
}

// publishedFile sends a file of the publication, or a part of it (RFC 9110, section 14).
func (s *Server) publishedFile(w http.ResponseWriter, r *http.Request, _ identity) error {
	f, told, err := s.publications.source.Open(r.PathValue("file"))
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, codeNameUnknown, "this file is not published now", "ask /api/v1/publication what is")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	places := s.layers
	if told.Size <= smallLayer || strings.HasPrefix(told.Name, "trust-") {
		places = s.smallLayers
	}
	leave, err := takeWithin(r, places, layerWait)
	if err != nil {
		return err
	}
	defer leave()
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Time{}); err != nil { // a large file takes longer
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("ETag", `"`+told.SHA256.String()+`"`)
	end := time.Now().Add(layerGrace + time.Duration(told.Size/layerRate)*time.Second)
	http.ServeContent(&pacedWriter{w, rc, s.cfg.Limits.StallTimeout, end}, r, "", time.Time{}, f)
	return nil
}

// takeWithin waits for a place, not for ever.
func takeWithin(r *http.Request, places *shares, most time.Duration) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(r.Context(), most)
	defer cancel()
	if leave = places.take(ctx, clientOf(r), maxWaiting); leave == nil {
		return nil, refuse(http.StatusServiceUnavailable, codeTooMany, "too many copies at once", "ask again")
	}
	return leave, nil
}

// pacedWriter drops a client that takes too little: it must not hold its place. What
// comes from a file goes to a plain connection without passing through this process.
type pacedWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration
	end   time.Time
}

func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *pacedWriter) ReadFrom(r io.Reader) (n int64, err error) {
	whole, ok := r.(*io.LimitedReader)
	if !ok {
		whole = &io.LimitedReader{R: r, N: 1 << 62}
	}
	for whole.N > 0 {
		deadline := time.Now().Add(w.stall)
		if deadline.After(w.end) {
			deadline = w.end
		}
		if err := w.rc.SetWriteDeadline(deadline); err != nil {
			return n, err
		}
		chunk := &io.LimitedReader{R: whole.R, N: min(whole.N, layerChunk)}
		k, err := io.Copy(w.ResponseWriter, chunk)
		n, whole.N = n+k, whole.N-k
		if err != nil || k == 0 {
			return n, err
		}
	}
	return n, nil
}
