package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/internal/signtest"
	"trust-worker/layout"
)

func newDemoCommand(s *settings) *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:     "demo",
		Short:   "Lay out a small sample registry, run the daemon on it, and show the answers",
		Example: `  trust-worker demo --layout distribution     # as registry:2, registry:3 and Harbor have it on disk`,
		Long: `Lay out a small sample registry with real signatures, run the daemon on it,
show the answers, and stay up until interrupted. The sample is in a new
directory below the temporary one and removed at the end, unless --keep.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if s.layout == string(layout.Auto) {
				s.layout = string(layout.OCI)
			}
			for _, name := range []string{"root", "state", "config", "zot-config"} {
				if cmd.Flags().Changed(name) {
					return usageError{fmt.Errorf("the demo makes its own storage and ignores --%s; for yours: trust-worker serve --%s …", name, name)}
				}
			}
			dir, err := os.MkdirTemp("", "trust-worker-demo-")
			if err != nil {
				return err
			}
			if !keep {
				defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			}
			s.root, s.state = filepath.Join(dir, "registry"), filepath.Join(dir, "registry", "_trust")
			if err := layOutSample(dir, s.layout == string(layout.Distribution)); err != nil {
				return err
			}
			if !cmd.Flags().Changed("log-level") {
				s.logLevel = "error" // the table is what is to be read
			}
			if err := s.check(true); err != nil {
				return err
			}
			return s.serve(cmd.Context(), func(context.Context) error { return s.showSample(cmd.OutOrStdout(), dir, keep) })
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "keep the sample when the demo ends")
	return c
}

// Who signs the sample of team-a.
const (
	sampleIssuer   = "https://token.git.example"
	sampleWorkflow = "https://git.example/acme/app/release.yml@refs/tags/v1.0"
)

// layOutSample makes the sample: trusted, expired, untrusted and unsigned images, by both
// tools.
func layOutSample(dir string, distribution bool) (err error) {
	defer func() {
		if p := recover(); p != nil { // signtest's way to report a full disk and the like
			err = fmt.Errorf("lay out the sample registry: %v", p)
		}
	}()
	st := signtest.NewStorage(filepath.Join(dir, "registry"))
	st.Distribution = distribution
	now := time.Now()
	team, spare := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P384)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Sample Root CA", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(10, 0, 0)})
	release := root.Leaf(signtest.CertOptions{CommonName: "Release Engineering", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(5, 0, 0)})
	st.TrustKey("team.pub", team)
	st.TrustCert("ca:sample", "root.pem", root.Cert())
	if err := os.WriteFile(filepath.Join(dir, "spare.pub"), spare.PEM(), 0o644); err != nil {
		return err
	}

	st.SignSimple(st.Image("library/web", "1.0"), team, signtest.CosignOptions{})
	both := st.Image("library/web", "1.1")
	st.SignBundle(both, team, signtest.CosignOptions{})
	st.SignNotation(both, release, signtest.NotationOptions{})
	st.SignNotation(st.Image("library/db", "16"), release, signtest.NotationOptions{COSE: true})
	st.SignNotation(st.Image("library/db", "15"), release, signtest.NotationOptions{
		Time: now.AddDate(0, -2, 0), Expiry: now.AddDate(0, -1, 0)})
	st.SignSimple(st.Image("library/api", "2.0"), spare, signtest.CosignOptions{})
	st.Image("library/tool", "dev")
	// A workflow that signs with its identity, and may below team-a alone.
	instance := signtest.NewSigstore("sample")
	st.TrustFile("trusted_root.json", instance.Root().JSON())
	st.TrustFile("team-a/identities.yaml", []byte("- issuer: "+sampleIssuer+"\n  subjectRegExp: https://git\\.example/acme/.*\n"))
	for _, repository := range []string{"team-a/app", "team-b/app"} {
		st.SignKeylessBundle(st.Image(repository, "1.0"), instance, signtest.KeylessOptions{Issuer: sampleIssuer, Subject: sampleWorkflow})
	}
	return nil
}

// showSample prints the table and what to try next.
func (s *settings) showSample(w io.Writer, dir string, keep bool) error {
	r, err := s.reader()
	if err != nil {
		return err
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	if err := (&imageFilter{}).listImages(w, &output{format: "text"}, snap, ""); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		self = "trust-worker"
	}
	fate := "the sample is removed then"
	if keep {
		fate = "the sample is kept"
	}
	fmt.Fprintf(w, `
The daemon is watching %[1]s. In another terminal, try:

  # Trust the spare key …
  cp %[2]s %[1]s/_cosign/

  # … and its image is trusted.
  %[3]s get --root %[1]s library/api:2.0

  # Take it back, and ask again.
  rm %[1]s/_cosign/spare.pub

  # Who may sign in team-b, and why the workflow of team-a may not.
  %[3]s policy explain --root %[1]s team-b/app

Interrupt (Ctrl-C) to end; %[4]s.
`, s.root, filepath.Join(dir, "spare.pub"), self, fate)
	return nil
}
