package cache

import (
	"bytes"
	"encoding/json"
	"time"

	"trust-worker/trust"
)

// Answers as JSON, in the names of zot's GraphQL and ours, and what storage names by
// another digest algorithm than SHA-256.

// MarshalJSON adds the image's State, Reason and Detail to its fields.
func (i Image) MarshalJSON() ([]byte, error) {
	return plainJSON(struct {
		RepoName, Tag       string
		Digest              string
		MediaType           string
		IsSigned            bool
		State               string
		Reason              trust.Reason
		Detail              string
		AsOf                time.Time
		SignatureInfo       []Signature
		SignaturesOmitted   int `json:",omitempty"`
		Manifests           []Manifest
		Attestations        []Attestation `json:",omitempty"`
		AttestationsOmitted int           `json:",omitempty"`
	}{i.RepoName, i.Tag, i.DigestText(), i.MediaType, i.IsSigned, i.State(), i.Reason(), i.Detail(), i.AsOf, i.SignatureInfo, i.SignaturesOmitted, i.Manifests, i.Attestations, i.AttestationsOmitted})
}

// MarshalJSON adds the manifest's State and Reason to its fields.
func (m Manifest) MarshalJSON() ([]byte, error) {
	return plainJSON(struct {
		Digest            string
		Platform          string `json:",omitempty"`
		IsSigned          bool
		State             string
		Reason            trust.Reason
		SignatureInfo     []Signature
		SignaturesOmitted int `json:",omitempty"`
	}{m.DigestText(), m.Platform, m.IsSigned, m.State(), m.Reason(), m.SignatureInfo, m.SignaturesOmitted})
}

// UnmarshalJSON is the inverse of MarshalJSON: the state and the reason stay what they
// were, also where they are not those of the signatures that are listed.
func (i *Image) UnmarshalJSON(b []byte) error {
	type plain Image // without methods
	v := struct {
		*plain
		Digest foreignText
		State  string
		Reason trust.Reason
	}{plain: (*plain)(i)}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	i.Digest, i.Foreign = v.Digest.digest, v.Digest.foreign
	i.omitted = leftOut(i.statuses(), v.State, v.Reason, i.SignaturesOmitted)
	return nil
}

// UnmarshalJSON is as for an image.
func (m *Manifest) UnmarshalJSON(b []byte) error {
	type plain Manifest
	v := struct {
		*plain
		Digest foreignText
		State  string
		Reason trust.Reason
	}{plain: (*plain)(m)}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	m.Digest, m.Foreign = v.Digest.digest, v.Digest.foreign
	m.omitted = leftOut(m.image().statuses(), v.State, v.Reason, m.SignaturesOmitted)
	return nil
}

// leftOut is what gives an answer its state beyond the signatures that are listed.
func leftOut(listed []trust.Status, state string, r trust.Reason, n int) omissions {
	if state == "" || stateOf(listed) == state && n == 0 {
		return nil
	}
	return omissions{{trust.Status(state), r, n}}
}

// foreignText is a digest as storage has it.
type foreignText struct {
	digest  trust.Digest
	foreign string
}

func (f *foreignText) UnmarshalText(b []byte) error {
	if d, ok := trust.ForeignDigest(string(b)); ok {
		*f = foreignText{d, string(b)}
		return nil
	}
	return f.digest.UnmarshalText(b)
}

// plainJSON leaves it to whoever encodes to escape <, > and &.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// DigestText is the digest as storage has it.
func (i *Image) DigestText() string { return digestText(i.Digest, i.Foreign) }

// DigestText is as for an image.
func (m *Manifest) DigestText() string { return digestText(m.Digest, m.Foreign) }

func digestText(d trust.Digest, foreign string) string {
	switch {
	case foreign != "":
		return foreign
	case d == trust.Digest{}:
		return ""
	}
	return d.String()
}

// notJudged are the omissions of an image whose digest is no SHA-256: no signature, and
// a reason of its own.
var notJudged = omissions{{trust.UnsupportedDigest.Status(), trust.UnsupportedDigest, 0}}

// NotJudged makes img the answer about an image that storage names by a digest of
// another algorithm than SHA-256.
func NotJudged(img *Image, foreign string) {
	img.Foreign, img.SignatureInfo, img.omitted = foreign, []Signature{}, notJudged
	img.IsSigned, img.SignaturesOmitted = false, 0
}

// NotRead has an image of which no signature is known read r: its manifest, or its
// repository, could not be read, so that it may have some. The empty reason changes
// nothing. Signatures that are known have reasons of their own.
func NotRead(img *Image, r trust.Reason) {
	if r != "" && len(img.SignatureInfo) == 0 && len(img.omitted) == 0 {
		img.omitted = notRead(r)
	}
}

func notRead(r trust.Reason) omissions { return omissions{{r.Status(), r, 0}} }
