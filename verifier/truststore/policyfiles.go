package truststore

import (
	"context"
	"errors"
	"path"
	"slices"
	"time"

	"trust-worker/trust"
)

// The policies that stand in _notation, as a pass finds them.

// noPolicy: nothing is known to be there.
func (p *pass) noPolicy() {
	p.seen = policySeen{first: policyFile{name: firstPolicyFile}, second: policyFile{name: secondPolicyFile}, now: p.now}
}

func (p *pass) policyNamed(name string) *policyFile {
	if name == firstPolicyFile {
		return &p.seen.first
	}
	return &p.seen.second
}

// readPolicies looks at both names, and for those that come near them.
func (p *pass) readPolicies(ctx context.Context, t *tree) error {
	items, _, err := t.list(".")
	if errors.Is(err, errSwapped) {
		return err
	}
	listed := err == nil
	for _, f := range []*policyFile{&p.seen.first, &p.seen.second} {
		it := item{f.name, f.name}
		if i := slices.IndexFunc(items, func(it item) bool { return it.name == f.name }); i >= 0 {
			it = items[i] // through ..data as the rest
		} else if listed {
			continue
		}
		if err := p.readPolicy(ctx, t, it, f); err != nil {
			return err
		}
	}
	p.policiesRead = true
	return p.readAlike(t, items)
}

// readPolicy reads one of them. The only errors are errSwapped and ctx's.
func (p *pass) readPolicy(ctx context.Context, t *tree, it item, f *policyFile) error {
	shown := p.shown(t, f.name)
	fi, err := t.root.Stat(it.path)
	if err != nil {
		fi, err = t.root.Lstat(it.path)
	}
	if err == nil {
		ts := ctime(fi)
		f.changed = time.Unix(ts.Unix())
		if it.path == it.name { // not through a volume's ..data
			f.written = fi.ModTime()
		}
	}
	v, ok, err := p.content(ctx, t, it, shown, maxPolicyFile, func(b []byte) (any, error) { return parsePolicy(b) })
	switch m := p.after[shown]; {
	case ctx.Err() != nil:
		return ctx.Err()
	case ok:
		f.present, f.doc, f.sum = true, v.(*policyDoc), m.sum
		if !m.since.IsZero() {
			f.problem = "is incomplete; the last good policy stays in force for a few seconds"
		}
	case err != nil:
		f.present, f.problem = true, err.Error()
		f.settled = p.settled(shown, f.changed, err)
	}
	return nil // or it has gone since it was listed
}

// settled reports whether what cannot be used is not in the middle of a write:
// it is complete, or has been like this for [Grace].
func (p *pass) settled(shown string, changed time.Time, err error) bool {
	var bad *fileError
	if errors.As(err, &bad) && bad.final {
		return true
	}
	m := p.before[shown]
	if m.since.IsZero() {
		m.since, m.until = p.now, p.now.Add(Grace)
	}
	m.sum, m.value = trust.Digest{}, nil
	p.after[shown] = m
	return p.now.Before(m.since) || !p.now.Before(m.until) || !changed.IsZero() && p.now.Sub(changed) >= Grace
}

// readAlike finds what was meant for a policy and is not read: under another
// name, or in a directory below.
func (p *pass) readAlike(t *tree, items []item) error {
	found := func(below, name string) {
		p.seen.alike = append(p.seen.alike, path.Join(below, name))
		p.refuse(p.shown(t, below, name), refusef("is not read as a trust policy; one is read from %s, else from %s, beside truststore", firstPolicyFile, secondPolicyFile))
	}
	for _, it := range items {
		if looksLikePolicy(it.name) {
			found("", it.name)
		}
		if !t.isDir(it.path) {
			continue
		}
		below, _, err := t.list(it.path)
		if errors.Is(err, errSwapped) {
			return err
		} else if err != nil && it.name != "truststore" { // which readStores reports
			p.refuse(p.shown(t, it.name), refusef("cannot be listed (%v); there may be a trust policy in it", plain(err)))
			p.seen.alike = append(p.seen.alike, it.name+", which cannot be listed")
		}
		for _, deep := range below {
			if deep.name == firstPolicyFile || deep.name == secondPolicyFile || looksLikePolicy(deep.name) {
				found(it.name, deep.name)
			}
		}
	}
	return nil
}

// decide says what rules, by all that the pass has found and what is remembered.
// What is remembered of it is durable before anything rests on it.
func (p *pass) decide() {
	if !p.cfg.Notation {
		p.ruling = ruling{source: PolicyOff}
		return
	}
	document := defaultDocument(p.stores())
	p.seen.computed = trust.SumOf(document)
	for {
		was := p.cfg.Memory.get()
		p.ruling = rule(p.seen, was, p.cfg.ZotPolicy)
		err := p.cfg.Memory.set(was, p.ruling.memory)
		if errors.Is(err, errMemoryChanged) {
			continue // the mirror has been written
		}
		if err != nil {
			p.ruling.invalid("", "the trust memory in the state directory cannot be written ("+plain(err).Error()+")")
		}
		break
	}
	if r := &p.ruling; r.conflict {
		p.refuse(p.notationLabel+"/"+secondPolicyFile, refusef("is not read while %s is there, and says something else", firstPolicyFile))
	}
	if name := p.ruling.mirror; name != "" && len(p.certs) > 0 {
		p.toMirror = &mirror{name: name, document: document, was: *p.policyNamed(name)}
	}
}

// stores are the trust stores that hold a certificate, as policies name them.
func (p *pass) stores() []string {
	var stores []string
	for _, c := range p.certs {
		stores = append(stores, c.storeType+":"+c.storeName)
	}
	slices.Sort(stores)
	return slices.Compact(stores)
}
