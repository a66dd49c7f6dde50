package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trust-worker/cache"
	"trust-worker/layout"
	"trust-worker/trust"
)

// scanLoop walks storage at each interval, and looks at what the watcher hints
// at in between.
func (s *Scheduler) scanLoop(ctx context.Context) error {
	var hints <-chan struct{}
	if s.cfg.Repositories != nil {
		hints = s.cfg.Repositories.C()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	lastSlow := s.now()
	for {
		force, walk := false, true
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.rescan:
			force = true
		case <-hints:
			h := s.cfg.Repositories.Take()
			walk = h.All || h.Walk
			for _, name := range h.Names {
				s.oweScan(name, false)
			}
		}
		if !walk {
			continue
		}
		if err := s.walk(ctx, force); errors.Is(err, cache.ErrDamaged) {
			return err
		} else if err != nil && ctx.Err() == nil {
			s.counters.errors.Add(1)
			s.log.Error("pass over storage failed", "error", err)
		}
		if s.cfg.SlowInterval > 0 && s.now().Sub(lastSlow) >= s.cfg.SlowInterval {
			lastSlow = s.now()
			s.oweRehash()
			s.cfg.Store.RenderAnew()
			if err := s.prune(ctx); errors.Is(err, cache.ErrDamaged) {
				return err
			}
		}
		timer.Reset(s.cfg.ScanInterval)
	}
}

// prune deletes what has been nowhere for days.
func (s *Scheduler) prune(ctx context.Context) error {
	p, err := s.cfg.Store.Prune(ctx)
	if err != nil {
		s.counters.errors.Add(1)
		s.log.Error("cannot prune the cache", "error", err)
		return err
	}
	s.log.Info("cache pruned", "kept", p.Orphans, "facts", p.Facts, "kinds", p.Kinds)
	return nil
}

func (s *Scheduler) oweScan(name string, force bool) {
	s.agenda.add(item{repository: name}, fresh, func(w *work) { w.scan, w.force = true, w.force || force })
}

