package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/imageverifier"
)

// verifierCommand is the command that containerd runs, with flags of its own style.
const verifierCommand = "image-verifier"

// verifierFlag are the flags that containerd gives, with one dash.
var verifierFlag = regexp.MustCompile(`^-(name|digest|stdin-media-type|operation)(=.*)?$`)

// arguments are those of a call: containerd runs a link to the program, and writes flags
// with one dash.
func arguments(call []string) []string {
	args := call[1:]
	if filepath.Base(call[0]) == imageverifier.Program {
		args = append([]string{verifierCommand}, args...)
	}
	if len(args) == 0 || args[0] != verifierCommand {
		return args
	}
	out := make([]string, 0, len(args))
	for _, arg := range args {
		if verifierFlag.MatchString(arg) {
			arg = "-" + arg
		}
		out = append(out, arg)
	}
	return out
}

func newImageVerifierCommand() *cobra.Command {
	var name, digest, mediaType, operation, settings string
	c := &cobra.Command{
		Use:   verifierCommand + " -name NAME -digest DIGEST",
		Short: "Say whether containerd may pull an image (its image verifier plugin)",
		Long: `Ask a trust-worker whether an image may be pulled onto this node. containerd runs this
before a pull when a link to the program lies in the bin_dir of its image verifier plugin:

  ln -s $(command -v trust-worker) /opt/containerd/image-verifier/bin/` + imageverifier.Program + `

Which registries are asked about, and whom, stands in ` + imageverifier.DefaultPath + `.
The command check names what in containerd's configuration keeps it from asking.

Exit codes: 0 the image may be pulled, 1 it may not. The reason is on standard output.`,
		Example: `  trust-worker image-verifier -name registry.example/team/app:1.0 -digest sha256:…`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" || digest == "" {
				return usageError{errors.New("containerd gives -name and -digest")}
			}
			s, err := imageverifier.Load(settings)
			j := imageverifier.Judgement{}
			if err != nil {
				j.Reason = "the settings cannot be used: " + err.Error()
			} else {
				j = s.Judge(cmd.Context(), name, digest)
			}
			fmt.Fprintln(cmd.OutOrStdout(), j.Line())
			if !j.Allowed {
				return &codeError{code: exitError}
			}
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "`NAME` of the image, as it is pulled")
	c.Flags().StringVar(&digest, "digest", "", "`DIGEST` that the name resolved to")
	c.Flags().StringVar(&mediaType, "stdin-media-type", "", "`TYPE` of what is on standard input, which is not read")
	c.Flags().StringVar(&operation, "operation", "", "pull or run, as containerd gives it; it makes no difference")
	c.PersistentFlags().StringVar(&settings, "settings", imageverifier.DefaultPath, "`FILE` of settings")
	c.AddCommand(newImageVerifierCheckCommand(&settings))
	return c
}

// verifierCheck is what the check finds.
type verifierCheck struct {
	Settings string // what is wrong with them; empty: nothing
	Findings []imageverifier.Finding
	Workers  []workerCheck
}

// workerCheck is whether the worker of a registry answers.
type workerCheck struct {
	Registry string
	Problem  string `json:",omitempty"`
}

func newImageVerifierCheckCommand(settings *string) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "check FILE | -",
		Short: "Name what keeps containerd from asking",
		Long: `Read a containerd configuration and name each setting under which images are pulled
without any verifier being asked. Some settings make containerd do that, and it says so
only in its log. The settings file is read too, and each worker in it is asked whether it answers.

Exit codes: 0 images are verified, 1 something keeps them from it.`,
		Example: `  containerd config dump | trust-worker image-verifier check -`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var b []byte
			var err error
			if args[0] == "-" {
				b, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), 8<<20))
			} else {
				b, err = os.ReadFile(args[0])
			}
			if err != nil {
				return err
			}
			found, err := imageverifier.CheckContainerd(b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			out := &verifierCheck{Findings: append([]imageverifier.Finding{}, found...), Workers: []workerCheck{}}
			fatal := false
			for _, f := range found {
				fatal = fatal || f.Fatal
			}
			if s, err := imageverifier.Load(*settings); err != nil {
				out.Settings, fatal = err.Error(), true
			} else {
				for host, err := range s.Reach(cmd.Context(), time.Second) {
					w := workerCheck{Registry: host}
					if err != nil {
						w.Problem = err.Error()
					}
					out.Workers = append(out.Workers, w)
				}
			}
			if err := o.print(cmd.OutOrStdout(), out, out.text); err != nil {
				return err
			}
			if fatal {
				return &codeError{code: exitError}
			}
			return nil
		},
	}
	o.register(c)
	return c
}

func (v *verifierCheck) text(t *table) {
	t.columns(column{}, column{fit: wrap}, column{fit: wrap})
	if v.Settings != "" {
		t.row("no pull succeeds", "settings", v.Settings)
	}
	for _, f := range v.Findings {
		t.row(map[bool]string{true: "not verified", false: "warning"}[f.Fatal], f.Setting, f.Problem)
	}
	for _, w := range v.Workers {
		if w.Problem == "" {
			t.row("ok", w.Registry, "its trust-worker answers")
		} else {
			t.row("warning", w.Registry, w.Problem)
		}
	}
	if v.Settings == "" && len(v.Findings) == 0 {
		t.row("ok", "containerd", "asks before it pulls")
	}
}
