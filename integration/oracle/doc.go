// Package oracle asks cosign's and notation-go's own verifiers about one signature,
// as directly as their libraries allow: with a reading of keys, certificates and
// manifests of its own, trying every key, every hash that docs/differences.md
// allows, and every kind of signature. It shares nothing with the packages that
// it is held against, and imports none of them.
//
// It is generous: what it accepts may be refused for a reason of ours, what it
// refuses must never be trusted.
package oracle
