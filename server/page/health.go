package page

import (
	"fmt"
	"strings"
	"time"

	"trust-worker/cluster"
	"trust-worker/internal/phrase"
	"trust-worker/scheduler"
	"trust-worker/watcher"
)

// Answers says what the answers of a page rest on.
type Answers struct {
	AsOf  time.Time
	Lease time.Duration // 0: for ever
	Stale bool
	// Problem is why there are none; the other fields are then empty.
	Problem string
}

// health is the daemon's condition on one line, and what is not as it should be.
type health struct {
	Class    string // of the colour: a state's name
	Title    string
	Sentence Text
	Facts    []fact
	Warnings []Text
}

// fact is a label with a value, or with a time.
type fact struct {
	Label string
	Value Text
	Time  Moment
}

func newHealth(now time.Time, a Answers, st scheduler.Status, r *Replica) health {
	h := judge(now, a, st, r)
	if a.Problem == "" {
		h.Facts = append(h.Facts, fact{Label: "Confirmed", Time: moment(a.AsOf, now)})
	}
	if r != nil {
		h.Facts = append(h.Facts, fact{Label: "Replica of", Value: Text(r.Source)},
			fact{Label: "Generation", Value: Text(fmt.Sprintf("trust %d, data %d", r.Generation, r.Data))})
		return h
	}
	queue := "empty"
	if st.Queue > 0 {
		queue = phrase.Number(st.Queue)
	}
	h.Facts = append(h.Facts, fact{Label: "Queue", Value: Text(queue)})
	if !st.LastPass.IsZero() {
		h.Facts = append(h.Facts, fact{Label: "Last pass", Time: moment(st.LastPass, now)},
			fact{Label: "Storage", Value: Text(fmt.Sprintf("%s in %s", phrase.Count(st.Repositories, "repository", "repositories"), roughly(st.PassTook)))})
	}
	h.Facts = append(h.Facts, fact{Label: "Verified since start", Value: Text(phrase.Count(int(st.Work.Verified), "signature", "signatures"))})
	h.Warnings = warnings(st)
	return h
}

// Replica says whose replica a daemon keeps, and how far it is behind.
type Replica struct {
	Source           string
	Generation, Data uint64        // of the trust and of the data
	Behind           time.Duration // there have been newer data for so long
}

// slow is how long a replica may be behind before the page says so.
const slow = 2 * time.Second

// judge says the worst that is the case.
func judge(now time.Time, a Answers, st scheduler.Status, r *Replica) health {
	switch {
	case a.Problem != "":
		return health{Class: "unsigned", Title: "No answers", Sentence: Text(a.Problem)}
	case a.Stale:
		return health{Class: "untrusted", Title: "Stale", Sentence: Text(fmt.Sprintf(
			"The answers were last confirmed %s, which is longer than the lease of %s: every one reads unknown.", phrase.Distance(a.AsOf, now), roughly(a.Lease)))}
	case st.Problem != "":
		return health{Class: "untrusted", Title: "Not up to date", Sentence: Text(st.Problem)}
	case r != nil && r.Behind > slow:
		return health{Class: "pending", Title: "Behind", Sentence: Text(fmt.Sprintf("The source has had newer data for %s. Who may sign is known here already.", roughly(r.Behind)))}
	case r != nil:
		return health{Class: "trusted", Title: "Up to date", Sentence: "What the source publishes is in the answers."}
	case !st.FirstPass:
		return health{Class: "pending", Title: "Starting", Sentence: "The first pass over storage is running; answers are those of before, or come as it goes on."}
	case st.Queue > 0:
		return health{Class: "pending", Title: "Working", Sentence: Text(phrase.Count(st.Queue, "repository or signer has", "repositories and signers have") + " work owed.")}
	}
	return health{Class: "trusted", Title: "Up to date", Sentence: "Every change that has been noticed is in the answers."}
}

// warnings name each degraded mode.
func warnings(st scheduler.Status) (out []Text) {
	for _, w := range []struct {
		what string
		st   *watcher.Status
	}{{"The trust directories are", st.Trust}, {"Storage is", st.Storage}} {
		if w.st != nil && w.st.Mode == watcher.ModePolling {
			out = append(out, Text(fmt.Sprintf("%s polled every %s instead of followed by events: %s", w.what, roughly(w.st.Interval), w.st.Reason)))
		}
	}
	for _, l := range []struct {
		what  string
		names []string
	}{{"could not be listed; answers below read unknown", st.Unlisted}, {"in storage were not entered", st.RefusedDirs}} {
		if len(l.names) > 0 {
			out = append(out, Text(fmt.Sprintf("%s %s: %s", phrase.Count(len(l.names), "directory", "directories"), l.what, some(l.names))))
		}
	}
	if st.Work.Panics > 0 {
		out = append(out, Text(phrase.Count(int(st.Work.Panics), "look at an image has", "looks at images have")+" failed in a way that should not happen; the log says more."))
	}
	return out
}

// others adds how this worker does among the other workers of a cluster.
func (h *health) others(c *cluster.Status) {
	if c == nil {
		return
	}
	with := 0
	for _, m := range c.Members {
		switch {
		case m.Alike:
			with++
		case m.Heard:
			h.Warnings = append(h.Warnings, Text(fmt.Sprintf("The worker %s is not counted on: %s.", m.Node, m.Why)))
		}
	}
	h.Facts = append(h.Facts, fact{Label: "Cluster", Value: Text(fmt.Sprintf("%s, with %s", c.Node, phrase.Count(with, "other worker", "other workers")))},
		fact{Label: "Taken from others", Value: Text(phrase.Count(int(c.Taken), "fact", "facts"))})
	switch {
	case !c.Connected:
		h.Warnings = append(h.Warnings, Text("This worker verifies everything itself: NATS "+c.Problem))
	case c.StreamProblem != "":
		h.Warnings = append(h.Warnings, Text("Facts are not shared with other workers: "+c.StreamProblem))
	}
	for _, m := range c.Mounts {
		h.Warnings = append(h.Warnings, Text(m))
	}
}

// some of the names, so that a page stays readable.
func some(names []string) string {
	const enough = 5
	list := strings.Join(names[:min(len(names), enough)], ", ")
	if len(names) > enough {
		list += " …"
	}
	return list
}

// roughly rounds a duration to what a person takes in.
func roughly(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "under 1ms"
	case d >= time.Hour:
		d = d.Round(time.Minute)
	case d >= time.Second:
		d = d.Round(time.Second)
	default:
		d = d.Round(time.Millisecond)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
