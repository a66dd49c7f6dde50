// Package imageref reads the references that people and their tools have of images:
// those of a pod spec, a registry client or a shell.
package imageref

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"trust-worker/layout"
	"trust-worker/trust"
)

// Ref names an image: by digest if that is set, else by tag. With neither it names a
// repository.
type Ref struct {
	// Name is what stands before the tag and the digest: the repository, perhaps with
	// a registry's host before it. Empty: any repository.
	Name   string
	Tag    string
	Digest trust.Digest
	// Foreign is the digest's text if it is of another algorithm than SHA-256: Digest
	// stands for it (trust.ForeignDigest).
	Foreign string
}

// Parse reads REPO:TAG, REPO@DIGEST, REPO:TAG@DIGEST, REPO or DIGEST. Of a tag and a
// digest the digest decides, as it does for container runtimes: the tag may have moved.
// A colon before the last slash belongs to a host.
func Parse(s string) (r Ref, err error) {
	if d, err := trust.ParseDigest(s); err == nil {
		return Ref{Digest: d}, nil
	}
	name, digest, ok := strings.Cut(s, "@")
	if ok {
		if r.Digest, err = trust.ParseDigest(digest); err != nil {
			var ok bool
			if r.Digest, ok = trust.ForeignDigest(digest); !ok {
				return Ref{}, err
			}
			r.Foreign = digest
		}
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		if name, r.Tag = name[:i], name[i+1:]; r.Tag == "" {
			return Ref{}, errors.New("the tag is empty")
		}
	}
	r.Name = name
	return r, nil
}

// host is the registry's host at the beginning of a name, "" if there is none: what has
// a dot or a port, or is localhost (distribution/reference, "domain").
func host(name string) string {
	first, _, more := strings.Cut(name, "/")
	if more && (strings.ContainsAny(first, ".:") || first == "localhost") && domain.MatchString(first) {
		return first
	}
	return ""
}

// ValidHost reports whether s is the host of a registry, perhaps with a port.
func ValidHost(s string) bool { return len(s) <= 255 && domain.MatchString(s) }

var domain = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?$`)

// HostError says that a name begins with the host of a registry that this storage is
// not said to be.
type HostError struct {
	Name, Host string
	Hosts      []string // by which this storage is known
}

func (e *HostError) Error() string {
	known := "no host is known to mean this storage"
	if len(e.Hosts) > 0 {
		known = "this storage is known as " + strings.Join(e.Hosts, ", ")
	}
	return fmt.Sprintf("%.300s names an image of the registry %.255s, and %s; if it is that registry's, say so with --registry-name %.255s (trustWorker.registryNames)",
		e.Name, e.Host, known, e.Host)
}

// NameError says that a name can be no repository's.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("%.300q is not REPO:TAG, REPO@sha256:…, REPO:TAG@sha256:… or sha256:…", e.Name)
}

// In returns the reference with the repository's name in this storage; here says which
// names are repositories. A host by which this storage is known (hosts) is left out:
// whoever pulls registry.example/team/app from it gets team/app, also while somebody
// has made a repository of the longer name. Otherwise a repository of the name as it
// stands is meant, such as a mirror's docker.io/team/app; and if there is none, a host
// is a [HostError]: docker.io/team/app is not our team/app.
func (r Ref) In(hosts []string, here func(name string) (bool, error)) (Ref, error) {
	if r.Name == "" {
		return r, nil
	}
	h := host(r.Name)
	short := strings.TrimPrefix(r.Name, h+"/")
	ours := h != "" && slices.Contains(hosts, h)
	if ours {
		if ok, err := here(short); err != nil || ok {
			r.Name = short
			return r, err
		}
	}
	ok, err := here(r.Name)
	switch {
	case err != nil || ok:
		return r, err
	case ours:
		r.Name = short
	case h != "":
		return r, &HostError{r.Name, h, hosts}
	}
	if !layout.ValidName(r.Name) {
		return r, &NameError{r.Name}
	}
	return r, nil
}

func (r Ref) String() string {
	s := r.Name
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	switch {
	case r.Foreign != "":
		s += "@" + r.Foreign
	case r.Digest == (trust.Digest{}):
	case s == "":
		s = r.Digest.String()
	default:
		s += "@" + r.Digest.String()
	}
	return s
}
