package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// The headers of ours beside zot's.
const (
	// headerGeneration is the cache's generation that an answer is from, or
	// that holds a change.
	headerGeneration = "Trust-Generation"
	// headerFingerprint lists what an upload put in force.
	headerFingerprint = "Trust-Fingerprint"
	// headerWarning says what keeps an accepted upload from having an effect.
	headerWarning = "Trust-Warning"
)

// changeTimeout bounds a change once it has begun: it is then carried out
// whether or not the client still waits.
const changeTimeout = 30 * time.Second

// lock takes the one slot for changes.
func (s *Server) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.changes <- struct{}{}:
		return func() { <-s.changes }, nil
	case <-ctx.Done():
		return nil, refuse(http.StatusServiceUnavailable, codeInternal, "another change is still being made", "")
	}
}

// upload is one file on its way into a trust directory.
type upload struct {
	dir     *directory
	at      string // the directory below, "." for cosign
	content []byte
	change
}

func (s *Server) uploadKey(w http.ResponseWriter, r *http.Request, id identity) (err error) {
	u := upload{dir: s.cosign, at: ".", change: change{action: "upload", tool: trust.Cosign}}
	defer func() { s.audit(r, id, u.change, err) }()
	scope, _, err := scopeOf(r)
	if err != nil {
		return err
	}
	u.at = path.Join(u.at, scope)
	if u.content, err = body(w, r, truststore.MaxKeyFile); err != nil {
		return err
	}
	signer, err := truststore.ValidateKey(u.name(), u.content)
	if err != nil {
		return refuse(http.StatusBadRequest, codeKey, "this is not a public key that cosign signatures can be verified with", howToSend(r, u.content, err))
	}
	u.signers = []trust.Signer{signer}
	return s.store(w, r, &u)
}

// queryOfMany is queryOf for parameters that may be repeated, a few times.
func queryOfMany(r *http.Request, known ...string) (url.Values, error) {
	const most = 16
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeInvalid, "the query cannot be read", "")
	}
	for key, all := range values {
		if !slices.Contains(known, key) || len(all) > most || slices.Contains(all, "") {
			return nil, refuse(http.StatusBadRequest, codeInvalid, fmt.Sprintf("the parameter %.40q is not known, has no value, or is given too often", key), "this route takes "+strings.Join(known, " and "))
		}
	}
	return values, nil
}

// queryOf reads a query of known parameters, each at most once: one that is misspelt would
// change trust elsewhere than it was meant.
func queryOf(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeStore, "the query cannot be read", "")
	}
	for key := range values {
		switch {
		case !slices.Contains(known, key):
			return nil, refuse(http.StatusBadRequest, codeStore, fmt.Sprintf("the parameter %.40q is not known", key), "this route takes "+strings.Join(known, " and "))
		case len(values[key]) > 1:
			return nil, refuse(http.StatusBadRequest, codeStore, key+" is given more than once", "")
		}
	}
	return values, nil
}

// scopeOf reads for which repositories a key is meant: zot's route has no such parameter,
// and then it is for all.
func scopeOf(r *http.Request) (scope string, given bool, err error) {
	values, err := queryOf(r, "scope")
	if err != nil {
		return "", false, err
	}
	scope = values.Get("scope")
	if values.Has("scope") && !trust.ValidScope(scope) {
		return "", false, refuse(http.StatusBadRequest, codeStore, fmt.Sprintf("the scope %.100q cannot be used", scope), "it is the prefix of repositories in lower case, such as team-a or team-a/app")
	}
	return scope, values.Has("scope"), nil
}

func (s *Server) uploadCertificates(w http.ResponseWriter, r *http.Request, id identity) (err error) {
	u := upload{dir: s.notation, change: change{action: "upload", tool: trust.Notation}}
	defer func() { s.audit(r, id, u.change, err) }()
	storeType, name, err := s.storeOf(r)
	if err != nil {
		return err
	}
	u.at, u.change.store = path.Join("truststore/x509", storeType, name), storeType+":"+name
	if u.content, err = body(w, r, truststore.MaxCertificateFile); err != nil {
		return err
	}
	u.signers, err = truststore.ValidateCertificates(storeType, name, u.name(), u.content)
	if err != nil {
		return refuse(http.StatusBadRequest, codeCertificate, "this is not a certificate that notation would accept as "+storeType, howToSend(r, u.content, err))
	}
	return s.store(w, r, &u)
}

// body reads at most limit bytes.
func body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); strings.HasPrefix(kind, "multipart/") {
		return nil, errForm
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, err
	case err != nil:
		return nil, refuse(http.StatusBadRequest, codeSizeInvalid, "the body did not come in full", "")
	case len(bytes.TrimSpace(b)) == 0:
		return nil, refuse(http.StatusBadRequest, codeSizeInvalid, "the body is empty", "send the file itself: "+rightCommand)
	case formData.Match(b):
		return nil, errForm
	}
	return b, nil
}

// rightCommand is how curl sends a file as it is.
const rightCommand = "curl --data-binary @FILE"

// errForm is the answer to a form, which curl -F sends. It is never stored: a key in
// it would be one, but the text around it is not what anybody meant to keep.
var errForm = refuse(http.StatusBadRequest, codeSizeInvalid, "the body is a form, and not the file itself", "curl -F sends forms; send the file itself: "+rightCommand)

// formData is how a part of a form begins (RFC 7578).
var formData = regexp.MustCompile(`(?i)\A\s*--[^\r\n]{1,70}\r?\ncontent-(disposition|type):`)

