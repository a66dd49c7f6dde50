package layout

import (
	"os"
	"path/filepath"
)

// Instead says what a directory without repositories holds, for a message that ends
// with it; "" if that is not known.
func Instead(dir string) string {
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	switch {
	case there("oci-layout") || there("index.json"):
		return "; it is a repository itself: give the directory above it"
	case there("docker/registry/v2"):
		return "; it is the storage of a CNCF distribution registry (docker/registry/v2), to which nothing has been pushed or whose layout is not the one that is read (see --layout)"
	case there("registry/v2"), there("v2/repositories"), there("repositories") && there("blobs"):
		return "; it is a part of the storage of a CNCF distribution registry: give the directory that docker/registry/v2 is in"
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) == 0 {
		return "; the directory is empty"
	}
	return "; a repository is a directory with the files oci-layout and index.json"
}
