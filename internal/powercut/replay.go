package powercut

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
)

// Plan says which states a replay derives.
type Plan struct {
	// Points is at how many points between operations, drawn by Seed, the power
	// is cut; 0 means all. It is also cut right after each operation for which
	// Always, if there is one, says so.
	Points int
	Always func(Op) bool
	// Random is how many random subsets are tried at each, under each model of
	// names, beside the extremes.
	Random int
	Seed   uint64
}

// Replay takes a file system that holds what the directory start holds, all on
// disk, through the operations, and yields the states that a power cut may leave
// on the way: each once, as long as nothing else was said. points counts the
// cuts of which there are any.
func Replay(start string, ops []Op, p Plan) (states iter.Seq2[*State, error], points int) {
	chosen := choose(ops, p)
	for _, c := range chosen {
		if c {
			points++
		}
	}
	return func(yield func(*State, error) bool) {
		seen := map[[sha256.Size]byte]Names{}
		var disks []*disk
		for _, names := range []Names{Ordered, Unordered} {
			d, err := load(start, names)
			if err != nil {
				yield(nil, err)
				return
			}
			disks = append(disks, d)
		}
		var said bytes.Buffer
		for at := 0; ; at++ {
			if chosen[at] {
				for _, d := range disks {
					for _, k := range p.keepings(d.names, at) {
						s := d.cut(k)
						s.Said, s.After = said.String(), "the start"
						if at > 0 {
							s.After = fmt.Sprintf("operation %d, %s", at, ops[at-1])
						}
						sum := s.sum()
						if names, ok := seen[sum]; ok && names <= s.Names {
							continue
						}
						seen[sum] = s.Names
						if !yield(s, nil) {
							return
						}
					}
				}
			}
			if at == len(ops) {
				return
			}
			o := ops[at]
			if o.Kind == Said {
				said.Write(o.Data)
				clear(seen) // the same state may now be wrong
			}
			for _, d := range disks {
				if err := d.apply(o); err != nil {
					yield(nil, fmt.Errorf("operation %d, %s: %w", at+1, strings.TrimSpace(o.String()), err))
					return
				}
			}
		}
	}, points
}

// keepings are what is tried at a point.
func (p Plan) keepings(names Names, at int) []keeping {
	all := []keeping{nothing, everything, emptied, zeroed, nameless}
	if names == Unordered {
		all = []keeping{nothing, nameless} // the others keep every name in either
	}
	for n := range p.Random {
		all = append(all, some(names, p.Seed<<32|uint64(at)<<8|uint64(n)))
	}
	return all
}

// choose picks the points: that before the first operation is 0.
func choose(ops []Op, p Plan) []bool {
	chosen := make([]bool, len(ops)+1)
	for n, at := range rand.New(rand.NewPCG(p.Seed, 1)).Perm(len(chosen)) {
		always := p.Always != nil && at > 0 && p.Always(ops[at-1])
		chosen[at] = always || p.Points == 0 || n < p.Points
	}
	return chosen
}
