package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"trust-worker/internal/inert"
)

// output is the flags -o and --no-trunc.
type output struct {
	format  string
	also    []string // formats of this command alone, which it writes itself
	noTrunc bool
}

func (o *output) register(c *cobra.Command, also ...string) {
	o.also = also
	c.Flags().StringVarP(&o.format, "output", "o", "text", o.choices())
	registerNoTrunc(c, &o.noTrunc)
	c.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return o.formats(), cobra.ShellCompDirectiveNoFileComp
	})
}

func registerNoTrunc(c *cobra.Command, value *bool) {
	c.Flags().BoolVar(value, "no-trunc", false, "on a terminal too, cut nothing, and show digests and times whole")
}

func (o *output) formats() []string { return append([]string{"text", "json", "yaml"}, o.also...) }

// choices is "text, json or yaml".
func (o *output) choices() string {
	all := o.formats()
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}

// print writes v in the chosen format; text fills a table.
func (o *output) print(w io.Writer, v any, text func(*table)) error {
	switch o.format {
	case "text":
		t := &table{screen: screenOf(w, o.noTrunc)}
		text(t)
		return t.write(w)
	case "json":
		e := json.NewEncoder(inert.Writer{W: w})
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case "yaml":
		return writeYAML(w, v)
	}
	return usageError{fmt.Errorf("-o %s: choose %s", o.format, o.choices())}
}
