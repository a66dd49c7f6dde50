package main

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"trust-worker/server"
	"trust-worker/trust"
)

func newConfigCommand(s *settings) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check the configuration, or print its schema"}
	c.AddCommand(newConfigCheckCommand(s), newConfigSchemaCommand(s))
	return c
}

// setting is one row of `config check`.
type setting struct {
	Key    string // of the configuration file; empty for what only a flag sets
	Flag   string `json:",omitempty"`
	Value  string
	Source string // "--flag", "TRUST_WORKER_…", "file:line:column", or "default"
}

func newConfigCheckCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:         "check",
		Short:       "Check flags, environment and configuration file as serve would, and show what they come to",
		Annotations: map[string]string{allSettings: "yes"},
		Long: `Check flags, environment and configuration file as serve would, and show what they
come to: each setting, its value, and where that is from. Nothing is written and
nothing listens. Mistakes are named with file, line and column; exit code 2.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			if err := s.http.check(); err != nil {
				return usageError{err}
			}
			if err := s.cluster.checkFiles(); err != nil {
				return err
			}
			rows := s.inEffect(cmd.Flags())
			return o.print(cmd.OutOrStdout(), rows, func(t *table) {
				t.columns(column{}, column{fit: middle}, column{fit: middle})
				for _, r := range rows {
					t.row(r.Key, r.Value, r.Source)
				}
			})
		},
	}
	s.registerServe(c.Flags())
	o.register(c)
	return c
}

// inEffect lists every setting that has a key, in the order of the table.
func (s *settings) inEffect(flags *pflag.FlagSet) []setting {
	var rows []setting
	for i := range configKeys {
		key := &configKeys[i]
		flag := flags.Lookup(key.flag)
		if key.flag == "" || flag == nil {
			continue
		}
		r := setting{Key: key.path, Flag: "--" + key.flag, Value: flag.Value.String(), Source: s.sources[key.flag]}
		if r.Source == "" {
			r.Source = "default"
		}
		if key.flag == "cluster" && len(s.cluster.servers) > 0 {
			r.Value = s.cluster.shown()
		}
		rows = append(rows, r)
	}
	routes := make([]string, 0, len(s.subPaths))
	for route, dir := range s.subPaths {
		routes = append(routes, route+" → "+dir)
	}
	slices.Sort(routes)
	if len(routes) > 0 {
		rows = append(rows, setting{Key: "storage.subPaths", Value: strings.Join(routes, ", "), Source: s.config + s.zotConfig})
	}
	for _, n := range s.scopes {
		rows = append(rows, setting{Key: "trustWorker.scopes", Value: narrowingText(n), Source: s.config})
	}
	for _, w := range s.webhooks {
		rows = append(rows, setting{Key: "trustWorker.webhooks", Value: w.URL, Source: s.config})
	}
	return rows
}

// check finds contradictions, and files that cannot be read, before anything
// listens.
func (h *httpSettings) check() error {
	if err := server.CheckAccess(h.listen, h.auth(), h.tls(), h.defaultStore); err != nil {
		return err
	}
	if err := h.gate.Check(); err != nil {
		return err
	}
	if len(h.listen) == 0 && (h.gate.Mode != "" || h.insecureUploads || h.tlsCert != "" || h.htpasswd != "" || len(h.readTokens)+len(h.writeTokens)+len(h.hintTokens) > 0) {
		return fmt.Errorf("HTTP is configured, but nothing listens: give --listen, or http.port in the configuration file")
	}
	for _, path := range slices.Concat([]string{h.tlsCert, h.tlsKey, h.clientCA, h.htpasswd, h.gate.TokenFile}, h.readTokens, h.writeTokens, h.hintTokens) {
		if path == "" {
			continue
		}
		if fi, err := os.Stat(path); err != nil {
			return err
		} else if !fi.Mode().IsRegular() {
			return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("not a file")}
		}
	}
	return nil
}

func newConfigSchemaCommand(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration file, for editors and checks", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := output{format: "json"}
			return o.print(cmd.OutOrStdout(), configSchema(cmd.Flags()), nil)
		},
	}
	s.registerServe(c.Flags())
	c.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = true })
	return c
}

// configSchema makes the schema of the table: JSON Schema 2020-12.
func configSchema(flags *pflag.FlagSet) map[string]any {
	root := section()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of trust-worker"
	for i := range configKeys {
		key := &configKeys[i]
		at := root
		names := strings.Split(key.path, ".")
		for _, name := range names[:len(names)-1] {
			properties := at["properties"].(map[string]any)
			if properties[name] == nil {
				properties[name] = section()
			}
			at = properties[name].(map[string]any)
		}
		at["properties"].(map[string]any)[names[len(names)-1]] = key.schemaOf(flags)
	}
	return root
}

func section() map[string]any {
	return map[string]any{"type": []string{"object", "null"}, "properties": map[string]any{}, "additionalProperties": false}
}

func (k *configKey) schemaOf(flags *pflag.FlagSet) map[string]any {
	out := map[string]any{"description": k.doc}
	if k.schema != nil {
		for name, v := range k.schema {
			out[name] = v
		}
		return out
	}
	flag := flags.Lookup(k.flag)
	_, usage := pflag.UnquoteUsage(flag)
	out["description"] = upper(usage) + ". " + k.doc
	switch flag.Value.Type() {
	case "bool":
		out["type"], out["default"] = "boolean", flag.DefValue == "true"
	case "int", "int64":
		out["type"] = "integer"
	case "stringSlice":
		out["type"], out["items"] = "array", map[string]any{"type": "string"}
	case "duration":
		out["type"], out["pattern"], out["default"] = "string", `^-?([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`, flag.DefValue
	default:
		out["type"] = "string"
		if flag.DefValue != "" {
			out["default"] = flag.DefValue
		}
	}
	return out
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// narrowingText is an entry of trustWorker.scopes in a line.
func narrowingText(n trust.Narrowing) string {
	text := fmt.Sprintf("%q", n.Prefix)
	if n.Alone {
		text += " alone"
	}
	if n.Require > 1 {
		text += fmt.Sprintf(" require %d", n.Require)
	}
	return text
}
