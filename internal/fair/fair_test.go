package fair

import (
	"slices"
	"testing"
)

func TestOrder(t *testing.T) {
	in := []string{"evil/a", "team/x", "evil/b", "evil/c", "lone", "evil/d", "team/y"}
	want := []string{"evil/a", "lone", "team/x", "evil/b", "team/y", "evil/c", "evil/d"}
	if got := Order(in, TopLevel); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Order([]string(nil), TopLevel); len(got) != 0 {
		t.Errorf("of nothing: %q", got)
	}
}
