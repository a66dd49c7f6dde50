package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"trust-worker/cache"
	"trust-worker/internal/imageref"
	"trust-worker/trust"
)

// The external data provider of OPA Gatekeeper (externaldata.gatekeeper.sh/v1beta1,
// "External Data"): a policy in a cluster asks about the images of a pod.

const (
	gatekeeperVersion  = "externaldata.gatekeeper.sh/v1beta1"
	gatekeeperRequest  = "ProviderRequest"
	gatekeeperResponse = "ProviderResponse"

	// maxKeys and maxKeyBytes bound a question.
	maxKeys     = 1000
	maxKeyBytes = 1 << 20
)

type providerRequest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Request    struct {
		Keys []string `json:"keys"`
	} `json:"request"`
}

type providerResponse struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Response   providerBody `json:"response"`
}

type providerBody struct {
	// Idempotent is set if every key names a digest: a tag's answer may be another one
	// tomorrow.
	Idempotent bool           `json:"idempotent"`
	Items      []providerItem `json:"items"`
	// SystemError says that nothing could be answered, never that one key could not.
	SystemError string `json:"systemError"`
}

type providerItem struct {
	Key   string         `json:"key"`
	Value *providerValue `json:"value,omitempty"`
	// Error is set if nothing has been decided; there is no value then.
	Error string `json:"error,omitempty"`
}

// providerValue is the answer about one image.
type providerValue struct {
	// State is that of the image, or one of the states below.
	State  string       `json:"state"`
	Reason trust.Reason `json:"reason"`
	// Digest is what the answer is about. If Pinned is not set the key named a tag, and the
	// answer is good for whoever puts the digest in its place.
	Digest  string   `json:"digest"`
	Pinned  bool     `json:"pinned"`
	Signers []string `json:"signers"`
	Detail  string   `json:"detail"`
}

// States of a key, besides those of an image.
const (
	stateNotFound = "not-found"
	stateElse     = "other-registry"
	stateInvalid  = "invalid"
)

func (s *Server) gatekeeper(w http.ResponseWriter, r *http.Request, _ identity) error {
	out := providerResponse{APIVersion: gatekeeperVersion, Kind: gatekeeperResponse, Response: providerBody{Items: []providerItem{}}}
	var in providerRequest
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxKeyBytes)).Decode(&in)
	var large *http.MaxBytesError
	switch keys := in.Request.Keys; {
	case errors.As(err, &large), len(keys) > maxKeys:
		out.Response.SystemError = fmt.Sprintf("at most %d images, in %d bytes, can be asked about at once", maxKeys, maxKeyBytes)
	case err != nil:
		out.Response.SystemError = "this is not a ProviderRequest: it is not JSON of that form"
	case in.APIVersion != gatekeeperVersion || in.Kind != gatekeeperRequest:
		out.Response.SystemError = fmt.Sprintf("this is %.100q of %.100q, not a %s of %s", in.Kind, in.APIVersion, gatekeeperRequest, gatekeeperVersion)
	default:
		out.Response, err = s.provide(w, r, keys)
		if err != nil {
			out.Response = providerBody{Items: []providerItem{}, SystemError: problemOf(err).Error()}
		}
	}
	writeJSON(w, http.StatusOK, &out)
	return nil
}

// provide answers about all keys, as of one publication.
func (s *Server) provide(w http.ResponseWriter, r *http.Request, keys []string) (body providerBody, err error) {
	body = providerBody{Idempotent: true, Items: []providerItem{}}
	err = s.readingOf(s.checks, w, r, func(snap *cache.Snapshot) error {
		for _, key := range keys {
			item := providerItem{Key: key}
			value, err := s.keyValue(snap, key)
			switch {
			case err != nil:
				item.Error = err.Error()
				body.Idempotent = false
			default:
				item.Value = value
				body.Idempotent = body.Idempotent && value.Pinned
			}
			body.Items = append(body.Items, item)
		}
		return nil
	})
	return body, err
}

// keyValue answers about one key; an error says why it is not decided.
func (s *Server) keyValue(snap *cache.Snapshot, key string) (*providerValue, error) {
	v := &providerValue{Signers: []string{}}
	ref, err := imageref.Parse(key)
	if err == nil && ref.Digest == (trust.Digest{}) && ref.Tag == "" {
		ref.Tag = "latest" // as container runtimes read it
	}
	v.Pinned = err == nil && ref.Digest != (trust.Digest{})
	if err == nil {
		ref, err = ref.In(s.cfg.RegistryNames, snap.HasRepository)
	}
	var host *imageref.HostError
	switch {
	case errors.As(err, &host):
		v.State, v.Detail = stateElse, err.Error()
		return v, nil
	case err != nil || ref.Name == "":
		v.State, v.Detail = stateInvalid, "it names no image: REPO:TAG or REPO@sha256:…"
		return v, nil
	}
	d := ref.Digest
	if !v.Pinned {
		d, err = snap.Resolve(ref.Name, ref.Tag)
	}
	c := checked{}
	if err == nil {
		c, err = judge(snap, ref.Name, d, ref.Foreign)
	} else {
		err = c.undecided(err)
	}
	switch {
	case err != nil:
		return nil, errors.New("the daemon's log says why it could not be answered")
	case c.status == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("%s is not decided: %s (%s)", ref, c.State, c.Reason)
	case c.status == http.StatusNotFound:
		v.State = stateNotFound
		return v, nil
	}
	v.State, v.Reason, v.Digest, v.Detail = c.State, c.Reason, c.Digest, c.Reason.Explain().What
	if c.status == http.StatusOK {
		if v.Signers, err = signersOf(snap, ref.Name, d); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// signersOf names those by whom an image is trusted: the file of a key, or the subject of a
// certificate or an identity.
func signersOf(snap *cache.Snapshot, repository string, d trust.Digest) ([]string, error) {
	img, err := snap.Image(repository, d)
	names := []string{}
	for i := range img.SignatureInfo {
		sig := &img.SignatureInfo[i]
		if !sig.IsTrusted {
			continue
		}
		name := sig.SignerFile
		if sig.Tool == trust.Notation || sig.Subject != "" {
			name = sig.Author
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}
