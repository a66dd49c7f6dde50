package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Whoever has many signatures that end soon does not hide anybody else's.
func TestExpiringHasShares(t *testing.T) {
	now := time.Now()
	a := &expiringAnswer{}
	for i := range 3 * maxExpiring {
		a.add(expiringSignature{RepoName: fmt.Sprint("evil/", i%7), Until: now.Add(time.Duration(i) * time.Millisecond)})
	}
	a.add(expiringSignature{RepoName: "team/app", Until: now.Add(72 * time.Hour)})
	a.first(maxExpiring)
	if len(a.Signatures) != maxExpiring || a.Omitted != 2*maxExpiring+1 {
		t.Errorf("%d signatures and %d more", len(a.Signatures), a.Omitted)
	}
	if last := a.Signatures[len(a.Signatures)-1]; last.RepoName != "team/app" {
		t.Errorf("the last is %s; team/app is hidden", last.RepoName)
	}
	if !slices.IsSortedFunc(a.Signatures, func(x, y expiringSignature) int { return x.Until.Compare(y.Until) }) {
		t.Error("they are not in order")
	}
}
