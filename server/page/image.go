package page

import (
	"cmp"
	"net/url"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"trust-worker/cache"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Image is the page that explains one image.
type Image struct {
	Now     time.Time
	Answers Answers
	Daemon  scheduler.Status
	Replica *Replica               // nil: what is published is made here
	Store   *truststore.TrustStore // nil: not loaded yet
	Image   cache.Image
	// StateDir is the state directory as a shell takes it.
	StateDir string
}

type image struct {
	Health     health
	Repo, Tag  Text
	RepoURL    string
	Digest     Text
	MediaType  Text
	State      state
	AsOf       Moment
	Signatures []signature
	Omitted    int // signatures that are not listed

	Attestations        []attestation
	AttestationsOmitted int
	Children            []child
	JSON                string // where a program reads the same
	Command             Text   // how a shell does
}

// signature explains one signature.
type signature struct {
	Detail      Text // more of the reason
	State       state
	Tool        Text
	Format      string
	What, Do    string
	Reason      Text
	Notes       []string
	Author      Text   // a certificate's subject
	Key         []Text // the lines of a key
	Files       []Text
	Fingerprint string // empty: nobody who is in force
	From, Until Moment
	Verified    Moment
	Since       Moment
	Digest      string
	Layer       int
}

// attestation is one statement about the image.
type attestation struct {
	PredicateType Text
	State         state
	Reason        Text
	What          string
	By            Text
	Digest        string
	Layer         int
	Size          string
	Signed        Moment
}

// child is one manifest of an index.
type child struct {
	Platform   Text
	Short      Text
	Digest     Text
	URL        string
	State      state
	Signatures string
}

var formats = map[trust.Format]string{trust.SimpleSigning: "simple signing", trust.Bundle: "Sigstore bundle",
	trust.JWS: "JWS envelope", trust.COSE: "COSE envelope"}

// Image renders the page of one image.
func (p *Pages) Image(i *Image) ([]byte, error) {
	img := &i.Image
	v := image{Health: newHealth(i.Now, i.Answers, i.Daemon, i.Replica), Repo: Text(img.RepoName), Tag: Text(img.Tag), RepoURL: Filter{Repo: img.RepoName}.url(""),
		Digest: Text(img.DigestText()), MediaType: Text(img.MediaType), State: stateOfImage(img), AsOf: moment(img.AsOf, i.Now),
		JSON:    (&url.URL{Path: "/api/v1/images/" + img.RepoName + "@" + img.DigestText()}).String(),
		Command: Text("trust-worker get " + img.RepoName + "@" + img.DigestText() + " --state " + i.StateDir)}
	v.Omitted = img.SignaturesOmitted
	files := filesOf(i.Store)
	for n := range img.SignatureInfo {
		v.Signatures = append(v.Signatures, signatureOf(&img.SignatureInfo[n], files, i.Now))
	}
	v.AttestationsOmitted = img.AttestationsOmitted
	for n := range img.Attestations {
		v.Attestations = append(v.Attestations, attestationOf(&img.Attestations[n], i.Now))
	}
	if len(img.Manifests) != 1 || img.Manifests[0].Digest != img.Digest {
		for _, m := range img.Manifests {
			v.Children = append(v.Children, child{Platform: Text(m.Platform), Short: shortText(m.DigestText()), Digest: Text(m.DigestText()),
				URL: imageURL(img.RepoName, "", m.DigestText()), State: stateOfStatus(trust.Status(m.State())), Signatures: countTools(m.SignatureInfo, m.SignaturesOmitted)})
		}
	}
	title := img.RepoName + ":" + img.Tag
	if img.Tag == "" {
		title = img.RepoName + "@" + short(img.Digest)
	}
	return p.render("image.html", frame{Title: Text(title + " – " + v.State.Word), Tab: "images", Live: true, Body: v})
}

func attestationOf(a *cache.Attestation, now time.Time) attestation {
	v := attestation{PredicateType: Text(a.PredicateType), State: stateOfStatus(a.Status), Reason: Text(a.Reason), What: a.Reason.Explain().What,
		By: Text(cmp.Or(a.Subject, a.SignerFile)), Digest: a.Digest.String(), Layer: a.Layer, Size: humanize.IBytes(uint64(a.Size))}
	if a.Status == cache.NobodySigned {
		v.What = "It is a statement that nobody has signed, as a build tool writes it."
	}
	if a.SignedAt != nil {
		v.Signed = moment(*a.SignedAt, now)
	}
	return v
}

func signatureOf(s *cache.Signature, files map[trust.Signer][]string, now time.Time) signature {
	e := s.Reason.Explain()
	v := signature{State: stateOfStatus(s.Status), Tool: Text(s.Tool), Format: formats[s.Format], What: e.What, Do: e.Do, Reason: Text(s.Reason),
		Digest: s.Digest.String(), Layer: s.Layer}
	switch {
	case s.IsTrusted && s.Tool == trust.Cosign:
		v.What = "It verifies under a key in _cosign."
	case s.IsTrusted:
		v.What = "It verifies under a certificate in the trust store, and the trust policy accepts it."
	case e.What == "":
		v.What = "This version has no words for the reason."
	}
	for _, n := range s.Notes {
		if text := n.Explain(); text != "" {
			v.Notes = append(v.Notes, text)
		}
	}
	if s.Tool == trust.Notation {
		v.Author = Text(s.Author)
	} else {
		for line := range strings.Lines(s.Author) {
			v.Key = append(v.Key, Text(strings.TrimRight(line, "\r\n")))
		}
	}
	v.Detail = Text(s.Detail)
	if s.SignerFingerprint != (trust.Digest{}) {
		v.Fingerprint = s.SignerFingerprint.String()
		for _, name := range files[trust.Signer{Tool: s.Tool, Fingerprint: s.SignerFingerprint}] {
			v.Files = append(v.Files, Text(name))
		}
	}
	for at, t := range map[*Moment]*time.Time{&v.From: s.ValidFrom, &v.Until: s.ValidUntil, &v.Verified: s.VerifiedAt, &v.Since: s.Since} {
		if t != nil {
			*at = moment(*t, now)
		}
	}
	return v
}
