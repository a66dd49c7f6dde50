package scheduler

// LookAt queues a scan of one repository: something outside says that it may have
// changed. It is only a hint. If what the repository lists is unchanged, the scan is a stat. A name
// that is neither known nor a repository in storage is ignored: hints change no answer.
func (s *Scheduler) LookAt(name string) {
	root := s.serving(name)
	if root == nil {
		return
	}
	if _, known, err := s.cfg.Store.Place(name); err == nil && known || root.IsRepository(name) {
		s.oweScan(name, false)
	}
}
