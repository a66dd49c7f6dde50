package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
)

// pages returns every Markdown page of the repository, by path from its top.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "packaging/*.md", "packaging/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found[strings.TrimPrefix(path, "../")] = string(b)
		}
	}
	if len(found) < 10 {
		t.Fatalf("only %d pages", len(found))
	}
	return found
}

var (
	link    = regexp.MustCompile(`!?\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
)

// Every link within the repository leads to a file that is there, and to a
// heading that it has. Links that leave it are not followed: no network here.
func TestLinksInDocumentation(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(filepath.Join("..", path)); err != nil {
				t.Errorf("%s: %s: %v", page, m[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(all[path]), anchor) {
				t.Errorf("%s: %s: no such heading", page, m[1])
			}
		}
	}
}

// anchors are the headings of a page as links name them.
func anchors(text string) (names []string) {
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		name := regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// block is one fenced piece of a page.
type block struct {
	language, text string
	line           int
	notRun         string // the reason, from the comment above it
}

var (
	opening  = regexp.MustCompile("^```(\\w*)$")
	excuse   = regexp.MustCompile(`^<!-- not run by the tests: (.+) -->$`)
	indented = regexp.MustCompile(`(?m)(?:\A|^\n)((?:    |\t).*)$`)
)

// runners say how a block is run: what reads it, or, for a configuration of the
// daemon, the command that is given it as a file. A block without a language is
// something to look at: output, a picture. Any other has to say why it is not run.
var runners = map[string][]string{
	"sh": {"sh", "-eu"}, "python": {"python3", "-"}, "yaml": {"trust-worker", "config", "check"},
}

// elsewhere are the languages whose blocks a test of their own runs.
var elsewhere = map[string]func(*testing.T){"nginx": TestGateBehindNginx, "caddyfile": TestGateBehindCaddy, "toml": TestImageVerifier}

func blocksOf(text string) (blocks []block) {
	lines := strings.Split(text, "\n")
	reason := ""
	for i := 0; i < len(lines); i++ {
		if m := excuse.FindStringSubmatch(lines[i]); m != nil {
			reason = m[1]
			continue
		}
		m := opening.FindStringSubmatch(lines[i])
		if m == nil {
			if lines[i] != "" {
				reason = ""
			}
			continue
		}
		b := block{language: m[1], line: i + 2, notRun: reason}
		for i++; i < len(lines) && lines[i] != "```"; i++ {
			b.text += lines[i] + "\n"
		}
		blocks, reason = append(blocks, b), ""
	}
	return blocks
}

// What a page tells its reader to type works as it stands there: each page's
// blocks are run in order, in a directory where the program and a registry are,
// with only paths and ports put in the place of those printed. A block that is
// not run says why in a comment, and none is written in another form.
func TestBlocksInDocumentation(t *testing.T) {
	ran := 0
	for page, text := range pages(t) {
		for _, m := range indented.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			t.Errorf("%s: %q is not fenced, and so not run", page, m[1])
		}
		var run []block
		for _, b := range blocksOf(text) {
			switch {
			case b.language == "", elsewhere[b.language] != nil:
			case b.notRun != "":
				t.Logf("%s:%d is not run: %s", page, b.line, b.notRun)
			case runners[b.language] == nil:
				t.Errorf("%s:%d: %s cannot be run, and nothing says why", page, b.line, b.language)
			default:
				run = append(run, b)
			}
		}
		if len(run) == 0 {
			continue
		}
		ran++
		t.Run(strings.ReplaceAll(page, "/", "-"), func(t *testing.T) { runBlocks(t, page, run) })
	}
	if ran == 0 {
		t.Error("no page has a block that is run")
	}
}

