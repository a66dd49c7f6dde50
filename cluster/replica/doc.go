// Package replica keeps a copy of what a worker publishes, on another machine, over HTTP.
//
// A Follower asks its source what is published, waits for the answer until that changes,
// fetches the files that it does not have, and gives them to a [mirror.Mirror], which
// says what may be published together. Whoever answers at the source's address decides
// what is trusted here.
//
//	follow.go  the loops: asking, fetching, tending
//	client.go  HTTP: requests, limits, credentials
//	status.go  how it goes
package replica
