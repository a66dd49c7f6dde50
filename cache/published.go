package cache

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
//	published/CURRENT → 4.<cache id>.<generation>.<base>.<deltas>.<trust>
//	published/base-<generation>.db    bbolt, compacted
//	published/delta-<generation>.db   bbolt, what changed since the layer below
//	published/trust-<generation>.pb   signers and statements in force
//
// Each file is named by the generation that made it. The base and the deltas are
// layers: where several have a key, the newest wins. Deltas are the oldest first,
// with a hyphen between them; "0" means none.
// Generations never go backwards within a cache id; a new id is always
// accepted. A trust file's modification time is the lease: the last time that
// the daemon found the trust directories to be what the file says.
const (
	// FormatVersion is the published format. Readers refuse another.
	FormatVersion = 4

	// maxDeltas is how many deltas CURRENT names at most.
	maxDeltas = 16

	publishedDir = "published"
	privateDir   = "private"
	currentName  = "CURRENT"
	lockName     = "lock"
)

// Buckets of base and delta files. Keys:
//
//	images        repository NUL digest (32 bytes)   → Image
//	tags          repository NUL tag                 → digest (32 bytes)
//	digests       digest (32 bytes) repository       → 1
//	repositories  repository                         → 1
//	authors       hash of the text (16 bytes)        → text
//	unlisted      repository                         → 1
//	meta          "sequence"                         → the commit as of which it was made (8 bytes), for the writer
//
// unlisted holds the repositories, and directories above repositories, that could
// not be listed lately: their answers read unknown.
var (
	bucketImages       = []byte("images")
	bucketTags         = []byte("tags")
	bucketDigests      = []byte("digests")
	bucketRepositories = []byte("repositories")
	bucketAuthors      = []byte("authors")
	bucketUnlisted     = []byte("unlisted")

	bucketMeta  = []byte("meta")
	keySequence = []byte("sequence")

	// publishedBuckets are those that readers read.
	publishedBuckets = [][]byte{bucketImages, bucketTags, bucketDigests, bucketRepositories, bucketAuthors, bucketUnlisted}
)

// ErrNoCache is returned when nothing is published: no daemon has run here,
// or the publication was withdrawn because it could not be kept true.
var ErrNoCache = errors.New("no cache is published")

// ErrFormat is returned for a publication of another format: whoever reads and the
// daemon are of different versions.
var ErrFormat = errors.New("the published cache has a format of another version of trust-worker; build the reader and the daemon from the same one")

// current is what CURRENT says.
type current struct {
	id                       uint64
	generation, base, trusts uint64
	deltas                   [maxDeltas]uint64 // oldest first; 0: no more
}

func (c current) String() string {
	deltas := "0"
	for i, d := range c.layers() {
		if i == 0 {
			deltas = strconv.FormatUint(d, 10)
		} else {
			deltas += "-" + strconv.FormatUint(d, 10)
		}
	}
	return fmt.Sprintf("%d.%016x.%d.%d.%s.%d", FormatVersion, c.id, c.generation, c.base, deltas, c.trusts)
}

// layers are the deltas, oldest first.
func (c *current) layers() []uint64 {
	n := slices.Index(c.deltas[:], 0)
	if n < 0 {
		n = maxDeltas
	}
	return c.deltas[:n:n]
}

// setLayers replaces the deltas.
func (c *current) setLayers(deltas []uint64) {
	c.deltas = [maxDeltas]uint64{}
	copy(c.deltas[:], deltas)
}

// names are the names of the base and the deltas, oldest first.
func (c current) names() []string {
	names := []string{fileName("base", c.base)}
	for _, d := range c.layers() {
		names = append(names, fileName("delta", d))
	}
	return names
}

// files are the names of all files that CURRENT names.
func (c current) files() []string { return append(c.names(), fileName("trust", c.trusts)) }

func (c current) basePath(dir string) string  { return filepath.Join(dir, fileName("base", c.base)) }
func (c current) trustPath(dir string) string { return filepath.Join(dir, fileName("trust", c.trusts)) }

func fileName(kind string, generation uint64) string {
	suffix := ".db"
	if kind == "trust" {
		suffix = ".pb"
	}
	return kind + "-" + strconv.FormatUint(generation, 10) + suffix
}

// parseFileName is the inverse of fileName.
func parseFileName(name string) (kind string, generation uint64, ok bool) {
	kind, rest, found := strings.Cut(name, "-")
	number, suffix, found2 := strings.Cut(rest, ".")
	if !found || !found2 {
		return "", 0, false
	}
	generation, err := strconv.ParseUint(number, 10, 64)
	if err != nil || suffix == "" || fileName(kind, generation) != name {
		return "", 0, false
	}
	switch kind {
	case "base", "delta", "trust":
		return kind, generation, true
	}
	return "", 0, false
}

// parseCurrent reads a link target, strictly.
func parseCurrent(s string) (current, error) {
	parts := strings.Split(s, ".")
	if version := parts[0]; version != strconv.Itoa(FormatVersion) {
		return current{}, fmt.Errorf("%w: %.20q, this program reads %d", ErrFormat, version, FormatVersion)
	}
	if len(parts) != 6 || len(parts[1]) != 16 {
		return current{}, fmt.Errorf("%w: CURRENT is %.80q", ErrDamaged, s)
	}
	var c current
	deltas := strings.Split(parts[4], "-")
	fields := []*uint64{&c.id, &c.generation, &c.base, nil, &c.trusts}
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
			return current{}, fmt.Errorf("%w: CURRENT is %.80q", ErrDamaged, s)
		}
		*field = n
	}
	for i, d := range deltas[:min(len(deltas), maxDeltas)] {
		c.deltas[i], _ = strconv.ParseUint(d, 10, 64) // what is no number is not written so
	}
	newest := max(c.base, c.trusts)
	for _, d := range c.layers() {
		newest = max(newest, d)
	}
	if c.String() != s || newest > c.generation || c.base == 0 || c.trusts == 0 {
		return current{}, fmt.Errorf("%w: CURRENT is %.80q", ErrDamaged, s)
	}
	return c, nil
}

// readCurrent returns the link's target and its meaning.
func readCurrent(dir string) (string, current, error) {
	target, err := os.Readlink(filepath.Join(dir, currentName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", current{}, ErrNoCache
	}
	if err != nil {
		return "", current{}, fmt.Errorf("%w: %w", ErrNoCache, err)
	}
	c, err := parseCurrent(target)
	return target, c, err
}

// Keys of the published buckets.

func imageKey(repository string, d [32]byte) []byte {
	k := make([]byte, 0, len(repository)+1+len(d))
	k = append(append(k, repository...), 0)
	return append(k, d[:]...)
}

func tagKey(repository, tag string) []byte {
	return append(append(append(make([]byte, 0, len(repository)+1+len(tag)), repository...), 0), tag...)
}

func digestKey(d [32]byte, repository string) []byte {
	return append(append(make([]byte, 0, len(d)+len(repository)), d[:]...), repository...)
}
