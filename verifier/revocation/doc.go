// Package revocation asks OCSP responders and CRL distribution points about
// certificate chains, apart from whoever wants to know: [Checker.Check] answers
// at once from what is known and leaves the asking to goroutines of its own.
//
// notation-core-go's revocation package makes the requests and decides what the
// responses say. This package gives it its HTTP transport, which adds what that
// package leaves open: a cache, bounds, and the checks of responses below.
//
// Invariants:
//
//	R1. Check never waits for the network. What is not known yet is unknown.
//	R2. An answer other than unknown ends: at the next update of the response
//	    that ends first, and at most [MaxAge] after it was fetched.
//	R3. A response is kept only if its signature verifies under the issuer of a
//	    certificate of the chain that was asked about, it is in force, and it is
//	    about that certificate. An OCSP responder that is not the issuer itself
//	    has a certificate by the issuer for that purpose (RFC 6960, section
//	    4.2.2.2), which x/crypto and notation-core-go do not check. A CRL's scope
//	    covers the certificate (RFC 5280, section 5.2.5), which notation-core-go
//	    leaves to the distribution point. Of two responses the newer counts.
//	R4. Only addresses of the chains given to Check are asked, over http, through
//	    the environment's proxy if there is one, with no redirect followed. Whoever calls Check has found the chain to end at a
//	    trusted certificate first: a stranger's chain is not given to it.
//	R5. Bodies, entries, bytes, goroutines and what waits for them are bounded.
//	    One host has at most two requests' worth of goroutines, and is left alone
//	    for a while after it did not answer.
//
// Nothing is kept on disk: the grounds of stored verdicts carry their own ends,
// so that a restart asks nothing until one of them nears (ADR 0005).
package revocation
