package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// dictionary gives small numbers to signers, policies and authors. Numbers
// are never reused within a cache: a ground names its signers by them. Signers
// and policies are few and kept in memory; authors are looked up.
//
// A number becomes visible outside a transaction only once that is committed.
type dictionary struct {
	mu       sync.RWMutex
	signers  map[trust.Signer]uint32
	signerOf map[uint32]trust.Signer
	policies map[trust.PolicyID]uint32
	policyOf map[uint32]trust.PolicyID
	trustGen uint64
	nextSign uint32
	nextPol  uint32
	nextAuth uint32
}

// load replaces what is in memory by what the transaction sees. Reading it may take
// long on a disk that fails: nobody waits for that.
func (d *dictionary) load(tx *bbolt.Tx) error {
	n := &dictionary{signers: map[trust.Signer]uint32{}, signerOf: map[uint32]trust.Signer{},
		policies: map[trust.PolicyID]uint32{}, policyOf: map[uint32]trust.PolicyID{}, trustGen: getMeta(tx, metaTrust)}
	err := tx.Bucket(privSigners).ForEach(func(k, v []byte) error {
		var p cachepb.Signer
		if ok, err := unsealMessage(k, v, &p); !ok || err != nil || len(k) != 4 {
			return fmt.Errorf("%w: signer %x", ErrDamaged, k)
		}
		n.addSigner(binary.BigEndian.Uint32(k), decodeSigner(&p))
		return nil
	})
	if err != nil {
		return err
	}
	err = tx.Bucket(privPolicies).ForEach(func(k, v []byte) error {
		body, ok, err := unseal(k, v)
		if !ok || err != nil || len(k) != 4 || len(body) != 32 {
			return fmt.Errorf("%w: policy %x", ErrDamaged, k)
		}
		n.addPolicy(binary.BigEndian.Uint32(k), trust.PolicyID(body))
		return nil
	})
	if err != nil {
		return err
	}
	if k, _ := tx.Bucket(privAuthors).Cursor().Last(); len(k) == 4 {
		n.nextAuth = binary.BigEndian.Uint32(k)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signers, d.signerOf, d.policies, d.policyOf = n.signers, n.signerOf, n.policies, n.policyOf
	d.trustGen, d.nextSign, d.nextPol, d.nextAuth = n.trustGen, n.nextSign, n.nextPol, n.nextAuth
	return nil
}

func (d *dictionary) addSigner(id uint32, s trust.Signer) {
	d.signers[s], d.signerOf[id] = id, s
	d.nextSign = max(d.nextSign, id)
}

func (d *dictionary) addPolicy(id uint32, p trust.PolicyID) {
	d.policies[p], d.policyOf[id] = id, p
	d.nextPol = max(d.nextPol, id)
}

func (d *dictionary) trustGeneration() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.trustGen
}

// session is a dictionary within one write transaction. Its additions reach
// the dictionary by keep, called after the commit.
type session struct {
	d        *dictionary
	tx       *bbolt.Tx
	signers  map[trust.Signer]uint32
	policies map[trust.PolicyID]uint32
	signerOf map[uint32]trust.Signer
	policyOf map[uint32]trust.PolicyID
	trustGen uint64
	nextSign uint32
	nextPol  uint32
	nextAuth uint32
	authors  []uint32 // new ones, to be published
}

func (d *dictionary) session(tx *bbolt.Tx) *session {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return &session{d: d, tx: tx, signers: map[trust.Signer]uint32{}, policies: map[trust.PolicyID]uint32{},
		signerOf: map[uint32]trust.Signer{}, policyOf: map[uint32]trust.PolicyID{},
		trustGen: d.trustGen, nextSign: d.nextSign, nextPol: d.nextPol, nextAuth: d.nextAuth}
}

