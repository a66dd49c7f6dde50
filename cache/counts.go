package cache

import (
	"maps"
	"slices"
	"time"

	"trust-worker/trust"
)

// Counts are numbers of images and of signatures by state. [Snapshot.Count] counts
// everything; a program that follows the publications keeps its counts up to date with
// [Difference.Count].
type Counts struct {
	// Images counts each image of a repository once, whatever its tags, but not an
	// untagged child of an index. Keys: trusted, expired,
	// untrusted, unknown, pending, unsigned; absent is none.
	Images map[string]int64
	// Signatures counts the entries of SignatureInfo over all images,
	// children included, by status.
	Signatures map[trust.Status]int64
	// Reasons counts those of them that are not trusted, by reason.
	Reasons map[trust.Reason]int64
	// Signers counts the signatures that rest on each signer: have a ground that
	// names it, whether or not that ground holds now.
	Signers map[trust.SignerID]int64 `json:"-"`
	// Attestations counts the attestations of all images by status; [NobodySigned] is one.
	Attestations map[trust.Status]int64
	// Ends counts the trusted signatures that dates will end, by the day: Unix
	// seconds / 86,400.
	Ends map[int64]int64 `json:"-"`
}

const secondsPerDay = 86_400

// EndingBy returns how many trusted signatures dates will have ended when the day of t
// (UTC) is over.
func (c *Counts) EndingBy(t time.Time) (n int64) {
	for day, many := range c.Ends {
		if day <= t.Unix()/secondsPerDay {
			n += many
		}
	}
	return n
}

// Ending is a day on which dates end trusted signatures.
type Ending struct {
	Day        time.Time // its beginning, UTC
	Signatures int64
}

// NextEndings returns the first days, that of t included, on which dates end trusted
// signatures, at most so many.
func (c *Counts) NextEndings(t time.Time, most int) (list []Ending) {
	for _, day := range slices.Sorted(maps.Keys(c.Ends)) {
		if n := c.Ends[day]; n > 0 && day >= t.Unix()/secondsPerDay && len(list) < most {
			list = append(list, Ending{time.Unix(day*secondsPerDay, 0).UTC(), n})
		}
	}
	return list
}

// NewCounts returns counts of nothing.
func NewCounts() *Counts {
	return &Counts{Images: map[string]int64{}, Signatures: map[trust.Status]int64{}, Reasons: map[trust.Reason]int64{}, Signers: map[trust.SignerID]int64{}, Attestations: map[trust.Status]int64{}, Ends: map[int64]int64{}}
}

// Plus returns c and n times o.
func (c *Counts) Plus(n int64, o *Counts) *Counts {
	sum := NewCounts()
	add(sum.Images, 1, c.Images)
	add(sum.Images, n, o.Images)
	add(sum.Signatures, 1, c.Signatures)
	add(sum.Signatures, n, o.Signatures)
	add(sum.Reasons, 1, c.Reasons)
	add(sum.Reasons, n, o.Reasons)
	add(sum.Signers, 1, c.Signers)
	add(sum.Signers, n, o.Signers)
	add(sum.Attestations, 1, c.Attestations)
	add(sum.Attestations, n, o.Attestations)
	add(sum.Ends, 1, c.Ends)
	add(sum.Ends, n, o.Ends)
	return sum
}

func add[K comparable](to map[K]int64, n int64, from map[K]int64) {
	for k, v := range from {
		if to[k] += n * v; to[k] == 0 {
			delete(to, k)
		}
	}
}

// Unbelieved returns the counts as they read when nothing is believed, of a snapshot
// that is stale: but for unsigned images everything is unknown.
func (c *Counts) Unbelieved() *Counts {
	u := NewCounts()
	u.Signers = c.Signers
	for state, n := range c.Images {
		if state != Unsigned {
			state = string(trust.Unknown)
		}
		u.Images[state] += n
	}
	for _, n := range c.Signatures {
		u.Signatures[trust.Unknown] += n
		u.Reasons[trust.Stale] += n
	}
	for status, n := range c.Attestations {
		if status != NobodySigned {
			status = trust.Unknown
		}
		u.Attestations[status] += n
	}
	return u
}

// Count counts everything. It reads every image, at some microseconds each.
func (s *Snapshot) Count() (*Counts, error) {
	c := NewCounts()
	err := s.Compare(nil, s.now, s.now, true, func(d *Difference) error {
		d.Count(nil, c)
		return nil
	})
	if s.stale {
		c = c.Unbelieved()
	}
	return c, err
}

// counted is what one image adds to counts.
type counted struct {
	listed  bool
	other   bool // no image: not counted
	state   string
	layers  omissions
	signers []trust.SignerID // once for each signature that rests on one
	ends    []int64          // the day of each that is trusted and that dates end

	attestations map[trust.Status]int64
}

func (i *counted) addTo(c *Counts) {
	if c == nil || i.state == "" || i.other {
		return
	}
	if i.listed {
		c.Images[i.state]++
	}
	for _, o := range i.layers {
		if o.n == 0 { // an image that cannot be read, and nobody signed
			continue
		}
		c.Signatures[o.status] += int64(o.n)
		if o.reason != "" {
			c.Reasons[o.reason] += int64(o.n)
		}
	}
	for _, id := range i.signers {
		c.Signers[id]++
	}
	for _, day := range i.ends {
		c.Ends[day]++
	}
	add(c.Attestations, 1, i.attestations)
}

// Count adds what the image was to one, and what it is to the other; nil is left out.
func (d *Difference) Count(was, is *Counts) {
	d.was.addTo(was)
	d.is.addTo(is)
}
