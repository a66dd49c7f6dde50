package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Role is what an authority of a trusted root does.
type Role uint8

// The roles, as the trusted root format has them (sigstore protobuf-specs,
// sigstore_trustroot.proto).
const (
	CertificateAuthority Role = 1
	CTLog                Role = 2
	TransparencyLog      Role = 3
	TimestampAuthority   Role = 4
)

func (r Role) String() string {
	switch r {
	case CertificateAuthority:
		return "certificate authority"
	case CTLog:
		return "certificate transparency log"
	case TransparencyLog:
		return "transparency log"
	case TimestampAuthority:
		return "time stamp authority"
	}
	return "authority of another version"
}

// AuthorityID names an authority in facts: by its role and by what is verified with.
func AuthorityID(r Role, fingerprint Digest) SignerID {
	return Signer{Tool: Cosign, StoreType: r.String(), Fingerprint: fingerprint}.ID()
}

// Authority is one authority of a trusted root, with the time for which the root
// vouches for it.
type Authority struct {
	Role Role
	ID   SignerID
	// From and Until are Unix seconds, both included (sigstore's TimeRange); 0:
	// unbounded.
	From, Until int64
	// Name is for people: its URI, or a certificate's subject.
	Name string
}

// Root is a trusted root: the authorities of one domain.
type Root struct {
	// File is the name of its file in _cosign, Line its line in a .jsonl, from 1.
	File        string
	Line        int
	Authorities []Authority
}

// RootStore is the store type of a trusted root as a signer.
const RootStore = "trusted-root"

// Signer is the root as a signer: it comes and goes like one. Roots of the same
// authorities and windows are the same, whatever their files.
func (r *Root) Signer() Signer {
	all := make([][]byte, 0, len(r.Authorities))
	for _, a := range r.Authorities {
		all = append(all, a.bytes())
	}
	slices.SortFunc(all, bytes.Compare)
	return Signer{Tool: Cosign, StoreType: RootStore, Fingerprint: SumOf(append([]byte("trust-worker root 1\n"), slices.Concat(all...)...))}
}

// Asked names those of a root's authorities whose word may count against a signature,
// with their windows: the time stamp authorities if it has time stamps, the logs if it has
// several entries. It is zero where neither is so.
func (r *Root) Asked(stamps, entries bool) AskedID {
	if !stamps && !entries {
		return AskedID{}
	}
	var all [][]byte
	for _, a := range r.Authorities {
		if stamps && a.Role == TimestampAuthority || entries && a.Role == TransparencyLog {
			all = append(all, a.bytes())
		}
	}
	slices.SortFunc(all, bytes.Compare)
	sum := sha256.Sum256(append(fmt.Appendf(nil, "trust-worker asked 1 %t %t\n", stamps, entries), slices.Concat(all...)...))
	return AskedID(sum[:len(AskedID{})])
}

// bytes are the authority and its window.
func (a *Authority) bytes() []byte {
	b := append([]byte{byte(a.Role)}, a.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(a.From))
	return binary.BigEndian.AppendUint64(b, uint64(a.Until))
}

// Demands reports whether the root demands what authorities of a role do: it lists some.
func (r *Root) Demands(role Role) bool {
	return slices.ContainsFunc(r.Authorities, func(a Authority) bool { return a.Role == role })
}

// AskedID names authorities that were asked, see [Root.Asked].
type AskedID [16]byte

// Proof is what was proven of a keyless signature, by which authority and when. It is
// part of a ground without signers of its own.
type Proof struct {
	Evidence []Evidence
	// Asked are the authorities whose word could have counted against the signature;
	// zero where it brings nothing that could. A stamp by another authority may
	// contradict the certificate, so that a root with others does not go by this proof.
	// Beside other grounds a proof without evidence says that these were asked, by a root
	// that refused the signature.
	Asked AskedID
}

