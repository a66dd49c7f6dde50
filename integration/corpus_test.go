package integration

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The advisory corpus: what has fooled or killed programs of this kind, one case
// a file, readable by anybody; testdata/corpus/README.md has the vocabulary. What
// is required of every case is required here, once, and not by the cases.

const corpusDir = "testdata/corpus"

var update = flag.Bool("update", false, "write the table of the corpus into docs/security.md")

// corpusCase is what a case's file says about it.
type corpusCase struct {
	id, mechanism, source string
	file                  string // its name
	inapplicable          string // why there is nothing to run, or ""
	note                  string
	script                []string // its lines
}

var (
	corpusHeader  = regexp.MustCompile(`^# ([A-Z]\d+) \| ([^|]+) \| ([^|]+)$`)
	corpusReason  = regexp.MustCompile(`^# does not apply: (.+)$`)
	corpusOutcome = regexp.MustCompile(`^# outcome: (.+)$`)
)

// corpusCases reads the cases, sorted by file name.
func corpusCases(t *testing.T) []*corpusCase {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(corpusDir, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []*corpusCase
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		script, _, _ := strings.Cut(string(b), "\n-- ")
		lines := strings.Split(script, "\n")
		header := corpusHeader.FindStringSubmatch(lines[0])
		if header == nil {
			t.Fatalf("%s: the first line has to be: # ID | mechanism | source", file)
		}
		c := &corpusCase{id: header[1], mechanism: header[2], source: header[3], file: filepath.Base(file)}
		if !strings.HasPrefix(c.file, c.id+"-") {
			t.Errorf("%s holds the case %s", file, c.id)
		}
		for _, line := range lines[1:] {
			if reason := corpusReason.FindStringSubmatch(line); reason != nil {
				c.inapplicable = reason[1]
			} else if note := corpusOutcome.FindStringSubmatch(line); note != nil {
				c.note = note[1]
			} else if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				c.script = append(c.script, line)
			}
		}
		if (c.inapplicable != "") != (len(c.script) == 0) {
			t.Errorf("%s: either there are commands, or a line says: # does not apply: why", file)
		}
		cases = append(cases, c)
	}
	return cases
}

// TestCorpus replays every case against the built program, and then lets one
// daemon loose, under strace, on what all of them have left.
func TestCorpus(t *testing.T) {
	var files []string
	for _, c := range corpusCases(t) {
		if c.inapplicable == "" {
			files = append(files, filepath.Join(corpusDir, c.file))
		}
	}
	dir := t.TempDir()
	t.Run("cases", func(t *testing.T) {
		testscript.RunT(scriptT{t}, testscript.Params{
			Files: files, WorkdirRoot: dir, Setup: newWorld, Cmds: corpusCommands,
			RequireExplicitExec: true, RequireUniqueNames: true,
		})
	})
	t.Run("strace", func(t *testing.T) { traceCorpus(t, dir) })
}

// scriptT hands the *testing.T of each case on to the commands.
type scriptT struct{ *testing.T }

func (t scriptT) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(scriptT{t}) })
}

func (scriptT) Verbose() bool { return testing.Verbose() }

// corpusCommands are the vocabulary beyond testscript's own.
var corpusCommands = map[string]func(*testscript.TestScript, bool, []string){}

// command adds one, with what it is called with.
func corpusCommand(name, usage string, least, most int, f func(*world, []string)) {
	corpusCommands[name] = func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < least || most >= 0 && len(args) > most {
			ts.Fatalf("usage: %s %s", name, usage)
		}
		f(worldOf(ts), args)
	}
}
