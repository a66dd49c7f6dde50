package integration

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"trust-worker/trust"
)

// class says why we may trust what the tool refuses. There are no others.
type class string

const (
	stricter  class = "we refuse what the tool accepts"
	curveHash class = "a hash that goes with the curve"
	prehash   class = "Ed25519ph"
	masked    class = "a signature that another one masks"
)

// rule explains differences between the tools and us: one row of
// docs/differences.md by the same name.
type rule struct {
	name  string
	class class
	holds func(*difference) bool
}

// rules are all the ways in which we differ on the recorded roots. Each looks at
// the case itself, and no wider than its reason.
var rules = []rule{
	{"curve-matched-hash", curveHash, func(d *difference) bool {
		// The tool says so itself, once it is told the hash of the curve.
		suffix := map[string]string{"P-384": "/sha384", "P-521": "/sha512"}[d.algorithm]
		return d.weTrust && suffix != "" && slices.ContainsFunc(d.told, func(m string) bool { return strings.HasSuffix(m, suffix) })
	}},
	{"ed25519ph", prehash, func(d *difference) bool {
		return d.weTrust && d.algorithm == "Ed25519" && len(d.told) == 0 && strings.Contains(d.image.Notes, "by ") &&
			strings.Contains(d.image.Notes, "ed25519") && !strings.Contains(d.image.Notes, "ed25519-pure")
	}},
	{"referrer-hides-referrer", masked, func(d *difference) bool {
		// --experimental-oci11 looks at one of several referrers.
		return d.weTrust && d.cosign() && d.manifests(trust.SimpleSigning) > 1 && d.says("cosign2/oci11", "no signatures found")
	}},
	{"lost-envelope-hides-others", masked, func(d *difference) bool {
		return d.weTrust && d.root == "notation" && d.hasReason(trust.BlobMissing) &&
			strings.Contains(d.errors(), "unable to retrieve digital signature")
	}},
	{"attestation-is-no-signature", stricter, func(d *difference) bool {
		key := strings.TrimSuffix(d.key, ".pub")
		return !d.weTrust && d.cosign() && regexp.MustCompile(`\battestation by `+key+`\b`).MatchString(d.image.Notes) &&
			!slices.Contains(d.asItComes, "cosign3/legacy")
	}},
	{"hash-of-no-signer", stricter, func(d *difference) bool {
		suffix := map[string]string{"P-384": "/sha384", "P-521": "/sha512"}[d.algorithm]
		return !d.weTrust && len(d.asItComes) == 0 && len(d.told) > 0 && d.algorithm != "Ed25519" && d.hasReason(trust.NoTrustedKey) &&
			!slices.ContainsFunc(d.told, func(m string) bool { return suffix != "" && strings.HasSuffix(m, suffix) })
	}},
	{"image-is-re-hashed", stricter, func(d *difference) bool {
		b, err := os.ReadFile(filepath.Join(d.dir, d.image.Repository, "blobs", "sha256", d.image.Digest.Hex()))
		return !d.weTrust && err == nil && trust.Digest(sha256.Sum256(b)) != d.image.Digest && d.hasReason(trust.DigestMismatch)
	}},
	{"image-is-gone", stricter, func(d *difference) bool { return !d.weTrust && d.image.Absent && len(d.ours) == 0 }},
	{"audit-and-skip-never-trust", stricter, func(d *difference) bool {
		level := d.level()
		if d.weTrust || level != "audit" && level != "skip" {
			return false
		}
		for _, s := range d.ours {
			if s.Reason != trust.PolicyDoesNotVerify && s.Reason != trust.DigestMismatch && s.Reason.Status() != trust.Unknown {
				return false
			}
		}
		return true
	}},
	{"unknown-critical-attribute", stricter, func(d *difference) bool {
		return !d.weTrust && d.root == "notation" && d.hasReason(trust.PluginRequired) && strings.Contains(d.image.Notes, "critical attribute")
	}},
}

func (d *difference) cosign() bool { return d.root != "notation" }

// says reports whether the mode rejects this key with words like these.
func (d *difference) says(mode, words string) bool {
	for text, keys := range d.image.Results[mode].Rejected {
		if slices.Contains(keys, d.key) && strings.Contains(text, words) {
			return true
		}
	}
	return false
}

func (d *difference) hasReason(r trust.Reason) bool {
	for _, s := range d.ours {
		if s.Reason == r {
			return true
		}
	}
	return false
}

// manifests counts signature manifests of a format.
func (d *difference) manifests(f trust.Format) int {
	seen := map[trust.Digest]bool{}
	for _, s := range d.ours {
		if s.Format == f {
			seen[s.Digest] = true
		}
	}
	return len(seen)
}

// level is the level, as written, of the statement that governs the image.
func (d *difference) level() string {
	if d.policy == "" {
		return ""
	}
	var document struct {
		TrustPolicies []struct {
			RegistryScopes        []string
			SignatureVerification struct{ Level string }
		}
	}
	b, err := os.ReadFile(filepath.Join(testdata, "notation.policies", d.policy))
	if err != nil || json.Unmarshal(b, &document) != nil {
		return ""
	}
	level := ""
	for _, s := range document.TrustPolicies {
		if slices.Contains(s.RegistryScopes, "registry.example/"+d.image.Repository) {
			return s.SignatureVerification.Level
		}
		if slices.Contains(s.RegistryScopes, "*") {
			level = s.SignatureVerification.Level
		}
	}
	return level
}

func algorithmOf(key any) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return "RSA"
}

// ruleUse remembers which rule was needed.
type ruleUse struct {
	mu     sync.Mutex
	needed map[string]int // differences that this rule alone explains
}

func newRuleUse() *ruleUse { return &ruleUse{needed: map[string]int{}} }

// explain finds the rule for a difference, or fails the test.
func (u *ruleUse) explain(t *testing.T, d *difference) {
	t.Helper()
	var found []string
	for _, r := range rules {
		if !r.holds(d) {
			continue
		}
		if (r.class == stricter) == d.weTrust {
			t.Errorf("rule %s explains trust in the wrong direction", r.name)
		}
		found = append(found, r.name)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch len(found) {
	case 0:
		t.Errorf("%s differs without a rule: with %s we trust: %v, accepted as it comes by %v, told the hash by %v\n  made as: %s\n  ours: %+v\n  the tool: %s",
			d.image.name(), d.key+d.policy, d.weTrust, d.asItComes, d.told, d.image.Notes, d.ours, d.errors())
	case 1:
		u.needed[found[0]]++
	}
}

// check fails for a rule that nothing needs: it would hide what comes later.
func (u *ruleUse) check(t *testing.T) {
	t.Helper()
	for _, r := range rules {
		if u.needed[r.name] == 0 {
			t.Errorf("rule %s explains no difference that no other rule explains", r.name)
		}
	}
	t.Logf("differences by rule: %v", u.needed)
}