// asked reports whether a root with these authorities has judged the verdict.
func (v *Verdict) asked(r *root) bool {
	return slices.ContainsFunc(v.Grounds, func(g Ground) bool { return g.Proof != nil && slices.Contains(r.asked, g.Proof.Asked) })
}

// Evidence is what one authority has done for a signature.
type Evidence struct {
	Authority SignerID
	// At is when, in Unix seconds: the time of the SCT, of the log's signed entry
	// timestamp, of the time stamp. 0: this proves no time, as with a log that gave an
	// inclusion proof alone. A certificate authority proves none either: its time is
	// when, beside the proven times, it has to be vouched for; 0: at no other.
	At int64
}

// root is a Root as the join needs it.
type root struct {
	*Root
	id      SignerID                  // as a signer
	asked   []AskedID                 // of signatures with time stamps, with several entries, with both
	by      map[SignerID][]*Authority // one that is listed twice has two windows
	demands [TimestampAuthority + 1]bool
}

func newRoot(r *Root) root {
	c := root{Root: r, id: r.Signer().ID(), asked: []AskedID{r.Asked(true, false), r.Asked(false, true), r.Asked(true, true)}, by: map[SignerID][]*Authority{}}
	for i := range r.Authorities {
		a := &r.Authorities[i]
		c.by[a.ID] = append(c.by[a.ID], a)
		if int(a.Role) < len(c.demands) {
			c.demands[a.Role] = true
		}
	}
	return c
}

// vouches reports whether a root vouches for an authority at both times: by one of its
// windows.
func vouches(listed []*Authority, first, last int64) bool {
	return slices.ContainsFunc(listed, func(a *Authority) bool {
		return (a.From == 0 || first >= a.From) && (a.Until == 0 || last <= a.Until)
	})
}

// accepts reports whether the root is given all that it demands, by authorities that it
// lists, each at a time for which it vouches. signedAt is the earliest proven time, in
// Unix seconds. Otherwise it says what is missing.
func (r *root) accepts(p *Proof) (signedAt int64, why Reason, detail string) {
	type issuer struct {
		by []*Authority
		at int64 // when it has to be vouched for, too; 0: at no other time
	}
	var cas []issuer
	var first, last int64
	outside := ""
	past := func(a []*Authority, at int64) {
		outside = fmt.Sprintf("%s does not vouch for the %s %.100q at %s", clip(r.File, 100), a[0].Role, a[0].Name, time.Unix(Date(at), 0).UTC().Format(time.RFC3339))
	}
	logged, sct := false, false
	var unsigned [][]*Authority // logs that have proven inclusion, and no time
	for _, e := range p.Evidence {
		a := r.by[e.Authority]
		if len(a) == 0 {
			continue
		}
		switch role := a[0].Role; {
		case role == CertificateAuthority:
			cas = append(cas, issuer{a, e.At})
			continue
		case e.At == 0:
			unsigned = append(unsigned, a)
			continue
		case !vouches(a, e.At, e.At):
			past(a, e.At)
			continue
		case role == CTLog:
			sct = true
			continue
		case role == TransparencyLog:
			logged = true
		}
		if first == 0 || e.At < first {
			first = e.At
		}
		last = max(last, e.At)
	}
	switch {
	case len(cas) == 0:
		return 0, NoTrustedRoot, ""
	case p.Asked != (AskedID{}) && !slices.Contains(r.asked, p.Asked):
		return 0, PolicyChanged, "" // to be asked again
	}
	for _, a := range unsigned {
		switch {
		case first == 0:
		case vouches(a, first, last):
			logged = logged || a[0].Role == TransparencyLog
		default:
			past(a, first)
		}
	}
	switch {
	case r.demands[CTLog] && !sct && outside == "":
		return 0, SCTMissing, ""
	case r.demands[TransparencyLog] && !logged && outside == "":
		return 0, NotLogged, ""
	case first == 0 && outside == "":
		return 0, NoSignedTime, ""
	case r.demands[CTLog] && !sct, r.demands[TransparencyLog] && !logged, first == 0:
		return 0, AuthorityRemoved, outside
	}
	for _, ca := range cas {
		switch {
		case !vouches(ca.by, first, last):
			past(ca.by, first)
		case ca.at != 0 && !vouches(ca.by, ca.at, ca.at):
			past(ca.by, ca.at)
		default:
			return first, "", ""
		}
	}
	return 0, AuthorityRemoved, outside
}

