package verifier

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/trust"
)

// RevocationMode says how revocation is checked.
type RevocationMode string

// The modes. Online asks OCSP responders and CRL distribution points; until
// that is written it reads as Offline does. Offline never dials: a certificate
// with an address reads revocation-unknown. Ignore takes such certificates for
// good and marks each answer.
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
	// RegistryNames are the hosts that policy scopes may name; none: any.
	RegistryNames []string
	// Cosign and Notation switch the tools on. The directory of one that is
	// off is not read.
	Cosign, Notation bool
	// Revocation must be one of the three modes.
	Revocation RevocationMode
}

// Grace is how long the last good content of a file that cannot be parsed stays
// in force. goneGrace is the same for an operator's policy that has vanished:
// some editors save by removing and writing anew, and the default policy, which
// may allow more, must not come into force between the two.
const (
	Grace     = 5 * time.Second
	goneGrace = time.Second
)

// Loader reads the trust directories. It remembers the last good content of each
// file, so that one caught in the middle of a write stays in force, for at most
// [Grace]. It is safe for concurrent use; loads take turns.
type Loader struct {
	cfg                        Config
	cosignLabel, notationLabel string // the directories' names in messages; distinct

	mu     sync.Mutex
	memory map[string]memory // by path, of the last completed load
}

// memory is what is remembered of one file.
type memory struct {
	sum   trust.Digest // of the content that value was parsed from
	value any          // *key, []*x509.Certificate or *policyDoc
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
	l := &Loader{cfg: cfg, cosignLabel: filepath.Base(filepath.Clean(cfg.CosignDir)),
		notationLabel: filepath.Base(filepath.Clean(cfg.NotationDir)),
		memory:        map[string]memory{}}
	if l.cosignLabel == l.notationLabel && cfg.Cosign && cfg.Notation {
		l.cosignLabel, l.notationLabel = filepath.Clean(cfg.CosignDir), filepath.Clean(cfg.NotationDir)
	}
	if l.cosignLabel == l.notationLabel && cfg.Cosign && cfg.Notation {
		return nil, fmt.Errorf("%s cannot hold both cosign's keys and notation's trust store: name two directories", cfg.CosignDir)
	}
	return l, nil
}

// Load reads the trust directories. One bad file costs that file and is listed
// in Refused; a directory that is not there is empty, and trusts nothing. The
// only error is ctx's.
func (l *Loader) Load(ctx context.Context, now time.Time) (*TrustStore, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for attempt := 1; ; attempt++ {
		p := l.newPass(now)
		p.before, p.last = l.memory, attempt == swapAttempts
		err := p.run(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, errSwapped) && !p.last {
			continue
		}
		l.memory = p.after
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
		if !m.since.IsZero() && (first.IsZero() || m.until.Before(first)) {
			first = m.until
		}
	}
	if first.Before(now) && !first.IsZero() {
		first = now
	}
	return first, !first.IsZero()
}

// pass is one reading of both directories. What it finds takes effect only when
// it completes.
type pass struct {
	*Loader
	now           time.Time
	before, after map[string]memory
	budget        time.Duration // what is left for waiting on writers
	last          bool          // no further pass: read around a swap

	keys    []loaded[*key]
	certs   []loaded[*x509.Certificate]
	policy  *policyDoc // nil: none is there
	summary PolicySummary
	refused []Refusal
	ignored int
}

// loaded is one piece of material and the file that holds it.
type loaded[T any] struct {
	path, storeType, storeName string
	value                      T
}

func (l *Loader) newPass(now time.Time) *pass {
	return &pass{Loader: l, now: now, before: map[string]memory{}, after: map[string]memory{}, budget: readBudget}
}

func (p *pass) run(ctx context.Context) error {
	if p.cfg.Cosign {
		if err := p.inTree(p.cfg.CosignDir, p.cosignLabel, func(t *tree) error { return p.readKeys(ctx, t) }); err != nil {
			return err
		}
	}
	p.summary.Source = PolicyOff
	if p.cfg.Notation {
		p.summary.Source = PolicyDefault
		return p.runNotation(ctx)
	}
	return nil
}

func (p *pass) runNotation(ctx context.Context) error {
	return p.inTree(p.cfg.NotationDir, p.notationLabel, func(t *tree) error {
		if err := p.readPolicy(ctx, t); err != nil {
			return err
		}
		return p.readStores(ctx, t)
	})
}

// inTree runs read on the directory dir and checks that no volume was swapped
// meanwhile.
func (p *pass) inTree(dir, label string, read func(*tree) error) error {
	t, err := openTree(dir, label)
	if err != nil {
		p.unlistable(label, "", err)
		return nil
	}
	defer t.close()
	err = read(t)
	if err == nil {
		err = t.check()
	}
	if errors.Is(err, errSwapped) && p.last {
		// It never held still. Nothing that was read may be mixed with
		// something else, so only what was good before stays, for its grace.
		p.forget(label)
		p.unlistable(label, "", err)
		return nil
	}
	return err
}

