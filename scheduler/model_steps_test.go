package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
)

// What a model does to storage and to the trust directories.

// listed are the manifests in a repository's index.json.
func (m *model) listed(repo string) []ocispec.Descriptor {
	raw, err := os.ReadFile(filepath.Join(m.st.Dir, repo, "index.json"))
	if err != nil {
		return nil
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		m.t.Fatal(err)
	}
	return index.Manifests
}

func (m *model) sign() string {
	repo := some(m, modelRepositories)
	img := m.image(repo)
	if m.rng.IntN(8) == 0 { // before its image comes, or after it is gone
		m.st.Remove(signtest.Image{Repo: repo, Descriptor: img.Descriptor})
	}
	k, leaf := m.rng.IntN(len(m.keys)), m.rng.IntN(len(m.leaves))
	o := signtest.NotationOptions{COSE: m.rng.IntN(2) == 0, SigningAuthority: m.rng.IntN(4) == 0}
	if leaf == 3 {
		o = signtest.NotationOptions{Time: time.Now().AddDate(-6, 0, 0), TSA: m.tsa}
	}
	var sig signtest.Image
	what := ""
	switch m.rng.IntN(6) {
	case 0, 1:
		what, sig = fmt.Sprint("simple ", k), m.st.SignSimple(img, m.keys[k], simple)
	case 2:
		what, sig = fmt.Sprint("referrer ", k), m.st.SignSimple(img, m.keys[k], signtest.CosignOptions{Referrer: true})
	case 3:
		what, sig = fmt.Sprint("bundle ", k), m.st.SignBundle(img, m.keys[k], simple)
	default:
		what, sig = fmt.Sprint("notation ", leaf, " ", o.SigningAuthority), m.st.SignNotation(img, m.leaves[leaf], o)
	}
	m.layers = append(m.layers, m.st.Signatures(sig)...)
	return fmt.Sprintf("%s@%s %s %s", repo, img.Hex()[:6], what, sig.Hex()[:6])
}

// copy replaces a repository by some of another.
func (m *model) copy() string {
	from, to := some(m, modelRepositories), some(m, modelRepositories)
	if from == to || len(m.listed(from)) == 0 {
		return "-"
	}
	m.drop(to)
	m.rotten = true // of some blobs there may be none in the other either
	keep := m.rng.IntN(4)
	m.copyOf(from, to, func(ocispec.Descriptor) bool { return m.rng.IntN(4) >= keep })
	m.st = signtest.NewStorage(m.st.Dir)
	return fmt.Sprint(from, " ", to)
}

func (m *model) drop(repo string) {
	if err := os.RemoveAll(filepath.Join(m.st.Dir, repo)); err != nil {
		m.t.Fatal(err)
	}
	for path := range m.away {
		if strings.HasPrefix(path, filepath.Join(m.st.Dir, repo)+"/") {
			delete(m.away, path)
		}
	}
	m.st = signtest.NewStorage(m.st.Dir)
}

func (m *model) remove() string {
	repo := some(m, modelRepositories)
	all := m.listed(repo)
	if len(all) == 0 {
		return "-"
	}
	if m.rng.IntN(6) == 0 {
		m.drop(repo)
		return repo
	}
	d := some(m, all)
	img := signtest.Image{Repo: repo, Descriptor: d, Tag: d.Annotations[ocispec.AnnotationRefName]}
	m.st.Remove(img)
	return fmt.Sprint(repo, ":", img.Tag, " ", img.Hex()[:6])
}

