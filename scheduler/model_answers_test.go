package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// What a model holds the answers to.

// list notes what is stored now.
func (m *model) list() {
	for _, row := range m.rows() {
		for _, ref := range row.References {
			m.stored[row.repo+"@"+row.Digest.Hex()+" "+ref.Digest.Hex()] = true
		}
	}
}

type modelRow struct {
	store.Row
	repo string
	tags map[string]trust.Digest
}

func (m *model) root() *layout.Root {
	root, err := layout.Open(m.st.Dir, layout.Options{})
	if err != nil {
		m.t.Fatal(err)
	}
	return root
}

func (m *model) rows() (rows []modelRow) {
	root := m.root()
	defer root.Close()
	for _, repo := range modelRepositories {
		p, err := root.Repository(repo)
		if err != nil {
			continue
		}
		if c, err := p.Contents(context.Background(), nil); err == nil {
			for _, row := range rowsOf(c) {
				rows = append(rows, modelRow{row, repo, c.Tags})
			}
		}
		p.Close()
	}
	return rows
}

// load loads the trust directories anew.
func (m *model) load() *truststore.TrustStore {
	store, err := m.loader().Load(context.Background(), time.Now())
	if err != nil {
		m.t.Fatal(err)
	}
	return store
}

func (m *model) loader() *truststore.Loader {
	loader, err := truststore.NewLoader(truststore.Config{CosignDir: filepath.Join(m.st.Dir, "_cosign"),
		NotationDir: filepath.Join(m.st.Dir, "_notation"), Cosign: true, Notation: true, Revocation: truststore.RevocationOffline, Memory: m.memory, Scopes: m.scopes})
	if err != nil {
		m.t.Fatal(err)
	}
	return loader
}

