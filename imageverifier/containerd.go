package imageverifier

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/pelletier/go-toml/v2"
)

// What in containerd's configuration keeps it from asking, or from hearing the answer.
// containerd says none of it at a pull.

// Program is the name under which containerd runs the verifier.
const Program = "trust-worker-image-verifier"

// Finding is one thing about a containerd configuration.
type Finding struct {
	// Fatal: images are pulled without the verifier being asked.
	Fatal   bool
	Setting string // as in the configuration
	Problem string
}

const (
	pluginImages   = "io.containerd.cri.v1.images"
	pluginCRI      = "io.containerd.grpc.v1.cri" // of version 2 configurations
	pluginVerifier = "io.containerd.image-verifier.v1.bindir"
	pluginTransfer = "io.containerd.transfer.v1.local"

	defaultBinDir = "/opt/containerd/image-verifier/bin"
)

// table is a TOML table.
type table = map[string]any

// CheckContainerd reads a containerd configuration, best the output of containerd config
// dump, and finds what keeps the verifier from being asked (containerd 2.1 and later,
// docs/cri/config.md: "automatic fallback to Local Mode").
func CheckContainerd(config []byte) ([]Finding, error) {
	var doc table
	if err := toml.Unmarshal(config, &doc); err != nil {
		return nil, fmt.Errorf("not a containerd configuration: %w", err)
	}
	c := &checker{plugins: sub(doc, "plugins")}
	if disabled, _ := doc["disabled_plugins"].([]any); disabled != nil {
		for _, name := range []string{pluginVerifier, pluginTransfer} {
			if slices.Contains(disabled, any(name)) {
				c.fatal("disabled_plugins", "%s is switched off", name)
			}
		}
	}
	if imports, _ := doc["imports"].([]any); len(imports) > 0 {
		c.warn("imports", "what is in imported files is not looked at: check the output of containerd config dump")
	}
	if old := sub(c.plugins, pluginCRI); old != nil {
		c.images(old, sub(old, "containerd"), pluginCRI)
		c.warn(pluginCRI, "this is a configuration of version 2: containerd before 2.1 never asks for images that Kubernetes pulls")
	}
	images := sub(c.plugins, pluginImages)
	c.images(images, images, pluginImages)
	c.binDir(sub(c.plugins, pluginVerifier))
	return c.found, nil
}

func sub(t table, name string) table {
	below, _ := t[name].(table)
	return below
}

type checker struct {
	plugins table
	found   []Finding
}

func (c *checker) fatal(setting, format string, args ...any) {
	c.found = append(c.found, Finding{true, setting, fmt.Sprintf(format, args...)})
}

func (c *checker) warn(setting, format string, args ...any) {
	c.found = append(c.found, Finding{false, setting, fmt.Sprintf(format, args...)})
}

// images looks for what makes Kubernetes's pulls go past the transfer service, and so past
// verifiers. In version 2 some of it stands in a table of its own (unpack).
func (c *checker) images(t, unpack table, name string) {
	const past = "pulls for Kubernetes go past the transfer service, and no verifier is asked"
	is := func(t table, key string, value any) {
		if v, ok := t[key]; ok && v == value {
			c.fatal(name+"."+key, "is %v: %s", value, past)
		}
	}
	is(t, "use_local_image_pull", true)
	is(unpack, "disable_snapshot_annotations", false)
	is(unpack, "discard_unpacked_layers", true)
	is(t, "image_pull_with_sync_fs", true)
	if v, ok := t["max_concurrent_downloads"]; ok && v != int64(3) {
		c.fatal(name+".max_concurrent_downloads", "is %v: %s; set it in %s instead", v, past, pluginTransfer)
	}
	for _, key := range []string{"mirrors", "configs", "auths"} {
		if len(sub(sub(t, "registry"), key)) > 0 {
			c.fatal(name+".registry."+key, "is set: %s; use config_path instead", past)
		}
	}
}

// binDir looks whether the verifier would be among those that are run.
func (c *checker) binDir(t table) {
	dir := defaultBinDir
	if v, ok := t["bin_dir"].(string); ok {
		dir = v
	}
	setting := pluginVerifier + ".bin_dir"
	entries, err := os.ReadDir(dir)
	switch {
	case err != nil && !os.IsNotExist(err):
		c.warn(setting, "%v", err)
		return
	case err != nil || len(entries) == 0:
		c.fatal(setting, "%s has no verifier in it: every pull is allowed; link the program there: ln -s $(command -v trust-worker) %s", dir, filepath.Join(dir, Program))
		return
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	at := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == Program })
	if at < 0 {
		c.fatal(setting, "%s has no %s: link the program there", dir, Program)
		return
	}
	most := int64(10)
	if v, ok := t["max_verifiers"].(int64); ok {
		most = v
	}
	if most >= 0 && int64(at) >= most {
		c.fatal(pluginVerifier+".max_verifiers", "is %d, and %s is number %d in %s by name: it is not run", most, Program, at+1, dir)
	}
	if fi, err := os.Stat(filepath.Join(dir, Program)); err != nil {
		c.warn(setting, "no pull will succeed: %v", err)
	} else if fi.Mode()&0o111 == 0 {
		c.warn(setting, "no pull will succeed: %s cannot be executed", filepath.Join(dir, Program))
	}
}
