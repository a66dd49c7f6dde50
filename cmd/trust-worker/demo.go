package main

import "github.com/spf13/cobra"

func newDemoCommand(s *settings) *cobra.Command {
	return &cobra.Command{Use: "demo", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return nil }}
}
