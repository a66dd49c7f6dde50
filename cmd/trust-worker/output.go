package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// output is the -o flag.
type output struct{ format string }

func (o *output) register(c *cobra.Command) {
	c.Flags().StringVarP(&o.format, "output", "o", "text", "text, json or yaml")
	c.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"text", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp
	})
}

// print writes v in the chosen format; text fills a table.
func (o *output) print(w io.Writer, v any, text func(*table)) error {
	switch o.format {
	case "text":
		var b bytes.Buffer
		t := &table{w: tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)}
		text(t)
		if err := t.w.Flush(); err != nil {
			return err
		}
		for line := range bytes.Lines(b.Bytes()) {
			if _, err := fmt.Fprintln(w, string(bytes.TrimRight(line, " \n"))); err != nil {
				return err
			}
		}
		return nil
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	return usageError{fmt.Errorf("-o %s: choose text, json or yaml", o.format)}
}

// table is aligned text. Cells come from storage and trust files: nothing in
// them may act on the terminal.
type table struct{ w *tabwriter.Writer }

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = inert(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// inert replaces what a terminal would act on: control and format characters,
// bidirectional overrides among them.
func inert(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return '·'
		}
		return r
	}, s)
}
