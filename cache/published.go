package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The published form: immutable files beside a symbolic link CURRENT whose
// target names them, so that one readlink tells a reader what is in force:
//
//	published/CURRENT → 1.<cache id>.<generation>.<base>.<delta>.<trust>
//	published/base-<generation>.db    bbolt, compacted
//	published/delta-<generation>.db   bbolt, what changed since the base
//	published/trust-<generation>.pb   signers and statements in force
//
// Each file is named by the generation that made it. A delta of 0 means none.
// Generations never go backwards within a cache id; a new id is always
// accepted. A trust file's modification time is the lease: the last time that
// the daemon found the trust directories to be what the file says.
const (
	// FormatVersion is the published format. Readers refuse another.
	FormatVersion = 2

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
//	repositories  repository                         → Counts
//	authors       id (4 bytes, big endian)           → text
//	unlisted      repository                         → 1
//	signed        signer id (4 bytes, big endian)    → number of signatures (8 bytes) that rest on it
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
	bucketSigned       = []byte("signed")

	bucketMeta  = []byte("meta")
	keySequence = []byte("sequence")

	// publishedBuckets are those that readers read.
	publishedBuckets = [][]byte{bucketImages, bucketTags, bucketDigests, bucketRepositories, bucketAuthors, bucketUnlisted, bucketSigned}
)

// ErrNoCache is returned when nothing is published: no daemon has run here,
// or the publication was withdrawn because it could not be kept true.
var ErrNoCache = errors.New("no cache is published")

// ErrFormat is returned for a publication of another format.
var ErrFormat = errors.New("published cache has another format")

// current is what CURRENT says.
type current struct {
	id                              uint64
	generation, base, delta, trusts uint64
}

func (c current) String() string {
	return fmt.Sprintf("%d.%016x.%d.%d.%d.%d", FormatVersion, c.id, c.generation, c.base, c.delta, c.trusts)
}

func (c current) basePath(dir string) string  { return filepath.Join(dir, fileName("base", c.base)) }
func (c current) deltaPath(dir string) string { return filepath.Join(dir, fileName("delta", c.delta)) }
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
	for i, field := range []*uint64{&c.id, &c.generation, &c.base, &c.delta, &c.trusts} {
		base := 10
		if i == 0 {
			base = 16
		}
		n, err := strconv.ParseUint(parts[i+1], base, 64)
		if err != nil {
			return current{}, fmt.Errorf("%w: CURRENT is %.80q", ErrDamaged, s)
		}
		*field = n
	}
	if c.String() != s || max(c.base, c.delta, c.trusts) > c.generation || c.base == 0 || c.trusts == 0 {
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
