package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/internal/phrase"
	"trust-worker/trust"
)

// statusAnswer is what `status -o json` prints.
type statusAnswer struct {
	Running    bool
	Published  bool
	CacheID    string `json:",omitempty"`
	Generation uint64 `json:",omitempty"`
	AsOf       *time.Time
	Lease      string
	Stale      bool
	Problem    string `json:",omitempty"`
	// Images and Signatures are counts by state, as of the generation Counted. They are
	// absent while the daemon counts, after its start.
	Counted    string                 `json:",omitempty"`
	Images     map[string]int64       `json:",omitempty"`
	Signatures map[trust.Status]int64 `json:",omitempty"`
	// Attestations are counts by status, as those.
	Attestations map[trust.Status]int64 `json:",omitempty"`
	// Endings are the next days on which dates end trusted signatures.
	Endings []cache.Ending `json:",omitempty"`
	// Unlisted are repositories, and directories above them, that could not be
	// listed or read: the first hundred.
	Unlisted []string `json:",omitempty"`
	// Partial: storage has not been read to its end since the cache was begun.
	Partial bool `json:",omitempty"`
	// Daemon is what the daemon last wrote about itself.
	Daemon *statusFile `json:",omitempty"`
}

func newStatusCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show the daemon's condition: alive, lease, generation, watch mode, refused files",
		Example: `  trust-worker status --root /var/lib/registry`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd, false); err != nil {
				return err
			}
			a, err := s.status()
			if err != nil {
				return err
			}
			if err := o.print(cmd.OutOrStdout(), a, func(t *table) { a.text(t) }); err != nil {
				return err
			}
			if !a.Running || a.Stale || !a.Published {
				return &codeError{code: exitError}
			}
			return nil
		},
	}
	o.register(c)
	return c
}

