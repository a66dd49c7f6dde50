package format

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The published form: immutable files beside a symbolic link CURRENT whose
// target names them, so that one readlink tells a reader what is in force:
//
//	published/CURRENT → 7.<cache id>.<generation>.<data>.<base>.<deltas>.<trust>
//	published/base-<generation>.db    bbolt, compacted
//	published/delta-<generation>.db   bbolt, what changed since the layer below
//	published/trust-<generation>.pb   signers and statements in force
//
// Each file is named by the generation that made it. The base and the deltas are
// layers: where several have a key, the newest wins. Deltas are the oldest first,
// with a hyphen between them; "0" means none.
// The trust is that of the generation. The data are as well, where a daemon publishes;
// a replica may have the trust of a later generation than its data: <data> is the
// generation that those are of.
// Generations never go backwards within a cache id; a new id is always
// accepted. A trust file's modification time is the confirmation: when the daemon last
// found that the trust directories are what the file says.
const (
	// FormatVersion is the published format. Readers refuse another.
	FormatVersion = 7

	// MaxDeltas is how many deltas CURRENT names at most.
	MaxDeltas = 16

	PublishedDir = "published"
	PrivateDir   = "private"
	CurrentName  = "CURRENT"
	LockName     = "lock"
	// ReplicaName is the file of a state directory that says whose replica it is.
	ReplicaName = "replica.json"
)

// Buckets of base and delta files. Keys:
//
//	images        repository NUL digest (32 bytes)   → Image
//	tags          repository NUL tag                 → digest (32 bytes)
//	digests       digest (32 bytes) repository       → 1
//	repositories  repository                         → tag of the image that was written last, or 1
//	authors       hash of the text (16 bytes)        → text
//	unlisted      repository                         → why, for people, or 1
//	listings      repository NUL digest of a child (32 bytes), of an index (32 bytes) → 1
//	meta          "sequence"                         → the commit as of which it was made (8 bytes), for the writer
//
// unlisted holds the repositories, and directories above repositories, that could
// not be listed lately: their answers read unknown. listings says which indexes list a
// manifest, which is so by their digests: it may name indexes that are gone.
var (
	BucketImages       = []byte("images")
	BucketTags         = []byte("tags")
	BucketDigests      = []byte("digests")
	BucketRepositories = []byte("repositories")
	BucketAuthors      = []byte("authors")
	BucketUnlisted     = []byte("unlisted")
	BucketListings     = []byte("listings")

	BucketMeta  = []byte("meta")
	KeySequence = []byte("sequence")

	// PublishedBuckets are those that readers read.
	PublishedBuckets = [][]byte{BucketImages, BucketTags, BucketDigests, BucketRepositories, BucketAuthors, BucketUnlisted, BucketListings}
)

// ErrNoCache is returned when nothing is published: no daemon has run here,
// or the publication was withdrawn because it could not be kept true.
var ErrNoCache = errors.New("no cache is published")

// ErrFormat is returned for a publication of another format: whoever reads and the
// daemon are of different versions.
var ErrFormat = errors.New("the published cache has a format of another version of trust-worker; build the reader and the daemon from the same one")

// Current is what CURRENT says.
type Current struct {
	ID               uint64
	Generation, Data uint64
	Base, Trusts     uint64
	Deltas           [MaxDeltas]uint64 // oldest first; 0: no more
}

func (c Current) String() string {
	deltas := "0"
	for i, d := range c.Layers() {
		if i == 0 {
			deltas = strconv.FormatUint(d, 10)
		} else {
			deltas += "-" + strconv.FormatUint(d, 10)
		}
	}
	return fmt.Sprintf("%d.%016x.%d.%d.%d.%s.%d", FormatVersion, c.ID, c.Generation, c.Data, c.Base, deltas, c.Trusts)
}

// Layers are the deltas, oldest first.
func (c *Current) Layers() []uint64 {
	n := slices.Index(c.Deltas[:], 0)
	if n < 0 {
		n = MaxDeltas
	}
	return c.Deltas[:n:n]
}

// SetLayers replaces the deltas.
func (c *Current) SetLayers(deltas []uint64) {
	c.Deltas = [MaxDeltas]uint64{}
	copy(c.Deltas[:], deltas)
}

// Names are the names of the base and the deltas, oldest first.
func (c Current) Names() []string {
	names := []string{FileName("base", c.Base)}
	for _, d := range c.Layers() {
		names = append(names, FileName("delta", d))
	}
	return names
}

// Files are the names of all files that CURRENT names.
func (c Current) Files() []string { return append(c.Names(), FileName("trust", c.Trusts)) }

