// Package layout is a read-only view of registry storage: which repositories
// there are, which images they hold, and which signatures name which of them.
// It knows two on-disk forms: zot's, one OCI image layout a repository
// (OCI image-spec v1.1, image-layout), and CNCF distribution's, links to
// bytes that all repositories share.
//
// Everything in storage is written by whoever may push. The package says what
// is there and what claims to sign what; it verifies no signature and decides
// nothing about trust.
//
// Invariants:
//
//	L1. Nothing is opened outside the storage root. Directories are opened
//	    through os.Root; files by one openat of a fixed or all-hex name, with
//	    O_NOFOLLOW and O_NONBLOCK, below a directory so opened; both also by
//	    openat2, or in steps, through no symlink. No path holds
//	    a digest or a name that was not parsed first.
//	L2. A file is read only after fstat said that it is regular and no larger
//	    than its limit. Nothing stored makes the package block or use memory
//	    out of proportion to the limits.
//	L3. Every blob is hashed before a byte of it is looked at.
//	L4. The kind of a manifest is read from its own bytes. A descriptor or an
//	    annotation elsewhere that says otherwise can at most make it ambiguous.
//	L5. The carriers of signatures add up; none masks another. A pair (subject,
//	    signature manifest) is one Reference.
//	L6. One bad descriptor, link, manifest or blob costs only itself, and is
//	    named in Contents.Problems. Only an index.json, or directories of
//	    links, that cannot be read as a whole are an error, and then there are
//	    no Contents at all.
//	L7. The result depends on the stored bytes alone: neither on the order of
//	    events, nor on what an earlier call learned.
//	L8. Types in this package have no method that writes.
//	L9. A Stamp belongs to the very bytes that were read. When they were
//	    changing too fast to tell, it is the zero Stamp, which no file has.
//	L10. In distribution's form a manifest or a layer is read only where this
//	    repository has a link to it. That its bytes are in storage says nothing.
//
// Storage is on a local POSIX file system. Object stores are not supported.
package layout
