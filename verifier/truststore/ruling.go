package truststore

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"trust-worker/trust"
)

// Which notation policy rules. One rule: absence, a new name or damage never widen
// trust. Everything that decides it is a parameter of rule, and everything that
// follows from it is its result.

// The names that notation reads, in its order. A policy under the first name
// rules alone: if it cannot be used, nothing falls through to the second.
const (
	firstPolicyFile  = "trustpolicy.oci.json"
	secondPolicyFile = "trustpolicy.json"
)

// clockGrain is how far the clock of a file system's change times may be behind:
// kernels take it once a tick.
const clockGrain = 10 * time.Millisecond

// defaultRemedy comes before the file's name.
const defaultRemedy = "to return to the default: trust-worker policy default --root ROOT > ROOT/_notation/"

// policyFile is what stands under one of the two names.
type policyFile struct {
	name    string
	present bool
	doc     *policyDoc // nil: it cannot be used
	sum     trust.Digest
	problem string    // why it cannot be used, or why doc is only its last good content
	settled bool      // it cannot be used, and is not in the middle of a write
	changed time.Time // the file's change time
	// written is when its content was last written, if a person can have done so:
	// zero in a volume, whose files are made anew with each of its versions.
	written time.Time
}

// policySeen is what one look at the trust directories found.
type policySeen struct {
	first, second policyFile
	alike         []string     // names that look like a policy's and are none
	unlistable    bool         // the directory cannot be listed: what is there is not known
	computed      trust.Digest // hash of the default document over the stores on disk now
	now           time.Time
}

// ruling is what rules, and what follows from it.
type ruling struct {
	source PolicySource
	file   string     // the name of the file that decided; empty when there is none
	doc    *policyDoc // what rules as it is written; nil for the default and for none
	// problem is why nothing can be used, or why the last good content stands in.
	problem string
	// note is what a person should know although nothing is wrong.
	note string
	// mirror is the name under which the default is to be written, if it may be
	// and what is there is another; empty: nothing is written.
	mirror string
	// conflict: the other name holds a policy that says something else.
	conflict bool
	memory   memoryDoc
}

// rule decides which policy rules. zotDefault is the operator's setting that the
// document which zot writes stands for the default.
func rule(seen policySeen, memory memoryDoc, zotDefault bool) ruling {
	r := ruling{memory: memory}
	if m := &r.memory; m.FirstRuled.After(seen.now) {
		m.FirstRuled = seen.now.Add(-clockGrain) // the clock was ahead
	}
	switch first, second := &seen.first, &seen.second; {
	case first.present:
		r.judge(first, seen.computed, zotDefault)
		if first.doc != nil || first.settled {
			if now := seen.now.Add(-clockGrain); now.After(r.memory.FirstRuled) {
				r.memory.FirstRuled = now
			}
			r.memory.Shadowed, r.memory.ShadowedWritten = second.sum, second.written.UTC()
		}
		r.conflict = second.present && (second.doc == nil || first.doc == nil || !reflect.DeepEqual(first.doc.doc, second.doc.doc))
	case seen.unlistable:
		r.invalid("", "the directory cannot be listed")
	case second.present && r.shadowed(second, seen.computed):
		r.invalid(second.name, fmt.Sprintf("%s has gone, which ruled until %s, and %s is what stood beside it; bring the one back, or write the other anew (%s%s)",
			firstPolicyFile, r.memory.FirstRuled.UTC().Format(time.RFC3339), second.name, defaultRemedy, second.name))
	case second.present:
		r.judge(second, seen.computed, zotDefault)
	case memory.OperatorPolicy || memory.ZotPolicy:
		r.invalid("", fmt.Sprintf("there is no %s, and a policy other than the default was in force before; restore it, or %s%s",
			secondPolicyFile, defaultRemedy, secondPolicyFile))
	case len(seen.alike) > 0:
		r.invalid("", fmt.Sprintf("there is no %s, but %s, which is not read; move it to %s, beside truststore, or remove it",
			secondPolicyFile, strings.Join(seen.alike, " and "), secondPolicyFile))
	default:
		r.source = PolicyDefault
		if !zotDefault {
			r.mirror = secondPolicyFile
		}
	}
	return r
}

