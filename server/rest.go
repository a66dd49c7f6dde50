package server

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"trust-worker/cache"
	"trust-worker/internal/imageref"
	"trust-worker/internal/inert"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// openapi describes /api/v1; a test holds the answers to it.
//
//go:embed openapi.json
var openapi []byte

const pathAPI = "/api/v1"

func (s *Server) restRoutes(t router) {
	t.handle("GET "+pathAPI+"/openapi.json", toRead, func(w http.ResponseWriter, _ *http.Request, _ identity) error {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(openapi) // the client is gone
		return nil
	})
	t.handle("GET "+pathAPI+"/images", toRead, s.restImages)
	t.handle("GET "+pathAPI+"/images/{name...}", toRead, s.restImage)
	t.handle("GET "+pathAPI+"/signatures/{name...}", toRead, s.restSignature)
	if s.cfg.Replica == nil { // the trust directories are the source's
		t.handle("GET "+pathAPI+"/signers", toRead, s.restSigners)
		t.handle("GET "+pathAPI+"/refused", toRead, s.restRefused)
	}
	s.publicationRoutes(t)
	t.handle("GET "+pathAPI+"/summary", toRead, s.restSummary)
	t.handle("GET "+pathAPI+"/check/{name...}", toRead, s.restCheck)
	t.handle("POST "+pathAPI+"/gatekeeper", toRead, s.gatekeeper)
	t.handle("GET "+pathAPI+"/changes", toRead, s.restChanges)
	t.handle("GET "+pathAPI+"/history", toRead, s.restHistory)
	t.handle("GET "+pathAPI+"/events", toRead, s.restEvents)
	if s.cfg.Previewed.Loader != nil {
		t.handle("GET "+pathAPI+"/preview", toRead, s.restPreview)
		t.handle("POST "+pathAPI+"/preview", toRead, s.restPreviewOf)
	}
	if s.cfg.LookAt != nil {
		for _, e := range registryEvents {
			t.handle("POST "+pathAPI+"/events/"+e.name, toHint, s.registryEvent(e.max, e.read, e.patient))
		}
	}
}

// fresh answers with what fn makes of a snapshot, as JSON.
func (s *Server) fresh(w http.ResponseWriter, r *http.Request, fn func(*cache.Snapshot) (any, error)) error {
	return s.freshBytes(w, r, "application/json", func(snap *cache.Snapshot) ([]byte, error) {
		v, err := fn(snap)
		if err != nil {
			return nil, err
		}
		return encode(v)
	})
}

// encode is json.Marshal with a line's end, and with everything escaped that is not
// printed: people look at answers on terminals.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(inert.Writer{W: &b})
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// freshBytes answers with what fn makes of a snapshot, unless the client has it.
// The tag is the generation and the content: dates end trust within one generation.
func (s *Server) freshBytes(w http.ResponseWriter, r *http.Request, mediaType string, fn func(*cache.Snapshot) ([]byte, error)) error {
	var b []byte
	var generation string
	var end func()
	err := s.reading(w, r, func(snap *cache.Snapshot) (err error) {
		generation = snap.Generation().String()
		if b, err = fn(snap); err == nil {
			end, err = s.sending.begin(r, len(b))
		}
		return err
	})
	if err != nil {
		return err
	}
	defer end()
	writeFresh(w, r, mediaType, generation, b)
	return nil
}

// writeFresh writes b unless the client has it.
func writeFresh(w http.ResponseWriter, r *http.Request, mediaType, generation string, b []byte) {
	sum := trust.SumOf(b)
	tag := fmt.Sprintf(`"%s-%x"`, generation, sum[:8])
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache") // may be kept, must be asked about
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	_, _ = w.Write(b) // the client is gone
}

// lookUp answers for REPO:TAG, REPO@DIGEST or REPO:TAG@DIGEST.
func (s *Server) lookUp(snap *cache.Snapshot, name string) (cache.Image, error) {
	ref, err := s.named(snap, name)
	switch {
	case err != nil:
		return cache.Image{}, err
	case ref.Digest != (trust.Digest{}):
		return snap.Image(ref.Name, ref.Digest)
	case ref.Tag == "":
		return cache.Image{}, refuse(http.StatusBadRequest, codeNameInvalid, "that does not name an image", "name it as REPO:TAG or REPO@sha256:…")
	}
	return snap.Tag(ref.Name, ref.Tag)
}

