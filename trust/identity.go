package trust

import (
	"crypto/sha256"
	"encoding/json"
	"regexp"
	"sync"
	"sync/atomic"
)

// Identity is who a certificate was issued to, as the certificate says: the tuple that
// identities.yaml is matched with. It is proven where a certificate authority's signature
// is. Each may be empty but Subject.
type Identity struct {
	// Issuer is that of the OIDC token: extension 1.3.6.1.4.1.57264.1.8, or .1.
	Issuer string `json:"issuer,omitempty"`
	// Subject is the one subject alternative name: a URI, an e-mail address, or the
	// text of Fulcio's OtherName.
	Subject string `json:"subject"`
	// The others are Fulcio's extensions of the same names (fulcio oid-info.md).
	SourceRepositoryURI string `json:"sourceRepositoryURI,omitempty"`
	SourceRepositoryRef string `json:"sourceRepositoryRef,omitempty"`
	BuildSignerURI      string `json:"buildSignerURI,omitempty"`
	RunnerEnvironment   string `json:"runnerEnvironment,omitempty"`

	sum Digest // the fingerprint, once it is known
}

// MaxIdentity bounds the text of an identity in bytes.
const MaxIdentity = 2 << 10

// Text is the identity's canonical form, by which it is stored: at most [MaxIdentity]
// bytes of those that are accepted.
func (i *Identity) Text() string {
	b, err := json.Marshal(i)
	if err != nil {
		panic(err) // strings cannot fail
	}
	return string(b)
}

// ParseIdentity is the inverse of Text. What cannot be read matches nothing.
func ParseIdentity(text string) *Identity {
	i := &Identity{}
	if json.Unmarshal([]byte(text), i) != nil {
		return nil
	}
	i.sum = i.Fingerprint()
	return i
}

// Fingerprint names the tuple.
func (i *Identity) Fingerprint() Digest {
	if i.sum != (Digest{}) {
		return i.sum
	}
	return sha256.Sum256([]byte("trust-worker identity 1\n" + i.Text()))
}

// IdentityStore is the store type of an identity as a signer: [Signer] of an answer that
// an entry of identities.yaml made trusted.
const IdentityStore = "identity"

// Signer is the identity as the signer of an answer.
func (i *Identity) Signer() Signer {
	return Signer{Tool: Cosign, StoreType: IdentityStore, Fingerprint: i.Fingerprint()}
}

// IdentityRule is one entry of an identities.yaml. All that it names must match.
type IdentityRule struct {
	Scope, File string
	Line        int
	// Root is the name of the file in _cosign that holds the trusted root.
	Root string
	// Issuer and Subject are compared exactly, the regular expressions (RE2) with the
	// whole text. Of each pair one is set; neither of the issuer's: only certificates
	// without an issuer match.
	Issuer, IssuerRegExp, Subject, SubjectRegExp string
	// The others are compared exactly; empty: not at all.
	SourceRepositoryURI, SourceRepositoryRef, BuildSignerURI, RunnerEnvironment string
}

// Key names what a rule says about identities, whatever its root and its place: entries
// with the same are one signer.
func (r *IdentityRule) Key() string {
	about := *r
	about.Scope, about.File, about.Line, about.Root = "", "", 0, ""
	b, err := json.Marshal(about)
	if err != nil {
		panic(err) // strings cannot fail
	}
	return string(b)
}

// CompileIdentity compiles a regular expression for the whole of an issuer or a subject.
// It is compiled alone first: "\Qa" is complete alone and not in a group.
func CompileIdentity(expression string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expression); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + expression + `)\z`)
}

// rule is an IdentityRule, compiled.
type rule struct {
	*IdentityRule
	issuer, subject *regexp.Regexp
	broken          bool // it matches nothing
}

func compileRule(r *IdentityRule) (c rule) {
	c.IdentityRule = r
	compile := func(expression string) (re *regexp.Regexp) {
		if expression == "" {
			return nil
		}
		re, err := CompileIdentity(expression)
		c.broken = c.broken || err != nil
		return re
	}
	c.issuer, c.subject = compile(r.IssuerRegExp), compile(r.SubjectRegExp)
	return c
}

func (r *rule) matches(i *Identity) bool {
	if r.broken || i.Subject == "" {
		return false
	}
	if r.issuer != nil && !r.issuer.MatchString(i.Issuer) || r.issuer == nil && r.Issuer != i.Issuer {
		return false
	}
	if r.subject != nil && !r.subject.MatchString(i.Subject) || r.subject == nil && r.Subject != i.Subject {
		return false
	}
	for _, must := range [][2]string{{r.SourceRepositoryURI, i.SourceRepositoryURI}, {r.SourceRepositoryRef, i.SourceRepositoryRef},
		{r.BuildSignerURI, i.BuildSignerURI}, {r.RunnerEnvironment, i.RunnerEnvironment}} {
		if must[0] != "" && must[0] != must[1] {
			return false
		}
	}
	return true
}

// Matches reports whether an entry matches an identity.
func (r *IdentityRule) Matches(i *Identity) bool {
	c := compileRule(r)
	return c.matches(i)
}

// matchMemo remembers which rules match an identity, so that each is matched once and
// not once for each look at an answer. It is bounded; what is not remembered is matched
// again.
type matchMemo struct {
	known sync.Map // fingerprint of an identity → []int32
	size  atomic.Int64
}

const maxMemo = 1 << 16

// matching returns the rules that match an identity, by index.
func (f *InForce) matching(i *Identity) []int32 {
	id := i.Fingerprint()
	if found, ok := f.memo.known.Load(id); ok {
		return found.([]int32)
	}
	found := []int32{}
	for n := range f.rules {
		if f.rules[n].matches(i) {
			found = append(found, int32(n))
		}
	}
	if f.memo.size.Load() < maxMemo {
		if _, there := f.memo.known.LoadOrStore(id, found); !there {
			f.memo.size.Add(1)
		}
	}
	return found
}
