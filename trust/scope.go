package trust

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// MaxScopeDepth is how many elements a scope may have, maxScope how many bytes.
const (
	MaxScopeDepth = 16
	maxScope      = 255
)

// scopeElement is one element of a repository's path (OCI distribution-spec, "Pulling
// manifests").
var scopeElement = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

// Governs reports whether what lies in the scope may sign in a repository: the scope is
// a prefix of its path on whole elements. The empty scope, what lies at the top, governs
// every repository.
func Governs(scope, repository string) bool {
	return scope == "" || scope == repository ||
		len(repository) > len(scope) && repository[len(scope)] == '/' && repository[:len(scope)] == scope
}

// Narrowing is what the configuration takes away below a prefix. Settings of all
// prefixes of a repository accumulate.
type Narrowing struct {
	// Prefix is a scope; empty: the whole storage.
	Prefix string
	// Alone: keys and identities of scopes above the prefix do not count.
	Alone bool
	// Require is how many distinct signers an image needs; 0 and 1 ask for one.
	Require int
}

// narrowed is what governs one repository after narrowing.
type narrowed struct {
	alone   string // the deepest prefix that stands alone; "" for none
	require int
}

func (f *InForce) narrow(repository string) (n narrowed) {
	if f == nil {
		return n
	}
	for _, s := range f.terms.Scopes {
		if !Governs(s.Prefix, repository) {
			continue
		}
		if s.Alone && len(s.Prefix) > len(n.alone) {
			n.alone = s.Prefix
		}
		n.require = max(n.require, s.Require)
	}
	return n
}

// Required is how many distinct signers an image of the repository needs, at least 1.
func (f *InForce) Required(repository string) int { return max(1, f.narrow(repository).require) }

// Alone is the deepest prefix of the repository that stands alone, "" for none.
func (f *InForce) Alone(repository string) string { return f.narrow(repository).alone }

// counts reports whether what lies in a scope may sign in a repository.
func (n narrowed) counts(scope, repository string) bool {
	return Governs(scope, repository) && len(scope) >= len(n.alone)
}

// governing returns the first by file name of the materials with that ID which may sign
// in the repository. A notation signer has no scope: its statement has.
func (f *InForce) governing(repository string, id SignerID) *Material {
	all := f.signers[id]
	if len(all) == 1 && all[0].Scope == "" && len(f.terms.Scopes) == 0 {
		return all[0]
	}
	n := f.narrow(repository)
	for _, m := range all {
		if m.Signer.Tool == Notation || n.counts(m.Scope, repository) {
			return m
		}
	}
	return nil
}

// Counts reports whether keys and identities of a scope count in a repository; if not,
// why says so.
func (f *InForce) Counts(scope, repository string) (counts bool, why string) {
	n := f.narrow(repository)
	switch {
	case !Governs(scope, repository):
		return false, fmt.Sprintf("it may sign below %s alone", clip(scope, 120))
	case !n.counts(scope, repository):
		return false, fmt.Sprintf("the configuration has %s stand alone (trustWorker.scopes)", clip(n.alone, 120))
	}
	return true, ""
}

// elsewhere says of a verdict which key verifies it that governs other repositories, ""
// if there is none.
func (f *InForce) elsewhere(repository string, v *Verdict) string {
	for i := range v.Grounds {
		for _, id := range v.Grounds[i].Signers {
			for _, m := range f.signers[id] {
				if counts, why := f.Counts(m.Scope, repository); m.Signer.Tool == Cosign && !counts {
					return "the key in " + clip(m.File, 120) + " verifies it, but " + why + "; to have it count here, copy it to _cosign/" + clip(topOf(repository), 80)
				}
			}
		}
	}
	return ""
}

func topOf(repository string) string {
	top, _, _ := strings.Cut(repository, "/")
	return top
}

// ValidScope reports whether a text can be the prefix of a repository's path.
func ValidScope(scope string) bool {
	if len(scope) > maxScope {
		return false
	}
	elements := strings.Split(scope, "/")
	for _, e := range elements {
		if !scopeElement.MatchString(e) {
			return false
		}
	}
	return len(elements) <= MaxScopeDepth
}

// SameScopes reports whether signers that are in force under both terms may sign in the
// same repositories by both.
func SameScopes(a, b Terms) bool {
	scopes := func(t Terms) map[Signer][]string {
		m := map[Signer][]string{}
		for _, one := range t.Materials {
			m[one.Signer] = append(m[one.Signer], one.Scope)
		}
		return m
	}
	x, y := scopes(a), scopes(b)
	for signer, in := range x {
		if other, both := y[signer]; both && !slices.Equal(in, other) {
			return false
		}
	}
	return true
}
