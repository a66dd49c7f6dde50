// Command scale measures a built trust-worker on synthetic storage with many
// signatures, from outside: it makes the storage, starts the daemon, changes
// keys and storage as users would, and reads the answers from this, a second,
// process. It writes one JSON file and one table; -plot draws the cost against
// the number of signatures from several such files.
//
//	make bench-scale N=100000
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Row is one line of the result.
type Row struct {
	What   string
	Value  float64
	Unit   string
	Target string `json:",omitempty"`
	Note   string `json:",omitempty"`
}

// Report is what a run writes.
type Report struct {
	N, Images, Repositories, Keys int
	Date                          string
	Machine                       string
	Command                       string
	Rows                          []Row
}

func (r *Report) add(what string, value float64, unit, target, note string) {
	row := Row{What: what, Value: value, Unit: unit, Target: target, Note: note}
	r.Rows = append(r.Rows, row)
	fmt.Fprintf(os.Stderr, "%-52s %12.4g %-6s %s %s\n", row.What, row.Value, row.Unit, row.Target, row.Note)
}

func main() {
	n := flag.Int("n", 10_000, "signatures")
	keys := flag.Int("keys", 1000, "trusted keys")
	perRepo := flag.Int("per-repository", 10, "images in each repository")
	large := flag.Int("large", 0, "images in the first repository instead (0: as in each)")
	signers := flag.Int("signers", 5, "signers of each image; 1: one for each repository")
	last := flag.String("until", "", `end after this step, for example "first pass"`)
	form := flag.String("layout", "oci", "layout of the storage: oci or distribution")
	bench := flag.String("benchmarks", "", "print this file of go test -bench as a Markdown table, and do nothing else")
	bin := flag.String("bin", "bin/trust-worker", "the built program")
	dir := flag.String("dir", "", "where to make the storage (default: a temporary directory, removed at the end)")
	out := flag.String("out", "", "write the report to this file as JSON")
	lookups := flag.Duration("lookups", 10*time.Second, "how long to look up against publications")
	plot := flag.String("plot", "", "draw the JSON files given as arguments to this SVG file, and do nothing else")
	growth := flag.Bool("growth", false, "print how the JSON files given as arguments grow, as a Markdown table, and do nothing else")
	table := flag.Bool("table", false, "print the JSON files given as arguments as a Markdown table, and do nothing else")
	keyless := flag.Int("keyless", 0, "measure identities instead, on so many keyless signatures")
	facts := flag.Int("facts", 1_000_000, "with -keyless: further signatures that are put into a store as facts")
	flag.Parse()
	err := func() error {
		if *form != "oci" && *form != "distribution" {
			return fmt.Errorf("-layout %s: choose oci or distribution", *form)
		}
		switch {
		case *plot != "":
			return draw(*plot, flag.Args())
		case *bench != "":
			return printBenchmarks(os.Stdout, *bench)
		case *growth:
			return printGrowth(os.Stdout, flag.Args())
		case *table:
			return printTable(os.Stdout, flag.Args())
		}
		if *keyless > 0 {
			return measureKeyless(*keyless, *facts, *bin, *dir, *out)
		}
		return measure(*n, *keys, *perRepo, *large, *signers, *form == "distribution", *bin, *dir, *out, *last, *lookups)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func measure(n, keys, perRepo, large, signers int, distribution bool, bin, dir, out, last string, lookups time.Duration) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "trust-worker-scale-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	r := &Report{N: n, Keys: keys, Date: time.Now().UTC().Format(time.DateOnly), Machine: machine(),
		Command: fmt.Sprintf("make bench-scale N=%d", n)}
	if args := os.Getenv("SCALE_ARGS"); args != "" {
		r.Command += fmt.Sprintf(" ARGS=%q", args)
	}
	g := newGenerator(filepath.Join(dir, "registry"), n, keys, perRepo, large, signers)
	g.distribution = distribution
	start := time.Now()
	if err := g.run(); err != nil {
		return fmt.Errorf("make storage: %w", err)
	}
	unix.Sync() // or what the daemon writes would wait for the storage that was made
	r.Images, r.Repositories = g.images, g.repositories
	r.add("storage made", time.Since(start).Seconds(), "s", "", fmt.Sprintf("%d repositories, %d images, %d signatures by %d keys", g.repositories, g.images, n, keys))
	d := &driver{g: g, r: r, bin: bin, root: g.dir, state: filepath.Join(dir, "state"), lookups: lookups}
	if err := os.Mkdir(d.state, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	defer d.stop()
	if err := d.all(last); err != nil {
		return err
	}
	if out == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
}

// machine describes where it ran.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d processors, %s", model, runtime.NumCPU(), runtime.Version())
}
