// Command noisy measures how long a new image waits for its answer while two
// repositories full of something costly come, kind by kind. It runs the built daemon on
// storage of its own, pushes to a third repository and to new ones, and asks as any other
// process does. See docs/security.md, "What the costliest input costs the others".
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/cache"
)

// repository is an image layout that is being written.
type repository struct {
	dir   string
	index ocispec.Index
}

func newRepository(root, name string) (*repository, error) {
	r := &repository{dir: filepath.Join(root, name), index: ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}}
	return r, errors.Join(os.MkdirAll(filepath.Join(r.dir, "blobs", "sha256"), 0o755),
		os.WriteFile(filepath.Join(r.dir, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// blob stores bytes and describes them.
func (r *repository) blob(mediaType string, b []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, os.WriteFile(filepath.Join(r.dir, "blobs", "sha256", d.Digest.Encoded()), b, 0o644)
}

// manifest stores a manifest or an index and lists it, with a tag unless that is empty.
func (r *repository) manifest(mediaType string, m any, tag string) (ocispec.Descriptor, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := r.blob(mediaType, b)
	listed := d
	if tag != "" {
		listed.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	r.index.Manifests = append(r.index.Manifests, listed)
	return d, err
}

func (r *repository) image(seed, tag string) (ocispec.Descriptor, error) {
	config, err := r.blob(ocispec.MediaTypeImageConfig, []byte("{}"))
	if err != nil {
		return config, err
	}
	return r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{}, Annotations: map[string]string{"seed": seed}}, tag)
}

// sign stores a signature that nobody has made: well-formed, by no key.
func (r *repository) sign(image ocispec.Descriptor, seed string, layers, padding int) error {
	payload, err := r.blob("application/vnd.dev.cosign.simplesigning.v1+json", fmt.Appendf(nil,
		`{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":{"seed":%q,"p":%q}}`,
		image.Digest, seed, strings.Repeat("x", padding)))
	if err != nil {
		return err
	}
	config, err := r.blob(ocispec.MediaTypeImageConfig, []byte("{}"))
	if err != nil {
		return err
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.dev.cosign.artifact.sig.v1+json", Config: config, Subject: &image}
	for n := range layers {
		x, y := sha256.Sum256(fmt.Append(nil, seed, n)), sha256.Sum256(fmt.Append(nil, seed, n, "s"))
		x[0], y[0] = x[0]|0x80, 1
		der := append(append([]byte{0x30, 0x45, 0x02, 0x21, 0}, x[:]...), append([]byte{0x02, 0x20}, y[:]...)...)
		layer := payload
		layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(der)}
		m.Layers = append(m.Layers, layer)
	}
	_, err = r.manifest(m.MediaType, m, "")
	return err
}

// write makes the repository what its index says, as registries do.
func (r *repository) write() error {
	b, err := json.Marshal(r.index)
	if err != nil {
		return err
	}
	path := filepath.Join(r.dir, ocispec.ImageIndexFile)
	return errors.Join(os.WriteFile(path+".new", b, 0o644), os.Rename(path+".new", path))
}

// kind is something costly that a repository may be full of.
type kind struct {
	name, says string
	fill       func(r *repository, n int) error
}

var kinds = []kind{
	{"none", "nothing", func(*repository, int) error { return nil }},
	{"tags", "180,000 tags of 67 characters on one image", func(r *repository, n int) error {
		d, err := r.image(fmt.Sprint(n), "")
		r.index.Manifests = nil
		for i := range 180_000 {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: fmt.Sprintf("t%06d%s", i, strings.Repeat("z", 60))}
			r.index.Manifests = append(r.index.Manifests, d)
		}
		return err
	}},
	{"images", "50,000 images of a few bytes", func(r *repository, n int) (err error) {
		for i := range 50_000 {
			_, e := r.image(fmt.Sprint(n, i), fmt.Sprint("t", i))
			err = errors.Join(err, e)
		}
		return err
	}},
	{"children", "100 indexes of 9,000 children that are not there, media types of 230 bytes", func(r *repository, _ int) (err error) {
		for i := range 100 {
			index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
			for k := range 9000 {
				index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: fmt.Sprintf("application/x-%d-%s", k, strings.Repeat("y", 210)),
					Digest: digest.FromString(fmt.Sprint(i, k)), Size: 5})
			}
			_, e := r.manifest(index.MediaType, index, fmt.Sprint("i", i))
			err = errors.Join(err, e)
		}
		return err
	}},
	{"referrers", "15,000 signatures of one image", func(r *repository, n int) error {
		d, err := r.image(fmt.Sprint(n), "t")
		for i := range 15_000 {
			err = errors.Join(err, r.sign(d, fmt.Sprint(n, i), 1, 0))
		}
		return err
	}},
	{"layers", "20 signatures of 900 layers, payloads of 60,000 bytes", func(r *repository, n int) error {
		d, err := r.image(fmt.Sprint(n), "t")
		for i := range 20 {
			err = errors.Join(err, r.sign(d, fmt.Sprint(n, i), 900, 60_000))
		}
		return err
	}},
}

