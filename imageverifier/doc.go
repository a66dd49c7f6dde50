// Package imageverifier answers containerd's image verifier plugin interface: may an image
// be pulled onto this node. It asks a trust-worker for what it has decided and decides
// nothing itself.
//
// containerd runs each program in its bin_dir with -name and -digest before a pull
// (containerd, docs/image-verification.md). Exit code 0 allows the pull, any other refuses
// it, and what is on standard output is the reason.
//
// Invariants:
//
//	V1. An image of a registry that the settings name is allowed only if the worker says
//	    that this digest is trusted now, or, where the settings say so, if the worker has
//	    not decided or does not answer.
//	V2. Whatever else goes wrong refuses: no settings, settings that cannot be read, a name
//	    or digest that cannot be read, an answer of another form.
package imageverifier
