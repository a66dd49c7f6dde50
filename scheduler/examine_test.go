package scheduler

import (
	"testing"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// oneFact knows one fact.
type oneFact struct{ fact store.Fact }

func (f oneFact) Fact(trust.Digest, trust.Digest, store.Context) (store.Fact, bool, error) {
	return f.fact, true, nil
}

// What was matched by a signer that has left stays so, and is looked at again when what
// revocation services said of it ends. What was matched by signers in force and is not now
// is not matched: a time stamp authority may have been revoked.
func TestOnlyTheDeadAreKept(t *testing.T) {
	w := newWorld(t)
	here, left := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", here)
	s := w.scheduler()
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	in := s.trust.Load()
	const until = 1_900_000_000
	for _, tt := range []struct {
		name   string
		by     trust.SignerID
		now    trust.Reason
		stays  bool
		recall int64
	}{
		{"a signer that left", left.Signer().ID(), trust.NoTrustedKey, true, until},
		{"revoked since", left.Signer().ID(), trust.Revoked, false, 0},
		{"a signer in force", here.Signer().ID(), trust.TimestampInvalid, false, 0},
	} {
		old := store.Fact{Verdicts: []trust.Verdict{{Grounds: []trust.Ground{{Signers: []trust.SignerID{tt.by}, Until: until, Limit: trust.RevocationUnknown}}}}}
		l := looked{fact: &store.Fact{Verdicts: []trust.Verdict{{Reason: tt.now}}}}
		e := &examiner{facts: oneFact{old}}
		if err := e.keepDead(in, &l); err != nil {
			t.Fatal(err)
		}
		if got := l.fact.Verdicts[0].Matched(); got != tt.stays || l.until != tt.recall {
			t.Errorf("%s: matched %v, looked at again at %d", tt.name, got, l.until)
		}
	}
}