// walk lists the repositories, owes a scan of each that is new or whose
// index.json has changed, and takes those that are gone out of the answers.
// With force every repository is read.
func (s *Scheduler) walk(ctx context.Context, force bool) error {
	start := s.now()
	places, err := s.cfg.Store.Places()
	if err != nil {
		return err
	}
	known := make(map[string]*cache.Place, len(places))
	for i := range places {
		known[places[i].Name] = &places[i]
	}
	l := &listing{found: map[string]bool{}, dirs: map[string]string{}}
	for _, storage := range s.cfg.Storage {
		err := storage.Root.Walk(ctx, func(v layout.Visit) error {
			if v.Name != "" && s.serving(v.Name) != storage.Root {
				return nil // zot serves that name from a subPath
			}
			return l.visit(storage.Dir, v)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.log.Error("storage cannot be listed; its answers read unknown", "error", err)
		}
	}
	for name := range l.found {
		if p := known[name]; force || p == nil || p.Unlisted || p.Stamp == "" || p.Stamp != s.stamp(name) {
			s.oweScan(name, force)
		}
	}
	if err := s.missing(places, known, l); err != nil {
		return err
	}
	if err := s.setWhole(l); err != nil {
		return err
	}
	if s.cfg.Repositories != nil {
		s.cfg.Repositories.Set(l.dirs)
	}
	s.state.setWalk(l, places, s.now(), s.now().Sub(start))
	s.counters.walks.Add(1)
	return nil
}

// setWhole notes whether all of storage could be listed. Answers are not the whole
// before the first pass is over.
func (s *Scheduler) setWhole(l *listing) error {
	listed := !slices.ContainsFunc(l.unlisted, func(u unlisted) bool { return u.name == "" })
	s.rootsListed.Store(listed)
	select {
	case <-s.firstPass:
	default:
		if listed {
			return nil
		}
	}
	err := s.cfg.Store.SetWhole(listed)
	if err != nil && !errors.Is(err, cache.ErrDamaged) {
		s.log.Error("cannot publish whether all of storage is known; the next pass will", "error", err)
		return nil
	}
	return err
}

// listing is what one walk found.
type listing struct {
	found    map[string]bool   // repository names
	dirs     map[string]string // absolute directory → repository name, or "" for a namespace
	unlisted []unlisted
	refused  []string
}

// unlisted is a directory below which nothing is known; its name is "" for the
// root.
type unlisted struct {
	name string
	err  error
}

func (l *listing) visit(root string, v layout.Visit) error {
	switch {
	case v.Refused != "":
		l.refused = append(l.refused, v.Dir+": "+v.Refused)
	case v.Err != nil:
		l.unlisted = append(l.unlisted, unlisted{v.Name, v.Err})
	case v.IsRepository:
		l.found[v.Name] = true
	}
	if v.Refused == "" {
		name := ""
		if v.IsRepository {
			name = v.Name
		}
		l.dirs[filepath.Join(root, v.Dir)] = name
	}
	return nil
}

// hidden is why a repository that was not found may only not have been listed,
// or nil.
func (l *listing) hidden(name string) error {
	i := slices.IndexFunc(l.unlisted, func(above unlisted) bool {
		return above.name == "" || above.name == name || strings.HasPrefix(name, above.name+"/")
	})
	if i < 0 {
		return nil
	}
	return l.unlisted[i].err
}

// missing removes the places that are gone and marks those that were not
// listed, and each directory that could not be: below it there may be more than
// is known.
func (s *Scheduler) missing(places []cache.Place, known map[string]*cache.Place, l *listing) error {
	for _, p := range places {
		if l.found[p.Name] {
			continue
		}
		i := item{repository: p.Name}
		cause := l.hidden(p.Name)
		if cause == nil {
			s.agenda.add(i, fresh, func(w *work) { w.scan = true }) // the turn finds it gone
			continue
		}
		if !p.Unlisted {
			if err := s.unlist(p.Name); err != nil {
				return err
			}
			s.log.Warn("repository cannot be listed; its answers read unknown", "repository", p.Name, "error", cause)
		}
	}
	s.counters.errors.Add(int64(len(l.unlisted)))
	for _, dir := range l.unlisted {
		if dir.name == "" || known[dir.name] != nil {
			continue // marked above, or all there is to mark
		}
		if err := s.unlist(dir.name); err != nil {
			return err
		}
		s.log.Warn("directory in storage cannot be listed; what is below it is not known", "directory", dir.name, "error", dir.err)
	}
	return nil
}

// unlist marks a place as one that could not be listed.
func (s *Scheduler) unlist(name string) error {
	yes := true
	_, err := s.cfg.Store.Commit(cache.Batch{Place: name, Update: &cache.PlaceUpdate{Unlisted: &yes}})
	return err
}

// stamp returns the state of a repository's index.json as text, "" when it
// cannot be told.
func (s *Scheduler) stamp(name string) string {
	if root := s.serving(name); root != nil {
		if stamp, err := root.Stamp(name); err == nil {
			return stamp.String()
		}
	}
	return ""
}

// open opens a repository. The error wraps fs.ErrNotExist when there is none.
func (s *Scheduler) open(name string) (*layout.Repository, error) {
	root := s.serving(name)
	if root == nil {
		return nil, fmt.Errorf("repository %s: %w", name, fs.ErrNotExist)
	}
	p, err := root.Repository(name)
	if errors.Is(err, layout.ErrName) {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return p, err
}

// scanTurn compares a repository with what is remembered of it.
func (s *Scheduler) scanTurn(ctx context.Context, name string, w *work) (result, error) {
	s.counters.scanned.Add(1)
	place, known, err := s.cfg.Store.Place(name)
	if err != nil {
		return result{}, err
	}
	p, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.removed(name, known, w), nil
	}
	if err != nil {
		return s.unlisted(name, w, err), nil
	}
	defer p.Close() // read-only
	if s.gone(name) {
		return s.removed(name, known, w), nil
	}
	return s.scan(ctx, p, name, place, known, w)
}

// removed is the result for a repository that is not there any more.
func (s *Scheduler) removed(name string, known bool, w *work) result {
	if !known {
		return result{}
	}
	return result{again: w, batches: []cache.Batch{{Place: name, Remove: true}}}
}

// gone reports whether index.json is not there, as opposed to not readable.
func (s *Scheduler) gone(name string) bool {
	root := s.serving(name)
	if root == nil {
		return true
	}
	_, err := root.Stamp(name)
	return errors.Is(err, fs.ErrNotExist)
}

// unlisted is the result for a repository whose index cannot be read: its rows
// stay, its answers read unknown, and it is tried again at the next pass.
func (s *Scheduler) unlisted(name string, w *work, cause error) result {
	yes, none := true, ""
	s.counters.errors.Add(1)
	s.log.Warn("repository cannot be read; its answers read unknown", "repository", name, "error", cause)
	return result{again: w, batches: []cache.Batch{{Place: name, Update: &cache.PlaceUpdate{Unlisted: &yes, Stamp: &none}}}}
}

func (s *Scheduler) scan(ctx context.Context, p *layout.Repository, name string, place cache.Place, known bool, w *work) (result, error) {
	if known && !w.force && !place.Unlisted && place.Stamp != "" && place.Stamp == s.stamp(name) {
		return s.rest(item{repository: name}, w, result{}), nil
	}
	var kindErr error
	contents, err := p.Contents(ctx, func(d trust.Digest) (layout.Kind, bool) {
		k, ok, err := s.cfg.Store.Kind(d)
		kindErr = errors.Join(kindErr, err)
		return layoutKind(k), ok && err == nil
	})
	switch {
	case ctx.Err() != nil:
		return result{}, ctx.Err()
	case kindErr != nil:
		return result{}, kindErr
	case err != nil:
		return s.rest(item{repository: name}, w, s.unlisted(name, w, err)), nil
	}
	s.counters.opened.Add(int64(contents.Opened))
	for _, problem := range contents.Problems {
		s.log.Debug("passed over in storage", "repository", name, "digest", problem.Digest.String(), "reason", string(problem.Reason), "detail", problem.Detail)
	}
	plan, err := s.plan(ctx, p, name, contents)
	if err != nil {
		return result{}, err
	}
	return s.rest(item{repository: name}, w, s.scanned(name, contents, plan, w)), nil
}

// scanned makes the batch of a whole repository.
func (s *Scheduler) scanned(name string, c *layout.Contents, plan *plan, w *work) result {
	no, stamp := false, ""
	if c.Stamp != (layout.Stamp{}) && !c.Incomplete {
		stamp = c.Stamp.String()
	}
	kinds := make(map[trust.Digest]cache.Kind, len(c.Learned))
	for d, k := range c.Learned {
		kinds[d] = cacheKind(k)
	}
	unsettled := plan.left > 0 || plan.returned
	return result{
		again: w,
		batches: []cache.Batch{{
			Place: name, Kinds: kinds, Tags: c.Tags, SetTags: true, Rows: plan.rows, Complete: true, Facts: plan.facts,
			Update: &cache.PlaceUpdate{Stamp: &stamp, Unlisted: &no, Unsettled: &unsettled, HasNotation: &plan.notation, AsOf: plan.asOf},
		}},
		then: func(outdated bool) {
			poke(s.wakeup)
			// A change of policies owes nothing to repositories that were not known
			// to have signatures that it is about.
			if unsettled || outdated || s.trust.Load() != plan.under {
				s.agenda.add(item{repository: name}, fresh, func(w *work) { w.settle, w.after = true, trust.Digest{} })
			}
			s.lookAgain(name, stamp == "")
		},
	}
}

// lookAgain owes another scan soon to a repository that was changing, or had a
// manifest that could not be read. It has no stamp then, so that each pass
// looks again; the first few times it does not wait for the pass.
func (s *Scheduler) lookAgain(name string, unstable bool) {
	tries := s.state.unstable(name, unstable)
	if unstable && tries <= 5 {
		s.later(backoff(uint32(tries), 500*time.Millisecond, time.Minute), func() { s.oweScan(name, false) })
	}
}

// rest owes what else was owed to a repository besides its scan.
func (s *Scheduler) rest(i item, w *work, r result) result {
	other := *w
	other.scan, other.force = false, false
	if !other.settle && !other.rehash && len(other.due) == 0 {
		return r
	}
	then := r.then
	r.then = func(outdated bool) {
		if then != nil {
			then(outdated)
		}
		s.agenda.add(i, other.level, func(w *work) { w.merge(&other) })
	}
	return r
}

func layoutKind(k cache.Kind) layout.Kind {
	out := layout.Kind{Class: layout.Class(k.Class), MediaType: k.MediaType, Size: k.Size, Subject: k.Subject, Ambiguous: k.Ambiguous}
	for _, c := range k.Children {
		child := layout.Child{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Platform: c.Platform}
		child.Platform, child.Attestation = strings.CutPrefix(c.Platform, attestationMark)
		out.Children = append(out.Children, child)
	}
	return out
}

// attestationMark keeps an index's word that a child is an attestation in the
// cache's platform field; no platform begins so.
const attestationMark = "\x00attestation "

func cacheKind(k layout.Kind) cache.Kind {
	out := cache.Kind{Class: uint8(k.Class), MediaType: k.MediaType, Size: k.Size, Subject: k.Subject, Ambiguous: k.Ambiguous}
	for _, c := range k.Children {
		child := cache.Child{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Platform: c.Platform}
		if c.Attestation {
			child.Platform = attestationMark + c.Platform
		}
		out.Children = append(out.Children, child)
	}
	return out
}
