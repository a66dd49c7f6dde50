package powercut

import (
	"fmt"
	"strings"
	"time"
)

// Kind is what an operation does.
type Kind string

// The operations that the model knows.
const (
	Create   Kind = "create" // a file; one that is there stays
	Truncate Kind = "truncate"
	Write    Kind = "write"
	Times    Kind = "times"     // sets the modification time
	Sync     Kind = "fsync"     // of a file or a directory
	SyncData Kind = "fdatasync" // of a file
	Mkdir    Kind = "mkdir"
	Symlink  Kind = "symlink"
	Rename   Kind = "rename"
	Unlink   Kind = "unlink" // a file, a link or an empty directory
	Said     Kind = "said"   // written to standard output
)

// Op is one thing that a process did to files below a directory, or said.
type Op struct {
	Kind   Kind
	Path   string // below the directory; "." is the directory itself
	To     string // Rename: the new path; Symlink: the target
	Data   []byte // Write, Said
	Offset int64  // Write
	Size   int64  // Truncate
	Time   time.Time
}

func (o Op) String() string {
	switch o.Kind {
	case Write:
		return fmt.Sprintf("write %s %d+%d", o.Path, o.Offset, len(o.Data))
	case Truncate:
		return fmt.Sprintf("truncate %s to %d", o.Path, o.Size)
	case Said:
		return fmt.Sprintf("said %q", o.Data)
	case Rename, Symlink:
		return fmt.Sprintf("%s %s to %s", o.Kind, o.Path, o.To)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Path)
}

// Says reports whether the process began a line with text.
func (o Op) Says(text string) bool { return o.Kind == Said && strings.HasPrefix(string(o.Data), text) }
