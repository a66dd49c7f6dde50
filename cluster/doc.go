// Package cluster connects workers over one storage, or over copies of it, so that each
// signature is verified by one of them and not by all.
//
// Every worker has its own store and its own publications, and owes everything. Whose turn
// a repository is follows from rendezvous order over the members that are heard (turns.go);
// the others wait, and take the fact once it has been told. If it is not told in time they
// verify for themselves: a member that is gone, a NATS server that is gone or a fact that is
// lost costs work and time, and no answer. There is no leader, no queue of work, and no
// state here that could be lost.
//
// Facts are in a JetStream stream, the last one for each subject, which names the
// signature, the image and the context; members are heartbeats in a key-value bucket with a
// time to live; hints, that something is to be looked at, are core NATS messages. All carry
// an HMAC-SHA-256 by the cluster's key over the subject and all that they say (key.go):
// whoever has an account at the NATS servers can keep messages back, and send old ones
// again, which costs work and time. Whoever has the key can make anything trusted.
//
// What a fact has to be for a worker to take it, package scheduler decides, which has the
// storage and the trust store to compare it with.
package cluster
