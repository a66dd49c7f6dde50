// Command follow measures replicas: how long the first copy takes, how far a replica is
// behind, what is sent, and what many replicas cost the worker. The worker is this
// program again, with a store and a server and no storage; the replica is the built
// trust-worker.
//
//	make bench-follow N=1000000
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	n       = flag.Int("n", 10_000, "signatures")
	seconds = flag.Int("seconds", 60, "how long to publish, 10 times a second")
	clients = flag.Int("clients", 100, "replicas at once, for what they cost the worker")
	bin     = flag.String("bin", "bin/trust-worker", "the built program")
	dir     = flag.String("dir", "", "where the state directories are (default: a temporary directory, removed at the end)")
	role    = flag.String("role", "", "what the program starts itself as")
)

func main() {
	flag.Parse()
	var err error
	switch *role {
	case "source":
		err = runSource(*dir, *n, "127.0.0.1:0")
	case "clients":
		err = runClients(flag.Arg(0), *clients)
	default:
		err = measure()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// worker is the source in its process.
type worker struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
	url string
}

func self(args ...string) (*exec.Cmd, error) {
	path, err := os.Executable()
	return exec.Command(path, args...), err
}

func startWorker(state string) (*worker, error) {
	cmd, err := self("-role", "source", "-dir", state, "-n", strconv.Itoa(*n))
	if err != nil {
		return nil, err
	}
	w := &worker{cmd: cmd}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.in, w.out = in, bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if !w.out.Scan() {
		return nil, fmt.Errorf("the worker ended: %v", cmd.Wait())
	}
	w.url = w.out.Text()
	return w, nil
}

// publish has the worker publish, and returns the generation and how long that took.
func (w *worker) publish(what string) (generation uint64, took time.Duration, err error) {
	if _, err = fmt.Fprintln(w.in, what); err == nil && !w.out.Scan() {
		err = fmt.Errorf("the worker ended: %v", w.cmd.Wait())
	}
	if err != nil {
		return 0, 0, err
	}
	var us int64
	_, err = fmt.Sscan(w.out.Text(), &generation, &us)
	return generation, time.Duration(us) * time.Microsecond, err
}

// cpu is the processor time of a process.
func cpu(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

// anonymous is a process's memory that is not a mapped file.
func anonymous(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // then it is not known
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			return strings.TrimSpace(kb)
		}
	}
	return "not known"
}

// generations are those of trust and data that a state directory publishes.
func generations(state string) (trust, data uint64) {
	target, err := os.Readlink(filepath.Join(state, "published", "CURRENT"))
	if p := strings.Split(target, "."); err == nil && len(p) == 7 {
		trust, _ = strconv.ParseUint(p[2], 10, 64)
		data, _ = strconv.ParseUint(p[3], 10, 64)
	}
	return trust, data
}

func waitUntil(holds func() bool) error {
	for end := time.Now().Add(10 * time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("waited for 10 minutes")
		}
	}
	return nil
}

func row(what, format string, args ...any) {
	fmt.Printf("| %s | %s |\n", what, fmt.Sprintf(format, args...))
}

func percentile(all []time.Duration, p int) time.Duration {
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*p/100)].Round(100 * time.Microsecond)
}

