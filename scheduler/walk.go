package scheduler

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/fair"
	"trust-worker/layout"
	"trust-worker/watcher"
)

// Walks: which repositories there are, and what could not be listed.

// extent is how much a walk looks at.
type extent int

const (
	// listRepositories looks at none that was listed before: directories have
	// come or gone. What is in the others, the passes and hints find out.
	listRepositories extent = iota
	// changedOnes looks at whether each repository has changed.
	changedOnes
	// everyOne believes nothing that is remembered.
	everyOne
)

// walk lists the repositories, owes a scan of each that is new or has changed,
// and takes those that are gone out of the answers. With force every repository is read.
func (s *Scheduler) walk(ctx context.Context, force bool) error {
	how := changedOnes
	if force {
		how = everyOne
	}
	_, err := s.walkAs(ctx, how)
	return err
}

// walkAs is walk of any kind. again is set if a hint that came meanwhile asks for another.
func (s *Scheduler) walkAs(ctx context.Context, how extent) (again bool, err error) {
	s.walking.Lock()
	defer s.walking.Unlock()
	start := s.now()
	places, err := s.cfg.Store.Places()
	if err != nil {
		return false, err
	}
	known := make(map[string]*store.Place, len(places))
	for i := range places {
		known[places[i].Name] = &places[i]
	}
	l := &listing{found: map[string]bool{}, dirs: map[string]watcher.Dir{}}
	for _, storage := range s.cfg.Storage {
		err := storage.Root.Walk(ctx, func(v layout.Visit) error {
			if v.Name != "" && s.serving(v.Name) != storage.Root {
				return nil // zot serves that name from a subPath
			}
			return l.visit(storage.Dir, v)
		})
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			s.log.Error("storage cannot be listed; its answers read unknown", "error", err)
		}
	}
	last := s.listed.Swap(nil)
	looked := s.lookedAt()
	for name := range l.found {
		again = s.hintsMeanwhile() || again
		p := known[name]
		same, differs := false, p == nil && last != nil
		if p != nil && !p.Unlisted && p.Stamp != "" {
			if same = how == listRepositories && last.has(name); !same {
				same, differs = s.unchanged(p)
			}
		}
		l.found[name] = same
		if differs && s.firstPassOver() {
			s.hintOthers(name, false)
		}
		if how == everyOne || !same {
			level := bulk
			if last != nil && !last.has(name) {
				level = fresh // it has just been made
			}
			if last == nil && s.cfg.Peers != nil && s.cfg.Peers.Rank(name) > 0 {
				level = theirs // it has done it when it is looked at here, if all is well
			}
			s.oweScanAs(level, name, how == everyOne)
		}
	}
	if err := s.missing(places, known, l); err != nil {
		return again, err
	}
	if err := s.setWhole(l); err != nil {
		return again, err
	}
	if s.rootsListed.Load() {
		s.listed.Store(l)
	}
	if s.cfg.Repositories != nil {
		s.watchInside(l, last, known)
		if !maps.Equal(l.dirs, s.watching) { // else the watcher looks after its watches by itself
			s.watching = l.dirs
			s.cfg.Repositories.Set(l.dirs)
		}
	}
	s.sayLayout(l)
	s.state.setListed(l, places)
	if how != listRepositories {
		s.state.setPass(s.now(), s.now().Sub(start), s.lookedAt()-looked)
	}
	s.counters.walks.Add(1)
	return again, nil
}

const (
	// lookTime is how long a pass looks at the links of one repository. With more of them,
	// it is looked at in turn with the others.
	lookTime = 20 * time.Millisecond
	// tagsWatched is of how many tags a repository's links are watched each, and insideWatched
	// how many directories of all repositories together. Others are looked at by the passes.
	tagsWatched   = 100
	insideWatched = 32_768
)

// unchanged reports whether what a repository lists is what the rows are from, or whether it
// differs. It is neither if that takes long to find out, or cannot be.
func (s *Scheduler) unchanged(p *store.Place) (same, differs bool) {
	stamp, err := s.stamp(p.Name, time.Now().Add(lookTime))
	if err != nil || stamp == "" {
		return false, false
	}
	return stamp == p.Stamp, stamp != p.Stamp
}

// lookedAt counts the links that were looked at to tell whether something has changed.
func (s *Scheduler) lookedAt() (n int64) {
	for _, storage := range s.cfg.Storage {
		n += storage.Root.Looked()
	}
	return n
}

// sayLayout logs what the storage root was recognised as, once something is there.
func (s *Scheduler) sayLayout(l *listing) {
	if is := s.cfg.Storage[0].Root.Layout(); len(l.found) > 0 && is != s.layoutSaid {
		s.layoutSaid = is
		s.log.Info("storage recognised", "layout", is, "repositories", len(l.found))
	}
}

