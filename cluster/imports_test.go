package cluster

import (
	"os/exec"
	"strings"
	"testing"
)

// The program has a client of NATS and no server; nothing that reads answers has either.
func TestNoServerInTheProgram(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../cmd/trust-worker").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "nats-server") {
		t.Error("the program has a NATS server in it")
	}
	if !strings.Contains(string(out), "nats-io/nats.go") {
		t.Error("it has no client of NATS either: this test looks at something else")
	}
}