// forget drops everything that this pass found below label.
func (p *pass) forget(label string) {
	below := func(path string) bool { return within(path, label) }
	p.keys = slices.DeleteFunc(p.keys, func(f loaded[*key]) bool { return below(f.path) })
	p.certs = slices.DeleteFunc(p.certs, func(f loaded[*x509.Certificate]) bool { return below(f.path) })
	p.refused = slices.DeleteFunc(p.refused, func(r Refusal) bool { return below(r.Path) })
	if label == p.notationLabel {
		p.policy, p.summary = nil, PolicySummary{Source: PolicyDefault}
	}
	for path := range p.after {
		if below(path) {
			delete(p.after, path)
		}
	}
}

func within(path, dir string) bool {
	return path == dir || len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/'
}

// unlistable records that a directory cannot be listed. When it is not there,
// neither are its files. Otherwise they may still be: what was good of them stays
// for its grace, as with a file that cannot be read.
func (p *pass) unlistable(label, dir string, err error) {
	where := filepath.Join(label, dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.refuse(where, refusef("does not exist; nothing is trusted by it"))
		return
	case errors.Is(err, syscall.ENOTDIR):
		p.refuse(where, refusef("is not a directory"))
		return
	}
	p.refuse(where, refusef("cannot be listed (%v)", plain(err)))
	for path := range p.before {
		if !within(path, where) {
			continue
		}
		if value, ok := p.fallBack(path, Grace); ok {
			p.adopt(path, value)
		} else if filepath.Base(path) == policyFile {
			p.invalid("its directory cannot be listed")
		}
	}
}

func (p *pass) refuse(path string, err *fileError) {
	p.refused = append(p.refused, Refusal{Path: path, Reason: err.reason})
}

// content returns what the file at path holds: parsed now, parsed earlier from the
// same bytes, or remembered while it has no good content. ok is false when it
// holds nothing; that has been listed then, unless there is no file.
func (p *pass) content(ctx context.Context, t *tree, it item, path string, limit int64, parse func([]byte) (any, error)) (value any, ok bool, err error) {
	b, err := t.read(ctx, it.path, limit, &p.budget)
	if err == nil {
		if err = checkName(it.name, b); err == nil {
			sum := trust.SumOf(b)
			if m, known := p.before[path]; known && m.sum == sum {
				p.after[path] = memory{sum: sum, value: m.value}
				return m.value, true, nil
			}
			if value, err = parse(b); err == nil {
				p.after[path] = memory{sum: sum, value: value}
				return value, true, nil
			}
		}
	}
	var bad *fileError
	switch {
	case errors.As(err, &bad):
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	default:
		bad = unfinishedf("cannot be read (%v)", err)
	}
	if !bad.final {
		if value, ok := p.fallBack(path, Grace); ok {
			p.refused = append(p.refused, Refusal{Path: path, Grace: true,
				Reason: bad.reason + "; its last good content stays in force for a few seconds"})
			return value, true, nil
		}
	}
	p.refuse(path, bad)
	return nil, false, bad
}

// fallBack returns the last good content of a file that has none now, unless it
// has had none for too long.
func (p *pass) fallBack(path string, grace time.Duration) (any, bool) {
	m, ok := p.before[path]
	if !ok {
		return nil, false
	}
	if m.since.IsZero() {
		m.since, m.until = p.now, p.now.Add(grace)
	}
	if p.now.Before(m.since) || !p.now.Before(m.until) { // or the clock went back
		return nil, false
	}
	p.after[path] = m
	return m.value, true
}

// adopt puts remembered content in its place when its directory cannot be listed.
func (p *pass) adopt(path string, value any) {
	switch v := value.(type) {
	case *key:
		p.keys = append(p.keys, loaded[*key]{path: path, value: v})
	case []*x509.Certificate:
		store := filepath.Dir(path)
		p.addCerts(path, filepath.Base(filepath.Dir(store)), filepath.Base(store), v)
	case *policyDoc:
		p.setPolicy(v)
	}
}

func (p *pass) addCerts(path, storeType, storeName string, certs []*x509.Certificate) {
	for _, c := range certs {
		p.certs = append(p.certs, loaded[*x509.Certificate]{path, storeType, storeName, c})
	}
}

// checkName holds a file named sha256:<hex>, as zot writes them, to its name.
func checkName(name string, b []byte) error {
	if d, err := trust.ParseDigest(name); err == nil && d != trust.SumOf(b) {
		return unfinishedf("does not hash to its name; it is incomplete or was altered")
	}
	return nil
}

func (p *pass) readKeys(ctx context.Context, t *tree) error {
	items, ignored, err := t.list(".")
	if errors.Is(err, errSwapped) {
		return err
	} else if err != nil {
		p.unlistable(t.label, "", err)
		return nil
	}
	p.ignored += ignored
	for _, it := range items {
		path := filepath.Join(t.label, it.name)
		v, ok, err := p.content(ctx, t, it, path, maxKeyFile, func(b []byte) (any, error) { return parseKey(b) })
		if ctx.Err() != nil {
			return err
		}
		if ok {
			p.keys = append(p.keys, loaded[*key]{path: path, value: v.(*key)})
		}
	}
	return nil
}

