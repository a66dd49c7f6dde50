// Package webhook tells other programs of changes of trust: each as one
// CloudEvent (CloudEvents 1.0, HTTP binding, structured mode), signed as
// Standard Webhooks has it, so that its libraries check it:
//
//	webhook-id: the event's id, the same at each attempt
//	webhook-timestamp: Unix seconds of the attempt
//	webhook-signature: v1,base64(HMAC-SHA256(secret, id + "." + timestamp + "." + body))
//
// A receiver gets the changes in order, each at least once. The journal is the
// queue, so that a receiver that is down costs nothing and loses nothing until
// it is more than the journal behind: then it gets a reset, and what it missed
// is counted. The place of each receiver survives a restart.
//
// No answer waits for a webhook, and nothing is read from one but its status.
package webhook
