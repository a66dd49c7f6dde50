package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
)

// entry is one usable descriptor of index.json.
type entry struct {
	digest    trust.Digest
	mediaType string
	size      int64
	tag       string // "" for none
	use       tagUse // of tag, if there is one
	subject   trust.Digest
}

const (
	// settle is how old index.json has to be before its Stamp can be told from
	// that of a change made right after: the kernel's clock for files ticks
	// every 1 to 10 ms, and zot may free and reuse an inode between two ticks.
	//
	// BUG: file systems that keep times in whole seconds are not catered for.
	settle = 20 * time.Millisecond
	// attempts is how often a changing index.json is read.
	attempts = 4
)

// readIndex reads index.json until it is whole and holds still. When it never
// grew old enough for its Stamp to be told from the next one, that is zero.
func (p *Repository) readIndex(ctx context.Context) (b []byte, s Stamp, err error) {
	for n := 0; n < attempts; n++ {
		if err := ctx.Err(); err != nil {
			return nil, Stamp{}, err
		}
		start := p.root.now()
		b, s, err = readFile(p.dir, indexFile, -1, p.root.limits.Index)
		wait := settle
		switch {
		case errors.Is(err, errTooLarge):
			return nil, Stamp{}, &trust.ReasonError{Reason: trust.LimitExceeded, Err: err}
		case err != nil && !errors.Is(err, errTorn):
			return nil, Stamp{}, &trust.ReasonError{Reason: trust.IOError, Err: err}
		case err == nil:
			whole := json.Valid(b)
			if wait = s.settlesAfter(start); whole && wait <= 0 {
				return b, s, nil
			}
			if !whole {
				err = errSyntax // perhaps written in place, and not done yet
			}
		}
		if n == attempts-1 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, Stamp{}, ctx.Err()
		case <-time.After(max(wait, time.Millisecond)):
		}
	}
	switch {
	case errors.Is(err, errSyntax):
		return nil, Stamp{}, &trust.ReasonError{Reason: trust.Malformed, Err: err}
	case err != nil:
		return nil, Stamp{}, &trust.ReasonError{Reason: trust.IOError, Err: err}
	}
	return b, Stamp{}, nil
}

// settlesAfter is how long after start a read has to begin for a later change to
// show in the stamp. A change in the future is that of a clock set back since;
// waiting for it would be for ever.
func (s Stamp) settlesAfter(start time.Time) time.Duration {
	if age := start.Sub(time.Unix(0, s.Ctime)); age >= -settle {
		return settle - age
	}
	return 0
}

var (
	errSyntax         = errors.New("not JSON")
	errNotIndex       = errors.New("not an index")
	errAmbiguousIndex = errors.New("member manifests is given twice or in another case")
)

// parseIndex calls found with each element of the manifests of an index.json,
// which need not be well-formed themselves; raw is valid until found returns.
// Unlike a manifest, this file is zot's own, and one bad element in it must
// not cost the others.
func parseIndex(b []byte, found func(raw []byte) error) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return reasonf(trust.Malformed, "%w", errNotIndex)
	}
	seen := false
	var raw json.RawMessage
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		switch {
		case err != nil || !ok:
			return reasonf(trust.Malformed, "%w", errNotIndex)
		case strings.EqualFold(name, "manifests") && (seen || name != "manifests"):
			return reasonf(trust.Ambiguous, "%w", errAmbiguousIndex)
		case name != "manifests":
			if err := dec.Decode(&raw); err != nil {
				return reasonf(trust.Malformed, "%w: %w", errNotIndex, err)
			}
			continue
		}
		seen = true
		if err := parseElements(dec, found); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return reasonf(trust.Malformed, "%w: %w", errNotIndex, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return reasonf(trust.Malformed, "%w: trailing data", errNotIndex)
	}
	return nil
}

// parseElements reads an array, or null.
func parseElements(dec *json.Decoder, found func(raw []byte) error) error {
	switch t, err := dec.Token(); {
	case err != nil:
		return reasonf(trust.Malformed, "%w: %w", errNotIndex, err)
	case t == nil:
		return nil
	case t != json.Delim('['):
		return reasonf(trust.Malformed, "%w: manifests is not an array", errNotIndex)
	}
	var raw json.RawMessage
	for dec.More() {
		if err := dec.Decode(&raw); err != nil {
			return reasonf(trust.Malformed, "%w: %w", errNotIndex, err)
		}
		if err := found(raw); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return reasonf(trust.Malformed, "%w: %w", errNotIndex, err)
	}
	return nil
}

var descriptorRules = strictjson.Rules{
	Members: []string{"mediaType", "digest", "size", "annotations"},
	Maps:    []string{"annotations"},
}

// parseEntry reads one descriptor of index.json.
func parseEntry(raw []byte) (entry, *trust.ReasonError) {
	var d struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations"`
	}
	switch err := descriptorRules.Check(raw); {
	case errors.Is(err, strictjson.ErrDuplicate):
		return entry{}, reasonf(trust.Ambiguous, "descriptor: %w", err)
	case errors.Is(err, strictjson.ErrSyntax):
		return entry{}, reasonf(trust.Malformed, "descriptor: %w", err)
	case err != nil:
		return entry{}, reasonf(trust.LimitExceeded, "descriptor: %w", err)
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return entry{}, reasonf(trust.Malformed, "descriptor: %w", err)
	}
	digest, err := trust.ParseDigest(d.Digest)
	switch {
	case err != nil:
		return entry{}, reasonf(trust.Malformed, "descriptor: digest %.100q: %w", d.Digest, err)
	case d.Size < 0:
		return entry{}, reasonf(trust.Malformed, "descriptor of %s: size %d", digest, d.Size)
	case len(d.MediaType) > maxMediaType:
		return entry{}, reasonf(trust.Malformed, "descriptor of %s: media type of %d bytes", digest, len(d.MediaType))
	}
	e := entry{digest: digest, mediaType: interned(d.MediaType), size: d.Size, tag: d.Annotations[ocispec.AnnotationRefName]}
	if e.tag != "" {
		e.use, e.subject = parseTag(e.tag)
	}
	return e, nil
}
