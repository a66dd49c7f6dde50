package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// allFlags are the flags of a command that takes every setting.
func allFlags(t *testing.T) *pflag.FlagSet {
	t.Helper()
	s := &settings{}
	c := &cobra.Command{}
	s.register(c.Flags())
	s.registerServe(c.Flags())
	return c.Flags()
}

// Every flag of serve can be set in the file, but for those that name files of
// configuration; and every key sets a flag that exists, or has a shape of its
// own.
func TestEveryFlagHasAKey(t *testing.T) {
	flags := allFlags(t)
	keys := map[string]bool{"config": true, "zot-config": true}
	for _, k := range configKeys {
		if k.flag != "" && flags.Lookup(k.flag) == nil {
			t.Errorf("%s sets --%s, which does not exist", k.path, k.flag)
		}
		if (k.flag == "") != (k.take != nil && k.schema != nil) || k.doc == "" {
			t.Errorf("%s is incomplete", k.path)
		}
		keys[k.flag] = true
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !keys[f.Name] {
			t.Errorf("--%s has no key", f.Name)
		}
	})
}

// The schema that `config schema` prints accepts what the program accepts.
func TestSchemaAgreesWithTheProgram(t *testing.T) {
	flags := allFlags(t)
	text, err := json.Marshal(configSchema(flags))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		yaml string
		good bool
	}{
		{"storage: {rootDirectory: reg, subPaths: {/a: {rootDirectory: b}}}", true},
		{"{http: {address: localhost, port: '8090', tls: {cert: c, key: k}, auth: {htpasswd: {path: p}}, listen: [a, b]}}", true},
		{"trustWorker: {lease: 5m, slowInterval: -1s, workers: 3, watch: false, registryNames: [r.example]}", true},
		{"http:", true},
		{"{}", true},
		{"storage: reg", false},
		{"storage: {rootDir: reg}", false},
		{"storage: {subPaths: {/a: b}}", false},
		{"root: reg", false},
		{"http: {port: 8090}", false},
		{"extensions: {trust: {enable: sure}}", false},
		{"trustWorker: {workers: 1.5}", false},
		{"trustWorker: {workers: '3'}", false},
		{"trustWorker: {registryNames: r.example}", false},
		{"trustWorker: {registryNames: [1]}", false},
		{"trustWorker: {lease: 300}", false},
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(c.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readConfig(path, true, flags); (err == nil) != c.good {
			t.Errorf("%s: program says %v", c.yaml, err)
		}
		b, err := yaml.YAMLToJSON([]byte(c.yaml))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); (err == nil) != c.good {
			t.Errorf("%s: schema says %v", c.yaml, err)
		}
	}
}

// docs/configuration.md is made of the table, so that it cannot lag behind.
func TestConfigurationPage(t *testing.T) {
	flags := allFlags(t)
	var b bytes.Buffer
	b.WriteString(`# Configuration

This page is made from the program's own table of keys: ` + "`go test ./cmd/trust-worker -run ConfigurationPage -update`" + `.

Nearly every setting is a flag, an environment variable and a key of the configuration file (YAML or JSON). A flag wins over the environment, the environment over the
file, the file over the default. Keys without a flag below are in the file alone. A complete file is [packaging/config.yaml](../packaging/config.yaml). The environment variable of ` + "`--scan-interval`" + ` is ` + "`TRUST_WORKER_SCAN_INTERVAL`" + `, and so on. Keys that zot has are named as in zot.
Unknown keys, wrong types and contradictions are errors that name file, line and column; ` + "`trust-worker config check --config FILE`" + ` finds them, and shows what
all settings come to and from where. ` + "`trust-worker config schema`" + ` prints the JSON Schema, for editors.

Without ` + "`--config`" + `, ` + "`/etc/trust-worker/config.yaml`" + ` is read if it is there; ` + "`--config none`" + ` leaves it alone. With a ` + "`--root`" + ` given by hand (or ` + "`TRUST_WORKER_ROOT`" + `) that is not the file's, the
file's state directory, trust directories and ` + "`storage.subPaths`" + ` are not taken: they belong to another storage. The file is not read beside ` + "`--zot-config`" + `, nor by ` + "`demo`" + `.

` + "`--zot-config FILE`" + ` takes the storage roots and the trust switches (marked *zot*) from zot's own configuration and leaves the rest of it alone.

`)
	for _, k := range configKeys {
		fmt.Fprintf(&b, "## `%s`\n\n", k.path)
		var facts []string
		if f := flags.Lookup(k.flag); k.flag != "" {
			_, usage := pflag.UnquoteUsage(f)
			fmt.Fprintf(&b, "%s.\n\n", upper(usage))
			facts = append(facts, "`--"+f.Name+"`", typeNames[f.Value.Type()])
			if def := f.DefValue; def != "" && def != "[]" && def != "0" {
				facts = append(facts, "default `"+def+"`")
			}
		}
		if k.zot {
			facts = append(facts, "*zot*")
		}
		fmt.Fprintf(&b, "%s\n\n", k.doc)
		if len(facts) > 0 {
			fmt.Fprintf(&b, "%s\n\n", strings.Join(facts, " · "))
		}
	}
	page := filepath.Join("..", "..", "docs", "configuration.md")
	want := bytes.TrimRight(b.Bytes(), "\n")
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/configuration.md is not what the table says (%v): run the test with -update", err)
	}
}
