package scheduler

import (
	"log/slog"
	"time"

	"trust-worker/cache/store"
	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
	"trust-worker/watcher"
)

// Config is what a Scheduler works on. Storage, Loader and Store are required.
type Config struct {
	// Storage are the roots, each of which serves its own repository names.
	Storage []Storage
	Loader  *truststore.Loader
	Store   *store.Store

	// Trust tells of changes in the trust directories; nil: only the periodic
	// look, at least every 10 s. Repositories is the hint for storage.
	Trust        *watcher.Trust
	Repositories *watcher.Repositories

	// Workers is how many turns run at once; 0 means one for each processor,
	// and at least two, so that reading overlaps with verifying.
	Workers int
	// ScanInterval is the time between passes over storage, 60 s by default.
	ScanInterval time.Duration
	// ConfirmInterval is the longest time between two looks at the trust
	// directories, 10 s by default.
	ConfirmInterval time.Duration
	// SlowInterval is the time between passes that re-read signature bytes;
	// 0 means 24 h, negative never.
	SlowInterval time.Duration
	// Revocation is asked about certificates in the mode online; nil: nobody is.
	Revocation *revocation.Checker
	// Peers are the other workers of the cluster; nil: there is none.
	Peers Peers
	// Published, if not nil, is called after each publication, of trust or of data. It
	// must not wait.
	Published func()
	// MirrorPolicy allows writing the default trust policy beside the stores.
	MirrorPolicy bool

	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}
