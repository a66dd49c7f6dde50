package integration

import (
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

// block is one piece of shell or Python in a page.
type block struct {
	language, text string
	line           int
	notRun         string // the reason, from the comment above it
}

var (
	opening = regexp.MustCompile("^```(sh|python)$")
	excuse  = regexp.MustCompile(`^<!-- not run by the tests: (.+) -->$`)
)

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
// not run says why in a comment.
func TestShellInDocumentation(t *testing.T) {
	ran := 0
	for page, text := range pages(t) {
		blocks := blocksOf(text)
		runs := slices.ContainsFunc(blocks, func(b block) bool { return b.notRun == "" })
		for _, b := range blocks {
			if b.notRun != "" {
				t.Logf("%s:%d is not run: %s", page, b.line, b.notRun)
			}
		}
		if !runs {
			continue
		}
		ran++
		t.Run(strings.ReplaceAll(page, "/", "-"), func(t *testing.T) { runBlocks(t, page, blocks) })
	}
	if ran == 0 {
		t.Error("no page has a block that is run")
	}
}

func runBlocks(t *testing.T, page string, blocks []block) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "registry")
	st := signtest.NewStorage(root)
	k := signtest.NewKey(signtest.P256)
	st.TrustKey("team.pub", k)
	st.SignSimple(st.Image("team/app", "1.0"), k, signtest.CosignOptions{})
	d := serve(t, root, "--listen", "127.0.0.1:0")
	address := d.address(t)

	bin := filepath.Join(dir, "bin")
	for _, err := range []error{os.Mkdir(bin, 0o755), os.Symlink(binary, filepath.Join(bin, "trust-worker"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	names := strings.NewReplacer("/var/lib/registry", root, "/var/lib/trust-worker", filepath.Join(dir, "state"),
		"127.0.0.1:8081", address, "127.0.0.1:8428", address)
	for _, b := range blocks {
		interpreter := map[string][]string{"sh": {"sh", "-eu"}, "python": {"python3", "-"}}[b.language]
		if _, err := exec.LookPath(interpreter[0]); err != nil {
			t.Logf("%s:%d is not run: %v", page, b.line, err)
			continue
		}
		if b.notRun != "" {
			continue
		}
		c := exec.Command(interpreter[0], interpreter[1:]...)
		c.Dir = dir
		c.Stdin = strings.NewReader(names.Replace(b.text))
		c.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
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