func (m *model) snapshot(fn func(*cache.Snapshot)) {
	r, err := cache.OpenReader(m.state, cache.WithClock(m.now))
	if err != nil {
		m.t.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	defer snap.Close()
	fn(snap)
}

// published looks at what other processes read, whatever is at work.
func (m *model) published() {
	if m.s == nil {
		return
	}
	if err := reload(context.Background(), m.s); err != nil {
		m.t.Fatal(err)
	}
	f := m.load().InForce()
	may := func(repo string, sig *cache.Signature) bool {
		if sig.Subject != "" {
			id := &trust.Identity{Issuer: sig.Issuer, Subject: sig.Subject}
			return slices.ContainsFunc(f.Terms().Identities, func(r trust.IdentityRule) bool {
				counts, _ := f.Counts(r.Scope, repo)
				return counts && r.Root == sig.Root && r.Matches(id) && id.Fingerprint() == sig.SignerFingerprint &&
					slices.ContainsFunc(f.Terms().Roots, func(root trust.Root) bool { return root.File == r.Root })
			})
		}
		return slices.ContainsFunc(f.Terms().Materials, func(material trust.Material) bool {
			counts, _ := f.Counts(material.Scope, repo)
			return material.Signer.Fingerprint == sig.SignerFingerprint && (counts || sig.Tool == trust.Notation)
		})
	}
	r, err := cache.OpenReader(m.state, cache.WithClock(m.now))
	if err != nil {
		return // the first base is not there yet
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return
	}
	defer snap.Close()
	for line, sig := range m.read(snap) {
		key, _, _ := strings.Cut(line, "#")
		if at, child, is := strings.Cut(key, " child "); is {
			key = at[:strings.Index(at, "@")+1] + child
		}
		repo, _, _ := strings.Cut(key, "@")
		if sig.IsTrusted && (!may(repo, &sig) || !m.stored[key]) {
			m.t.Errorf("trusted: %s %+v", line, sig)
		}
	}
}

// read lists every signature of the published answers.
func (m *model) read(snap *cache.Snapshot) map[string]cache.Signature {
	all := map[string]cache.Signature{}
	err := snap.Repositories(func(repo string) error {
		err := snap.Tags(repo, func(tag string, d trust.Digest) error {
			all[repo+":"+tag+" "+d.Hex()] = cache.Signature{}
			return nil
		})
		if err != nil {
			return err
		}
		return snap.Each(repo, func(img cache.Image) error {
			whole, err := snap.Image(repo, img.Digest)
			m.add(all, &whole)
			if is, e := snap.IsTrusted(repo, img.Digest); e != nil || is != (whole.State() == "trusted") {
				m.t.Fatalf("%s@%s is %s; IsTrusted says %v, %v", repo, img.Digest, whole.State(), is, e)
			}
			return err
		})
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

func (m *model) add(all map[string]cache.Signature, img *cache.Image) {
	all[img.RepoName+"@"+img.Digest.Hex()+" image "+img.MediaType] = cache.Signature{}
	for _, s := range img.SignatureInfo {
		all[fmt.Sprintf("%s@%s %s#%d", img.RepoName, img.Digest.Hex(), s.Digest.Hex(), s.Layer)] = s
	}
	for _, c := range img.Manifests {
		key := fmt.Sprintf("%s@%s child %s", img.RepoName, img.Digest.Hex(), c.Digest.Hex())
		all[key] = cache.Signature{}
		for _, s := range c.SignatureInfo {
			all[fmt.Sprintf("%s %s#%d", key, s.Digest.Hex(), s.Layer)] = s
		}
	}
}

func (m *model) quiet() {
	select {
	case <-m.s.agenda.quiet():
	case <-time.After(2 * time.Minute):
		m.t.Fatalf("not quiet: %+v", m.s.Status())
	}
}

// settle waits until nothing is owed and holds the answers to VerifyNow's.
func (m *model) settle() {
	if m.s == nil {
		m.start()
		<-m.s.FirstPass()
	}
	s, ctx := m.s, context.Background()
	must := func(err error) {
		if err != nil {
			m.t.Fatal(err)
		}
	}
	must(reload(ctx, s))
	m.ahead.Add(int64(10 * time.Second)) // past the grace of a policy that is gone
	must(reload(ctx, s))
	must(s.walk(ctx, false))
	m.quiet()
	if m.rotten {
		if err := s.oweRehash(); err != nil {
			m.t.Fatal(err)
		}
		m.quiet()
	}
	// Twice past every back-off: what a clock that was ahead by less than the longest put
	// off may rightly wait for that.
	for range 2 {
		m.ahead.Add(int64(2 * time.Hour))
		_, _, err := s.oweDue(longestRetry) // as when the clock has gone back
		must(err)
		m.quiet()
	}
	must(s.cfg.Store.Publish(ctx))
	m.recount()
	var got map[string]cache.Signature
	m.snapshot(func(snap *cache.Snapshot) { got = m.read(snap) })
	m.rotten = len(m.away) > 0
	clear(m.stored)
	want := map[string]cache.Signature{}
	root, store := m.root(), m.load()
	defer root.Close()
	for _, row := range m.rows() {
		if !row.Present {
			continue
		}
		for tag, d := range row.tags {
			want[row.repo+":"+tag+" "+d.Hex()] = cache.Signature{}
		}
		img, err := VerifyNow(ctx, []Storage{{Root: root, Dir: m.st.Dir}}, store, nil, row.repo, "", row.Digest)
		must(err)
		m.add(want, &img)
	}
	text := func(s cache.Signature) string {
		s.VerifiedAt, s.Since = nil, nil
		if s.Reason == trust.SignerRemoved {
			s.Reason, s.Detail = trust.NoTrustedKey, ""
		}
		if s.Reason == trust.AuthorityRemoved {
			s.Reason = trust.NoTrustedRoot
		}
		if keylessReason(s.Reason) || s.Reason == trust.IdentityNotTrusted || s.Reason == trust.TimestampInvalid {
			s.Detail = "" // which of several roots it is about may differ
		}
		if s.Reason == trust.CertificateExpired { // who knew a time stamp authority that left, names it
			s.Detail = ""
		}
		b, err := json.Marshal(s)
		must(err)
		return string(b)
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[key]
		if want[key].Format == "" { // what keeps it from being looked at here is known elsewhere
			g.Format = ""
			for n, more := 1, true; more; n++ {
				further := fmt.Sprint(strings.TrimSuffix(key, "0"), n)
				_, more = got[further]
				delete(got, further)
			}
		}
		w := want[key]
		if g.Reason == trust.SignerRemoved && w.Reason == trust.NoTrustedKey {
			w.Detail = "" // what a verifier finds who does not know who left
		}
		if !ok || text(g) != text(w) {
			m.t.Errorf("%s\n got %s\nwant %s", key, text(g), text(w))
		}
		delete(got, key)
	}
	for key, g := range got {
		m.t.Errorf("%s\n got %s\nwant nothing", key, text(g))
	}
}
