package trust

import (
	"testing"
	"time"
)

// Since is the last thing that made an answer what it is, and the first of grounds that took
// over from each other.
func TestSince(t *testing.T) {
	const verified, now = 1000, 5000
	key := func(name string, since int64) Material {
		return Material{Signer: Signer{Tool: Cosign, Fingerprint: SumOf([]byte(name))}, Since: since}
	}
	a, b, gone := key("a", 500), key("b", 2000), key("gone", 3000)
	f := NewInForce(Terms{Cosign: true, Materials: []Material{a, b}, Left: []Material{gone}})
	ground := func(from, until int64, by ...Material) Ground {
		g := Ground{From: from, Until: until, Limit: SignatureExpired}
		for _, m := range by {
			g.Signers = append(g.Signers, m.Signer.ID())
		}
		return g
	}
	for name, c := range map[string]struct {
		grounds []Ground
		reason  Reason
		status  Status
		want    int64 // 0: not known
	}{
		"verified after the key came":              {[]Ground{ground(0, 0, a)}, "", Trusted, verified},
		"the key came later":                       {[]Ground{ground(0, 0, b)}, "", Trusted, 2000},
		"a second key changes nothing":             {[]Ground{ground(0, 0, a), ground(0, 0, b)}, "", Trusted, verified},
		"of two keys that are needed the last":     {[]Ground{ground(0, 0, a, b)}, "", Trusted, 2000},
		"a date passed":                            {[]Ground{ground(4000, 0, a)}, "", Trusted, 4000},
		"one ground took over from another":        {[]Ground{ground(0, 4000, a), ground(4000, 0, a)}, "", Trusted, verified},
		"one ground came after another had ended":  {[]Ground{ground(0, 3500, a), ground(4000, 0, a)}, "", Trusted, 4000},
		"a ground of a key that left says nothing": {[]Ground{ground(0, 4000, gone), ground(4000, 0, a)}, "", Trusted, 4000},
		"it expired":                               {[]Ground{ground(0, 4500, a)}, "", Expired, 4500},
		"the last of two expired":                  {[]Ground{ground(0, 4500, a), ground(0, 4000, b)}, "", Expired, 4500},
		"its key left":                             {[]Ground{ground(0, 0, gone)}, "", Untrusted, 3000},
		"nobody's":                                 {nil, NoTrustedKey, Untrusted, verified},
	} {
		v := &Verdict{Grounds: c.grounds, Reason: c.reason, VerifiedAt: verified, Epoch: MinEpoch}
		d := f.Decide("repo", Cosign, v, time.Unix(now, 0))
		at := f.Since("repo", Cosign, v, &d, time.Unix(now, 0))
		if d.Status != c.status || at.Unix() != c.want {
			t.Errorf("%s: %s since %d, want %s since %d", name, d.Status, at.Unix(), c.status, c.want)
		}
	}
	d := Decision{Status: Pending}
	for _, v := range []*Verdict{nil, {}, {VerifiedAt: verified}} {
		if at := f.Since("repo", Cosign, v, &d, time.Unix(now, 0)); !at.IsZero() {
			t.Errorf("%+v: since %s", v, at)
		}
	}
}
