package page

import (
	"fmt"
	"slices"
	"time"

	"trust-worker/changes"
	"trust-worker/internal/phrase"
	"trust-worker/trust"
)

const (
	// changesShown is how many changes the first page has.
	changesShown = 7
	// lossIsNews is for how long a loss of trust stands before what came after it.
	lossIsNews = 24 * time.Hour
)

// change is one change of trust, in words.
type change struct {
	Lost     bool
	Name     Text   // what it is about
	URL      string // of the image; empty: there is none
	From, To *state // of the image; nil: there was, or is, none
	Still    bool   // both are the same: another signature holds
	Note     Text
	At       Moment
}

// lastChanges are the last ones, losses of trust first.
func lastChanges(list []changes.Change, now time.Time, files map[trust.Signer][]string) (out []change) {
	list = slices.Clone(list)
	slices.Reverse(list) // the newest first
	slices.SortStableFunc(list, func(a, b changes.Change) int { return rank(a, now) - rank(b, now) })
	for _, c := range list[:min(len(list), changesShown)] {
		out = append(out, changeOf(c, now, files))
	}
	return out
}

func rank(c changes.Change, now time.Time) int {
	if c.Kind.Lost() && now.Sub(c.Time) < lossIsNews {
		return 0
	}
	return 1
}

func changeOf(c changes.Change, now time.Time, files map[trust.Signer][]string) change {
	v := change{Lost: c.Kind.Lost(), At: moment(c.Time, now), Note: Text(words(c.Reason))}
	signer := short(c.Signer)
	if c.File != "" {
		signer = c.File
	} else if names := files[trust.Signer{Tool: c.Tool, Fingerprint: c.Signer}]; len(names) > 0 {
		signer = names[0]
	}
	kind := map[trust.Tool]string{trust.Cosign: "Key", trust.Notation: "Certificate"}[c.Tool]
	switch c.Kind {
	case changes.SignerAdded:
		v.Name = Text(kind + " " + signer + " is trusted")
	case changes.SignerRemoved:
		v.Name = Text(kind + " " + signer + " is no longer trusted")
		if c.Signatures > 0 {
			v.Note = Text(phrase.Count(int(c.Signatures), "signature", "signatures") + " were made by it")
		}
	case changes.PolicyChanged:
		v.Name = "The trust policy has changed"
	case changes.Withdrawn:
		v.Name = "All answers have been withdrawn"
	case changes.Restored:
		v.Name = "Answers can be read again"
	case changes.Reset:
		v.Name = "Earlier changes are not known"
	default:
		imageChange(&v, c, signer)
	}
	if c.Detail != "" {
		v.Note = Text(c.Detail)
	}
	return v
}

// imageChange is a change of one image, or of many at once.
func imageChange(v *change, c changes.Change, signer string) {
	if c.Count > 0 {
		verb := " trusted by " + signer
		if v.Lost {
			verb = " no longer trusted by " + signer
		}
		v.Name = Text(phrase.Count(c.Count, "image is", "images are") + verb)
		if c.Turned > 0 {
			v.Note = Text(fmt.Sprintf("%d of them as a whole", c.Turned))
		}
		return
	}
	v.Name, v.URL = Text(c.Repository+":"+c.Tag), imageURL(c.Repository, c.Tag, c.Digest.String())
	if c.Tag == "" {
		v.Name = Text(c.Repository + "@" + short(c.Digest))
	}
	for at, name := range map[**state]string{&v.From: c.Was, &v.To: c.State} {
		if name != "" {
			s := stateOf(name)
			*at = &s
		}
	}
	v.Still = c.Was == c.State
	if c.State == "" {
		v.URL = ""
	}
	if v.Note == "" && c.Signer != (trust.Digest{}) {
		v.Note = Text("by " + signer)
	}
}
