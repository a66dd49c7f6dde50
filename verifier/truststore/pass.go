package truststore

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"trust-worker/trust"
)

// One reading of the trust directories: what is found, what is refused, and what
// stays in force from memory.

// pass is one reading of both directories. What it finds takes effect only when
// it completes.
type pass struct {
	*Loader
	now           time.Time
	before, after map[string]memory
	absence       map[string]string // as the loader's
	there         []string          // the trust directories that are, by label
	budget        time.Duration     // what is left for waiting on writers
	last          bool              // no further pass: read around a swap

	keys     []loaded[*Key]
	certs    []loaded[*x509.Certificate]
	roots    []loaded[[]*Root]
	rules    []loaded[*identities]
	scopes   []string   // the directories below _cosign
	seen     policySeen // what there is of policies
	ruling   ruling     // what rules, once the pass is complete
	toMirror *mirror
	// policiesRead: what there is of policies has been read in this pass.
	policiesRead bool
	refused      []Refusal
	missing      []string
	ignored      int
}

// loaded is one piece of material and the file that holds it.
type loaded[T any] struct {
	path, storeType, storeName string // the store is notation's
	scope                      string // cosign's
	value                      T
}

func (l *Loader) newPass(now time.Time) *pass {
	p := &pass{Loader: l, now: now, before: map[string]memory{}, after: map[string]memory{}, budget: readBudget}
	p.noPolicy()
	return p
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
	if !ok || m.value == nil {
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
	case *Key, []*Root, *identities:
		scope, err := filepath.Rel(p.cosignLabel, filepath.Dir(path))
		if err != nil {
			return // it was found below
		}
		if scope = filepath.ToSlash(scope); scope == "." {
			scope = ""
		}
		p.addCosign(path, scope, v)
	case []*x509.Certificate:
		store := filepath.Dir(path)
		p.addCerts(path, filepath.Base(filepath.Dir(store)), filepath.Base(store), v)
	case *policyDoc:
		if p.policiesRead {
			return // what has been read just now counts
		}
		f := p.policyNamed(filepath.Base(path))
		f.present, f.doc, f.sum, f.problem = true, v, p.after[path].sum, "cannot be read; its last good content stays in force for a few seconds"
	}
}

// addCosign adds what a file in a scope holds.
func (p *pass) addCosign(path, scope string, value any) {
	switch v := value.(type) {
	case *Key:
		p.keys = append(p.keys, loaded[*Key]{path: path, scope: scope, value: v})
	case []*Root:
		p.roots = append(p.roots, loaded[[]*Root]{path: path, value: v})
	case *identities:
		p.rules = append(p.rules, loaded[*identities]{path: path, scope: scope, value: v})
	}
}

func (p *pass) addCerts(path, storeType, storeName string, certs []*x509.Certificate) {
	for _, c := range certs {
		p.certs = append(p.certs, loaded[*x509.Certificate]{path: path, storeType: storeType, storeName: storeName, value: c})
	}
}

// checkName holds a file named sha256:<hex>, as zot writes them, to its name.
func checkName(name string, b []byte) error {
	if d, err := trust.ParseDigest(name); err == nil && d != trust.SumOf(b) {
		return unfinishedf("does not hash to its name; it is incomplete or was altered")
	}
	return nil
}

// forget drops everything that this pass found below label.
func (p *pass) forget(label string) {
	below := func(path string) bool { return within(path, label) }
	p.keys = slices.DeleteFunc(p.keys, func(f loaded[*Key]) bool { return below(f.path) })
	p.certs = slices.DeleteFunc(p.certs, func(f loaded[*x509.Certificate]) bool { return below(f.path) })
	p.roots = slices.DeleteFunc(p.roots, func(f loaded[[]*Root]) bool { return below(f.path) })
	p.rules = slices.DeleteFunc(p.rules, func(f loaded[*identities]) bool { return below(f.path) })
	if label == p.cosignLabel {
		p.scopes = nil
	}
	p.refused = slices.DeleteFunc(p.refused, func(r Refusal) bool { return below(r.Path) })
	if label == p.notationLabel {
		p.noPolicy()
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

// absent records that the trust directory dir is not there.
func (p *pass) absent(dir, label string) {
	if _, err := os.Lstat(filepath.Clean(dir)); err == nil {
		p.refuse(label, refusef("is a symbolic link to nothing; remove it or restore its target"))
	} else if reason := p.absence[label]; reason != "" {
		p.refuse(label, refusef("%s", reason))
	} else {
		p.missing = append(p.missing, label)
	}
}

// unlistable records that a directory cannot be listed. When it is not there,
// neither are its files. Otherwise they may still be: what was good of them stays
// for its grace, as with a file that cannot be read.
func (p *pass) unlistable(label, dir string, err error) {
	where := filepath.Join(label, dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && dir == "": // since it was opened
		p.refuse(where, refusef(vanished))
		return
	case errors.Is(err, fs.ErrNotExist):
		p.refuse(where, refusef(notThere))
		return
	case errors.Is(err, syscall.ENOTDIR):
		p.refuse(where, refusef("is not a directory"))
		return
	}
	p.refuse(where, refusef("cannot be listed (%v)", plain(err)))
	p.seen.unlistable = p.seen.unlistable || label == p.notationLabel && dir == ""
	for path := range p.before {
		if !within(path, where) {
			continue
		}
		if value, ok := p.fallBack(path, Grace); ok {
			p.adopt(path, value)
		}
	}
}
