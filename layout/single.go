package layout

import "strings"

// IsRepository reports whether Walk would find a repository of that name now,
// at the cost of that one. What cannot be listed is none.
func (r *Root) IsRepository(name string) bool {
	if !r.serves(name) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if hidden(part) {
			return false
		}
	}
	dir, err := r.directory(name)
	if err != nil {
		return false
	}
	defer dir.Close()
	for _, file := range []string{indexFile, layoutFile} {
		if _, err := dir.Lstat(file); err != nil {
			return false
		}
	}
	return true
}
