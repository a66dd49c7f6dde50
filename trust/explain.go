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

// Unsigned is the explanation of an image without a signature, which has no reason.
var Unsigned = Explanation{"No signature in this repository, by a tool that is switched on, is about this image.",
	"Sign it with cosign sign --key, or with notation sign. Signatures count only in the image's own repository."}

var explanations = map[Reason]Explanation{
	SignatureExpired: {"The signer is trusted; the signature's own expiry date is over.",
		"Sign again."},
	CertificateExpired: {"The signer is trusted; a certificate in its chain has expired.",
		"Sign again with a renewed certificate, or with a time stamp, which outlives the certificate. Where the detail says what the policy lacks, mend the policy."},
	NotYetValid: {"The signer is trusted; the signature or a certificate in its chain is valid only later.",
		"Wait, or check the clocks of this machine and of the signer's."},

	NoTrustedKey: {"No key in _cosign that may sign in this repository, or no certificate of a matching trust store, verifies it.",
		"Add the signer's key where it may sign here, or its certificate, if it is to be trusted. The command trust-worker policy explain says who may."},
	SignerRemoved: {"It was made by a key or certificate that is no longer in its directory, or whose trust store the policy no longer names.",
		"Nothing, or put the key or certificate back."},
	SubjectMismatch: {"The signature is about another image.",
		"Find out who attached it to this image."},
	DigestMismatch: {"A blob in storage does not have the digest that names it.",
		"Restore the blob. The daemon reads it again by itself."},
	Malformed: {"The signature cannot be read.",
		"Sign again."},
	Ambiguous: {"Two programs could read the signature differently, so it is not read at all.",
		"Sign again."},
	NoPolicy: {"No statement of the trust policy covers this repository.",
		"Add a statement for it, or one with the scope *."},
	PolicyInvalid: {"No trust policy can be used for this repository: the policy is broken or has gone, or its statement names a trust store that holds no certificate or is of the wrong type.",
		"Mend the policy, or put a certificate into the store that it names. The command trust-worker keys says what is wrong."},
	PolicyAmbiguous: {"Two statements of the trust policy name this repository on different hosts.",
		"Say which host this storage is with --registry-name."},
	PolicyDoesNotVerify: {"The statement's level is audit or skip, which never makes anything trusted.",
		"Choose the level strict or permissive."},
	IdentityNotTrusted: {"The certificate is trusted; who it was issued to is not among the identities that the policy names (notation), or that an identities.yaml names for this repository (cosign).",
		"If it is to be trusted, add an identity that matches it: with cosign to an identities.yaml at the top of _cosign or in a directory of this repository's prefix, under the root that the detail names; with notation to the policy. Where notation's detail says that * alone matches, ask for a certificate with another subject, or give * to a statement of its own trust store."},
	Revoked: {"A revocation service says that a certificate in its chain is revoked. The service is asked again later, as about any certificate.",
		"Sign again with a good certificate."},
	TimestampInvalid: {"The time stamp is missing where the policy wants one, is no good, or its authority's certificate is revoked; or an authority of the trusted root stamped a time at which the certificate was not valid.",
		"Sign again with a good time stamp, or add the time stamp authority's certificate as tsa."},
	UnsupportedAlgorithm: {"The signature uses an algorithm that is not accepted, such as SHA-1.",
		"Sign again with another key."},
	KeyTooSmall: {"The signature was made with an RSA key below 2048 bits.",
		"Sign again with another key."},
	PluginRequired: {"The signature asks for a verification plugin, or has a critical attribute that is not known. No plugin is ever run.",
		"Sign without the plugin."},
	NoTrustedRoot: {"No key in _cosign made it. It carries a certificate, of an authority that no trusted root lists: a keyless signature.",
		"Put the trusted root of the sigstore instance that issued the certificate into _cosign as trusted_root.json, if its identities are to be trusted; or sign with a key."},
	AuthorityRemoved: {"It is a keyless signature, and no trusted root vouches any more for the authorities that vouched for it, or not for the time of signing.",
		"Nothing, or put the trusted root back."},
	NotLogged: {"It is a keyless signature without an entry in a transparency log that the trusted root lists, which that root demands.",
		"Sign again, with an upload to the log."},
	NoSignedTime: {"It is a keyless signature, and nothing proves when it was made: no signed time of a log and no time stamp, by authorities that the trusted root lists.",
		"Sign again, with a time stamp or an upload to the log. A log of Rekor 2 signs no time."},
	SCTMissing: {"The certificate of this keyless signature has no signed certificate timestamp of a log that the trusted root lists, which that root demands.",
		"Ask for a certificate that is logged; or list no certificate transparency log in the trusted root of an instance that has none."},
	TooFewSigners: {"The signature is good. The configuration requires more signers for this repository than have signed the image.",
		"Have further signers sign it. The detail says how many there are; the command trust-worker policy explain says what is required."},
	CertificateInvalid: {"A certificate that came with the signature is not fit for signing, or its chain is incomplete.",
		"Sign again with another certificate, and with its whole chain."},
	PayloadTypeUnknown: {"The signed payload has another type than cosign and Tekton Chains give to signatures of images.",
		"Sign with cosign sign."},

	IOError: {"Storage could not be read.",
		"Look at storage; the daemon's log, scan and list name what could not be read. The daemon tries again by itself."},
	BlobMissing: {"A part of the signature, or the manifest that it is about, is not in storage.",
		"Restore the blob, or push the image and sign again. The daemon looks for it again by itself."},
	RevocationUnknown: {"A certificate names revocation services that have not answered, or that the mode offline does not ask.",
		"Look at the log and at trust-worker status; let the daemon reach them, or see --revocation."},
	LimitExceeded: {"The signature or the manifest is too large, the image has too many signatures, or verifying the signature has crashed twice.",
		"See the limits in the security page; trust-worker status lists what is in quarantine."},
	UnsupportedDigest: {"Storage names the manifest by another digest algorithm than SHA-256. It is not verified.",
		"Push the image under its SHA-256 digest."},
	Stale: {"The daemon has not confirmed the answers within the lease; for a replica, its source has not.",
		"Start it; trust-worker status says more."},
	NoCache: {"Nothing is published.",
		"Start the daemon; a replica has nothing while its source has nothing."},

	New: {"The signature has not been looked at yet.",
		"Wait: it is in the queue."},
	PolicyChanged: {"The trust policy of this repository has changed, and the signature has not been looked at since.",
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
