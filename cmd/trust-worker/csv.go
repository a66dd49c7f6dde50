package main

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/inert"
	"trust-worker/trust"
)

// csvColumns are those of list -o csv, by the names that -o json has for them.
var csvColumns = []string{"RepoName", "Tag", "Digest", "State", "Manifest", "Platform", "Tool", "IsTrusted", "Status", "Reason", "Author", "Issuer",
	"SignerFile", "SignerFingerprint", "SignedAt", "ValidUntil", "Signature", "Layer", "SignaturesOmitted"}

// listCSV writes a line for each signature of each manifest of an image, and one for a
// manifest that has none (RFC 4180).
func (f *imageFilter) listCSV(w io.Writer, snap *cache.Snapshot, only string) error {
	out := csv.NewWriter(w)
	write := func(cells ...string) error {
		for i := range cells {
			cells[i] = plainCell(cells[i])
		}
		return out.Write(cells)
	}
	err := write(csvColumns...)
	if err == nil {
		err = f.eachImage(snap, only, func(img *cache.Image) error {
			manifests := []cache.Manifest{img.Manifest("")} // the image, then the children of an index
			for _, m := range img.Manifests {
				if m.Digest == img.Digest {
					manifests[0].Platform = m.Platform
				} else {
					manifests = append(manifests, m)
				}
			}
			for i := range manifests {
				m := &manifests[i]
				omitted := ""
				if m.SignaturesOmitted > 0 {
					omitted = strconv.Itoa(m.SignaturesOmitted)
				}
				head := []string{img.RepoName, img.Tag, img.DigestText(), img.State(), m.DigestText(), m.Platform}
				if len(m.SignatureInfo) == 0 {
					line := append(head, make([]string, len(csvColumns)-len(head))...)
					line[len(line)-1] = omitted
					if err := write(line...); err != nil {
						return err
					}
				}
				for k := range m.SignatureInfo {
					s := &m.SignatureInfo[k]
					author := s.Author
					if s.Tool == trust.Cosign && s.Subject == "" {
						author = "" // a key in PEM, which the fingerprint names
					}
					fingerprint := ""
					if s.SignerFingerprint != (trust.Digest{}) {
						fingerprint = s.SignerFingerprint.String()
					}
					err := write(append(head[:len(head):len(head)], string(s.Tool), strconv.FormatBool(s.IsTrusted), string(s.Status), string(s.Reason), author, s.Issuer,
						s.SignerFile, fingerprint, csvTime(s.SignedAt), csvTime(s.ValidUntil), s.Digest.String(), strconv.Itoa(s.Layer), omitted)...)
					if err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	out.Flush()
	return firstError(err, out.Error())
}

func csvTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// plainCell keeps a spreadsheet from taking a text for a formula: names come from whoever
// pushes and signs.
func plainCell(s string) string {
	if s = inert.Text(s); s != "" && strings.IndexByte("=+-@", s[0]) >= 0 {
		return "'" + s
	}
	return s
}