// shadowed reports whether a policy under the second name is the one that stood beside
// a ruling first, or was there then. The same bytes count as written anew only where
// they are the default, and a person has written them: whatever clocks say, and
// whoever the file's owner is now.
func (r *ruling) shadowed(second *policyFile, computed trust.Digest) bool {
	m := &r.memory
	switch {
	case m.FirstRuled.IsZero():
		return false
	case second.doc != nil && second.sum == m.Shadowed:
		return !m.countsAsDefault(second.sum, computed) || second.written.IsZero() || second.written.Equal(m.ShadowedWritten)
	}
	return !second.changed.After(m.FirstRuled)
}

// countsAsDefault reports whether a file with this hash is the default, byte for byte:
// what the daemon wrote last, or what it would write now.
func (m *memoryDoc) countsAsDefault(sum, computed trust.Digest) bool {
	return sum == computed || slices.Contains(m.Defaults, sum)
}

// judge decides by one file, which is there and has its turn.
func (r *ruling) judge(f *policyFile, computed trust.Digest, zotDefault bool) {
	m := &r.memory
	r.file = f.name
	switch {
	case f.doc == nil:
		r.invalid(f.name, fmt.Sprintf("%s %s; mend it, or %s%s", f.name, f.problem, defaultRemedy, f.name))
		m.OperatorPolicy = m.OperatorPolicy || f.settled
	case m.OperatorPolicy && f.sum == m.OperatorFile:
		r.source, r.doc = PolicyOperator, f.doc // also if the default has come to be the same
	case m.countsAsDefault(f.sum, computed) && !m.LostAt.IsZero() && !f.written.After(m.LostAt):
		r.invalid(f.name, fmt.Sprintf("the trust memory was lost, and %s was there before that was found: whether it is what you want is not known; write it anew (%s%s)",
			f.name, defaultRemedy, f.name))
	case m.countsAsDefault(f.sum, computed):
		r.source = PolicyDefault
		m.OperatorPolicy, m.ZotPolicy, m.OperatorFile, m.LostAt = false, false, trust.Digest{}, time.Time{}
		if len(m.Defaults) == 0 || m.Defaults[0] == f.sum || !slices.Contains(m.Defaults, f.sum) {
			m.Defaults = []trust.Digest{f.sum}
		}
		if f.sum != computed && f.problem == "" {
			r.mirror = f.name
		}
	case isZotDefault(f.sum) && m.OperatorPolicy:
		r.invalid(f.name, fmt.Sprintf("%s is the document that zot writes at its start, over the policy that was in force before; restore that, or %s%s",
			f.name, defaultRemedy, f.name))
	case isZotDefault(f.sum) && zotDefault:
		r.source, m.ZotPolicy = PolicyDefault, false
		r.note = "the document that zot writes, taken for the default"
	case isZotDefault(f.sum):
		r.source, r.doc, m.ZotPolicy = PolicyOperator, f.doc, true
		r.note = "the document that zot writes, taken as it is written; with --zot-policy, or --zot-config, it stands for the default, which names every store"
	default:
		r.source, r.doc, m.OperatorPolicy, m.OperatorFile = PolicyOperator, f.doc, true, f.sum
	}
	if r.source != PolicyInvalid {
		r.problem = f.problem
	}
}

func (r *ruling) invalid(file, problem string) {
	r.source, r.file, r.problem, r.doc, r.mirror = PolicyInvalid, file, problem, nil, ""
}

// looksLikePolicy reports names that somebody may have meant for a policy's.
func looksLikePolicy(name string) bool {
	if neverLoaded(name) || name == firstPolicyFile || name == secondPolicyFile || name == "trustpolicy.blob.json" {
		return false
	}
	plain := strings.NewReplacer("-", "", "_", "", " ", "", ".", "").Replace(strings.ToLower(name))
	return strings.HasPrefix(plain, "trustpolicy") || strings.HasPrefix(plain, "trustpolicies")
}
