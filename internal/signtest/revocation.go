package signtest

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"
)

// OCSPOptions say what an OCSP response says. The zero value is good for an hour.
type OCSPOptions struct {
	Status     int // ocsp.Good, ocsp.Revoked, ocsp.Unknown
	This, Next time.Time
	// By signs instead of the issuer, and its certificate comes along.
	By *Chain
}

// OCSPResponse makes a response about the certificate with a serial number.
func OCSPResponse(issuer *Chain, serial *big.Int, o OCSPOptions) []byte {
	if o.This.IsZero() {
		o.This = time.Now().Add(-time.Minute)
	}
	if o.Next.IsZero() {
		o.Next = time.Now().Add(time.Hour)
	}
	t := ocsp.Response{Status: o.Status, SerialNumber: serial, ThisUpdate: o.This, NextUpdate: o.Next}
	if o.Status == ocsp.Revoked {
		t.RevokedAt = o.This
	}
	by := issuer
	if o.By != nil {
		by, t.Certificate = o.By, o.By.Cert()
	}
	return must(ocsp.CreateResponse(issuer.Cert(), by.Cert(), t, by.Key.Private))
}

// CRLOptions say what a CRL says. The zero value is empty and good for an hour.
type CRLOptions struct {
	Revoked    []*x509.Certificate
	This, Next time.Time
	Number     int64
	// Change is applied to the template last.
	Change func(*x509.RevocationList)
}

// CRL makes a certificate revocation list by issuer.
func CRL(issuer *Chain, o CRLOptions) []byte {
	if o.This.IsZero() {
		o.This = time.Now().Add(-time.Minute)
	}
	if o.Next.IsZero() {
		o.Next = time.Now().Add(time.Hour)
	}
	t := &x509.RevocationList{Number: big.NewInt(max(o.Number, 1)), ThisUpdate: o.This, NextUpdate: o.Next}
	for _, c := range o.Revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: o.This})
	}
	if o.Change != nil {
		o.Change(t)
	}
	return must(x509.CreateRevocationList(rand.Reader, t, issuer.Cert(), issuer.Key.Private))
}

// Responder answers OCSP requests below any path, and serves the issuer's CRL at
// paths that end with ".crl". It is an http.Handler, and an http.RoundTripper for
// tests that need no network.
type Responder struct {
	Issuer *Chain

	mu     sync.Mutex
	ocsp   OCSPOptions
	crl    CRLOptions
	raw    http.HandlerFunc
	served []string
}

// NewResponder makes a responder for certificates by issuer. It says good.
func NewResponder(issuer *Chain) *Responder { return &Responder{Issuer: issuer} }

// Say changes the answers.
func (s *Responder) Say(o OCSPOptions, c CRLOptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ocsp, s.crl, s.raw = o, c, nil
}

// Do answers by h from now on.
func (s *Responder) Do(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = h
}

// Served returns the paths asked for.
func (s *Responder) Served() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.served...)
}

// ServeHTTP implements http.Handler.
func (s *Responder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.served = append(s.served, r.URL.Path)
	o, c, raw := s.ocsp, s.crl, s.raw
	s.mu.Unlock()
	if raw != nil {
		raw(w, r)
		return
	}
	if strings.HasSuffix(r.URL.Path, ".crl") {
		_, _ = w.Write(CRL(s.Issuer, c))
		return
	}
	serial, err := AskedSerial(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = w.Write(OCSPResponse(s.Issuer, serial, o))
}

// AskedSerial reads the serial number that an OCSP request asks about.
func AskedSerial(r *http.Request) (*big.Int, error) {
	var der []byte
	var err error
	if r.Method == http.MethodPost {
		der, err = io.ReadAll(r.Body)
	} else {
		path := r.URL.EscapedPath()
		var text string
		if text, err = url.QueryUnescape(path[strings.LastIndexByte(path, '/')+1:]); err == nil {
			der, err = base64.StdEncoding.DecodeString(text)
		}
	}
	if err != nil {
		return nil, err
	}
	q, err := ocsp.ParseRequest(der)
	if err != nil {
		return nil, err
	}
	return q.SerialNumber, nil
}

// RoundTrip implements http.RoundTripper.
func (s *Responder) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &recorder{header: http.Header{}, status: http.StatusOK}
	s.ServeHTTP(w, r)
	if w.status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(strings.NewReader(w.body.String())), Request: r}, nil
}

// NoAnswer makes a responder that is used as a transport fail the request.
func NoAnswer(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(0) }

type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }
