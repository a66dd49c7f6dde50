package scheduler

import (
	"trust-worker/cache/store"
	"trust-worker/trust"
	"trust-worker/verifier"
)

// maxPrior is how many earlier signature manifests of a subject are looked at
// for layers that need not be verified again.
const maxPrior = 16

// prior collects the verdicts on cosign layers of a subject that still say
// what verifying again would.
func (e *examiner) prior(in *trustInUse, subject trust.Digest, old []store.Reference) (map[trust.LayerID]trust.Verdict, error) {
	var verdicts map[trust.LayerID]trust.Verdict
	n := 0
	for _, ref := range old {
		if !ref.Carrier.Simple() {
			continue
		}
		if n++; n > maxPrior {
			break
		}
		f, ok, err := e.facts.Fact(subject, ref.Digest, store.Context{Tool: trust.Cosign})
		if err != nil {
			return nil, err
		}
		if !ok || f.Epoch != verifier.Epoch {
			continue
		}
		for layer, v := range in.living(&f) {
			if verdicts == nil {
				verdicts = map[trust.LayerID]trust.Verdict{}
			}
			verdicts[layer] = v
		}
	}
	return verdicts, nil
}

// living are the verdicts of a cosign fact that verifying again would repeat:
// those with a ground in force.
func (in *trustInUse) living(f *store.Fact) map[trust.LayerID]trust.Verdict {
	verdicts := map[trust.LayerID]trust.Verdict{}
	if f.Context.Tool != trust.Cosign || f.Epoch != verifier.Epoch {
		return verdicts
	}
	for _, v := range f.Verdicts {
		if v.Identity != nil && f.Trust != in.generation { // another root may have come
			continue
		}
		if in.inForce().Lives(&v) {
			verdicts[v.Layer] = v
		}
	}
	return verdicts
}
