package changes

import (
	"maps"
	"math"
	"slices"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

const (
	// maxDates is how many distinct dates are kept; those after them are found
	// by looking at every image again.
	maxDates = 4096
	// maxAtDate is how many images are kept for one date; when more have it,
	// every image is looked at then.
	maxAtDate = 16
)

// dates knows when the clock next changes an answer, within a bound: the
// soonest dates, and until when no others are to be expected. A new one has to
// be filled by looking at every image.
type dates struct {
	at map[int64][]imageName // Unix seconds
	// horizon: dates from then on are not kept.
	horizon int64
	// filled: every image has been looked at.
	filled bool
	most   int // distinct dates
}

type imageName struct {
	repository string
	digest     trust.Digest
}

func newDates(most int) *dates {
	return &dates{at: map[int64][]imageName{}, horizon: math.MaxInt64, most: most}
}

// image notes the next date of an image.
func (d *dates) image(diff *cache.Difference) {
	if diff.Next != 0 {
		d.note(diff.Next, imageName{diff.Repository, diff.Digest})
	}
}

func (d *dates) note(at int64, name imageName) {
	list := d.at[at]
	if at >= d.horizon || len(list) > maxAtDate || slices.Contains(list, name) {
		return
	}
	d.at[at] = append(list, name)
	if len(d.at) <= d.most {
		return
	}
	sorted := slices.Sorted(maps.Keys(d.at)) // keep the sooner half
	d.horizon = sorted[d.most/2]
	for _, t := range sorted[d.most/2:] {
		delete(d.at, t)
	}
}

// due takes the images whose date has come, soonest first. all says that every image has to be
// looked at instead, and new dates made.
func (d *dates) due(now time.Time) (list []imageName, all bool) {
	t := now.Unix()
	if !d.filled || t >= d.horizon {
		return nil, true
	}
	for _, at := range slices.Sorted(maps.Keys(d.at)) {
		names := d.at[at]
		if at > t {
			break
		}
		delete(d.at, at)
		all = all || len(names) > maxAtDate
		for _, name := range names {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list, all
}
