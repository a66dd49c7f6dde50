// Package server is the daemon's HTTP server: zot's uploads of trust material,
// zot's GraphQL search, a REST API, a gate for proxies, health and metrics.
//
// It decides nothing. Answers are read through a [cache.Reader], as any other
// process would; uploads and removals change files in the trust directories and
// then ask the daemon to look at them.
//
// Invariants:
//
//	H1. Nothing changes the trust directories but a request whose caller has
//	    the right to write. Reads and writes are separate rights. A caller
//	    whose identity cannot be established has neither.
//	H2. Nothing is written that a load would refuse. Uploads are written to the
//	    two trust directories alone; the token for them, to the state
//	    directory. Private keys are never stored, echoed or logged.
//	H3. A file that an upload writes is there in full or not at all, and when
//	    the upload has answered 200 it is durable and published.
//	H4. A removal answers 200 only when what is published no longer holds the
//	    signer. Of a file that holds other certificates, those stay in force
//	    throughout.
//	H5. Each request reads one snapshot, and no request touches the writer's
//	    database. What a request may cost is bounded before it is begun.
//	H6. Every change to the trust directories, made or refused, is in the audit
//	    log: who, what, from where, with which result.
//	H7. An answer that cannot be given is an error, never an answer without
//	    the part that could not be read.
//
// It does not serve the registry API. No other origin may change anything, and
// only those that the operator names may read.
package server
