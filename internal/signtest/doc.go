// Package signtest makes keys, certificates, signatures and registry storage for
// tests, benchmarks and demonstrations: real cryptography, in memory, no tools.
//
// Signatures are made by the same libraries that cosign and notation use, or by
// hand where a test needs one that those would refuse to make. [Storage] writes
// them as zot lays them out on disk, by every carrier.
//
// Nothing here returns errors: every function panics when it fails, since a test
// that cannot make its own input has nothing to report but that.
package signtest

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
