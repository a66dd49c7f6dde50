package page

import (
	"trust-worker/cache"
	"trust-worker/trust"
)

// state is how one state of an image or signature looks. The colours are zot's:
// green trusted, amber signed but not trusted, red unsigned; grey not decided.
type state struct {
	Name  string // of the state, the filter, the shape and the colour's class
	Word  string
	Image string // what it says of an image
}

var states = []state{
	{"trusted", "Trusted", "It is signed by a signer who is trusted now."},
	{"untrusted", "Untrusted", "It is signed, but no signature can be trusted."},
	{"expired", "Expired", "It was signed by a trusted signer; now is outside the dates that are enforced."},
	{"unsigned", "Unsigned", "There is no signature for it."},
	{"unknown", "Unknown", "It could not be decided. It is tried again by itself."},
	{"pending", "Pending", "Its signatures have not been looked at yet under the trust in force."},
}

// stateOf never finds a better state for a name that it does not know.
func stateOf(name string) state {
	for _, s := range states {
		if s.Name == name {
			return s
		}
	}
	return states[4]
}

func stateOfImage(img *cache.Image) state { return stateOf(img.State()) }

func stateOfStatus(s trust.Status) state { return stateOf(string(s)) }
