package scheduler

// LookAt owes a look at one repository: something outside says that it may have
// changed. It is a hint and no more. A repository whose index.json is unchanged
// costs a stat, and the name of none that is known or that a pass would find is
// dropped: whoever gives hints can change no answer and make no place.
func (s *Scheduler) LookAt(name string) {
	root := s.serving(name)
	if root == nil {
		return
	}
	if _, known, err := s.cfg.Store.Place(name); err == nil && known || root.IsRepository(name) {
		s.oweScan(name, false)
	}
}
