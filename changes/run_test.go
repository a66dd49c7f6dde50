package changes

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"trust-worker/trust"
)

// Whoever publishes wakes the observer, which tells at once; what nobody wakes it for, it
// finds within a second or so.
func TestRunLooksWhenSomethingIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		key := trust.Signer{Tool: trust.Cosign, Fingerprint: digest("key")}
		w.trust(key)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.o.Run(ctx) }()
		told := func() bool { _, n, _ := w.journal.told(); return n == w.store.Generation() }
		time.Sleep(time.Minute)
		began := time.Now()
		w.put("r", image{name: "1", signers: []trust.Signer{key}})
		w.o.Published()
		synctest.Wait()
		if !told() || time.Since(began) != 0 {
			t.Errorf("told: %v, after %v", told(), time.Since(began))
		}
		time.Sleep(time.Minute)
		w.put("r", image{name: "1"})
		synctest.Wait()
		if told() {
			t.Error("told by nobody")
		}
		time.Sleep(lookSeldom + lookEvery)
		synctest.Wait()
		if !told() {
			t.Error("not told")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
