package changes

import (
	"log/slog"

	"golang.org/x/time/rate"

	"trust-worker/trust"
)

// Losses in the log: one line for each image that is no longer trusted, so that
// whoever reads nothing but the log finds out. A key that is removed can take a
// million images with it: lines have a rate, and what they leave out a total.

const (
	lossesEach  = 10  // lines a second, in the long run
	lossesBurst = 100 // lines at once
)

type losses struct {
	log   *slog.Logger
	limit *rate.Limiter
	more  int // images that no line has named
}

func newLosses(log *slog.Logger) *losses {
	return &losses{log: log, limit: rate.NewLimiter(lossesEach, lossesBurst)}
}

// tell writes a line for each image in list that has lost the state trusted.
func (l *losses) tell(list []Change) {
	told := map[string]bool{} // an image may lose several signers at once
	for i := range list {
		c := &list[i]
		image := c.Repository + "@" + c.Digest.String()
		switch {
		case !c.Kind.Lost() || c.Kind == SignerRemoved:
		case c.Count > 0:
			if c.Turned > 0 {
				attrs := []any{"images", c.Turned}
				if c.Repository != "" {
					attrs = append(attrs, "repository", c.Repository)
				}
				l.log.Warn("images are no longer trusted", append(attrs, l.why(c)...)...)
			}
		case c.Repository == "" || c.Was != string(trust.Trusted) || c.State == string(trust.Trusted) || told[image]:
		case !l.limit.AllowN(c.Time, 1):
			told[image] = true
			l.more++
		default:
			told[image] = true
			attrs := []any{"repository", c.Repository}
			if c.Tag != "" {
				attrs = append(attrs, "tag", c.Tag)
			}
			attrs = append(attrs, "digest", c.Digest.String())
			if c.State == "" {
				attrs = append(attrs, "state", "gone from storage")
			} else {
				attrs = append(attrs, "state", c.State)
			}
			l.log.Warn("image is no longer trusted", append(attrs, l.why(c)...)...)
		}
	}
	if l.more > 0 { // at most once for each look
		l.log.Warn("more images are no longer trusted; the journal of changes names them", "images", l.more)
		l.more = 0
	}
}

// why is the reason and the signer of a change, as far as it has them.
func (l *losses) why(c *Change) (attrs []any) {
	if c.Reason != "" {
		attrs = append(attrs, "reason", string(c.Reason))
	}
	if c.Tool != "" {
		attrs = append(attrs, "tool", string(c.Tool), "signer", c.Signer.String())
	}
	if c.Store != "" {
		attrs = append(attrs, "store", c.Store)
	}
	return attrs
}
