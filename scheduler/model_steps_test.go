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
	"trust-worker/trust"
)

// What a model does to storage and to the trust directories.

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
	switch m.rng.IntN(8) {
	case 6, 7:
		what, sig = m.keyless(img)
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

// keyless signs with an identity of an instance, with some evidence or other.
func (m *model) keyless(img signtest.Image) (string, signtest.Image) {
	n := m.rng.IntN(len(m.clouds))
	s, other := m.clouds[n], m.clouds[1-n]
	at := time.Now().AddDate(-1, 0, -m.rng.IntN(100))
	o := signtest.KeylessOptions{Issuer: "https://i.test", Subject: fmt.Sprintf("https://g.test/%d", m.rng.IntN(3)), At: at,
		NoSCT: m.rng.IntN(5) == 0, NoEntry: m.rng.IntN(5) == 0, Stamp: m.rng.IntN(2) == 0}
	switch m.rng.IntN(6) {
	case 0:
		o.Log = other.Log
	case 1:
		o.TSA = other.TSA
		if m.rng.IntN(2) == 0 {
			o.StampedAt = at.Add(time.Hour)
		}
	}
	what := fmt.Sprintf("keyless %d %s sct=%v entry=%v stamp=%v", n, o.Subject, !o.NoSCT, !o.NoEntry, o.Stamp)
	if m.rng.IntN(2) == 0 {
		return what, m.st.SignKeyless(img, s, o)
	}
	return what + " bundle", m.st.SignKeylessBundle(img, s, o)
}

// narrow changes the configuration's scopes.
func (m *model) narrow() string {
	m.scopes = nil
	for range m.rng.IntN(3) {
		m.scopes = append(m.scopes, trust.Narrowing{Prefix: some(m, []string{"", "a", "c", "c/d"}), Alone: m.rng.IntN(2) == 0, Require: m.rng.IntN(3)})
	}
	if m.s != nil {
		m.s.cfg.Loader.SetScopes(m.scopes)
	}
	return fmt.Sprint(m.scopes)
}

// trustKeyless writes a trusted root or identities.
func (m *model) trustKeyless() string {
	if m.rng.IntN(2) == 0 {
		scope := some(m, modelScopes)
		text := ""
		for range 1 + m.rng.IntN(2) {
			text += fmt.Sprintf("- {issuer: https://i.test, subjectRegExp: '%s', root: %s}\n", some(m, []string{`https://g\.test/[01]`, `https://g\.test/.*`, "https://g.test/2"}), some(m, modelRoots))
		}
		m.st.TrustFile(scope+"identities.yaml", []byte(text))
		return scope + "identities " + text
	}
	n := m.rng.IntN(len(m.clouds))
	name, r := some(m, modelRoots), m.clouds[n].Root()
	what := m.rng.IntN(7)
	switch what {
	case 0:
		r.CTLogs = nil
	case 1:
		r.Tlogs = nil
	case 2:
		r.TimestampAuthorities = nil
	case 3:
		r.TimestampAuthorities = append(r.TimestampAuthorities, m.clouds[1-n].Root().TimestampAuthorities...)
	case 4:
		r.CertificateAuthorities[0].ValidFor.End = time.Now().AddDate(-1, 0, -50).UTC().Format(time.RFC3339)
	}
	m.st.TrustFile(name, r.JSON())
	return fmt.Sprint(name, " ", n, " ", what)
}

var (
	modelScopes = []string{"", "", "a/", "c/", "c/d/"}
	modelRoots  = []string{"trusted_root.json", "trusted_root_2.json"}
)

// copy replaces a repository by some of another.
func (m *model) copy() string {
	from, to := some(m, modelRepositories), some(m, modelRepositories)
	if from == to || len(m.st.Listed(from)) == 0 {
		return "-"
	}
	m.drop(to)
	m.rotten = true // of some blobs there may be none in the other either
	keep := m.rng.IntN(4)
	m.copyOf(from, to, func(ocispec.Descriptor) bool { return m.rng.IntN(4) >= keep })
	return fmt.Sprint(from, " ", to)
}

func (m *model) drop(repo string) {
	if err := os.RemoveAll(m.st.Repository(repo)); err != nil {
		m.t.Fatal(err)
	}
	m.forget(repo)
	for path := range m.away {
		if strings.HasPrefix(path, m.st.Repository(repo)+"/") {
			delete(m.away, path)
		}
	}
}

// forget drops what the storage knows of a repository and of those below it.
func (m *model) forget(repo string) {
	for _, name := range modelRepositories {
		if name == repo || strings.HasPrefix(name, repo+"/") {
			m.st.Forget(name)
		}
	}
}

func (m *model) remove() string {
	repo := some(m, modelRepositories)
	all := m.st.Listed(repo)
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
	if from == to || len(m.st.Listed(from)) == 0 {
		return "-"
	}
	m.heal()
	m.drop(to)
	m.rotten = true // what a copy has no blobs of is known to lack them in its old place
	if err := os.MkdirAll(filepath.Dir(m.st.Repository(to)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(m.st.Repository(from), m.st.Repository(to)); err != nil {
		m.t.Fatal(err)
	}
	m.forget(from)
	m.forget(to)
	return fmt.Sprint(from, " ", to)
}

func (m *model) contradictSome() string {
	repo := some(m, modelRepositories)
	for _, d := range m.st.Listed(repo) {
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
	path, damage := m.st.Here(repo, d), m.st.RemoveBlob
	if m.rng.IntN(2) == 0 {
		path, damage = m.st.BlobPath(repo, d), m.st.Corrupt
	}
	b, err := os.ReadFile(path)
	if _, is := m.away[path]; is || err != nil {
		return "-"
	}
	m.away[path], m.rotten = b, true
	damage(repo, d)
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
	switch m.rng.IntN(4) {
	case 0, 1:
		name, k := fmt.Sprintf("%sk%d.pub", some(m, modelScopes), m.rng.IntN(4)), m.rng.IntN(len(m.keys))
		m.st.TrustFile(name, m.keys[k].PEM())
		return fmt.Sprint(name, " ", k)
	case 2:
		return m.trustKeyless()
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
	for _, pattern := range []string{"_cosign/*.pub", "_cosign/*/*.pub", "_cosign/*/*/*.pub", "_cosign/*.json", "_cosign/*.yaml", "_cosign/*/*.yaml", "_cosign/*/*/*.yaml", "_notation/truststore/x509/*/*/*.pem"} {
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