func runBlocks(t *testing.T, page string, blocks []block) {
	t.Parallel()
	dir := t.TempDir()
	root, socket, etc := filepath.Join(dir, "registry"), filepath.Join(dir, "trust-worker.sock"), filepath.Join(dir, "etc")
	st := signtest.NewStorage(root)
	k := signtest.NewKey(signtest.P256)
	st.TrustKey("team.pub", k)
	for _, tag := range []string{"1.0", "latest"} {
		st.SignSimple(st.Image("team/app", tag), k, signtest.CosignOptions{})
	}
	// Who signs in scopes.md: the private instance stands for the public one.
	public, corp := signtest.NewSigstore("public"), signtest.NewSigstore("corp")
	teams := map[string]*signtest.Key{"team-a": signtest.NewKey(signtest.P256), "team-b": signtest.NewKey(signtest.P256)}
	for team, key := range teams {
		st.SignSimple(st.Image(team+"/app", "1.0"), key, signtest.CosignOptions{})
	}
	st.SignKeylessBundle(st.Image("acme/app", "1.0"), public, signtest.KeylessOptions{Issuer: "https://token.actions.githubusercontent.com",
		Subject: "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1.0"})
	st.SignKeyless(st.Image("platform/base", "1.0"), corp, signtest.KeylessOptions{Issuer: "https://dex.corp.example", Subject: "release@corp.example"})
	address := serve(t, root, "--listen", "127.0.0.1:0", "--listen", "unix:"+socket).address(t)
	// zot's own examples send no token, to this name.
	insecure := "localhost:8428"
	if slices.ContainsFunc(blocks, func(b block) bool { return strings.Contains(b.text, insecure) }) {
		_, port, _ := strings.Cut(serve(t, t.TempDir(), "--listen", "127.0.0.1:0", "--insecure-uploads").address(t), ":")
		insecure = "localhost:" + port
	}

	// What the reader has at hand, and what a configuration names.
	ca := signtest.NewRoot(signtest.CertOptions{})
	for name, content := range map[string][]byte{
		"cosign.pub": signtest.NewKey(signtest.P256).PEM(), "file.pub": signtest.NewKey(signtest.P384).PEM(),
		"certificate.crt": signtest.CertPEM(ca.Cert()),
		"etc/tls.crt":     signtest.CertPEM(ca.Cert()), "etc/tls.key": ca.Key.PrivatePEM(), "etc/clients.crt": signtest.CertPEM(ca.Cert()),
		"trusted_root.json": public.Root().JSON(), "corp-trusted-root.json": corp.Root().JSON(),
		"team-a.pub": teams["team-a"].PEM(), "team-b.pub": teams["team-b"].PEM(),
		"etc/htpasswd":   []byte("alice:$2y$05$abcdefghijklmnopqrstuuVSoKwW4qXQ0nhUVN0sNTjZwnFBKBC6e\n"),
		"etc/read.token": []byte("a token of some length\n"), "etc/hook.secret": []byte("a secret of some length\n"),
		"etc/cluster.key": []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"),
		".curlrc":         []byte("fail\nsilent\nshow-error\n"), // an error is an exit code
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "bin")
	if err := errors.Join(os.Mkdir(bin, 0o755), os.Symlink(binary, filepath.Join(bin, "trust-worker"))); err != nil {
		t.Fatal(err)
	}
	names := strings.NewReplacer("/var/lib/registry", root, "/var/lib/trust-worker", filepath.Join(dir, "state"), "/etc/trust-worker", etc,
		"/run/trust-worker.sock", socket, "127.0.0.1:8428", address, "localhost:8428", insecure)
	for _, b := range blocks {
		runner := runners[b.language]
		if runner[0] == "trust-worker" {
			runner = append([]string{binary}, runner[1:]...)
			runner = append(runner, "--root", root, "--config", "/dev/stdin")
		}
		needs := []string{runner[0]}
		if strings.Contains(b.text, "curl ") {
			needs = append(needs, "curl")
		}
		if i := slices.IndexFunc(needs, func(name string) bool { _, err := exec.LookPath(name); return err != nil }); i >= 0 {
			t.Logf("%s:%d is not run: there is no %s here", page, b.line, needs[i])
			continue
		}
		c := exec.Command(runner[0], runner[1:]...)
		c.Dir = dir
		c.Stdin = strings.NewReader(names.Replace(b.text))
		c.Env = append(os.Environ(), "CURL_HOME="+dir, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s:%d: %v\n%s\n%s", page, b.line, err, b.text, out)
		}
	}
}

// address is where a daemon that was given port 0 listens.
func (d *daemon) address(t *testing.T) string {
	t.Helper()
	at := regexp.MustCompile(`msg=listening .*?at=(\S+)`)
	var found []string
	eventually(t, "the daemon listens", func() bool {
		found = at.FindStringSubmatch(d.log.String())
		return found != nil || d.ended()
	})
	if found == nil {
		t.Fatal("the daemon ended")
	}
	return fmt.Sprint(found[1])
}