// readStores reads truststore/x509/<type>/<name>/*.
func (p *pass) readStores(ctx context.Context, t *tree) error {
	types, err := p.subdirectories(t, "truststore", "x509")
	if err != nil {
		return err
	}
	for _, st := range types {
		if !slices.Contains(truststore.Types, truststore.Type(st.name)) {
			p.refuse(p.shown(t, "truststore/x509", st.name), refusef("is not a trust store type; use ca, signingAuthority or tsa"))
			continue
		}
		stores, err := p.listed(t, st.path, "truststore/x509/"+st.name)
		if err != nil {
			return err
		}
		for _, s := range stores {
			shown := "truststore/x509/" + st.name + "/" + s.name
			switch {
			case !t.isDir(s.path):
				p.refuse(p.shown(t, shown), refusef("is not in a named store; move it to a directory below %s", st.name))
				continue
			case !storeName.MatchString(s.name):
				p.refuse(p.shown(t, shown), refusef("has a name that notation does not allow; use letters, digits, '_', '.' and '-'"))
				continue
			}
			if err := p.readStore(ctx, t, s.path, shown, truststore.Type(st.name), s.name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pass) readStore(ctx context.Context, t *tree, dir, shown string, st truststore.Type, name string) error {
	items, err := p.listed(t, dir, shown)
	if err != nil {
		return err
	}
	for _, it := range items {
		path := p.shown(t, shown, it.name)
		v, ok, err := p.content(ctx, t, it, path, maxCertFile, func(b []byte) (any, error) { return parseCertificates(b, st) })
		if ctx.Err() != nil {
			return err
		}
		if ok {
			p.addCerts(path, string(st), name, v.([]*x509.Certificate))
		}
	}
	return nil
}

func (p *pass) shown(t *tree, parts ...string) string {
	return filepath.Join(append([]string{t.label}, parts...)...)
}

// subdirectories walks down the named directories and lists the last. One that
// is missing on the way is an empty trust store.
func (p *pass) subdirectories(t *tree, names ...string) ([]item, error) {
	dir, shown := ".", ""
	for _, name := range names {
		items, err := p.listed(t, dir, shown)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(items, func(it item) bool { return it.name == name })
		if i < 0 {
			return nil, nil
		}
		dir, shown = items[i].path, filepath.Join(shown, name)
	}
	return p.listed(t, dir, shown)
}

// listed is tree.list with the failures recorded; the only error is errSwapped.
func (p *pass) listed(t *tree, dir, shown string) ([]item, error) {
	items, ignored, err := t.list(dir)
	if errors.Is(err, errSwapped) {
		return nil, err
	} else if err != nil {
		p.unlistable(t.label, shown, err)
		return nil, nil
	}
	if shown != "" && shown != "truststore" {
		p.ignored += ignored
	}
	return items, nil
}

// readPolicy reads trustpolicy.json. An operator's policy that is there and cannot
// be used leaves nothing notation trusted; one that is not there is the default.
func (p *pass) readPolicy(ctx context.Context, t *tree) error {
	path := p.shown(t, policyFile)
	it := item{policyFile, policyFile}
	absent := false
	if items, _, err := t.list("."); errors.Is(err, errSwapped) {
		return err
	} else if err == nil {
		i := slices.IndexFunc(items, func(it item) bool { return it.name == policyFile })
		if absent = i < 0; !absent {
			it = items[i] // through ..data as the rest
		}
	}
	var (
		v   any
		ok  bool
		err error
	)
	if !absent {
		v, ok, err = p.content(ctx, t, it, path, maxPolicyFile, func(b []byte) (any, error) { return parsePolicy(b) })
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case ok:
		p.setPolicy(v.(*policyDoc))
		if m := p.after[path]; !m.since.IsZero() {
			p.summary.Problem = "the file is incomplete; the last good policy stays in force for a few seconds"
		}
	case err != nil:
		p.invalid(err.Error())
	default:
		if m, known := p.before[path]; known && !m.value.(*policyDoc).isDefault {
			if v, ok := p.fallBack(path, goneGrace); ok {
				p.setPolicy(v.(*policyDoc))
				p.summary.Problem = "the file has vanished; the last good policy stays in force for a moment"
			}
		}
	}
	return nil
}

func (p *pass) setPolicy(d *policyDoc) {
	p.policy = d
	p.summary = PolicySummary{Source: PolicyOperator}
	if d.isDefault {
		p.summary.Source = PolicyDefault
	}
}

func (p *pass) invalid(why string) {
	p.policy, p.summary = nil, PolicySummary{Source: PolicyInvalid, Problem: policyFile + " " + why}
}
