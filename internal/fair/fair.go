// Package fair shares out what is scarce among those who compete for it.
package fair

import (
	"cmp"
	"slices"
	"strings"
)

// Order puts items in an order in which each owner has one in turn, by name, until it
// has no more. The items of one owner stay in their order. So whoever has many items
// takes what the others leave, and nothing that is theirs.
func Order[T any](items []T, owner func(T) string) []T {
	type placed struct {
		item  T
		owner string
		nth   int // of its owner
	}
	all, count := make([]placed, len(items)), map[string]int{}
	for i, item := range items {
		o := owner(item)
		all[i] = placed{item, o, count[o]}
		count[o]++
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.nth, b.nth), strings.Compare(a.owner, b.owner))
	})
	out := make([]T, len(items))
	for i := range all {
		out[i] = all[i].item
	}
	return out
}

// TopLevel is the owner of a repository's name: its first part.
func TopLevel(name string) string {
	top, _, _ := strings.Cut(name, "/")
	return top
}
