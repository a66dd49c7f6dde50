package server

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
)

// identity is who asks, and what they may.
type identity struct {
	name        string // for the audit log
	read, write bool
	hint        bool // may say where to look again, and nothing else
	anonymous   bool
}

// right is what a route asks for.
type right int

const (
	toNone right = iota // answers anyone: whether the process lives
	toRead
	toHint
	toWrite
)

// identify establishes who asks. A credential that is presented and wrong is an
// error, also where none is needed.
func (s *Server) identify(r *http.Request) (identity, error) {
	p := peerOf(r.Context())
	if p.endpoint.socket != "" {
		return s.localUser(p), nil
	}
	if header := r.Header.Values("Authorization"); len(header) > 1 {
		return identity{}, s.wrong(r, "more than one Authorization header")
	} else if len(header) == 1 && !isBlank(r) {
		return s.byHeader(r, header[0])
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		name := r.TLS.VerifiedChains[0][0].Subject.CommonName
		return identity{name: "certificate " + name, read: true, write: name != "" && slices.Contains(s.cfg.Auth.Admins, name)}, nil
	}
	return identity{name: "anonymous", read: s.readsOpen(p), write: s.cfg.Auth.InsecureUploads, anonymous: true}, nil
}

// isBlank: zot's client, when it has been given no credential, sends an empty
// user with an empty password. That is none.
func isBlank(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	return ok && user == "" && password == ""
}

func (s *Server) readsOpen(p *peer) bool {
	return s.cfg.Auth.Reads == "open" || s.cfg.Auth.Reads == "" && p.endpoint.loopback
}

// localUser: whoever could connect was let in by the socket's mode. If that has
// been opened to everybody, only the owner, the group and root may write.
func (s *Server) localUser(p *peer) identity {
	id := identity{name: "local user", read: true}
	if !p.known {
		return id
	}
	id.name = fmt.Sprintf("uid %d pid %d", p.uid, p.pid)
	id.write = p.uid == 0 || int64(p.uid) == int64(os.Geteuid())
	fi, err := os.Stat(p.endpoint.socket)
	if err == nil && !id.write {
		id.write = fi.Mode().Perm()&0o007 == 0 || groupOf(fi) == int64(p.gid)
	}
	return id
}

func (s *Server) byHeader(r *http.Request, header string) (identity, error) {
	scheme, value, _ := strings.Cut(header, " ")
	switch strings.ToLower(scheme) {
	case "bearer":
		for _, f := range s.tokens {
			if f.has(strings.TrimSpace(value)) {
				return identity{name: "token " + f.name, read: f.may != toHint, hint: f.may == toHint, write: f.may == toWrite}, nil
			}
		}
		return identity{}, s.wrong(r, "the token is not one that is known here")
	case "basic":
		user, password, ok := r.BasicAuth()
		if ok && s.users != nil {
			verified, err := s.checkPassword(r, user, password)
			if err != nil {
				return identity{}, err
			}
			if verified {
				return identity{name: "user " + user, read: true, write: slices.Contains(s.cfg.Auth.Admins, user)}, nil
			}
		}
		return identity{}, s.wrong(r, "user or password is wrong")
	}
	return identity{}, s.wrong(r, "choose Bearer or Basic")
}

func (s *Server) checkPassword(r *http.Request, user, password string) (bool, error) {
	if s.users.known(user, password) {
		return true, nil
	}
	// A hash is made to be slow: a client that keeps guessing gets no more.
	if !s.fails.ready(clientOf(r), s.cfg.Now()) {
		return false, tooMany("wrong credentials")
	}
	return s.users.check(r.Context(), user, password)
}

// wrong is the answer to a wrong credential.
func (s *Server) wrong(r *http.Request, reason string) error {
	if !s.fails.allow(clientOf(r), s.cfg.Now()) {
		return tooMany("wrong credentials")
	}
	return refuse(http.StatusUnauthorized, codeUnauthorized, "the credential is wrong", reason)
}

func tooMany(what string) *problem {
	return refuse(http.StatusTooManyRequests, codeTooMany, "too many "+what, "wait a moment and try again")
}

// authorize holds a request to a right.
func (s *Server) authorize(r *http.Request, need right) (identity, error) {
	if need == toNone {
		return identity{name: "anonymous", anonymous: true}, nil
	}
	id, err := s.identify(r)
	if err != nil {
		return id, err
	}
	if need == toRead && id.read || need == toWrite && id.write || need == toHint && (id.hint || id.write) {
		return id, nil
	}
	if id.anonymous {
		reason := "give a token: Authorization: Bearer …"
		switch need {
		case toHint:
			reason += " (one of the files that --http-hint-token-file names)"
		case toWrite:
			reason += " (the file upload.token in the state directory holds one)"
		}
		return id, refuse(http.StatusUnauthorized, codeUnauthorized, "a credential is needed", reason)
	}
	return id, refuse(http.StatusForbidden, codeDenied, id.name+" may not do that", "")
}

// challenge says which credentials are taken.
func (s *Server) challenge(w http.ResponseWriter) {
	w.Header().Add("WWW-Authenticate", `Bearer realm="trust-worker"`)
	if s.users != nil {
		w.Header().Add("WWW-Authenticate", `Basic realm="trust-worker", charset="UTF-8"`)
	}
}

// clientOf names the client that limits are counted for: an address, an IPv6
// network, or a local user.
func clientOf(r *http.Request) string {
	if p := peerOf(r.Context()); p.endpoint.socket != "" {
		return fmt.Sprintf("uid %d", p.uid)
	}
	return addressOf(r.RemoteAddr)
}

// addressOf is the client that an address and port stand for.
func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return host
}