// proven joins a ground of a keyless signature with the roots and the identities in
// force. A decision without a reason is that an entry of identities.yaml vouches for it.
func (f *InForce) proven(repository string, v *Verdict, g *Ground) Decision {
	best := refuse(AuthorityRemoved)
	best.Detail = "no trusted root lists the authorities that vouched for it"
	for i := range f.roots {
		r := &f.roots[i]
		at, why, detail := r.accepts(g.Proof)
		if why != "" {
			if why != NoTrustedRoot && !(why == PolicyChanged && v.asked(r)) && (rank(why) > rank(best.Reason) || why == best.Reason && detail != "") {
				best = refuse(why)
				best.Detail = detail
			}
			continue
		}
		if v.Identity == nil {
			continue // it cannot be read
		}
		n := f.narrow(repository)
		for _, k := range f.matching(v.Identity) {
			if rule := &f.rules[k]; rule.Root == r.File && n.counts(rule.Scope, repository) {
				return Decision{Signer: v.Identity.Signer(), File: rule.File, Author: v.Identity.Subject, Issuer: v.Identity.Issuer,
					Subject: v.Identity.Subject, SignedAt: time.Unix(Date(at), 0).UTC(), Root: r.File, identity: v.Identity}
			}
		}
		if rank(IdentityNotTrusted) > rank(best.Reason) {
			best = refuse(IdentityNotTrusted)
			best.Detail = f.whoSigned(repository, v.Identity, r.File)
		}
	}
	return best
}

// whoSigned says who made a signature that no entry for the repository and the root
// matches.
func (f *InForce) whoSigned(repository string, i *Identity, file string) string {
	who := fmt.Sprintf("%s proves that %.200q signed it", clip(file, 100), i.Subject)
	if i.Issuer != "" {
		who += fmt.Sprintf(", known to the issuer %.100q", i.Issuer)
	}
	for _, k := range f.matching(i) {
		r := &f.rules[k]
		switch counts, why := f.Counts(r.Scope, repository); {
		case !counts:
			return who + "; " + clip(r.File, 100) + " names it, but " + why
		case r.Root != file:
			return who + "; " + clip(r.File, 100) + " names it with the root " + clip(r.Root, 100)
		}
	}
	return who
}

// rank orders the reasons why a keyless signature is not trusted by how much they tell.
func rank(r Reason) int {
	return slices.Index([]Reason{SignerRemoved, AuthorityRemoved, NoSignedTime, NotLogged, SCTMissing, IdentityNotTrusted, PolicyChanged}, r)
}

// AcceptedBy reports whether a verdict has a ground that the root with that ID accepts,
// so that the root need not verify the signature.
func (f *InForce) AcceptedBy(id SignerID, v *Verdict) bool {
	for i := range f.roots {
		for k := range v.Grounds {
			if p := v.Grounds[k].Proof; p != nil && f.roots[i].id == id {
				if _, why, _ := f.roots[i].accepts(p); why == "" {
					return true
				}
			}
		}
	}
	return false
}

// Lives reports whether some ground of v rests on what is in force alone, whatever the
// repository: such a verdict need not be made again when other signers come.
func (f *InForce) Lives(v *Verdict) bool {
	if f == nil {
		return false
	}
	for i := range v.Grounds {
		g := &v.Grounds[i]
		alive := len(g.Signers) > 0
		for _, s := range g.Signers {
			alive = alive && f.Has(s)
		}
		if alive || g.Proof != nil && slices.ContainsFunc(f.roots, func(r root) bool {
			_, why, _ := r.accepts(g.Proof)
			return why == ""
		}) {
			return true
		}
	}
	return false
}
