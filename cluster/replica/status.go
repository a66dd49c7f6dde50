package replica

import (
	"errors"
	"time"

	"trust-worker/cache/mirror"
)

// Status says how a replica follows its source.
type Status struct {
	Source string
	// Connected: the last request was answered. Else Problem says why not, or why what
	// was told could not be taken over.
	Connected bool
	Problem   string    `json:",omitempty"`
	LastHeard time.Time `json:",omitzero"`
	mirror.State
	// Behind is how long there have been data that were not taken over.
	Behind time.Duration
	// Fetching is the file that is being fetched; DataProblem says why data cannot be.
	Fetching     string    `json:",omitempty"`
	Fetched, Of  int64     `json:",omitempty"` // bytes of it
	DataProblem  string    `json:",omitempty"`
	Tended       time.Time // when the copy was last tended: every second
	Bytes        int64     // fetched since the start
	Publications int64     // whose data were taken over since the start
}

// Status says how it goes now.
func (f *Follower) Status() Status {
	state := f.mirror.State()
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.status
	st.State = state
	if !f.behind.IsZero() {
		st.Behind = time.Since(f.behind)
	}
	return st
}

func (f *Follower) fetched(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Bytes += n
}

// progress notes what is being fetched; nil: nothing more, for a reason or because all is
// here.
func (f *Follower) progress(file *mirror.File, have int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := &f.status
	st.Fetching, st.Fetched, st.Of = "", 0, 0
	if file != nil {
		st.Fetching, st.Fetched, st.Of = file.Name, have, file.Size
		return
	}
	was := st.DataProblem
	if st.DataProblem = ""; err != nil && err != errNewer && !errors.Is(err, mirror.ErrNoTrust) { // which is being asked for
		if st.DataProblem = oneLine(err); was == "" {
			f.log.Warn("data cannot be fetched; will retry", "error", st.DataProblem)
		}
	}
}

// taken notes that the data of a publication were taken over.
func (f *Follower) taken(pub *mirror.Publication) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Publications++
	if f.latest == pub {
		f.behind = time.Time{}
	} else {
		f.behind = time.Now() // about when the next was told
	}
}
