package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"trust-worker/cache/store"
	"trust-worker/trust"
)

// maxFact is how many bytes of a fact travel. A manifest of hundreds of layers is verified by
// each worker.
const maxFact = 128 << 10

// factSubject is the subject of a fact in the stream, by the digests of the signature and of
// the image and the context. Facts of other epochs have others.
func (w *Worker) factSubject(k store.FactKey) string {
	context := "0"
	if k.Context.Tool == trust.Notation {
		sum := sha256.Sum256(append(k.Context.Policy[:], k.Context.MediaType...))
		context = hex.EncodeToString(sum[:16])
	}
	return fmt.Sprintf("%s.%d.%s.%s.%s", w.prefix+"fact", w.cfg.Epoch, k.Signature.Hex(), k.Subject.Hex(), context)
}

// Why a message is not believed, beside what package scheduler finds.
const (
	refusedSeal    = "authentication" // not by the cluster's key, for this subject
	refusedForm    = "form"
	refusedSubject = "subject" // about something else than it is filed under
	refusedEpoch   = "epoch"
	refusedOld     = "old" // a hint that was heard before
)

// read reads a fact from a message. One that is refused is counted.
func (w *Worker) read(subject string, message []byte) (*store.Shared, bool) {
	if len(message) > sha256.Size+maxFact {
		return nil, w.refuse(refusedForm, subject)
	}
	body, ok := w.cfg.Key.open(subject, message)
	if !ok {
		return nil, w.refuse(refusedSeal, subject)
	}
	f, err := store.UnmarshalShared(body)
	switch {
	case err != nil:
		return nil, w.refuse(refusedForm, subject)
	case f.Epoch != w.cfg.Epoch:
		return nil, w.refuse(refusedEpoch, subject)
	case w.factSubject(f.Key()) != subject:
		return nil, w.refuse(refusedSubject, subject)
	}
	for i := range f.Verdicts {
		if f.Verdicts[i].Epoch != w.cfg.Epoch {
			return nil, w.refuse(refusedEpoch, subject)
		}
	}
	return f, true
}
