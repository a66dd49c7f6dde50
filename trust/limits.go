package trust

// Limits on one signature that more than one package has to keep. What is beyond reads
// LimitExceeded.
const (
	MaxLayers = 1000    // signature layers of one manifest
	MaxBlob   = 1 << 20 // bytes of one bundle, envelope or payload
)
