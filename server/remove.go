package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"

	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// removed is the answer to a DELETE.
type removed struct {
	Removed []string // files, below the trust directory
}

// removeKey removes from every scope, or from that which the query names.
func (s *Server) removeKey(w http.ResponseWriter, r *http.Request, id identity) error {
	scope, given, err := scopeOf(r)
	if err != nil {
		return err
	}
	return s.remove(w, r, id, change{action: "remove", tool: trust.Cosign}, func(f *truststore.File) bool {
		return f.Kind == truststore.KindKey && (!given || f.Scope == scope)
	})
}

// removeCertificate removes from every store, or from those that the query names.
func (s *Server) removeCertificate(w http.ResponseWriter, r *http.Request, id identity) error {
	q, err := queryOf(r, "truststoreType", "truststoreName")
	if err != nil {
		return err
	}
	return s.remove(w, r, id, change{action: "remove", tool: trust.Notation, store: strings.Trim(q.Get("truststoreType")+":"+q.Get("truststoreName"), ":")},
		func(f *truststore.File) bool {
			signer := f.Signer
			return signer.Tool == trust.Notation && (!q.Has("truststoreType") || q.Get("truststoreType") == signer.StoreType) &&
				(!q.Has("truststoreName") || q.Get("truststoreName") == signer.StoreName)
		})
}

// removals is how often files that hold the signer are looked for: someone else
// may be writing one at the same time.
const removals = 3

// remove takes signers out of force (H4).
func (s *Server) remove(w http.ResponseWriter, r *http.Request, id identity, c change, concerns func(*truststore.File) bool) (err error) {
	defer func() { s.audit(r, id, c, err) }()
	fingerprint, err := trust.ParseDigest(r.PathValue("fingerprint"))
	if err != nil {
		return refuse(http.StatusBadRequest, codeInvalid, "the fingerprint cannot be read", "it is sha256: and 64 hex digits, as GET of this route lists it")
	}
	unlock, err := s.lock(r.Context())
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
	defer cancel()
	for range removals {
		// Also before the answer that there is none: a removal that was cut
		// off between the file and the publication must be seen to the end.
		if err := s.cfg.Trust.ReloadNow(ctx); err != nil {
			return notPublished("until it is, answers may rest on what was there before, for no longer than the lease", err)
		}
		var files []truststore.File
		for _, f := range s.cfg.Trust.TrustStore().Loaded() {
			if f.Signer.Fingerprint == fingerprint && concerns(&f) {
				files = append(files, f)
			}
		}
		if len(files) == 0 {
			if len(c.files) == 0 {
				return refuse(http.StatusNotFound, codeNameUnknown, "nothing of that fingerprint is loaded", "")
			}
			c.generation = s.stampGeneration(w)
			writeJSON(w, http.StatusOK, removed{Removed: c.files})
			return nil
		}
		for _, f := range files {
			if !slices.Contains(c.signers, f.Signer) {
				c.signers = append(c.signers, f.Signer)
			}
			name, err := s.removeFrom(f)
			if err != nil {
				return notWritten(err)
			}
			if !slices.Contains(c.files, name) {
				c.files = append(c.files, name)
			}
		}
	}
	return refuse(http.StatusConflict, codeStillInForce, "it is still in force",
		"the file was removed, but the directory still shows it: it is a mounted volume, or someone keeps writing it")
}

// removeFrom takes one signer out of the file that holds it, and returns the
// file's path below the trust directory.
func (s *Server) removeFrom(f truststore.File) (string, error) {
	if f.Signer.Tool == trust.Cosign {
		name := path.Join(f.Scope, path.Base(f.Path))
		return name, s.cosign.remove(name)
	}
	at := path.Join("truststore/x509", f.Signer.StoreType, f.Signer.StoreName)
	name := path.Join(at, path.Base(f.Path))
	b, err := s.notation.read(name, truststore.MaxCertificateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return name, s.notation.remove(name)
	} else if err != nil {
		return name, err
	}
	// What else the file holds stays in force: it is written to a file of its
	// own first.
	if rest := without(b, f.Signer.Fingerprint); len(rest) > 0 {
		if err := s.notation.put(at, trust.SumOf(rest).String(), rest); err != nil {
			return name, err
		}
	}
	return name, s.notation.remove(name)
}

// without returns the certificates of a file in PEM, without one of them.
func without(b []byte, fingerprint trust.Digest) (rest []byte) {
	var certs []*x509.Certificate
	block, more := pem.Decode(b)
	if block == nil {
		certs, _ = x509.ParseCertificates(b) // it was loaded, so it parses; or it is gone
	}
	for ; block != nil; block, more = pem.Decode(more) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, c)
		}
	}
	for _, c := range certs {
		if trust.SumOf(c.Raw) != fingerprint {
			rest = append(rest, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
	}
	return rest
}
