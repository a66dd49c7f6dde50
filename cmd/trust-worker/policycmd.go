package main

import (
	"time"

	"github.com/spf13/cobra"

	"trust-worker/verifier/truststore"
)

func newPolicyCommand(s *settings) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "The default notation trust policy; who may sign in a repository"}
	c.AddCommand(newPolicyDefaultCommand(s), newPolicyExplainCommand(s))
	return c
}

func newPolicyDefaultCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "default",
		Short: "Print the default trust policy over the trust stores on disk",
		Long: `Print the default trust policy over the trust stores on disk: level strict, any
identity, every store that holds a certificate (if none does: the store ca:default).

The daemon takes a trustpolicy.json that is exactly this for the default, and
keeps it in step with the stores from then on. Where a policy of your own was in
force and is gone, notation's signatures read policy-invalid until you write one
again, or say that the default is what you want:

  trust-worker policy default --root ROOT > ROOT/_notation/trustpolicy.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			log, err := s.logger()
			if err != nil {
				return err
			}
			s.notation, s.enable = true, true // asked for by name
			s.memory = truststore.NewMemory() // what was in force before does not change the default
			loader, err := s.loader(log)
			if err != nil {
				return err
			}
			document, err := loader.DefaultPolicy(cmd.Context(), time.Now())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(document)
			return err
		},
	}
}
