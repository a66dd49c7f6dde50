package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/verifier"
)

func newRootCommand() *cobra.Command {
	s := &settings{}
	root := &cobra.Command{
		Use:   "trust-worker",
		Short: "Verify the signatures in an OCI registry's storage, and answer which are trusted",
		Long: `trust-worker stands beside an OCI registry's storage, verifies every cosign and
notation signature in it against the keys and certificates in _cosign and
_notation, and keeps the answers in a cache that other processes read.`,
		SilenceErrors: true, SilenceUsage: true,
		Example: `  trust-worker demo                                  # a sample registry, to look at
  trust-worker scan --root /var/lib/registry         # one pass over storage
  trust-worker list --root /var/lib/registry         # every image with its state
  trust-worker get team/app:1.0 --root /var/lib/registry
  trust-worker serve --root /var/lib/registry        # the daemon`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetUsageTemplate(usageTemplate)
	s.register(root.PersistentFlags())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see: %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(newServeCommand(s), newFollowCommand(s), newScanCommand(s), newGetCommand(s), newListCommand(s), newKeysCommand(s),
		newVerifyCommand(s), newStatusCommand(s), newWatchCommand(s), newHistoryCommand(s), newExpiringCommand(s), newCacheCommand(s), newConfigCommand(s), newPolicyCommand(s), newDemoCommand(s), newImageVerifierCommand(), newVersionCommand(), newManCommand())
	root.InitDefaultCompletionCmd()
	wrapArgs(root)
	return root
}

// wrapArgs makes wrong arguments usage errors; a command that only has others
// below it shows its help.
func wrapArgs(c *cobra.Command) {
	if c.HasSubCommands() {
		c.Args = noSuchCommand
		if !c.Runnable() {
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	} else if args := c.Args; args != nil {
		c.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				return usageError{fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

// version is set by the release build.
var version = ""

func newVersionCommand() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "version", Short: "Print versions: the program, what it verifies with, the cache's format", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions()
			return o.print(cmd.OutOrStdout(), v, func(t *table) {
				t.row("trust-worker", v.Version)
				t.row("go", v.Go)
				t.row("cosign", v.Cosign)
				t.row("notation-go", v.Notation)
				t.row("verifier epoch", fmt.Sprint(v.Epoch))
				t.row("cache format", fmt.Sprint(v.CacheFormat))
			})
		},
	}
	o.register(c)
	return c
}

type versionInfo struct {
	Version, Go, Cosign, Notation string
	Epoch                         uint32
	CacheFormat                   int
}

func versions() versionInfo {
	v := versionInfo{Version: version, Epoch: verifier.Epoch, CacheFormat: cache.FormatVersion}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	for _, d := range info.Deps {
		switch d.Path {
		case "github.com/sigstore/cosign/v2":
			v.Cosign = d.Version
		case "github.com/notaryproject/notation-go":
			v.Notation = d.Version
		}
	}
	return v
}