// watchInside adds what is to be watched inside of repositories, of each top-level name in
// turn: what there was at the last walk, of those that have not changed since.
func (s *Scheduler) watchInside(l, last *listing, known map[string]*store.Place) {
	if !slices.ContainsFunc(s.cfg.Storage, func(st Storage) bool { return st.Root.Layout() == layout.Distribution }) {
		return
	}
	l.inside = map[string]insideDirs{}
	left := insideWatched
	for _, name := range fair.Order(slices.Sorted(maps.Keys(l.found)), fair.TopLevel) {
		var in insideDirs
		if l.found[name] {
			in.stamp = known[name].Stamp
		}
		if was := last.insideOf(name); in.stamp != "" && was.stamp == in.stamp {
			in = was
		} else {
			in.dirs = s.inside(name)
		}
		if left -= len(in.dirs); left < 0 {
			return
		}
		l.inside[name] = in
		for n, dir := range in.dirs {
			// The first leads to the others, whose coming is worth a walk.
			l.dirs[dir] = watcher.Dir{Repository: name, Inside: n > 0}
		}
	}
}

// inside are the directories inside of a repository that tell of changes.
func (s *Scheduler) inside(name string) []string {
	for i := range s.cfg.Storage {
		if st := &s.cfg.Storage[i]; st.Root == s.serving(name) {
			dirs := st.Root.Watched(name, tagsWatched)
			for n := range dirs {
				dirs[n] = filepath.Join(st.Dir, dirs[n])
			}
			return dirs
		}
	}
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
	found    map[string]bool        // repository names; whether they list what they did before
	dirs     map[string]watcher.Dir // by absolute directory
	inside   map[string]insideDirs  // of those that are inside, by repository
	unlisted []unlisted
	refused  []string
}

// unlisted is a directory below which nothing is known; its name is "" for the
// root.
type unlisted struct {
	name string
	err  error
}

// insideDirs are directories inside of a repository, and what it listed then, if that is known.
type insideDirs struct {
	stamp string
	dirs  []string
}

// has reports whether a repository was found; nothing was by no listing.
func (l *listing) has(name string) bool {
	if l == nil {
		return false
	}
	_, ok := l.found[name]
	return ok
}

func (l *listing) insideOf(name string) insideDirs {
	if l == nil {
		return insideDirs{}
	}
	return l.inside[name]
}

func (l *listing) visit(root string, v layout.Visit) error {
	switch {
	case v.Refused != "":
		said := v.Dir + ": " + v.Refused
		if v.Refused == layout.RefusedName {
			said += " (lower-case letters and digits, with . _ or - between them)"
		}
		l.refused = append(l.refused, said)
	case v.Err != nil:
		l.unlisted = append(l.unlisted, unlisted{v.Name, v.Err})
	case v.IsRepository:
		l.found[v.Name] = false
	}
	if v.Refused == "" {
		name := ""
		if v.IsRepository {
			name = v.Name
		}
		l.dirs[filepath.Join(root, v.Dir)] = watcher.Dir{Repository: name, Above: v.Name == ""}
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
func (s *Scheduler) missing(places []store.Place, known map[string]*store.Place, l *listing) error {
	for _, p := range places {
		if l.has(p.Name) {
			continue
		}
		i := item{repository: p.Name}
		cause := l.hidden(p.Name)
		if cause == nil {
			if s.firstPassOver() {
				s.hintOthers(p.Name, false)
			}
			s.agenda.add(i, bulk, func(w *work) { w.scan = true }) // the turn finds it gone
			continue
		}
		if !p.Unlisted || p.Why != why(p.Name, cause) {
			if err := s.unlist(p.Name, cause); err != nil {
				return err
			}
			s.stored.warn(p.Name, notRead, "error", cause) // what is left out is counted
		}
	}
	s.counters.errors.Add(int64(len(l.unlisted)))
	for _, dir := range l.unlisted {
		if dir.name == "" || known[dir.name] != nil {
			continue // marked above, or all there is to mark
		}
		if err := s.unlist(dir.name, dir.err); err != nil {
			return err
		}
		s.stored.warn(dir.name, notListed, "error", dir.err)
	}
	return nil
}

// unlist marks a place as one that could not be listed.
func (s *Scheduler) unlist(name string, cause error) error {
	yes := true
	_, err := s.cfg.Store.Commit(store.Batch{Place: name, Update: &store.PlaceUpdate{Unlisted: &yes, Why: why(name, cause)}})
	return err
}
