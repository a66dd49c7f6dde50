package cache_test

import (
	"os/exec"
	"strings"
	"testing"
)

// C7: programs that read the cache do not pay for verifying, nor for replicas.
func TestReaderImportsNeitherCosignNorNotation(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := 0
	for pkg := range strings.Lines(string(out)) {
		n++
		for _, heavy := range []string{"sigstore", "notaryproject", "go-containerregistry", "k8s.io", "net/http", "nats"} {
			if strings.Contains(pkg, heavy) {
				t.Errorf("imports %s", pkg)
			}
		}
	}
	if n == 0 {
		t.Error("nothing listed")
	}
}
