// Package preview answers, before a change of keys, identities or policy is made, which
// images it would cost, keep and gain.
//
// It loads the trust directories as they are and, from a copy, as they would be, and has
// both decide over what is published: the daemon's own decision, over what it has verified.
// Removals, scopes, identities and lists of stores are therefore exact. What has to be
// verified first is not guessed: what a new key, certificate or root may turn out to have made
// is verified in storage up to a budget, and counted beyond; an edited meaning of a policy is
// counted.
//
// Nothing is changed, but for a temporary directory.
package preview
