package mirror

import "time"

// Retain sets how long superseded files stay.
func (m *Mirror) Retain(d time.Duration) { m.retention = d }

// DropParts is what a full disk has done for a trust file.
func (m *Mirror) DropParts() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropParts()
}

// HashBeside has files of more than n bytes hashed beside, until the returned function is
// called.
func HashBeside(n int64) (restore func()) {
	was := small
	small = n
	return func() { small = was }
}
