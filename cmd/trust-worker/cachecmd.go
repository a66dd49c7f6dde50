package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"trust-worker/cache/store"
)

func newCacheCommand(s *settings) *cobra.Command {
	c := &cobra.Command{Use: "cache", Short: "Check or rebuild the cache",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(newCacheCheckCommand(s), newCacheRebuildCommand(s))
	return c
}

func newCacheCheckCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "check",
		Short: "Read every value of the cache and report damage; exit 1 if there is any",
		Long: `Read every value of the cache and report damage; exit 1 if there is any.
Beside a running daemon only the published files are read.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd, false); err != nil {
				return err
			}
			report, err := store.Check(cmd.Context(), s.state)
			if err != nil {
				return err
			}
			err = o.print(cmd.OutOrStdout(), report, func(t *table) {
				t.row("state", report.State)
				t.row("generation", report.Generation)
				t.row("published values", fmt.Sprint(report.Published))
				t.row("private values", fmt.Sprint(report.Private))
				if report.Skipped != "" {
					t.row("not read", report.Skipped)
				}
				for _, p := range report.Problems {
					t.row("problem", p)
				}
			})
			if err == nil && !report.OK() {
				return &codeError{exitError, errors.New("the cache is damaged or not published; a running daemon rebuilds it by itself, else use: trust-worker cache rebuild")}
			}
			return err
		},
	}
	o.register(c)
	return c
}

func newCacheRebuildCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:         "rebuild",
		Short:       "Set the cache aside and make it anew by a full pass over storage",
		Annotations: map[string]string{allSettings: "yes"},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			log, err := s.logger()
			if err != nil {
				return err
			}
			summary, err := s.scan(cmd.Context(), cmd.ErrOrStderr(), true)
			if err != nil {
				return err
			}
			aside := filepath.Join(s.state, "private", "cache.db.damaged")
			if err := os.Remove(aside); err != nil && !errors.Is(err, os.ErrNotExist) {
				log.Warn("cannot remove the old cache", "path", aside, "error", err)
			}
			return s.printScan(cmd, &o, summary)
		},
	}
	o.register(c)
	return c
}