func measure() error {
	if *dir == "" {
		d, err := os.MkdirTemp("", "follow-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(d)
		*dir = d
	}
	from, to := filepath.Join(*dir, "source"), filepath.Join(*dir, "replica")
	w, err := startWorker(from)
	if err != nil {
		return err
	}
	defer w.cmd.Process.Kill()
	fmt.Printf("| %d signatures, %s | |\n|---|---|\n", *n, time.Now().Format("2 January 2006"))
	bytes, floor, err := copyFloor(w.url, filepath.Join(*dir, "copy"))
	if err != nil {
		return err
	}
	began := time.Now()
	replica := exec.Command(*bin, "follow", w.url, "--state", to, "--log-level", "error")
	replica.Stderr = os.Stderr
	if err := replica.Start(); err != nil {
		return err
	}
	defer replica.Process.Kill()
	if err := waitUntil(func() bool { _, data := generations(to); return data > 0 }); err != nil {
		return err
	}
	first := time.Since(began)
	row("first copy", "%.2f s for %.1f MB; one download of the same bytes, hashed, written and synced: %.2f s (%.2f ×)", first.Seconds(), float64(bytes)/1e6, floor.Seconds(), first.Seconds()/floor.Seconds())

	time.Sleep(1500 * time.Millisecond) // status.json
	before, cpuBefore := fetched(to), cpu(replica.Process.Pid)
	var trusts, datas []time.Duration
	start := time.Now()
	for i := range *seconds * 10 {
		time.Sleep(time.Until(start.Add(time.Duration(i) * 100 * time.Millisecond)))
		what := "push"
		if i%10 == 9 {
			what = "trust"
		}
		generation, _, err := w.publish(what)
		if err != nil {
			return err
		}
		at := time.Now()
		behind := func() bool {
			trust, data := generations(to)
			if what == "trust" {
				return trust < generation
			}
			return data < generation
		}
		if err := waitUntil(func() bool { return !behind() }); err != nil {
			return err
		}
		lag := time.Since(at)
		if what == "trust" {
			trusts = append(trusts, lag)
		} else {
			datas = append(datas, lag)
		}
	}
	spent := time.Since(start)
	row("trust is behind by", "p50 %v, p99 %v, at most %v", percentile(trusts, 50), percentile(trusts, 99), percentile(trusts, 100))
	row("data are behind by", "p50 %v, p99 %v, at most %v", percentile(datas, 50), percentile(datas, 99), percentile(datas, 100))
	time.Sleep(2500 * time.Millisecond) // status.json
	count := len(trusts) + len(datas)
	row("published", "%d times in %.0f s, %.1f times a second", count, spent.Seconds(), float64(count)/spent.Seconds())
	row("fetched", "%.1f KB for each publication, the files that layers were folded into included", float64(fetched(to)-before)/1e3/float64(count))
	row("processor time of the replica", "%.1f %% of one", 100*(cpu(replica.Process.Pid)-cpuBefore).Seconds()/spent.Seconds())
	row("anonymous memory of the replica", "%s", anonymous(replica.Process.Pid))
	_ = replica.Process.Kill()
	_ = replica.Wait()
	return fanOut(w)
}

// fetched is what a replica says that it has fetched.
func fetched(state string) int64 {
	var st struct{ Replica struct{ Bytes int64 } }
	b, err := os.ReadFile(filepath.Join(state, "status.json"))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return 0
	}
	return st.Replica.Bytes
}

type publication struct {
	Current string
	Trust   file
	Layers  []file
}

type file struct {
	Name string
	Size int64
}

func ask(c *http.Client, url, tag string) (*publication, string, error) {
	req, err := http.NewRequest(http.MethodGet, url+"/api/v1/publication?wait=5s", nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("If-None-Match", tag)
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return nil, tag, nil
	}
	var p publication
	err = json.NewDecoder(resp.Body).Decode(&p)
	return &p, resp.Header.Get("ETag"), err
}

// copyFloor downloads all files of the publication, hashed, written and synced.
func copyFloor(url, to string) (bytes int64, took time.Duration, err error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(to)
	var p *publication
	for p == nil || p.Layers == nil { // the worker hashes
		if p, _, err = ask(http.DefaultClient, url, ""); err != nil {
			return 0, 0, err
		}
	}
	began := time.Now()
	for _, f := range slices.Concat(p.Layers, []file{p.Trust}) {
		resp, err := http.Get(url + "/api/v1/publication/" + f.Name)
		if err != nil {
			return 0, 0, err
		}
		out, err := os.Create(filepath.Join(to, f.Name))
		if err != nil {
			return 0, 0, err
		}
		k, err := io.Copy(io.MultiWriter(out, sha256.New()), resp.Body)
		if err == nil {
			err = out.Sync()
		}
		out.Close()
		resp.Body.Close()
		if err != nil {
			return 0, 0, err
		}
		bytes += k
	}
	return bytes, time.Since(began), nil
}