// waits measures pushes beside a kind for so long: to a repository that is there, and of
// three that are new.
func waits(binary string, k kind, long time.Duration) (pushes []time.Duration, peakMB int, err error) {
	dir, err := os.MkdirTemp("", "noisy-")
	if err != nil {
		return nil, 0, err
	}
	defer os.RemoveAll(dir)
	root, aside := filepath.Join(dir, "registry"), filepath.Join(dir, "aside")
	for n := range 2 {
		r, err := newRepository(aside, fmt.Sprint("noisy", n))
		if err := errors.Join(err, k.fill(r, n), r.write()); err != nil {
			return nil, 0, err
		}
	}
	small, err := newRepository(root, "small")
	if err := errors.Join(err, os.Mkdir(filepath.Join(root, "_cosign"), 0o755), small.write()); err != nil {
		return nil, 0, err
	}
	cmd := exec.Command(binary, "serve", "--root", root, "--scan-interval", "60s")
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	for try := 0; ; try++ { // the daemon makes it
		if _, err := os.Readlink(filepath.Join(root, "_trust", "published", "CURRENT")); err == nil {
			break
		} else if try == 1000 {
			return nil, 0, errors.New("the daemon publishes nothing")
		}
		time.Sleep(10 * time.Millisecond)
	}
	reader, err := cache.OpenReader(filepath.Join(root, "_trust"))
	if err != nil {
		return nil, 0, err
	}
	defer reader.Close()
	push := func(r *repository, name, tag string) error {
		if _, err := r.image(name+tag, tag); err != nil {
			return err
		}
		began := time.Now()
		if err := r.write(); err != nil {
			return err
		}
		for {
			if snap, err := reader.Snapshot(); err == nil {
				_, err = snap.Tag(name, tag)
				snap.Close()
				if err == nil {
					break
				}
			}
			if time.Since(began) > time.Minute {
				break // said as what it is: a minute at least
			}
			time.Sleep(5 * time.Millisecond)
		}
		pushes = append(pushes, time.Since(began))
		return nil
	}
	for n := range 2 {
		if err := os.Rename(filepath.Join(aside, fmt.Sprint("noisy", n)), filepath.Join(root, fmt.Sprint("noisy", n))); err != nil {
			return nil, 0, err
		}
	}
	for n, began := 0, time.Now(); time.Since(began) < long; n++ {
		if err := push(small, "small", fmt.Sprint("t", n)); err != nil {
			return nil, 0, err
		}
		time.Sleep(300 * time.Millisecond)
	}
	for n := range 3 {
		name := fmt.Sprintf("tenant%d/app", n)
		r, err := newRepository(root, name)
		if err := errors.Join(err, push(r, name, "1")); err != nil {
			return nil, 0, err
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	for line := range strings.Lines(string(status)) {
		if kB, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err = fmt.Sscan(kB, &peakMB)
		}
	}
	return pushes, peakMB / 1024, err
}

func main() {
	binary := flag.String("bin", "bin/trust-worker", "the built program")
	only := flag.String("kind", "", "measure this kind alone")
	long := flag.Duration("for", 30*time.Second, "how long to push beside each kind")
	flag.Parse()
	fmt.Println("| two repositories full of | pushes | median | longest wait for an answer | peak memory |\n|---|---|---|---|---|")
	for _, k := range kinds {
		if *only != "" && *only != k.name {
			continue
		}
		pushes, peak, err := waits(*binary, k, *long)
		if err != nil {
			fmt.Fprintln(os.Stderr, "noisy:", k.name+":", err)
			os.Exit(1)
		}
		slices.Sort(pushes)
		fmt.Printf("| %s | %d | %.2f s | %.2f s | %d MB |\n", k.says, len(pushes), pushes[len(pushes)/2].Seconds(), pushes[len(pushes)-1].Seconds(), peak)
	}
}
