package trust

// Limits on one signature that more than one package has to keep. What is beyond reads
// LimitExceeded.
const (
	MaxLayers = 1000    // signature layers of one manifest
	MaxBlob   = 1 << 20 // bytes of one bundle, envelope or payload
	// MaxAttestation is how many bytes an attestation may have, and a bundle, of which it is
	// not known before it is read whether it is one.
	MaxAttestation = 4 << 20
	// MaxAttestations is how many bytes of attestations of one manifest are read.
	MaxAttestations = 16 << 20
)
