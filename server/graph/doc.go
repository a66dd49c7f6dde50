// Package graph answers zot's GraphQL queries, and a few of its own, from one
// snapshot of the cache.
//
// The package schema has the names, arguments and types of zot's search extension, and
// the code that is generated from them.
// What zot knows and this program does not — vulnerabilities, layers, downloads,
// users — is null, or a list that is empty where zot's type has to have one; two
// values that zot's client must be able to parse are zero (convert.go).
//
// Invariants:
//
//	G1. One request reads one snapshot, from one goroutine at a time.
//	G2. A request's cost is bounded before and while it runs: the size and depth
//	    of the query, its complexity, the records looked at and the images made.
//	    What does not fit is an error that says how to ask for less, never a
//	    shorter list.
//	G3. IsTrusted is what the cache's join decided, for that repository.
package graph
