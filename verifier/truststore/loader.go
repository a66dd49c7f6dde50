package truststore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"trust-worker/trust"
)

// RevocationMode says how revocation is checked.
type RevocationMode string

// The modes. Online has OCSP responders and CRL distribution points asked
// (package revocation). Offline never dials: a certificate with an address reads
// revocation-unknown. Ignore takes such certificates for good and marks each
// answer.
const (
	RevocationOnline  RevocationMode = "online"
	RevocationOffline RevocationMode = "offline"
	RevocationIgnore  RevocationMode = "ignore"
)

// Config says where trust material is and which tools are on.
type Config struct {
	// CosignDir holds PEM public keys, NotationDir truststore/x509 and
	// trustpolicy.json. Either may be a symlink. Both must be named when their
	// tool is on; they need not exist.
	CosignDir, NotationDir string
	// CosignExpected and NotationExpected: somebody has named that directory, so
	// that it is among the refused while it is not there. One that merely stands
	// where it usually does is among them only if it was there before: a site
	// that signs with one tool need not have both.
	CosignExpected, NotationExpected bool
	// Scopes narrow who may sign with cosign in which repository, and how many must.
	Scopes []trust.Narrowing
	// RegistryNames are the hosts that policy scopes may name; none: any.
	RegistryNames []string
	// Cosign and Notation switch the tools on. The directory of one that is
	// off is not read.
	Cosign, Notation bool
	// Revocation must be one of the three modes.
	Revocation RevocationMode
	// ZotPolicy is the operator's word that the policy which zot writes at its
	// starts stands for the default.
	ZotPolicy bool
	// Memory is what is remembered of policies that are gone; nil: nothing from
	// before this process.
	Memory *Memory
}

// Grace is how long the last good content of a file that cannot be parsed stays
// in force.
const Grace = 5 * time.Second

// Loader reads the trust directories. It remembers the last good content of each
// file, so that one caught in the middle of a write stays in force, for at most
// [Grace]. It is safe for concurrent use; loads take turns.
type Loader struct {
	cfg                        Config
	cosignLabel, notationLabel string // the directories' names in messages; distinct

	mu     sync.Mutex
	memory map[string]memory // by path, of the last completed load
	// mirror is the default document that the last load wants written.
	mirror *mirror
	// absence is what is wrong, by label, when that directory is not there:
	// nothing, if there is no entry.
	absence map[string]string
}

const (
	notThere = "does not exist; nothing is trusted by it"
	vanished = "has vanished; nothing is trusted by it until it is back"
)

// memory is what is remembered of one file.
type memory struct {
	sum   trust.Digest // of the content that value was parsed from
	value any          // *key, []*x509.Certificate or *policyDoc; nil: a policy that never had good content
	// since is when the file was first found without good content; zero while
	// it is good. until is when value leaves force then.
	since, until time.Time
}

// NewLoader checks cfg.
func NewLoader(cfg Config) (*Loader, error) {
	switch cfg.Revocation {
	case RevocationOnline, RevocationOffline, RevocationIgnore:
	default:
		return nil, fmt.Errorf("revocation mode %q: choose %s, %s or %s", cfg.Revocation, RevocationOnline, RevocationOffline, RevocationIgnore)
	}
	if cfg.Cosign && cfg.CosignDir == "" || cfg.Notation && cfg.NotationDir == "" {
		return nil, errors.New("no directory of trust material: name one for each tool that is on")
	}
	cfg.RegistryNames = slices.Clone(cfg.RegistryNames)
	if cfg.Memory == nil {
		cfg.Memory = NewMemory()
	}
	l := &Loader{cfg: cfg, cosignLabel: filepath.Base(filepath.Clean(cfg.CosignDir)),
		notationLabel: filepath.Base(filepath.Clean(cfg.NotationDir)),
		memory:        map[string]memory{}, absence: map[string]string{}}
	if l.cosignLabel == l.notationLabel && cfg.Cosign && cfg.Notation {
		l.cosignLabel, l.notationLabel = filepath.Clean(cfg.CosignDir), filepath.Clean(cfg.NotationDir)
	}
	if l.cosignLabel == l.notationLabel && cfg.Cosign && cfg.Notation {
		return nil, fmt.Errorf("%s cannot hold both cosign's keys and notation's trust store: name two directories", cfg.CosignDir)
	}
	if cfg.CosignExpected {
		l.absence[l.cosignLabel] = notThere
	}
	if cfg.NotationExpected {
		l.absence[l.notationLabel] = notThere
	}
	return l, nil
}

// SetScopes changes what narrows who may sign where, from the next load on.
func (l *Loader) SetScopes(scopes []trust.Narrowing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.Scopes = slices.Clone(scopes)
}

// Load reads the trust directories. One bad file costs that file and is listed
// in Refused; a directory that is not there is empty, and trusts nothing: it is
// listed in Missing, or in Refused if it was there before or is expected. The only
// error is ctx's.
func (l *Loader) Load(ctx context.Context, now time.Time) (*TrustStore, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for attempt := 1; ; attempt++ {
		p := l.newPass(now)
		p.before, p.absence, p.last = l.memory, l.absence, attempt == swapAttempts
		err := p.run(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, errSwapped) && !p.last {
			continue
		}
		p.decide()
		l.memory, l.mirror = p.after, p.toMirror
		for _, label := range p.there {
			l.absence[label] = vanished
		}
		return p.build(), nil
	}
}

// RetryAt says when the first grace ends, if a file is in its grace: that moment
// ends trust without any event from the file system.
func (l *Loader) RetryAt(now time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first time.Time
	for _, m := range l.memory {
		if m.since.IsZero() || m.value == nil && !now.Before(m.until) {
			continue
		}
		if first.IsZero() || m.until.Before(first) {
			first = m.until
		}
	}
	if first.Before(now) && !first.IsZero() {
		first = now
	}
	return first, !first.IsZero()
}