func (c Current) BasePath(dir string) string  { return filepath.Join(dir, FileName("base", c.Base)) }
func (c Current) TrustPath(dir string) string { return filepath.Join(dir, FileName("trust", c.Trusts)) }

func FileName(kind string, generation uint64) string {
	suffix := ".db"
	if kind == "trust" {
		suffix = ".pb"
	}
	return kind + "-" + strconv.FormatUint(generation, 10) + suffix
}

// ParseFileName is the inverse of FileName.
func ParseFileName(name string) (kind string, generation uint64, ok bool) {
	kind, rest, found := strings.Cut(name, "-")
	number, suffix, found2 := strings.Cut(rest, ".")
	if !found || !found2 {
		return "", 0, false
	}
	generation, err := strconv.ParseUint(number, 10, 64)
	if err != nil || suffix == "" || FileName(kind, generation) != name {
		return "", 0, false
	}
	switch kind {
	case "base", "delta", "trust":
		return kind, generation, true
	}
	return "", 0, false
}

// ParseCurrent reads a link target, strictly.
func ParseCurrent(s string) (Current, error) {
	parts := strings.Split(s, ".")
	if version := parts[0]; version != strconv.Itoa(FormatVersion) {
		return Current{}, fmt.Errorf("%w: %.20q, this program reads %d", ErrFormat, version, FormatVersion)
	}
	if len(parts) != 7 || len(parts[1]) != 16 {
		return Current{}, fmt.Errorf("%w: CURRENT is %.80q", ErrDamaged, s)
	}
	var c Current
	deltas := strings.Split(parts[5], "-")
	fields := []*uint64{&c.ID, &c.Generation, &c.Data, &c.Base, nil, &c.Trusts}
	for i, field := range fields {
		base := 10
		if i == 0 {
			base = 16
		}
		if field == nil {
			continue
		}
		n, err := strconv.ParseUint(parts[i+1], base, 64)
		if err != nil {
			return Current{}, fmt.Errorf("%w: CURRENT is %.80q", ErrDamaged, s)
		}
		*field = n
	}
	for i, d := range deltas[:min(len(deltas), MaxDeltas)] {
		c.Deltas[i], _ = strconv.ParseUint(d, 10, 64) // what is no number is not written so
	}
	newest := c.Base
	for _, d := range c.Layers() {
		newest = max(newest, d)
	}
	if c.String() != s || newest > c.Data || max(c.Data, c.Trusts) > c.Generation || c.Base == 0 || c.Trusts == 0 {
		return Current{}, fmt.Errorf("%w: CURRENT is %.80q", ErrDamaged, s)
	}
	return c, nil
}

// ReadCurrent returns the link's target and its meaning.
func ReadCurrent(dir string) (string, Current, error) {
	target, err := os.Readlink(filepath.Join(dir, CurrentName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", Current{}, ErrNoCache
	}
	if err != nil {
		return "", Current{}, fmt.Errorf("%w: %w", ErrNoCache, err)
	}
	c, err := ParseCurrent(target)
	return target, c, err
}

// SetCurrent replaces CURRENT. After an error it may say either.
//
//	unlinkat(CURRENT.new) symlinkat(target, CURRENT.new) renameat(CURRENT.new, CURRENT) fsync(dir)
func SetCurrent(dir string, c Current) error {
	tmp := filepath.Join(dir, CurrentName+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(c.String(), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, CurrentName)); err != nil {
		return err
	}
	return SyncDir(dir)
}

// RemoveCurrent withdraws what is published, durably: a power cut must not bring back
// what was trusted. One that is not there may not be removed durably yet.
func RemoveCurrent(dir string) error {
	if err := os.Remove(filepath.Join(dir, CurrentName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return SyncDir(dir)
}

// Keys of the published buckets.

func ImageKey(repository string, d [32]byte) []byte {
	k := make([]byte, 0, len(repository)+1+len(d))
	k = append(append(k, repository...), 0)
	return append(k, d[:]...)
}

func TagKey(repository, tag string) []byte {
	return append(append(append(make([]byte, 0, len(repository)+1+len(tag)), repository...), 0), tag...)
}

func DigestKey(d [32]byte, repository string) []byte {
	return append(append(make([]byte, 0, len(d)+len(repository)), d[:]...), repository...)
}

// ListingKey says that an index lists a child; without the index it is a prefix.
func ListingKey(repository string, child [32]byte, index []byte) []byte {
	return append(ImageKey(repository, child), index...)
}
