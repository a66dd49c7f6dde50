package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// What `--help` shows, and what a misspelt command is answered with.

// allSettings marks commands whose help lists the settings of every command: those
// that do what the settings are about. The others name the few that matter to them.
const allSettings = "all-settings"

// usageTemplate is cobra's, but for the flags that all commands take.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

{{if .HasParent}}Flags:{{else}}Settings, which every command takes:{{end}}
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

{{if index .Annotations "all-settings"}}Settings, which every command takes:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{else}}Settings, which every command takes; trust-worker --help lists all:
      --config FILE   --root DIR   --state DIR   --registry-name HOST{{end}}{{end}}{{if .HasAvailableSubCommands}}

More about a command: {{.CommandPath}} COMMAND --help{{end}}
`

// noSuchCommand answers a word that is no command below cmd.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	what := fmt.Errorf("%.100q is not a command of %s; the commands: %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		what = fmt.Errorf("%.100q is not a command of %s; did you mean %s?", args[0], cmd.CommandPath(), strings.Join(near, " or "))
	}
	return usageError{what}
}
