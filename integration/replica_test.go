package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// told is everything that a worker has told replicas that it publishes.
type told struct {
	mu           sync.Mutex
	publications map[string]publication // by what CURRENT said
}

type publication struct {
	Current string
	Trust   publishedFile
	Layers  []publishedFile
}

type publishedFile struct{ Name, SHA256 string }

// listener is where replicas find a worker that listens on a socket; what it tells them
// is noted.
func (l *told) listener(t *testing.T, socket string) (url string) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	p := &httputil.ReverseProxy{Transport: tr, FlushInterval: -1, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "localhost" },
		ModifyResponse: func(r *http.Response) error {
			if r.Request.URL.Path != "/api/v1/publication" || r.StatusCode != http.StatusOK {
				return nil
			}
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			var pub publication
			if err := json.Unmarshal(b, &pub); err != nil {
				t.Errorf("%s: %v", b, err)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if was, ok := l.publications[pub.Current]; !ok || was.Layers == nil {
				l.publications[pub.Current] = pub
			}
			r.Body = io.NopCloser(bytes.NewReader(b))
			return nil
		}}
	srv := httptest.NewServer(p)
	t.Cleanup(func() { srv.Close(); tr.CloseIdleConnections() })
	return srv.URL
}

// current is CURRENT, in parts: see cache/internal/format.
type current struct{ id, generation, data, base, deltas, trust string }

func parseCurrent(s string) current {
	p := strings.Split(s, ".")
	return current{p[1], p[2], p[3], p[4], p[5], p[6]}
}

// holds checks that what a replica publishes is the data of one publication that it was
// told of, under the trust of one, file by file. It returns what that is.
func (l *told) holds(t *testing.T, state string) string {
	t.Helper()
	dir := filepath.Join(state, "published")
	target, err := os.Readlink(filepath.Join(dir, "CURRENT"))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	is := parseCurrent(target)
	l.mu.Lock()
	defer l.mu.Unlock()
	var files []publishedFile
	trusted, data := false, false
	for _, p := range l.publications {
		of := parseCurrent(p.Current)
		if of.id != is.id {
			continue
		}
		if of.generation == is.generation && of.trust == is.trust {
			trusted, files = true, append(files, p.Trust)
		}
		if of.data == is.data && of.base == is.base && of.deltas == is.deltas && p.Layers != nil {
			data, files = true, append(files, p.Layers...)
		}
	}
	if !trusted || !data {
		t.Fatalf("the replica publishes %s, of which the worker told neither as one nor as two: trust %v, data %v", target, trusted, data)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name))
		if errors.Is(err, fs.ErrNotExist) {
			if now, _ := os.Readlink(filepath.Join(dir, "CURRENT")); now != target {
				return "" // it has gone on meanwhile
			}
		}
		if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(b)); err != nil || sum != f.SHA256 {
			t.Fatalf("%s of %s is %s, the worker told %s: %v", f.Name, target, sum, f.SHA256, err)
		}
	}
	return target
}

func followed(t *testing.T, url, state string) *daemon {
	t.Helper()
	return start(t, exec.Command(binary, "follow", url, "--state", state), state)
}

// A worker and its replica are killed again and again while images are pushed and keys
// come and go: what the replica has is always the worker's data of one generation under
// its trust of that or a later one, and in the end the two answer alike.
func TestReplicaKills(t *testing.T) {
	kills := 12
	if torture {
		kills = 1000
	}
	dir := t.TempDir()
	root, state, socket := filepath.Join(dir, "reg"), filepath.Join(dir, "replica"), filepath.Join(dir, "s")
	st := signtest.NewStorage(root)
	keys := []*signtest.Key{signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)}
	for i, k := range keys {
		st.TrustKey(fmt.Sprintf("%d.pub", i), k)
		st.SignSimple(st.Image("team/app", fmt.Sprint("first-", i)), k, signtest.CosignOptions{})
	}
	l := &told{publications: map[string]publication{}}
	url := l.listener(t, socket)
	worker := serve(t, root, "--listen", "unix:"+socket)
	replica := followed(t, url, state)
	eventually(t, "the replica has something", func() bool { return l.holds(t, state) != "" })
	source, copied := open(t, worker.state), open(t, state)
	alike := func() {
		t.Helper()
		var want, got map[string]cache.Image
		defer func() {
			if t.Failed() {
				t.Logf("the worker: %+v\nthe replica: %+v", want, got)
			}
		}()
		eventually(t, "the replica answers as the worker does", func() bool {
			want, got = source.all(), nil
			if l.holds(t, state) != "" {
				got = copied.all()
			}
			return reflect.DeepEqual(got, want)
		})
	}
	alike()
	last, pushed := "", 0
	for n := 0; n < kills; {
		switch rand.N(6) {
		case 0, 1:
			pushed++
			st.SignSimple(st.Image(fmt.Sprintf("team/%d", pushed%7), fmt.Sprint(pushed)), keys[pushed%2], signtest.CosignOptions{})
		case 2, 3:
			name := fmt.Sprintf("%d.pub", rand.N(2))
			if path := filepath.Join(root, "_cosign", name); os.Remove(path) != nil {
				st.TrustKey(name, keys[int(name[0]-'0')])
			}
		case 4:
			n++
			worker.kill()
			worker = start(t, exec.Command(binary, "serve", "--root", root, "--listen", "unix:"+socket), worker.state)
		case 5:
			n++
			replica.kill()
			replica = followed(t, url, state)
		}
		time.Sleep(rand.N(rand.N(300*time.Millisecond) + 1)) // sometimes before, sometimes after something has been done
		now := l.holds(t, state)
		if now != "" && last != "" && parseCurrent(now).id == parseCurrent(last).id {
			var a, b [2]int
			fmt.Sscan(parseCurrent(last).generation, &a[0])
			fmt.Sscan(parseCurrent(last).data, &a[1])
			fmt.Sscan(parseCurrent(now).generation, &b[0])
			fmt.Sscan(parseCurrent(now).data, &b[1])
			if b[0] < a[0] || b[1] < a[1] {
				t.Fatalf("the replica went back from %s to %s", last, now)
			}
		}
		last = now
		if n%50 == 0 && rand.N(10) == 0 {
			alike()
		}
	}
	alike()
	t.Logf("%d kills, %d pushes, %d publications told, 0 wrongly trusted", kills, pushed, len(l.publications))
}

// The disk of a replica is full while a key is removed, comes back, and images are
// pushed: the removed key's answers stop being trusted, and it all comes right when there is room.
func TestReplicaOnAFullDisk(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	k := &smallDisk{t: t, sample: newSample(t)}
	serve(t, k.Dir, "--listen", "unix:"+socket)
	k.start(2<<20, func(state string) []string { return []string{"follow", "unix:" + socket, "--state", state} })
	withdrawn, ruled := 0, 0
	for turn := range 4 {
		k.becomes("1", "trusted")
		k.fill(turn * 3)
		k.Untrust("_cosign/team.pub")
		k.becomes("1", "untrusted", string(trust.NoCache))
		if k.reads("1") == string(trust.NoCache) {
			withdrawn++
		} else {
			ruled++
		}
		tag := fmt.Sprint("pushed-", turn)
		k.SignSimple(k.Image("app", tag), k.team, signtest.CosignOptions{})
		k.TrustKey("team.pub", k.team)
		k.free()
		k.becomes("1", "trusted")
		k.becomes(tag, "trusted")
	}
	t.Logf("of %d removals on a full disk %d withdrew all answers, %d ruled", withdrawn+ruled, withdrawn, ruled)
}