func (s *settings) status() (*statusAnswer, error) {
	r, err := s.reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	a := &statusAnswer{Running: cache.Alive(s.state)}
	if b, err := os.ReadFile(statusPath(s.state)); err == nil {
		a.Daemon = &statusFile{}
		if err := json.Unmarshal(b, a.Daemon); err != nil {
			a.Daemon, a.Problem = nil, "status.json cannot be read: "+err.Error()
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	snap, err := r.Snapshot()
	if err != nil {
		a.Problem = err.Error()
		return a, nil
	}
	defer snap.Close()
	asOf := snap.AsOf()
	a.Published, a.AsOf, a.Stale, a.Lease = true, &asOf, snap.Stale(), snap.Lease().String()
	a.Partial = snap.Partial()
	a.CacheID, a.Generation = snap.Generation().CacheID, snap.Generation().Number
	if err := a.count(snap); err != nil {
		a.Problem = err.Error()
		return a, nil
	}
	names, err := unlisted(snap, "")
	if err != nil {
		a.Problem = err.Error()
	}
	a.Unlisted = names[:min(len(names), 100)]
	return a, nil
}

// count takes the counts that the daemon keeps; without a daemon it counts.
func (a *statusAnswer) count(snap *cache.Snapshot) error {
	var counts *cache.Counts
	if a.Daemon != nil {
		defer func() { a.Daemon.Counts = nil }() // said once
	}
	switch {
	case !a.Running:
		var err error
		if counts, err = snap.Count(); err != nil {
			return err
		}
		a.Counted = snap.Generation().String()
	case a.Daemon == nil || a.Daemon.Counts == nil:
		return nil
	default:
		counts, a.Counted = a.Daemon.Counts.Counts, a.Daemon.Counts.Generation
		if a.Stale {
			counts = counts.Unbelieved()
		}
	}
	a.Images, a.Signatures, a.Attestations, a.Endings = counts.Images, counts.Signatures, counts.Attestations, counts.NextEndings(snap.Now(), shownEndings)
	return nil
}

// shownEndings is how many days status names.
const shownEndings = 5

// byState writes counts in words, trusted first.
func byState[S ~string](counts map[S]int64) string {
	var words []string
	for _, state := range []S{S(trust.Trusted), S(trust.Expired), S(trust.Untrusted), S(trust.Unknown), S(trust.Pending), S(cache.Unsigned)} {
		if n := counts[state]; n != 0 {
			words = append(words, fmt.Sprintf("%d %s", n, state))
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

func (a *statusAnswer) text(t *table) {
	d := a.Daemon
	switch {
	case a.Running && d != nil:
		t.row("daemon", fmt.Sprintf("running, pid %d, started %s", d.PID, t.when(d.Started)))
	case a.Running:
		t.row("daemon", "running")
	case d != nil:
		t.row("daemon", "not running; its work below is as it was last told")
	default:
		t.row("daemon", "not running")
	}
	if a.Published {
		word := "believed"
		if a.Stale {
			word = "stale: every answer reads unknown"
		}
		t.row("answers", fmt.Sprintf("%s; confirmed %s, lease %s", word, t.when(*a.AsOf), a.Lease))
		t.row("generation", fmt.Sprintf("%s-%d", a.CacheID, a.Generation))
		images, signatures := byState(a.Images), byState(a.Signatures)
		if a.Counted == "" {
			images, signatures = "counting", "counting"
		} else if generation := fmt.Sprintf("%s-%d", a.CacheID, a.Generation); a.Counted != generation {
			images += "; counted at generation " + strings.TrimPrefix(a.Counted, a.CacheID+"-")
		}
		if a.Partial {
			images += "; storage has not been read to its end yet"
		}
		t.row("images", images)
		t.row("signatures", signatures)
		if len(a.Attestations) > 0 {
			t.row("attestations", byState(a.Attestations))
		}
		for i, e := range a.Endings {
			t.row(map[bool]string{true: "expiring"}[i == 0], fmt.Sprintf("on %s (UTC): %s", e.Day.Format(time.DateOnly), plural(int(e.Signatures), "trusted signature", "trusted signatures")))
		}
		for _, name := range a.Unlisted {
			t.row("cannot list", name)
		}
	}
	if a.Problem != "" {
		t.row("problem", a.Problem)
	}
	if d == nil {
		return
	}
	if d.Problem != "" {
		t.row("problem", d.Problem)
	}
	if d.Rebuilt != "" {
		t.row("rebuilt", d.Rebuilt)
	}
	if d.Replica != nil {
		replicaText(t, d.Replica)
		return
	}
	for _, tool := range d.Off {
		t.row("off", string(tool)+": images with its signatures alone read unsigned")
	}
	t.row("first pass", map[bool]string{true: "over", false: "running"}[d.FirstPass])
	pass := "none yet"
	if !d.LastPass.IsZero() {
		looked := ""
		if d.Links > 0 {
			looked = ", " + phrase.Count(int(d.Links), "link", "links") + " looked at,"
		}
		found := fmt.Sprintf("%s, %s", d.Layout, phrase.Count(d.Repositories, "repository", "repositories"))
		if d.Repositories == 0 {
			found = "no repository yet"
		}
		pass = fmt.Sprintf("%s: %s%s in %s", t.when(d.LastPass), found, looked, d.PassTook.Round(time.Millisecond))
	}
	t.row("last pass", pass)
	t.row("queue", fmt.Sprint(d.Queue))
	t.row("work", fmt.Sprintf("%d signatures verified, %d errors, %d panics", d.Work.Verified, d.Work.Errors, d.Work.Panics))
	if d.Cluster != nil {
		clusterText(t, d.Cluster)
	}
	for _, h := range d.Webhooks {
		line := fmt.Sprintf("%s: %d delivered, %d waiting, %d dropped, %d refused", h.Target, h.Delivered, h.Behind, h.Dropped, h.Refused)
		if h.Problem != "" {
			line += "; " + h.Problem
		}
		t.row("webhook", line)
	}
	if r := d.Revocation; r != nil {
		t.row("revocation", fmt.Sprintf("chains asked about: %d good, %d revoked, %d unknown, %d waiting; %d requests", r.Good, r.Revoked, r.Unknown, r.Waiting, r.Requests))
	}
	if d.QuarantinedAll > 0 {
		t.row("quarantined", fmt.Sprintf("%d signatures whose verification crashed twice", d.QuarantinedAll))
	}
	for _, q := range d.Quarantined {
		t.row("", q)
	}
	if d.Trust != nil {
		t.row("watch", fmt.Sprintf("trust directories: %s %s", d.Trust.Mode, d.Trust.Reason))
	}
	if d.Storage != nil {
		t.row("", fmt.Sprintf("storage: %s %s", d.Storage.Mode, d.Storage.Reason))
	}
	t.row("trust", fmt.Sprintf("%d files loaded, %d refused; notation policy: %s", d.Loaded, len(d.Refused), d.Policy))
	for _, r := range d.Refused {
		t.row("refused", r.Path+": "+r.Reason)
	}
	for _, name := range d.Overflowing {
		t.row("overflow", name+": too many unmatched signatures for the index; new keys are tried on it as a whole, later than elsewhere")
	}
	for _, w := range d.Warnings {
		t.row("  warning", w.Path+" "+w.Reason)
	}
	for _, dir := range d.RefusedDirs {
		t.row("not entered", dir)
	}
}
