package verifier

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"

	"trust-worker/internal/inert"
	"trust-worker/trust"
)

// fault is what is wrong with a signature: a reason and, where there is more to say,
// a detail, one sentence for people (see [trust.Verdict]). The zero value is that
// nothing is wrong.
type fault struct {
	reason trust.Reason
	detail string
}

// faultf makes a fault with a detail. What a pusher wrote belongs in %q verbs with a
// width, so that the sentence around it survives.
func faultf(reason trust.Reason, format string, args ...any) fault {
	return fault{reason, trust.ClipDetail(inert.Text(fmt.Sprintf(format, args...)))}
}

// found reports whether there is a fault.
func (f fault) found() bool { return f.reason != "" }

// refuse makes f the verdict.
func (lo *LayerOutcome) refuse(f fault) { lo.Verdict.Reason, lo.Verdict.Detail = f.reason, f.detail }

// libraryText is the message of a library's error, in quotation marks: a part of it
// may be the pusher's.
// protojson and protobuf write blanks of two kinds at random, so that nobody relies
// on their text.
func libraryText(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return fmt.Sprintf("%.240q", strings.TrimSuffix(strings.TrimSpace(text), "."))
}

// The attributes of a distinguished name that Go has no name for and people use.
var attributeNames = map[string]string{
	"1.2.840.113549.1.9.1":       "emailAddress",
	"0.9.2342.19200300.100.1.1":  "UID",
	"0.9.2342.19200300.100.1.25": "DC",
}

// subjectText is a certificate's subject as notation shows it, with the values of
// attributes that it shows in numbers alone.
func subjectText(c *x509.Certificate) string {
	text := c.Subject.String()
	for _, a := range c.Subject.Names {
		if name := attributeNames[a.Type.String()]; name != "" {
			text += fmt.Sprintf(" (%s %v)", name, a.Value)
		}
	}
	return text
}

// unmatchable says why notation matches a certificate's subject with no identity but
// "*", or returns "" (Notary Project trust-store-trust-policy, "Trusted Identities
// Constraints"; notation-go, internal/pkix).
func unmatchable(c *x509.Certificate) string {
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(c.RawSubject, &rdns); err != nil {
		return ""
	}
	seen := map[string]bool{}
	for _, set := range rdns {
		if len(set) > 1 {
			return "it has several attributes in one relative distinguished name"
		}
		for _, a := range set {
			oid := a.Type.String()
			name := attributeNames[oid]
			switch {
			case name != "":
				return "it has the attribute " + name
			case strings.Contains(pkix.RDNSequence{set}.String(), "=#"):
				return "it has the attribute " + oid
			case seen[oid]:
				return fmt.Sprintf("it has two of the attribute in %.80q", pkix.RDNSequence{set}.String())
			}
			seen[oid] = true
		}
	}
	for _, must := range []struct {
		name   string
		values []string
	}{{"C", c.Subject.Country}, {"ST", c.Subject.Province}, {"O", c.Subject.Organization}} {
		if len(must.values) == 0 {
			return "it has no attribute " + must.name
		}
	}
	return ""
}
