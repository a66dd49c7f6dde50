package scheduler

// LookAt queues a scan of one repository: something outside says that it may have
// changed. It is only a hint. If what the repository lists is unchanged, the scan is a stat. A name
// that is neither known nor a repository in storage is ignored: hints change no answer.
func (s *Scheduler) LookAt(name string) {
	if s.lookAt(fresh, name) {
		s.hintOthers(name, true)
	}
}

func (s *Scheduler) lookAt(level priority, name string) bool {
	root := s.serving(name)
	if root == nil {
		return false
	}
	_, known, err := s.cfg.Store.Place(name)
	is := err == nil && known || root.IsRepository(name)
	if is {
		s.oweScanAs(level, name, false)
	}
	return is
}

// HintRepository is LookAt, by what all workers of a cluster hear: it is told to nobody. Whether
// somebody waits for it, the other says; nobody does before the first pass is over, which looks
// at everything.
func (s *Scheduler) HintRepository(name string, hurry bool) {
	level := bulk
	if hurry && s.firstPassOver() {
		level = fresh
	}
	s.lookAt(level, name)
}

func (s *Scheduler) firstPassOver() bool {
	select {
	case <-s.firstPass:
		return true
	default:
		return false
	}
}

// hintOthers has the other workers look at a repository that this one has noticed by itself.
func (s *Scheduler) hintOthers(name string, hurry bool) {
	if s.cfg.Peers != nil {
		s.cfg.Peers.HintRepository(name, hurry)
	}
}

// takeHints owes what the watcher hints at, and reports whether that is a walk, and how much it
// looks at.
func (s *Scheduler) takeHints() (how extent, walk bool) {
	h := s.cfg.Repositories.Take()
	for _, name := range h.Names {
		s.oweScan(name, false)
		s.hintOthers(name, true)
	}
	for _, name := range h.Watched {
		s.oweScanAs(bulk, name, false)
		s.hintOthers(name, false)
	}
	if h.All {
		return changedOnes, true
	}
	return listRepositories, h.Walk
}

// hintsMeanwhile takes hints that come during a walk, which may take seconds, and reports
// whether they ask for another.
func (s *Scheduler) hintsMeanwhile() (walk bool) {
	if s.cfg.Repositories == nil {
		return false
	}
	select {
	case <-s.cfg.Repositories.C():
		_, walk = s.takeHints()
	default:
	}
	return walk
}
