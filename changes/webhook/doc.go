// Package webhook tells other programs of changes of trust: each as one
// CloudEvent (CloudEvents 1.0, HTTP binding, structured mode), signed as
// Standard Webhooks has it, so that its libraries check it:
//
//	webhook-id: the event's id, the same at each attempt
//	webhook-timestamp: Unix seconds of the attempt
//	webhook-signature: v1,base64(HMAC-SHA256(secret, id + "." + timestamp + "." + body))
//
// A receiver gets the changes in order, each at least once. A change that it refuses
// maxRefusals times is given up and counted. The journal is the queue: a receiver that
// is down for longer than the journal goes back gets a reset, and the number of changes
// that it missed is counted. Each receiver's position survives a restart.
//
// No answer waits for a webhook, and nothing is read from one but its status.
package webhook