// named reads a reference, with the name that its repository has in this storage.
func (s *Server) named(snap *cache.Snapshot, name string) (ref imageref.Ref, err error) {
	if ref, err = imageref.Parse(name); err != nil {
		return ref, refuse(http.StatusBadRequest, codeInvalid, "the reference cannot be read", err.Error())
	}
	ref, err = ref.In(s.cfg.RegistryNames, snap.HasRepository)
	var host *imageref.HostError
	var bad *imageref.NameError
	switch {
	case errors.As(err, &host):
		return ref, refuse(http.StatusNotFound, codeNameUnknown, "that is another registry's image", err.Error())
	case err != nil && !errors.As(err, &bad):
		return ref, err
	case err != nil || ref.Name == "":
		return ref, refuse(http.StatusBadRequest, codeNameInvalid, "that does not name an image", "name it as REPO:TAG or REPO@sha256:…")
	case layout.Reserved(ref.Name):
		if here, err := snap.HasRepository(ref.Name); err != nil {
			return ref, err
		} else if !here {
			return ref, refuse(http.StatusNotFound, codeNameUnknown, layout.ErrReserved.Error(), "")
		}
	}
	return ref, nil
}

func (s *Server) restImage(w http.ResponseWriter, r *http.Request, _ identity) error {
	return s.fresh(w, r, func(snap *cache.Snapshot) (any, error) { return s.lookUp(snap, r.PathValue("name")) })
}

// restSignature answers about one signature manifest of an image, one entry for
// each of its layers: /signatures/REPO@DIGEST/SIGNATURE.
func (s *Server) restSignature(w http.ResponseWriter, r *http.Request, _ identity) error {
	name := r.PathValue("name")
	i := strings.LastIndexByte(name, '/')
	d, err := trust.ParseDigest(name[i+1:])
	if err != nil || i < 0 {
		return refuse(http.StatusBadRequest, codeInvalid, "that does not name a signature", "name it as REPO@sha256:…/sha256:…, the image's digest and the signature manifest's")
	}
	return s.fresh(w, r, func(snap *cache.Snapshot) (any, error) {
		img, err := s.lookUp(snap, name[:i])
		if err != nil {
			return nil, err
		}
		sigs, err := snap.Signature(img.RepoName, img.Digest, d)
		return map[string][]cache.Signature{"SignatureInfo": sigs}, err
	})
}

func (s *Server) trustStore() (*truststore.TrustStore, error) {
	store := s.cfg.Trust.TrustStore()
	if store == nil {
		return nil, refuse(http.StatusServiceUnavailable, codeNoCache, "the trust directories have not been loaded yet", "")
	}
	return store, nil
}

func (s *Server) restSigners(w http.ResponseWriter, r *http.Request, _ identity) error {
	store, err := s.trustStore()
	if err != nil {
		return err
	}
	q, err := queryOf(r, "uses")
	if err != nil {
		return err
	}
	signers := s.loadedOf(store, "")
	if q.Get("uses") == "true" { // it reads everything
		err := s.readingOf(s.previews, w, r, func(snap *cache.Snapshot) error {
			uses, err := snap.Uses()
			for i, f := range store.Loaded() {
				signers[i].Used(f, snap.InForce(), uses)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	s.stampGeneration(w)
	return s.sendJSON(w, r, map[string]any{"Signers": signers, "Policy": store.Policy().String()})
}

func (s *Server) restRefused(w http.ResponseWriter, r *http.Request, _ identity) error {
	store, err := s.trustStore()
	if err != nil {
		return err
	}
	refused := store.Refused()
	if refused == nil {
		refused = []truststore.Refusal{}
	}
	s.stampGeneration(w)
	return s.sendJSON(w, r, map[string]any{"Refused": refused, "Ignored": store.Ignored()})
}
