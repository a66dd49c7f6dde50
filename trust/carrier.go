package trust

// Carrier is how a signature's manifest names its subject, and so which tool it is of
// and how it is read. The numbers stand in caches.
type Carrier uint8

// The carriers.
const (
	CosignTag        Carrier = 1 // tag sha256-<hex>.sig, one signature for each layer
	CosignReferrer   Carrier = 2 // subject, layers as with the tag
	CosignBundle     Carrier = 3 // subject, sigstore bundle; maybe an attestation
	NotationReferrer Carrier = 4 // subject, JWS or COSE envelope
	Attestations     Carrier = 5 // a manifest of attestations by its layers, one for each: by cosign's tags, or BuildKit's in an index
)

// Tool returns the tool that the carrier belongs to, "" for one of another version.
func (c Carrier) Tool() Tool {
	switch c {
	case CosignTag, CosignReferrer, CosignBundle, Attestations:
		return Cosign
	case NotationReferrer:
		return Notation
	}
	return ""
}

// Simple reports whether each layer of the manifest is a signature by cosign over a
// simple signing payload.
func (c Carrier) Simple() bool { return c == CosignTag || c == CosignReferrer }

// Rank orders carriers where there is no room for all: no attestation takes a signature's place.
func (c Carrier) Rank() int {
	if c == Attestations {
		return 1
	}
	return 0
}

func (c Carrier) String() string {
	switch c {
	case CosignTag:
		return "cosign-tag"
	case CosignReferrer:
		return "cosign-referrer"
	case CosignBundle:
		return "cosign-bundle"
	case NotationReferrer:
		return "notation-referrer"
	case Attestations:
		return "attestations"
	}
	return "carrier of another version"
}
