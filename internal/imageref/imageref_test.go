package imageref

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"trust-worker/trust"
)

func TestParse(t *testing.T) {
	d := trust.SumOf([]byte("image"))
	for _, c := range []struct {
		in   string
		want Ref
	}{
		{"team/app:1.0", Ref{Name: "team/app", Tag: "1.0"}},
		{"team/app@" + d.String(), Ref{Name: "team/app", Digest: d}},
		{"team/app:1.0@" + d.String(), Ref{Name: "team/app", Tag: "1.0", Digest: d}},
		{"team/app", Ref{Name: "team/app"}},
		{d.String(), Ref{Digest: d}},
		{"team/app@sha512:" + strings.Repeat("a", 128), func() Ref {
			f, _ := trust.ForeignDigest("sha512:" + strings.Repeat("a", 128))
			return Ref{Name: "team/app", Digest: f, Foreign: "sha512:" + strings.Repeat("a", 128)}
		}()},
		{"localhost:5000/team/app", Ref{Name: "localhost:5000/team/app"}},
		{"localhost:5000/team/app:1.0@" + d.String(), Ref{Name: "localhost:5000/team/app", Tag: "1.0", Digest: d}},
	} {
		got, err := Parse(c.in)
		if err != nil || got != c.want || got.String() != c.in {
			t.Errorf("%s: %+v, %v", c.in, got, err)
		}
	}
	for _, bad := range []string{"team/app:", "team/app@", "team/app@sha256:12", "team/app:1@" + strings.ToUpper(d.String()),
		"team/app:1@" + d.String() + "@" + d.String()} {
		if got, err := Parse(bad); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

func TestIn(t *testing.T) {
	here := func(name string) (bool, error) {
		if name == "damaged" {
			return false, errors.New("damaged")
		}
		return slices.Contains([]string{"team/app", "docker.io/team/app", "docker.io/mirrored", "localhost/x"}, name), nil
	}
	for _, c := range []struct {
		name  string
		hosts []string
		want  string // "" refused for its host
	}{
		{"team/app", nil, "team/app"},
		{"team/none", nil, "team/none"}, // it is said later that there is none
		{"docker.io/team/app", nil, "docker.io/team/app"},
		{"docker.io/team/app", []string{"docker.io"}, "team/app"}, // what a pull from docker.io gets, if that is we
		{"docker.io/mirrored", []string{"docker.io"}, "docker.io/mirrored"},
		{"docker.io/team/none", nil, ""},
		{"docker.io/team/none", []string{"docker.io"}, "team/none"},
		{"quay.io/team/app", nil, ""},
		{"quay.io/team/app", []string{"registry.example"}, ""},
		{"registry.example/team/app", []string{"registry.example"}, "team/app"},
		{"registry.example:5000/team/app", []string{"registry.example"}, ""}, // another registry
		{"registry.example:5000/team/app", []string{"registry.example:5000"}, "team/app"},
		{"localhost/team/app", nil, ""},
		{"localhost/x", nil, "localhost/x"},
		{"localhosts/team", nil, "localhosts/team"},
	} {
		got, err := Ref{Name: c.name}.In(c.hosts, here)
		var he *HostError
		if errors.As(err, &he) != (c.want == "") || err == nil && got.Name != c.want {
			t.Errorf("%s with %v: %q, %v", c.name, c.hosts, got.Name, err)
		}
		if err != nil && !strings.Contains(err.Error(), "--registry-name "+he.Host) {
			t.Errorf("%v", err)
		}
	}
	for _, name := range []string{"damaged", "docker.io/damaged"} {
		if got, err := (Ref{Name: name}).In([]string{"docker.io"}, here); err == nil {
			t.Errorf("%s: %q, though what is here is not known", name, got.Name)
		}
	}
	for _, bad := range []string{"Team/App", "../x", "a//b", "registry.example/../x", "a b"} {
		var ne *NameError
		if got, err := (Ref{Name: bad}).In([]string{"registry.example"}, here); !errors.As(err, &ne) {
			t.Errorf("%s: %q, %v", bad, got.Name, err)
		}
	}
}
