package trust

import (
	"fmt"
	"slices"
	"strings"
)

// A policy statement may name a trust store that does not exist or holds nothing.
// notation verify then fails for every signature that needs a store of that type,
// whatever the other stores hold (notation-go, loadX509TrustStores); so does the
// join, and says which store it is.

// tsaStore is the type of the trust stores of time stamp authorities.
const tsaStore = "tsa"

// lacking returns, by store type, what is wrong with the stores that st names.
// held are the stores that hold a certificate.
func lacking(st *Statement, held map[string]bool) map[string]string {
	wrong := map[string]string{}
	for _, s := range st.Stores {
		storeType, name, _ := strings.Cut(s, ":")
		if held[s] || wrong[storeType] != "" {
			continue
		}
		wrong[storeType] = fmt.Sprintf("the statement %.80q names the trust store %s, in which there is no certificate", st.Name, clip(s, 160))
		if near := nearest(storeType, name, held); near != "" && !slices.Contains(st.Stores, near) {
			wrong[storeType] += "; did you mean " + clip(near, 160) + "?"
		}
	}
	return wrong
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

// Lacking returns a sentence for each statement and store type of which the
// statement names a store that holds nothing.
func (f *InForce) Lacking() []string {
	if f == nil {
		return nil
	}
	var all []string
	for _, wrong := range f.lacking {
		for _, storeType := range []string{"ca", "signingAuthority", tsaStore} {
			if w := wrong[storeType]; w != "" {
				all = append(all, w)
			}
		}
	}
	return all
}

// asksStores reports whether a decision with this reason asked the trust stores:
// what is wrong with an envelope by itself is found before.
func asksStores(r Reason) bool {
	switch r {
	case NoTrustedKey, SignerRemoved, IdentityNotTrusted, TimestampInvalid, Revoked, SignatureExpired, CertificateExpired, NotYetValid:
		return true
	}
	return false
}

// lacks reports whether the statement that governs the repository cannot be used
// for a signature that needs a store of storeType and would otherwise read r, and
// returns the decision then.
func (f *InForce) lacks(repository string, t Tool, storeType string, r Reason) (Decision, bool) {
	if t != Notation || f == nil || storeType == "" || !asksStores(r) {
		return Decision{}, false
	}
	i, reason := f.statement(repository)
	if reason != "" {
		return Decision{}, false // Policy has refused it
	}
	wrong := f.lacking[i][storeType]
	if wrong == "" && !f.terms.DefaultPolicy && storeType != tsaStore && !f.names(i, storeType) {
		wrong = fmt.Sprintf("the statement %.80q names no trust store of the type %s, which this signature needs", f.terms.Statements[i].Name, storeType)
		for s := range f.stores[i] {
			if other, name, _ := strings.Cut(s, ":"); other != storeType && f.stocked(storeType+":"+name) {
				wrong += "; did you mean " + clip(storeType+":"+name, 160) + "?"
				break
			}
		}
	}
	if wrong == "" && storeType != "signingAuthority" && (r == TimestampInvalid || r == CertificateExpired) {
		wrong = f.lacking[i][tsaStore] // asked then as well
	}
	if wrong == "" {
		return Decision{}, false
	}
	d := refuse(PolicyInvalid)
	d.Detail = clip(wrong, MaxDetail-len("…"))
	return d, true
}

// names reports whether statement i names a store of the type.
func (f *InForce) names(i int, storeType string) bool {
	for s := range f.stores[i] {
		if strings.HasPrefix(s, storeType+":") {
			return true
		}
	}
	return false
}

// stocked reports whether the store, as "type:name", holds a certificate.
func (f *InForce) stocked(store string) bool {
	for _, all := range f.signers {
		if all[0].Signer.Store() == store {
			return true
		}
	}
	return false
}

// nearest returns the store that was probably meant: of the same name and another
// type, or of the same type and a name one letter off; the first by name.
func nearest(storeType, name string, held map[string]bool) string {
	best := ""
	for s := range held {
		otherType, other, ok := strings.Cut(s, ":")
		if ok && (other == name && otherType != storeType || otherType == storeType && oneOff(name, other)) && (best == "" || s < best) {
			best = s
		}
	}
	return best
}

// oneOff reports whether a becomes b by one letter changed, added, left out, by
// two neighbours exchanged, or by the case of letters.
func oneOff(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	if len(a) > len(b) {
		a, b = b, a
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	switch len(b) - len(a) {
	case 0:
		return i < len(a) && (a[i+1:] == b[i+1:] ||
			i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:])
	case 1:
		return a[i:] == b[i+1:]
	}
	return false
}
