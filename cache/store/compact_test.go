package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// A compaction that is killed whenever it is tried, by somebody who thinks that the
// start takes too long, costs no cache: the start after it does without.
func TestCompactionThatIsKilledEachTime(t *testing.T) {
	dir, before := t.TempDir(), filepath.Join(t.TempDir(), "before")
	opts := Options{compactAbove: 4 << 10}
	s := openStore(t, dir, opts)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	many := Batch{Place: "many"}
	for i := range 500 {
		many.Rows = append(many.Rows, Row{Digest: trust.SumOf(fmt.Append(nil, i)), MediaType: string(make([]byte, 1500)), Present: true})
	}
	mustCommit(t, s, many)
	mustCommit(t, s, Batch{Place: "many", Remove: true}) // most of it is free
	publish(t, s)
	closeChecked(t, s)
	copyState(t, dir, before)
	for start := range 5 {
		killed := filepath.Join(t.TempDir(), "killed")
		log := slog.New(slog.NewTextHandler(compacted(func() { copyState(t, dir, killed) }), nil))
		s := openStore(t, dir, Options{compactAbove: opts.compactAbove, Log: log})
		if why := s.Rebuilt(); why != "" {
			t.Fatalf("start %d: the cache is gone: %s", start, why)
		}
		closeChecked(t, s)
		mark, err := os.ReadFile(filepath.Join(killed, format.PrivateDir, "opening"))
		if errors.Is(err, fs.ErrNotExist) {
			mark = nil // it was not compacted
		}
		restore(t, before, dir)
		if _, err := os.Stat(killed); err == nil {
			if err := os.WriteFile(filepath.Join(dir, format.PrivateDir, "opening"), mark, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// compacted is called when a log line says that the cache was.
type compacted func()

func (c compacted) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "private cache compacted") {
		c()
	}
	return len(b), nil
}
