package scheduler

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"

	"trust-worker/trust"
)

// crashes remembers, across the death of the process, which signatures were
// being verified: a plain file of fixed slots in the private directory, written
// before each and after, never synced. The kernel keeps it when the process
// dies; a power cut may lose it, which blames nobody. See docs/adr/0006.
//
//	0   "TWV1", epoch (4)
//	16  slots:    maxSlots × digest (32), zero when free
//	…   suspects: maxSuspects × digest (32), deaths (8)
type crashes struct {
	mu       sync.Mutex
	f        *os.File // nil: it could not be made, and nothing is remembered
	slots    [maxSlots]trust.Digest
	suspects [maxSuspects]suspect
}

type suspect struct {
	digest trust.Digest
	deaths uint64
}

const (
	maxSlots      = 64 // more at once than these are not remembered
	maxSuspects   = 64
	slotsAt       = 16
	suspectsAt    = slotsAt + maxSlots*32
	verifyingSize = suspectsAt + maxSuspects*40
)

// openCrashes opens the record of a verifier's epoch: another's is forgotten. What
// was being verified when the last process died has died once more.
func openCrashes(path string, epoch uint32, log *slog.Logger) *crashes {
	v := &crashes{}
	b, err := os.ReadFile(path)
	if err == nil && len(b) == verifyingSize && string(b[:4]) == "TWV1" && binary.BigEndian.Uint32(b[4:]) == epoch {
		v.decode(b)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("cannot read what was being verified", "error", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		if _, err = f.WriteAt(v.encode(epoch), 0); err != nil {
			err = errors.Join(err, f.Close())
		} else {
			v.f = f
		}
	}
	if err != nil { // a full disk must not keep the daemon from verifying
		log.Warn("cannot remember what is being verified", "error", err)
	}
	return v
}

// decode reads a file that an earlier process left.
func (v *crashes) decode(b []byte) {
	for i := range v.suspects {
		at := b[suspectsAt+40*i:]
		v.suspects[i] = suspect{trust.Digest(at[:32]), binary.BigEndian.Uint64(at[32:])}
	}
	for i := range v.slots {
		d := trust.Digest(b[slotsAt+32*i:][:32])
		if d == (trust.Digest{}) {
			continue
		}
		k := v.find(d)
		if k < 0 {
			k = v.find(trust.Digest{})
		}
		if k >= 0 {
			v.suspects[k] = suspect{d, v.suspects[k].deaths + 1}
		}
	}
}

func (v *crashes) encode(epoch uint32) []byte {
	b := make([]byte, verifyingSize)
	binary.BigEndian.PutUint32(b[copy(b, "TWV1"):], epoch)
	for i, s := range v.suspects {
		copy(b[suspectsAt+40*i:], s.encode())
	}
	return b
}

func (s suspect) encode() []byte { return binary.BigEndian.AppendUint64(s.digest[:], s.deaths) }

// find returns the suspect with a digest; the zero digest finds room for one.
func (v *crashes) find(d trust.Digest) int {
	return slices.IndexFunc(v.suspects[:], func(s suspect) bool { return s.digest == d })
}

// deaths says how many processes in a row died while they verified d.
func (v *crashes) deaths(d trust.Digest) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k := v.find(d); k >= 0 {
		return int(v.suspects[k].deaths)
	}
	return 0
}

// list returns the signatures at which at least so many processes died.
func (v *crashes) list(deaths int) (all []trust.Digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.suspects {
		if s.digest != (trust.Digest{}) && int(s.deaths) >= deaths {
			all = append(all, s.digest)
		}
	}
	return all
}

// begin remembers that d is being verified; done ends it, and with it any
// suspicion against d.
func (v *crashes) begin(d trust.Digest) (done func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	slot := slices.Index(v.slots[:], trust.Digest{})
	if slot < 0 || v.f == nil {
		return func() {}
	}
	v.write(slot, d)
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.write(slot, trust.Digest{})
		if k := v.find(d); k >= 0 {
			v.suspects[k] = suspect{}
			_, _ = v.f.WriteAt(v.suspects[k].encode(), suspectsAt+40*int64(k)) // at worst it stays suspect
		}
	}
}

// write fills a slot. The file has its size: only an I/O error can keep it from
// being written, and then it is merely not remembered.
func (v *crashes) write(slot int, d trust.Digest) {
	v.slots[slot] = d
	_, _ = v.f.WriteAt(d[:], slotsAt+32*int64(slot))
}

// close ends remembering; what is in flight stays so.
func (v *crashes) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.f == nil {
		return nil
	}
	f := v.f
	v.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", f.Name(), err)
	}
	return nil
}
