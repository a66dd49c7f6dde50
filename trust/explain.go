package trust

// Explanation says what a reason means and what may be done about it, in
// sentences for people. docs/statuses.md has the same ones; a test compares.
type Explanation struct {
	What string
	Do   string
}

// Explain returns the explanation of r: the zero value for the empty reason,
// and for reasons that this version does not know.
func (r Reason) Explain() Explanation { return explanations[r] }

var explanations = map[Reason]Explanation{
	SignatureExpired: {"The signer is trusted; the signature's own expiry date is over.",
		"Sign again."},
	CertificateExpired: {"The signer is trusted; a certificate in its chain has expired.",
		"Sign again with a renewed certificate, or with a time stamp, which outlives the certificate."},
	NotYetValid: {"The signer is trusted; the signature or a certificate in its chain is valid only later.",
		"Wait, or look at the clocks of this machine and of the signer's."},

	NoTrustedKey: {"No key in _cosign, or no certificate of a matching trust store, verifies it.",
		"Add the signer's key or certificate, if it is to be trusted."},
	SignerRemoved: {"It verified under a key or certificate that has left its directory, or a trust store that the policy no longer names.",
		"Nothing, or put it back."},
	SubjectMismatch: {"It is a signature about something else.",
		"Look for who attached it here."},
	DigestMismatch: {"Bytes in storage do not have the digest that names them.",
		"Restore the blob; it is read again by itself."},
	Malformed: {"It cannot be read.",
		"Sign again."},
	Ambiguous: {"Two readers could read it differently, so it is not read at all.",
		"Sign again."},
	NoPolicy: {"No statement of trustpolicy.json covers this repository.",
		"Add a statement for it, or one with the scope *."},
	PolicyInvalid: {"No trust policy can be used: it is broken, it has gone, or its statement names a trust store that does not exist, is empty or is of the wrong type.",
		"Mend it; trust-worker keys says what is wrong."},
	PolicyAmbiguous: {"Two statements of trustpolicy.json name this repository on different hosts.",
		"Say which host this storage is with --registry-name."},
	PolicyDoesNotVerify: {"The statement's level is audit or skip, which never makes anything trusted.",
		"Choose the level strict or permissive."},
	IdentityNotTrusted: {"The certificate chain is trusted; its subject is not among the identities that the policy names.",
		"Add the identity to the policy, or ask who signed."},
	Revoked: {"A revocation service says that a certificate in its chain is revoked; it is asked again like any other.",
		"Sign again with a good certificate."},
	TimestampInvalid: {"The time stamp is missing where the policy wants one, is no good, or its authority's certificate is revoked.",
		"Sign again with a good time stamp, or add the time stamp authority's certificate as tsa."},
	UnsupportedAlgorithm: {"It uses an algorithm that is not accepted, SHA-1 for example.",
		"Sign again with another key."},
	KeyTooSmall: {"It was made with an RSA key below 2048 bits.",
		"Sign again with another key."},
	PluginRequired: {"It asks for a verification plugin or names a critical attribute that is not known; no plugin is ever run.",
		"Sign without the plugin."},
	KeylessNotSupported: {"It carries a certificate instead of being made by a key in _cosign.",
		"Sign with a key."},
	CertificateInvalid: {"A certificate that came with the signature is not fit for signing, or its chain is incomplete.",
		"Sign again with another certificate, and with its whole chain."},
	PayloadTypeUnknown: {"It is a signature, but what it signs says that it is no signature of an image: its type is none of those that cosign and Tekton Chains write.",
		"Sign with cosign sign."},

	IOError: {"Storage could not be read.",
		"Look at storage; it is tried again by itself."},
	BlobMissing: {"A part of the signature is not in storage.",
		"Restore the blob or sign again; it is looked for again by itself."},
	RevocationUnknown: {"A certificate names revocation services that have not answered yet, or are not asked in the mode offline.",
		"Look at the log and at trust-worker status; let the daemon reach them, or see --revocation."},
	LimitExceeded: {"It is larger, or there are more of them, than is looked at; or verifying it has crashed twice.",
		"See the limits in the security page; trust-worker status lists what is in quarantine."},
	UnsupportedDigest: {"The manifest is named by another digest algorithm than SHA-256; it is not verified.",
		"Push the image under its SHA-256 digest."},
	Stale: {"The daemon has not confirmed the answers within the lease.",
		"Start it; trust-worker status says more."},
	NoCache: {"Nothing is published.",
		"Start the daemon."},

	New: {"It has not been looked at yet.",
		"Wait: it is in the queue."},
	PolicyChanged: {"The policy that governs this repository has changed, and it has not been looked at since.",
		"Wait: it is in the queue."},
}

// Explain says what n means, in one sentence; empty if it is not known.
func (n Note) Explain() string {
	switch n {
	case ExpiryLogged:
		return "The signature has expired; the policy only logs that."
	case RevocationLogged:
		return "A certificate in its chain is revoked; the policy only logs that."
	case RevocationNotChecked:
		return "Whether a certificate has been revoked is not known: nobody was asked, or nobody answered and the policy only logs that."
	}
	return ""
}
