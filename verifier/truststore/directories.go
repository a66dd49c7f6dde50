package truststore

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/trust"
)

// What stands where: _cosign/[SCOPE/]* and _notation/truststore/x509/<type>/<name>/*.
// policyfiles.go has the policies.

func (p *pass) run(ctx context.Context) error {
	if p.cfg.Cosign {
		if err := p.inTree(p.cfg.CosignDir, p.cosignLabel, func(t *tree) error { return p.readCosign(ctx, t, ".", "") }); err != nil {
			return err
		}
	}
	if p.cfg.Notation {
		return p.runNotation(ctx)
	}
	return nil
}

func (p *pass) runNotation(ctx context.Context) error {
	return p.inTree(p.cfg.NotationDir, p.notationLabel, func(t *tree) error {
		if err := p.readPolicies(ctx, t); err != nil {
			return err
		}
		return p.readStores(ctx, t)
	})
}

// inTree runs read on the directory dir and checks that no volume was swapped
// meanwhile.
func (p *pass) inTree(dir, label string, read func(*tree) error) error {
	t, err := openTree(dir, label)
	if errors.Is(err, fs.ErrNotExist) {
		p.absent(dir, label)
		return nil
	}
	p.there = append(p.there, label)
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

// readCosign reads what lies in the scope: keys and identities and, at the top, trusted
// roots. Each directory is a scope of its own, below the repository prefix of its name.
func (p *pass) readCosign(ctx context.Context, t *tree, dir, scope string) error {
	items, ignored, err := t.list(dir)
	if errors.Is(err, errSwapped) {
		return err
	} else if err != nil {
		p.unlistable(t.label, scope, err)
		return nil
	}
	p.ignored += ignored
	for _, it := range items {
		shown := p.shown(t, scope, it.name)
		var parse func([]byte) (any, error)
		limit := int64(maxKeyFile)
		switch {
		case t.isDir(it.path):
			if err := p.readScope(ctx, t, it, path.Join(scope, it.name)); err != nil {
				return err
			}
			continue
		case it.name == identitiesFile:
			limit, parse = maxIdentities, func(b []byte) (any, error) { return parseIdentities(b) }
		case misnamed(it.name) != "":
			p.refuse(shown, refusef("is not read; did you mean %s?", misnamed(it.name)))
			continue
		case isRootName(it.name) && scope != "":
			p.refuse(shown, refusef("is not read here: trusted roots lie at the top of %s, and an identities.yaml names them", t.label))
			continue
		case isRootName(it.name):
			limit, parse = maxRootFile, func(b []byte) (any, error) { return parseRoots(it.name, b) }
		default:
			parse = func(b []byte) (any, error) {
				if bytes.Contains(b, []byte("vnd.dev.sigstore.trustedroot")) {
					return nil, refusef("is a trusted root under another name; rename it to trusted_root.json, or trusted_root_NAME.json")
				}
				return parseKey(b)
			}
		}
		v, ok, err := p.content(ctx, t, it, shown, limit, parse)
		if ctx.Err() != nil {
			return err
		}
		if ok {
			p.addCosign(shown, scope, v)
		}
	}
	return nil
}

// readScope reads a directory of keys and identities for a part of the repositories.
func (p *pass) readScope(ctx context.Context, t *tree, it item, scope string) error {
	shown := p.shown(t, scope)
	switch {
	case strings.HasPrefix(it.name, "_"):
		p.ignored++
		return nil
	case it.name == identitiesFile || isRootName(it.name):
		p.refuse(shown, refusef("is a directory; it should be a file"))
		return nil
	case !trust.ValidScope(scope):
		p.refuse(shown, refusef("is a directory whose name, below %s, is not the beginning of repositories' names (in lower case, such as team-a or team-a/app, at most %d elements): nothing in it is trusted", t.label, trust.MaxScopeDepth))
		return nil
	case len(p.scopes) >= maxScopes:
		p.refuse(shown, refusef("is beyond the first %d directories of repositories; nothing in it is trusted", maxScopes))
		return nil
	}
	p.scopes = append(p.scopes, scope)
	return p.readCosign(ctx, t, it.path, scope)
}

// maxScopes bounds the directories below _cosign.
const maxScopes = 10_000

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
				p.refuse(p.shown(t, shown), refusef("is not in a named store; move it to truststore/x509/%s/NAME", st.name))
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
		where := p.shown(t, shown, it.name)
		v, ok, err := p.content(ctx, t, it, where, maxCertFile, func(b []byte) (any, error) { return parseCertificates(b, st) })
		if ctx.Err() != nil {
			return err
		}
		if ok {
			p.addCerts(where, string(st), name, v.([]*x509.Certificate))
		}
	}
	return nil
}

func (p *pass) shown(t *tree, parts ...string) string {
	return filepath.Join(append([]string{t.label}, parts...)...)
}

// misplaced refuses what was meant for a trust store and is not read: a store type that
// is not below x509, and certificates in another directory. items are those of shown.
func (p *pass) misplaced(t *tree, shown string, items []item) error {
	for _, it := range items {
		switch {
		case slices.Contains(truststore.Types, truststore.Type(it.name)) && t.isDir(it.path):
			p.refuse(p.shown(t, shown, it.name), refusef("is not read; trust stores are directories truststore/x509/%s/NAME: move its files there", it.name))
		case shown == "" && filepath.Ext(it.name) == ".pub":
			p.refuse(p.shown(t, it.name), refusef("is not read; move a public key for cosign to the directory _cosign"))
		case shown == "" && it.name != "truststore" && !slices.Contains(notationsOwn, it.name) && t.isDir(it.path):
			below, _, err := t.list(it.path)
			if errors.Is(err, errSwapped) {
				return err
			}
			if err == nil && slices.ContainsFunc(below, func(b item) bool { return isCertificate(b.name) }) {
				p.refuse(p.shown(t, it.name), refusef("holds certificates and is not read; move them to truststore/x509/ca/NAME"))
			}
		}
	}
	return nil
}

// notationsOwn are directories that notation itself keeps beside its trust store.
var notationsOwn = []string{"localkeys", "plugins"}

func isCertificate(name string) bool { return slices.Contains(certificateNames, filepath.Ext(name)) }

// certificateNames end names of files that were meant for a store.
var certificateNames = []string{".crt", ".cer", ".pem", ".der"}

// subdirectories walks down the named directories and lists the last. One that
// is missing on the way is an empty trust store; certificates that were put down
// on the way are refused.
func (p *pass) subdirectories(t *tree, names ...string) ([]item, error) {
	dir, shown := ".", ""
	for _, name := range names {
		items, err := p.listed(t, dir, shown)
		if err != nil {
			return nil, err
		}
		if err := p.misplaced(t, shown, items); err != nil {
			return nil, err
		}
		for _, it := range items {
			if isCertificate(it.name) {
				p.refuse(p.shown(t, shown, it.name), refusef("is not in a named store; move it to truststore/x509/ca/NAME"))
			}
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
