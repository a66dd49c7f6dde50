package trust

import "fmt"

// Quorum counts who signed an image, where the configuration requires several: it is
// given the decision about each signature of the image, and then says which of them
// stand. Signatures that share a public key, a notation leaf's subject or an entry of
// identities.yaml that matches both are by one signer, and so on along the chain: if A is
// like B and B like C, the three are one.
type Quorum struct {
	f          *InForce
	repository string
	narrowed   narrowed
	of         map[string]int // what is shared → a signature
	parent     []int          // of signatures, up to one that stands for its signer
	signers    int
}

// Quorum returns nil where one signer is enough.
func (f *InForce) Quorum(repository string) *Quorum {
	n := f.narrow(repository)
	if n.require < 2 {
		return nil
	}
	return &Quorum{f: f, repository: repository, narrowed: n, of: map[string]int{}}
}

// Add counts a decision, if it is trusted.
func (q *Quorum) Add(d *Decision) {
	if d.Status != Trusted {
		return
	}
	me := len(q.parent)
	q.parent = append(q.parent, me)
	q.signers++
	share := func(what string) {
		other, known := q.of[what]
		if !known {
			q.of[what] = me
			return
		}
		a, b := q.find(me), q.find(other)
		if a != b {
			q.parent[a] = b
			q.signers--
		}
	}
	share("key " + string(d.key[:]))
	switch {
	case d.identity != nil:
		for _, k := range q.f.matching(d.identity) {
			if r := &q.f.rules[k]; q.narrowed.counts(r.Scope, q.repository) {
				share("entry " + r.Key())
			}
		}
	case d.Signer.Tool == Notation:
		share("subject " + d.Author)
	}
}

func (q *Quorum) find(i int) int {
	for q.parent[i] != i {
		q.parent[i] = q.parent[q.parent[i]]
		i = q.parent[i]
	}
	return i
}

// Short reports whether there are too few signers.
func (q *Quorum) Short() bool { return q != nil && q.signers < q.narrowed.require }

// Judge takes trust from a decision about a signature of an image that too few have
// signed.
func (q *Quorum) Judge(d *Decision) {
	if q.Short() && d.Status == Trusted {
		d.Status, d.Reason, d.Notes = TooFewSigners.Status(), TooFewSigners, nil
		d.Detail = fmt.Sprintf("the image has good signatures by %d of the %d signers that the configuration requires (trustWorker.scopes)", q.signers, q.narrowed.require)
	}
}
