package scheduler

// LookAt queues a scan of one repository: something outside says that it may have
// changed. It is only a hint. If what the repository lists is unchanged, the scan is a stat. A name
// that is neither known nor a repository in storage is ignored: hints change no answer.
func (s *Scheduler) LookAt(name string) {
	if s.lookAt(fresh, name) {
		s.hintOthers(name)
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

// HintRepository is LookAt, by what all workers of a cluster hear: it is told to nobody. Until
// the first pass is over, which looks at everything, nobody waits for it.
func (s *Scheduler) HintRepository(name string) {
	select {
	case <-s.firstPass:
		s.lookAt(fresh, name)
	default:
		s.lookAt(bulk, name)
	}
}

// hintOthers has the other workers look at a repository that this one has noticed by itself. In
// the first pass all are.
func (s *Scheduler) hintOthers(name string) {
	if s.cfg.Peers == nil {
		return
	}
	select {
	case <-s.firstPass:
		s.cfg.Peers.HintRepository(name)
	default:
	}
}

// takeHints owes what the watcher hints at, and reports whether that is a walk, and how much it
// looks at.
func (s *Scheduler) takeHints() (how extent, walk bool) {
	h := s.cfg.Repositories.Take()
	for _, name := range h.Names {
		s.oweScan(name, false)
		s.hintOthers(name)
	}
	for _, name := range h.Watched {
		s.oweScanAs(bulk, name, false)
		s.hintOthers(name)
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
