package cache

import (
	"errors"
	"fmt"

	"trust-worker/cache/internal/format"
)

// FormatVersion is the published format. Readers refuse another.
const FormatVersion = format.FormatVersion

// Answers cannot be read: they are unknown. ErrDamaged may concern one value alone.
var (
	// ErrNoCache: nothing is published. No daemon has run here, or the publication
	// was withdrawn because it could not be kept true.
	ErrNoCache = format.ErrNoCache
	// ErrFormat: what is published has the format of another version, or demands
	// what this one does not know. Build the reader and the daemon from the same one.
	ErrFormat = format.ErrFormat
	// ErrDamaged: a value fails its checksum or cannot be decoded. The daemon sets a
	// damaged cache aside and makes another.
	ErrDamaged = format.ErrDamaged
	// ErrClosed: the Reader was closed.
	ErrClosed = errors.New("reader is closed")
)

// Something is not in the cache.
var (
	// ErrNotFound: the cache does not know the repository, tag or digest.
	ErrNotFound = errors.New("not in the cache")
	// ErrUnlisted is the ErrNotFound of what may well be in storage: its repository,
	// or a directory above it, could not be listed. It is not known, as opposed to
	// not there.
	ErrUnlisted = fmt.Errorf("%w, and its repository could not be listed", ErrNotFound)
	// ErrPartial is the ErrNotFound of what may well be in storage: that has not been
	// read to its end since the cache was begun.
	ErrPartial = fmt.Errorf("%w yet: storage has not been read to its end", ErrNotFound)
)
