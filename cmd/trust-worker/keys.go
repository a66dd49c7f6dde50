package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/server"
	"trust-worker/verifier/truststore"
)

// keysAnswer is what `keys -o json` prints.
type keysAnswer struct {
	Loaded  []server.LoadedFile
	Refused []truststore.Refusal
	Missing []string // trust directories that are not there, and need not be
	Ignored int      // names that are never loaded: hidden files, backups
	Policy  string
}

func newKeysCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:     "keys",
		Short:   "Show the trust store as loaded, and every file refused, with the reason",
		Example: `  trust-worker keys --root /var/lib/registry`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			log, err := s.logger()
			if err != nil {
				return err
			}
			loader, err := s.loader(log)
			if err != nil {
				return err
			}
			store, err := loader.Load(cmd.Context(), time.Now())
			if err != nil {
				return err
			}
			a := keysOf(store)
			return o.print(cmd.OutOrStdout(), a, func(t *table) { a.text(t) })
		},
	}
	o.register(c)
	return c
}

func keysOf(store *truststore.TrustStore) *keysAnswer {
	a := &keysAnswer{Loaded: []server.LoadedFile{}, Refused: []truststore.Refusal{}, Missing: []string{}, Ignored: store.Ignored(), Policy: store.Policy().String()}
	for _, f := range store.Loaded() {
		a.Loaded = append(a.Loaded, server.Loaded(f))
	}
	a.Refused = append(a.Refused, store.Refused()...)
	a.Missing = append(a.Missing, store.Missing()...)
	return a
}

func (a *keysAnswer) text(t *table) {
	t.columns(column{"FILE", middle}, column{"TOOL", spare}, column{"ALGORITHM", spare}, column{"FINGERPRINT", keep}, column{"SUBJECT", end}, column{"VALID UNTIL", keep})
	for _, l := range a.Loaded {
		until := ""
		if l.NotAfter != nil {
			until = t.when(*l.NotAfter)
		}
		t.row(l.Path, string(l.Tool), l.Algorithm, l.Fingerprint.String(), l.Subject, until)
	}
	t.columns(column{fit: wrap})
	t.row("notation policy: " + a.Policy)
	t.columns(column{}, column{fit: middle}, column{fit: wrap})
	for _, r := range a.Refused {
		word := "refused"
		if r.Grace {
			word = "refused (its last good content is in force for a few seconds)"
		}
		t.row(word, r.Path, r.Reason)
	}
	for _, dir := range a.Missing {
		t.row("missing", dir, "does not exist; nothing is trusted by it")
	}
	if a.Ignored > 0 {
		t.columns(column{fit: wrap})
		t.row(fmt.Sprintf("%d files with names that are never loaded (hidden, backup, temporary)", a.Ignored))
	}
}
