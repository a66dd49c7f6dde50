package imageverifier

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"trust-worker/internal/imageref"
)

// DefaultPath is where the settings are: containerd passes none.
const DefaultPath = "/etc/trust-worker/image-verifier.yaml"

// What to do with an image.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Settings say which registries a node asks about, and whom.
type Settings struct {
	// Registries are by host, with its port, as image names have it: docker.io,
	// registry.example:5000.
	Registries map[string]*Registry `yaml:"registries"`
	// OtherRegistries is Allow or Deny for images of every other host; it has no default.
	OtherRegistries string `yaml:"otherRegistries"`
}

// Registry is a registry beside whose storage a trust-worker stands.
type Registry struct {
	// URL is the worker's address: https://host:port, http://…, or unix:/path.
	URL string `yaml:"url"`
	// TokenFile holds a token that may read.
	TokenFile string `yaml:"tokenFile"`
	// CAFile holds the certificates that the worker's is checked against, instead of the
	// system's.
	CAFile string `yaml:"caFile"`
	// CertFile and KeyFile are a client certificate.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// Undecided is Deny (the default) or Allow for images that the worker has not decided
	// on, and while it does not answer.
	Undecided string `yaml:"undecided"`
	// Timeout bounds one question; 3 s by default. containerd's own is 10 s.
	Timeout Duration `yaml:"timeout"`
}

// Duration is written as 3s.
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

const defaultTimeout = 3 * time.Second

// maxSettings bounds the file.
const maxSettings = 1 << 20

// Load reads settings. A file that is not exactly as documented is an error.
func Load(path string) (*Settings, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) > maxSettings {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxSettings)
	}
	s := &Settings{}
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(s); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (s *Settings) check() error {
	if !slices.Contains([]string{Allow, Deny}, s.OtherRegistries) {
		return fmt.Errorf("otherRegistries: choose %s or %s for images of registries that are not named here", Allow, Deny)
	}
	for host, r := range s.Registries {
		if err := r.complete(host); err != nil {
			return fmt.Errorf("registries: %s: %w", host, err)
		}
	}
	return nil
}

func (r *Registry) complete(host string) error {
	switch {
	case r == nil:
		return errors.New("give its url")
	case !imageref.ValidHost(host):
		return errors.New("it is no registry's host, such as registry.example:5000")
	case !slices.ContainsFunc([]string{"https://", "http://", "unix:/"}, func(p string) bool { return strings.HasPrefix(r.URL, p) }):
		return fmt.Errorf("url %q: give https://HOST:PORT, http://HOST:PORT or unix:/PATH", r.URL)
	case (r.CertFile == "") != (r.KeyFile == ""):
		return errors.New("a client certificate needs both certFile and keyFile")
	case r.Timeout < 0:
		return errors.New("timeout: it is below zero")
	}
	if r.Timeout == 0 {
		r.Timeout = Duration(defaultTimeout)
	}
	if r.Undecided == "" {
		r.Undecided = Deny
	}
	if !slices.Contains([]string{Allow, Deny}, r.Undecided) {
		return fmt.Errorf("undecided %q: choose %s or %s", r.Undecided, Allow, Deny)
	}
	return nil
}
