package format

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrDamaged is returned for a value that fails its checksum or cannot be
// decoded. A damaged private store is set aside and rebuilt.
var ErrDamaged = errors.New("damaged value")

// RecoverDamage turns a panic below into ErrDamaged: bbolt panics on a page
// that cannot be, and a truncated mapping faults. So does a mistake of ours in
// what runs inside a transaction, and costs the cache. The two are not told
// apart: bbolt hands out keys and values by offsets that it reads from the page, so
// that damage shows as any runtime error, in its code or in what decodes, and
// to take damage for a mistake would end the process at each start.
func RecoverDamage(err *error) {
	if p := recover(); p != nil {
		*err = Damage(p)
	}
}

// Damage is what a panic says.
func Damage(p any) error {
	if err, ok := p.(error); ok && errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %v", ErrDamaged, p)
}

// Guard turns damage met in a mapped file into ErrDamaged.
func Guard(err *error, fn func() error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer RecoverDamage(err)
	*err = fn()
}
