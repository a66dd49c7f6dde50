// Package page turns answers into HTML: the status page that the daemon serves.
//
// It reads nothing and decides nothing: what it is given it shows. Package
// server gathers it from one snapshot, and holds requests to the right to read.
//
// Invariants:
//
//	P1. What comes from storage, from the trust directories or from an error is
//	    a [Text]: characters that are not printed, or that change how others
//	    are, show escaped. html/template escapes what HTML would interpret.
//	P2. Nothing is loaded from elsewhere, and nothing runs but the one script
//	    that is served beside the page ([ContentSecurityPolicy]). The page is
//	    whole without it.
//	P3. A state is a shape, a colour and a word, from one table.
package page
