package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
)

// entry is one manifest that a repository lists, or one name of it: a usable descriptor of
// index.json, or a link of distribution's.
type entry struct {
	digest    trust.Digest
	foreign   string // the digest's text, if it is of another algorithm
	bare      bool   // nothing says what mediaType and size have to be
	mediaType string
	size      int64
	tag       string // "" for none
	use       tagUse // of tag, or of one that named it before
	subject   trust.Digest
	unread    trust.Reason // why it is not known whether the repository has it, or ""
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
func (p *imageLayout) readIndex(ctx context.Context) (b []byte, s Stamp, err error) {
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
			if !whole { // perhaps written in place, and not done yet
				err = notJSON(b)
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
	var broken *syntaxError
	switch {
	case errors.As(err, &broken):
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

// syntaxError is what is wrong with an index.json that is not JSON.
type syntaxError struct{ text string }

func (e *syntaxError) Error() string { return indexFile + " " + e.text }

func notJSON(b []byte) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return &syntaxError{"is empty"}
	}
	var raw json.RawMessage
	return &syntaxError{"is not JSON, or cut short: " + strictjson.Explain(b, json.Unmarshal(b, &raw))}
}

var (
	errNotIndex       = errors.New("not an index")
	errAmbiguousIndex = errors.New("member manifests is given twice or in another case")
)

// parseIndex calls found with each element of the manifests of an index.json,
// which json.Valid has accepted. Unlike a manifest, this file is zot's own: it
// is not held to [strictjson.MaxItems], and one bad element in it must not cost
// the others.
func parseIndex(valid []byte, found func(raw []byte) error) error {
	if !bytes.HasPrefix(bytes.TrimLeft(valid, " \t\r\n"), []byte("{")) {
		return reasonf(trust.Malformed, "%w", errNotIndex)
	}
	var manifests []byte
	for name, value := range strictjson.Members(valid) {
		if !strings.EqualFold(name, "manifests") {
			continue
		}
		if manifests != nil || name != "manifests" {
			return reasonf(trust.Ambiguous, "%w", errAmbiguousIndex)
		}
		manifests = value
	}
	switch {
	case manifests == nil || string(manifests) == "null":
		return nil
	case manifests[0] != '[':
		return reasonf(trust.Malformed, "%w: manifests is not an array", errNotIndex)
	}
	for raw := range strictjson.Elements(manifests) {
		if err := found(raw); err != nil {
			return err
		}
	}
	return nil
}

var descriptorRules = strictjson.Rules{
	Members: []string{"mediaType", "digest", "size", "annotations"},
	Maps:    []string{"annotations"},
}

// parseEntry reads one descriptor of index.json, valid JSON.
func parseEntry(raw []byte) (entry, *trust.ReasonError) {
	switch err := descriptorRules.CheckValid(raw); {
	case errors.Is(err, strictjson.ErrDuplicate):
		return entry{}, reasonf(trust.Ambiguous, "descriptor: %w", err)
	case errors.Is(err, strictjson.ErrSyntax):
		return entry{}, reasonf(trust.Malformed, "descriptor: %w", err)
	case err != nil:
		return entry{}, reasonf(trust.LimitExceeded, "descriptor: %w", err)
	}
	var e entry
	var digest string
	for name, value := range strictjson.Members(raw) {
		ok := true
		switch name {
		case "digest":
			digest, ok = strictjson.String(value)
		case "mediaType":
			e.mediaType, ok = stringOrNull(value)
		case "size":
			var err error
			e.size, err = strconv.ParseInt(string(value), 10, 64)
			ok = err == nil && e.size >= 0
		case "annotations":
			e.tag, ok = refName(value)
		}
		if !ok {
			return entry{}, reasonf(trust.Malformed, "descriptor: %s %.100q", name, value)
		}
	}
	var err error
	if e.digest, err = trust.ParseDigest(digest); err != nil {
		var ok bool
		if e.digest, ok = trust.ForeignDigest(digest); ok {
			e.foreign, err = digest, nil
		}
	}
	if err != nil {
		return entry{}, reasonf(trust.Malformed, "descriptor: digest %.100q: %w", digest, err)
	}
	if len(e.mediaType) > maxMediaType {
		return entry{}, reasonf(trust.Malformed, "descriptor of %s: media type of %d bytes", e.digest, len(e.mediaType))
	}
	e.mediaType = interned(e.mediaType)
	if e.tag != "" {
		e.use, e.subject = parseTag(e.tag)
	}
	return e, nil
}

func stringOrNull(value []byte) (string, bool) {
	if string(value) == "null" {
		return "", true
	}
	return strictjson.String(value)
}

// refName returns the tag among annotations.
func refName(annotations []byte) (tag string, ok bool) {
	if annotations[0] != '{' {
		return "", string(annotations) == "null"
	}
	for name, value := range strictjson.Members(annotations) {
		if name == ocispec.AnnotationRefName {
			return strictjson.String(value)
		}
	}
	return "", true
}
