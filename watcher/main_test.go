package watcher

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that must happen. It is no
// measure of anything: no test expects to wait even a hundredth of it.
const patience = 30 * time.Second

// torture says whether loops run at their full length.
var torture = os.Getenv("TRUST_WORKER_TORTURE") == "1"
