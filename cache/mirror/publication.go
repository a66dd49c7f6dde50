package mirror

import (
	"errors"
	"fmt"
	"slices"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Publication is what a state directory publishes at a moment.
type Publication struct {
	// Current is what CURRENT says.
	Current string
	Trust   File
	// Layers are the base and the deltas, oldest first. They are empty while the
	// source still hashes one of them: the trust does not wait for that.
	Layers []File `json:",omitempty"`
}

// File is a published file, which never changes under its name and cache id.
type File struct {
	Name   string
	Size   int64 // bytes
	SHA256 trust.Digest
}

// MaxTrust bounds a trust file, which is read into memory.
const MaxTrust = 16 << 20

// ErrFormat is returned for a publication of another version's format.
var ErrFormat = format.ErrFormat

var errPublication = errors.New("not a publication")

// parse checks that the files are those that Current names.
func (p *Publication) parse() (format.Current, error) {
	c, err := format.ParseCurrent(p.Current)
	if err != nil {
		return c, err
	}
	if p.Trust.Name != format.FileName("trust", c.Trusts) || p.Trust.Size <= 0 || p.Trust.Size > MaxTrust {
		return format.Current{}, fmt.Errorf("%w: its trust file is %.100q of %d bytes", errPublication, p.Trust.Name, p.Trust.Size)
	}
	if len(p.Layers) == 0 {
		return c, nil
	}
	if !slices.EqualFunc(p.Layers, c.Names(), func(f File, name string) bool { return f.Name == name && f.Size > 0 }) {
		return format.Current{}, fmt.Errorf("%w: its layers are not those of CURRENT", errPublication)
	}
	return c, nil
}
