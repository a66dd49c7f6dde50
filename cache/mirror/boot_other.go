//go:build !linux

package mirror

import "time"

// sinceBoot is a clock that nobody sets. It may stand still while the machine sleeps.
func sinceBoot() time.Duration { return time.Since(started) }

var started = time.Now()
