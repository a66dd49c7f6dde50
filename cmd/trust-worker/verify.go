package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/internal/imageref"
	"trust-worker/scheduler"
	"trust-worker/trust"
)

func newVerifyCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:     "verify REPO:TAG | REPO@DIGEST | REPO:TAG@DIGEST",
		Short:   "Verify now, straight from storage: no daemon, no cache",
		Example: `  trust-worker verify team/app:1.0 --root /var/lib/registry`,
		Long: `Verify now, straight from storage: no daemon, no cache. Of the state directory
the trust memory alone is read: whether an operator's trust policy was in force.
A signature whose manifest is lost is not seen; a cache that has seen it says so.

Exit codes are those of get, and 1 if the repository cannot be read.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseReference(args[0])
			if err != nil {
				return err
			}
			if ref.Name == "" || ref.Tag == "" && ref.Digest == (trust.Digest{}) {
				return usageError{errors.New("name one image: REPO:TAG or REPO@sha256:…")}
			}
			if err := s.complete(cmd, true); err != nil {
				return err
			}
			img, path, err := s.verifyNow(cmd, ref)
			if errors.Is(err, fs.ErrNotExist) {
				err = cache.ErrNotFound
			}
			if errors.Is(err, cache.ErrNotFound) {
				return &codeError{trust.ExitNotFound, errors.New(args[0] + " is not in storage")}
			}
			if errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("%s: %w", args[0], &fs.PathError{Op: "read", Path: filepath.Join(s.root, path), Err: fs.ErrPermission})
			}
			if err != nil {
				return err
			}
			return printAnswers(cmd.OutOrStdout(), &o, []cache.Image{img}, true)
		},
	}
	o.register(c)
	return c
}

// verifyNow verifies an image, and says below the root where its repository lists it.
func (s *settings) verifyNow(cmd *cobra.Command, ref imageref.Ref) (img cache.Image, path string, err error) {
	roots, closeAll, err := s.storage()
	if err != nil {
		return img, "", err
	}
	defer closeAll()
	ref, err = s.named(ref, func(name string) (bool, error) {
		return slices.ContainsFunc(roots, func(r scheduler.Storage) bool { return r.Root.IsRepository(name) }), nil
	})
	if err != nil {
		return img, path, err
	}
	path = roots[0].Root.Listing(ref.Name)
	if ref.Digest != (trust.Digest{}) {
		ref.Tag = "" // the digest decides
	}
	log, err := s.logger()
	if err != nil {
		return img, path, err
	}
	loader, err := s.loader(log)
	if err != nil {
		return img, path, err
	}
	store, err := loader.Load(cmd.Context(), time.Now())
	if err != nil {
		return img, path, err
	}
	img, err = scheduler.VerifyNow(cmd.Context(), roots, store, s.revocationChecker(log), ref.Name, ref.Tag, ref.Digest)
	return img, path, err
}