// keep makes the session's numbers visible; the transaction has committed.
func (s *session) keep() {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	for signer, id := range s.signers {
		s.d.addSigner(id, signer)
	}
	for policy, id := range s.policies {
		s.d.addPolicy(id, policy)
	}
	s.d.nextAuth = max(s.d.nextAuth, s.nextAuth)
	s.d.trustGen = max(s.d.trustGen, s.trustGen)
}

func (s *session) signerID(signer trust.Signer) (uint32, error) {
	s.d.mu.RLock()
	id, ok := s.d.signers[signer]
	s.d.mu.RUnlock()
	if ok {
		return id, nil
	}
	if id, ok := s.signers[signer]; ok {
		return id, nil
	}
	s.nextSign++
	key := id32(s.nextSign)
	v, err := sealMessage(key, encodeSigner(s.nextSign, signer, ""))
	if err != nil {
		return 0, err
	}
	s.signers[signer], s.signerOf[s.nextSign] = s.nextSign, signer
	return s.nextSign, s.tx.Bucket(privSigners).Put(key, v)
}

func (s *session) policyID(p trust.PolicyID) (uint32, error) {
	s.d.mu.RLock()
	id, ok := s.d.policies[p]
	s.d.mu.RUnlock()
	if ok {
		return id, nil
	}
	if id, ok := s.policies[p]; ok {
		return id, nil
	}
	s.nextPol++
	key := id32(s.nextPol)
	s.policies[p], s.policyOf[s.nextPol] = s.nextPol, p
	return s.nextPol, s.tx.Bucket(privPolicies).Put(key, seal(key, p[:]))
}

func (s *session) authorID(text string) (uint32, error) {
	sum := sha256.Sum256([]byte(text))
	ids := s.tx.Bucket(privAuthorID)
	if body, ok, err := unseal(sum[:], ids.Get(sum[:])); err != nil {
		return 0, err
	} else if ok && len(body) == 4 {
		return binary.BigEndian.Uint32(body), nil
	}
	s.nextAuth++
	key := id32(s.nextAuth)
	if err := s.tx.Bucket(privAuthors).Put(key, seal(key, []byte(text))); err != nil {
		return 0, err
	}
	s.authors = append(s.authors, s.nextAuth)
	return s.nextAuth, ids.Put(sum[:], seal(sum[:], key))
}

// The session resolves its own numbers as well as those that are kept.

func (s *session) signer(id uint32) trust.Signer {
	if signer, ok := s.signerOf[id]; ok {
		return signer
	}
	return known{s.d, s.tx}.signer(id)
}

func (s *session) policy(id uint32) trust.PolicyID {
	if policy, ok := s.policyOf[id]; ok {
		return policy
	}
	return known{s.d, s.tx}.policy(id)
}

func (s *session) author(id uint32) string { return known{s.d, s.tx}.author(id) }

// known resolves ids in a read transaction.
type known struct {
	d  *dictionary
	tx *bbolt.Tx
}

func (k known) signer(id uint32) trust.Signer {
	k.d.mu.RLock()
	defer k.d.mu.RUnlock()
	return k.d.signerOf[id]
}

func (k known) policy(id uint32) trust.PolicyID {
	k.d.mu.RLock()
	defer k.d.mu.RUnlock()
	return k.d.policyOf[id]
}

func (k known) author(id uint32) string {
	key := id32(id)
	body, ok, err := unseal(key, k.tx.Bucket(privAuthors).Get(key))
	if !ok || err != nil {
		return ""
	}
	return string(body)
}

func id32(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func encodeSigner(id uint32, s trust.Signer, author string) *cachepb.Signer {
	return &cachepb.Signer{Id: id, Tool: encodeCode(toolCodes, s.Tool), StoreType: s.StoreType,
		StoreName: s.StoreName, Fingerprint: s.Fingerprint[:], Author: author}
}

func decodeSigner(p *cachepb.Signer) trust.Signer {
	s := trust.Signer{Tool: decodeCode(toolCodes, p.Tool), StoreType: p.StoreType, StoreName: p.StoreName}
	copy(s.Fingerprint[:], p.Fingerprint)
	return s
}