// fileName is a body that is the name of a file: the @ before it is missing.
var fileName = regexp.MustCompile(`\A[^\s<>{}"]{1,255}\z`)

// howToSend says how a body came to be no file, if it shows; else why.
func howToSend(r *http.Request, b []byte, why error) string {
	name := strings.TrimSpace(string(b))
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); {
	case len(name) < 80 && fileName.MatchString(name) && (path.Ext(name) != "" || strings.Contains(name, "/")):
		return fmt.Sprintf("the body is the name of a file; put @ before it, so that curl sends its content: curl --data-binary %q", "@"+name)
	case kind == "application/x-www-form-urlencoded" && strings.Contains(name, "-----BEGIN ") && !strings.Contains(name, "\n"):
		return "curl --data takes the ends of lines away; send the file as it is: " + rightCommand
	}
	return "the body " + why.Error()
}

// storeOf reads the two parameters of zot's notation routes.
func (s *Server) storeOf(r *http.Request) (storeType, name string, err error) {
	values, err := queryOf(r, "truststoreType", "truststoreName")
	if err != nil {
		return "", "", err
	}
	storeType, name = "ca", s.cfg.DefaultStore
	if values.Has("truststoreType") {
		storeType = values.Get("truststoreType")
	}
	if values.Has("truststoreName") {
		name = values.Get("truststoreName")
	}
	if name == "" {
		return "", "", refuse(http.StatusBadRequest, codeStore, "truststoreName is mandatory",
			"name the trust store, ?truststoreType="+url.QueryEscape(storeType)+"&truststoreName=NAME, or give uploads a default with --truststore-name (http.truststoreName)")
	}
	if err := truststore.ValidateStore(storeType, name); err != nil {
		return "", "", refuse(http.StatusBadRequest, codeStore, "this trust store cannot be used", err.Error())
	}
	return storeType, name, nil
}

// name is zot's: the content's digest.
func (u *upload) name() string { return trust.SumOf(u.content).String() }

// store writes the file, has it published, and answers (H3).
func (s *Server) store(w http.ResponseWriter, r *http.Request, u *upload) error {
	unlock, err := s.lock(r.Context())
	if err != nil {
		return err
	}
	err = u.dir.put(u.at, u.name(), u.content)
	unlock() // a removal does not wait for what is new to be recorded
	if err != nil {
		return notWritten(err)
	}
	u.files = []string{path.Join(u.at, u.name())}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
	defer cancel()
	if err := s.cfg.Trust.ReloadNow(ctx); err != nil {
		return notPublished("the file is stored and takes effect as soon as the daemon can publish", err)
	}
	store := s.cfg.Trust.TrustStore()
	for _, signer := range u.signers {
		if !store.InForce().Has(signer.ID()) {
			return refuse(http.StatusConflict, codeNotInForce, "the file is stored but not loaded", refusalOf(store, u.name()))
		}
	}
	if warning := s.warn(store, u); warning != "" {
		w.Header().Set(headerWarning, warning)
	}
	prints := make([]string, 0, len(u.signers))
	for _, signer := range u.signers {
		prints = append(prints, signer.Fingerprint.String())
	}
	w.Header().Set(headerFingerprint, strings.Join(prints, " "))
	u.generation = s.stampGeneration(w)
	w.WriteHeader(http.StatusOK)
	return nil
}

// stampGeneration sets the header to the generation that reads see now.
func (s *Server) stampGeneration(w http.ResponseWriter) string {
	snap, err := s.cfg.Reader.Snapshot()
	if err != nil {
		return ""
	}
	defer snap.Close()
	generation := snap.Generation().String()
	w.Header().Set(headerGeneration, generation)
	return generation
}

// notWritten says why a trust directory could not be changed.
func notWritten(err error) error {
	if p := problemOf(err); p.status == http.StatusInsufficientStorage {
		return p
	}
	return &unwritable{refuse(http.StatusInternalServerError, codeStorage, "the trust directory cannot be changed", plain(err)), err}
}

// unwritable keeps the cause for the audit log.
type unwritable struct {
	p     *problem
	cause error
}

func (u *unwritable) Error() string { return u.p.Message + ": " + u.cause.Error() }
func (u *unwritable) Unwrap() error { return u.p }

func notPublished(what string, err error) error {
	if p := problemOf(err); p.status == http.StatusInsufficientStorage {
		return &unwritable{refuse(p.status, codeStorage, "there is no space left to publish the change", what), err}
	}
	return &unwritable{refuse(http.StatusServiceUnavailable, codeStorage, "the change is not published yet", what), err}
}

// warn says why the upload verifies nothing, if that is so: an operator's policy
// is never changed by an upload.
func (s *Server) warn(store *truststore.TrustStore, u *upload) string {
	if u.tool != trust.Notation {
		return ""
	}
	policy := store.Policy()
	if policy.Source == truststore.PolicyInvalid {
		return "no trust policy can be used, so no notation signature is trusted: " + policy.Problem
	}
	for _, st := range store.InForce().Terms().Statements {
		if slices.Contains(st.Stores, u.change.store) {
			return ""
		}
	}
	return fmt.Sprintf("no statement of the operator's %s names the trust store %s; it verifies nothing until one does", policy.File, u.change.store)
}

func refusalOf(store *truststore.TrustStore, file string) string {
	for _, r := range store.Refused() {
		if path.Base(r.Path) == file {
			return "it " + r.Reason
		}
	}
	return "its directory cannot be read as a trust directory; see GET of this route"
}
