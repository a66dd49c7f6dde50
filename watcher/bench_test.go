package watcher

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkLook is what a burst of events costs the watcher: one listing of a
// large set of trust directories whose watches are all in place.
func BenchmarkLook(b *testing.B) {
	dir := b.TempDir()
	for i := range 100 {
		store := filepath.Join(dir, "truststore/x509/ca", fmt.Sprint("store", i))
		if err := os.MkdirAll(store, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 10 {
			if err := os.WriteFile(filepath.Join(store, fmt.Sprint(j)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	trust := NewTrust([]string{dir}, Options{})
	trust.watches = &watches{open: trust.open, start: func(f *feed) { go f.pump(trust.event, trust.intake.fault) }}
	defer trust.watches.discard(false)
	for b.Loop() {
		if reason := trust.settle([]string{dir}); reason != "" {
			b.Fatal(reason)
		}
	}
}
