package page

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"trust-worker/trust"
)

// Each state has a shape, a colour and a word, and no other state's.
func TestStatesAreToldApart(t *testing.T) {
	css := string(assets["style.css"].Content)
	html, err := New("").Overview(&Overview{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string]string{}
	for _, s := range states {
		m := regexp.MustCompile(`(?s)<symbol id="shape-` + s.Name + `"[^>]*>(.*?)</symbol>`).FindSubmatch(html)
		if m == nil || shapes[string(m[1])] != "" {
			t.Errorf("%s has no shape of its own", s.Name)
			continue
		}
		shapes[string(m[1])] = s.Name
		if !regexp.MustCompile(`\.s-` + s.Name + `\b[^}]*--ink`).MatchString(css) {
			t.Errorf("%s has no colour", s.Name)
		}
		if s.Word == "" || s.Image == "" {
			t.Errorf("%s has no words", s.Name)
		}
	}
	colour := func(name string) string {
		return regexp.MustCompile(`\.s-` + name + `\b[^{}]*\{ --ink: var\(--([a-z]+)\)`).FindStringSubmatch(css)[1]
	}
	// As zot has it.
	for name, want := range map[string]string{"trusted": "trusted", "untrusted": "amber", "expired": "amber", "unsigned": "red", "unknown": "grey", "pending": "grey"} {
		if got := colour(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for _, status := range []trust.Status{trust.Trusted, trust.Expired, trust.Untrusted, trust.Unknown, trust.Pending} {
		if stateOfStatus(status).Name != string(status) {
			t.Errorf("%s has no state", status)
		}
	}
	if s := stateOf("what is this"); s.Name != "unknown" {
		t.Errorf("a name that is not known is %s", s.Name)
	}
}

// A text on its ground has the contrast that WCAG 2.2 asks for (1.4.3, AA).
func TestContrast(t *testing.T) {
	css := string(assets["style.css"].Content)
	light, dark, ok := strings.Cut(css, "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark colours")
	}
	dark, _, _ = strings.Cut(dark, "*, ::before")
	for scheme, part := range map[string]string{"light": light, "dark": dark} {
		for _, pair := range [][2]string{{"text", "page"}, {"text", "surface"}, {"soft", "page"}, {"soft", "surface"}, {"soft", "hover"}, {"link", "surface"}, {"link", "page"},
			{"trusted", "trusted-back"}, {"amber", "amber-back"}, {"red", "red-back"}, {"grey", "grey-back"}, {"trusted", "surface"}, {"amber", "surface"}, {"red", "surface"}, {"grey", "surface"}} {
			a, b := luminance(t, part, pair[0]), luminance(t, part, pair[1])
			if ratio := (max(a, b) + .05) / (min(a, b) + .05); ratio < 4.5 {
				t.Errorf("%s: %s on %s is %.2f to 1", scheme, pair[0], pair[1], ratio)
			}
		}
	}
}

func luminance(t *testing.T, css, name string) float64 {
	t.Helper()
	m := regexp.MustCompile(`--` + name + `: #([0-9a-f]+);`).FindStringSubmatch(css)
	if m == nil {
		t.Fatalf("there is no colour %s", name)
	}
	hex := m[1]
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	var r, g, b int
	if _, err := fmt.Sscanf(hex, "%02x%02x%02x", &r, &g, &b); err != nil {
		t.Fatal(err)
	}
	return .2126*linear(r) + .7152*linear(g) + .0722*linear(b)
}

func linear(c int) float64 {
	v := float64(c) / 255
	if v <= .04045 {
		return v / 12.92
	}
	return math.Pow((v+.055)/1.055, 2.4)
}