func (m *model) rename() string {
	from, to := some(m, modelRepositories), some(m, modelRepositories)
	if from == to || len(m.listed(from)) == 0 {
		return "-"
	}
	m.heal()
	m.drop(to)
	m.rotten = true // what a copy has no blobs of is known to lack them in its old place
	if err := os.MkdirAll(filepath.Dir(filepath.Join(m.st.Dir, to)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(m.st.Dir, from), filepath.Join(m.st.Dir, to)); err != nil {
		m.t.Fatal(err)
	}
	m.st = signtest.NewStorage(m.st.Dir)
	return fmt.Sprint(from, " ", to)
}

func (m *model) contradictSome() string {
	repo := some(m, modelRepositories)
	for _, d := range m.listed(repo) {
		if d.Annotations[ocispec.AnnotationRefName] == "1" {
			m.contradict(signtest.Image{Repo: repo, Descriptor: d})
			return repo
		}
	}
	return "-"
}

// rot removes or changes a blob of a signature.
func (m *model) rot() string {
	if len(m.layers) == 0 {
		return "-"
	}
	repo, d := some(m, modelRepositories), some(m, m.layers)
	path := filepath.Join(m.st.Dir, repo, "blobs", "sha256", d.Digest.Encoded())
	b, err := os.ReadFile(path)
	if _, is := m.away[path]; is || err != nil {
		return "-"
	}
	m.away[path], m.rotten = b, true
	if m.rng.IntN(2) == 0 {
		m.st.RemoveBlob(repo, d)
	} else {
		m.st.Corrupt(repo, d)
	}
	return repo + " " + d.Digest.Encoded()[:6]
}

func (m *model) heal() string {
	for path, b := range m.away {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			m.t.Fatal(err)
		}
		m.rotten = true
	}
	clear(m.away)
	return ""
}

var stores = []string{"ca:acme", "ca:other", "signingAuthority:acme", "tsa:stamp"}

func (m *model) trustSome() string {
	if m.rng.IntN(2) == 0 {
		name, k := fmt.Sprintf("k%d.pub", m.rng.IntN(4)), m.rng.IntN(len(m.keys))
		m.st.TrustKey(name, m.keys[k])
		return fmt.Sprint(name, " ", k)
	}
	store, c := some(m, stores), m.rng.IntN(3)
	if strings.HasPrefix(store, "tsa") {
		c = 3
	}
	m.st.TrustCert(store, fmt.Sprintf("%d.pem", m.rng.IntN(2)), m.certs[c].Cert())
	return fmt.Sprint(store, " ", c)
}

func (m *model) untrustSome() string {
	var files []string
	for _, pattern := range []string{"_cosign/*.pub", "_notation/truststore/x509/*/*/*.pem"} {
		found, err := filepath.Glob(filepath.Join(m.st.Dir, pattern))
		if err != nil {
			m.t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return "-"
	}
	f := some(m, files)
	if err := os.Remove(f); err != nil {
		m.t.Fatal(err)
	}
	return f[len(m.st.Dir):]
}

func (m *model) policy() string {
	switch m.rng.IntN(6) {
	case 0:
		_ = os.Remove(filepath.Join(m.st.Dir, "_notation", "trustpolicy.json"))
		return "none"
	case 1, 2:
		document, err := m.loader().DefaultPolicy(context.Background(), time.Now())
		if err != nil {
			m.t.Fatal(err)
		}
		m.st.Policy(string(document))
		return "default"
	}
	statement := func(name string, scopes ...string) map[string]any {
		v := map[string]any{"level": some(m, []string{"strict", "permissive", "audit"})}
		if m.rng.IntN(3) == 0 {
			v["verifyTimestamp"] = some(m, []string{"always", "afterCertExpiry"})
		}
		named := []string{"ca:acme"}
		for _, s := range stores {
			if m.rng.IntN(2) == 0 {
				named = append(named, s)
			}
		}
		slices.Sort(named)
		ids := []string{"*"}
		if m.rng.IntN(3) == 0 {
			ids = []string{"x509.subject: C=US, ST=WA, L=Seattle, O=Notary, CN=a"}
		}
		return map[string]any{"name": name, "registryScopes": scopes, "signatureVerification": v, "trustStores": slices.Compact(named), "trustedIdentities": ids}
	}
	statements := []map[string]any{statement("rest", "*")}
	if m.rng.IntN(2) == 0 {
		statements = append(statements, statement("one", "r.example/"+some(m, modelRepositories)))
	}
	b, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": statements})
	if err != nil {
		m.t.Fatal(err)
	}
	m.st.Policy(string(b))
	return string(b)
}

func (m *model) clock() string {
	d := some(m, []time.Duration{-3 * time.Hour, -time.Minute, time.Minute, 2 * time.Hour, 50 * time.Hour, -50 * time.Hour})
	m.ahead.Add(int64(d))
	return d.String()
}
