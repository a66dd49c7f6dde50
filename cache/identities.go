package cache

import (
	"sync"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// identity reads who a keyless signature's certificate was issued to; nil if it cannot be
// read. Identities are parsed once for many looks.
func (s *Snapshot) identity(key []byte) *trust.Identity {
	if len(key) != len(format.AuthorKey{}) {
		return nil
	}
	return s.r.identities.get(format.AuthorKey(key), func() *trust.Identity {
		body, ok, err := s.get(format.InAuthors, key)
		if !ok || err != nil {
			return nil
		}
		return trust.ParseIdentity(string(body))
	})
}

// identities are those that a Reader has parsed, by the hash of their text. They are
// bounded; when there are too many it begins anew.
type identities struct {
	mu    sync.RWMutex
	known map[format.AuthorKey]*trust.Identity
}

const maxIdentities = 1 << 14

func (i *identities) get(key format.AuthorKey, read func() *trust.Identity) *trust.Identity {
	i.mu.RLock()
	id := i.known[key]
	i.mu.RUnlock()
	if id != nil {
		return id
	}
	if id = read(); id == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known == nil || len(i.known) >= maxIdentities {
		i.known = map[format.AuthorKey]*trust.Identity{}
	}
	i.known[key] = id
	return id
}
