package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/internal/imageref"
	"trust-worker/internal/inert"
	"trust-worker/trust"
)

func newListCommand(s *settings) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "list [REPO]",
		Short: "List every image with its state",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.answers(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			snap, err := r.Snapshot()
			if err != nil {
				return answerError(err, imageref.Ref{})
			}
			defer snap.Close()
			only := ""
			if len(args) == 1 {
				ref, err := parseReference(args[0])
				if err != nil {
					return err
				}
				if ref, err = s.named(ref, hasRepository(snap)); err != nil {
					return err
				}
				if ref.Name == "" || ref.Tag != "" || ref.Digest != (trust.Digest{}) {
					return usageError{fmt.Errorf("list takes a repository; of one image says: trust-worker get %s", args[0])}
				}
				only = ref.Name
				if ok, err := snap.HasRepository(only); err != nil {
					return err
				} else if !ok {
					return answerError(snap.Missing(only), ref)
				}
			}
			if err := listImages(cmd.OutOrStdout(), &o, snap, only); err != nil {
				return err
			}
			return incomplete(cmd.ErrOrStderr(), snap, only)
		},
	}
	o.register(c)
	return c
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// eachImage calls fn with every image, or those of one repository.
func eachImage(snap *cache.Snapshot, only string, fn func(*cache.Image) error) error {
	one := func(name string) error {
		return snap.Images(name, func(img cache.Image) error { return fn(&img) })
	}
	if only != "" {
		return one(only)
	}
	return snap.Repositories(one)
}

// listImages writes the list as it is read: JSON of a million images needs no
// million images in memory.
func listImages(w io.Writer, o *output, snap *cache.Snapshot, only string) error {
	if o.format == "json" {
		return listJSON(w, snap, only)
	}
	if o.format == "yaml" {
		return listYAML(w, snap, only)
	}
	var readErr error
	err := o.print(w, nil, func(t *table) {
		t.columns(column{"IMAGE", middle}, column{"STATE", keep}, column{"SIGNATURES", spare}, column{"WHY", end})
		readErr = eachImage(snap, only, func(img *cache.Image) error {
			t.row(imageName(img), img.State(), countTools(img), why(img))
			return nil
		})
	})
	return firstError(readErr, err)
}

// incomplete says which directories a list may lack images of, and ends with
// the exit code for what is not decided.
func incomplete(stderr io.Writer, snap *cache.Snapshot, only string) error {
	names, err := unlisted(snap, only)
	if err != nil {
		return err
	}
	if len(names) == 0 && snap.Partial() {
		return &codeError{trust.ExitUndecided, errors.New("there may be more: the first pass over storage is not over; its progress: trust-worker status")}
	}
	if len(names) == 0 {
		return nil
	}
	const enough = 20
	for _, name := range names[:min(len(names), enough)] {
		fmt.Fprintf(stderr, "trust-worker: %s could not be listed or read\n", inert.Text(name))
	}
	if n := len(names) - enough; n > 0 {
		fmt.Fprintf(stderr, "trust-worker: … nor could %d more\n", n)
	}
	return &codeError{trust.ExitUndecided, errors.New("there may be images that are not known; " + unlistedRemedy)}
}

// unlisted returns the directories that could not be listed, those below them
// left out: all, or only those at and below one.
func unlisted(snap *cache.Snapshot, only string) (names []string, err error) {
	all := map[string]bool{}
	err = snap.Unlisted(func(name string) error {
		all[name] = true
		for above := path.Dir(name); above != "."; above = path.Dir(above) {
			if all[above] { // it comes first
				return nil
			}
		}
		if only == "" || name == only || strings.HasPrefix(name, only+"/") {
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

func listJSON(w io.Writer, snap *cache.Snapshot, only string) error {
	if _, err := io.WriteString(w, `{"Images":[`); err != nil {
		return err
	}
	separator := "\n"
	err := eachImage(snap, only, func(img *cache.Image) error {
		b, err := json.Marshal(img)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s%s", separator, inert.JSON(b))
		separator = ",\n"
		return err
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "\n]}\n")
	return err
}

func listYAML(w io.Writer, snap *cache.Snapshot, only string) error {
	head := "Images:\n"
	err := eachImage(snap, only, func(img *cache.Image) error {
		var b bytes.Buffer
		if err := writeYAML(&b, []*cache.Image{img}); err != nil {
			return err
		}
		_, err := io.WriteString(w, head+b.String())
		head = ""
		return err
	})
	if err == nil && head != "" {
		_, err = io.WriteString(w, "Images: []\n")
	}
	return err
}

func imageName(img *cache.Image) string {
	if img.Tag != "" {
		return img.RepoName + ":" + img.Tag
	}
	return img.RepoName + "@" + img.Digest.String()
}

// countTools is "2 cosign, 1 notation".
func countTools(img *cache.Image) string {
	var parts []string
	for _, tool := range []trust.Tool{trust.Cosign, trust.Notation} {
		n := 0
		for _, s := range img.SignatureInfo {
			if s.Tool == tool {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, tool))
		}
	}
	if img.SignaturesOmitted > 0 {
		parts = append(parts, fmt.Sprintf("%d more", img.SignaturesOmitted))
	}
	if parts == nil {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// enoughWhy signers are named at most: each is looked for among those before it.
const enoughWhy = 50

// why is who is trusted, or the reasons why nobody is.
func why(img *cache.Image) string {
	var parts []string
	add := func(s string) {
		for _, p := range parts {
			if p == s {
				return
			}
		}
		parts = append(parts, s)
	}
	for i := range img.SignatureInfo {
		if s := &img.SignatureInfo[i]; s.IsTrusted && len(parts) < enoughWhy {
			if s.Tool == trust.Notation {
				add(s.Author)
			} else {
				add("key " + s.SignerFingerprint.String())
			}
		}
	}
	if len(parts) == 0 {
		for i := range img.SignatureInfo {
			add(string(img.SignatureInfo[i].Reason))
		}
		if img.SignaturesOmitted > 0 {
			add(string(img.Reason()))
		}
	}
	return strings.Join(parts, ", ")
}
