package main

import "testing"

// TestPlainCell: no cell starts a formula, and none acts on a terminal.
func TestPlainCell(t *testing.T) {
	for in, want := range map[string]string{"": "", "team/app": "team/app", "=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "·=1", "a\x1b[2J": "a·[2J", "CN=a": "CN=a"} {
		if got := plainCell(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
