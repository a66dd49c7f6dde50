package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"trust-worker/cache"
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
				return answerError(err, reference{})
			}
			defer snap.Close()
			only := ""
			if len(args) == 1 {
				only = args[0]
				if ok, err := snap.HasRepository(only); err != nil || !ok {
					return answerError(firstError(err, cache.ErrNotFound), reference{repository: only})
				}
			}
			return listImages(cmd.OutOrStdout(), &o, snap, only)
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
	list := imageList{Images: []cache.Image{}}
	if o.format != "text" {
		err := eachImage(snap, only, func(img *cache.Image) error { list.Images = append(list.Images, *img); return nil })
		if err != nil {
			return err
		}
		return o.print(w, list, nil)
	}
	var readErr error
	err := o.print(w, list, func(t *table) {
		t.columns(column{"IMAGE", middle}, column{"STATE", keep}, column{"SIGNATURES", spare}, column{"WHY", end})
		readErr = eachImage(snap, only, func(img *cache.Image) error {
			t.row(imageName(img), img.State(), countTools(img), why(img))
			return nil
		})
	})
	return firstError(readErr, err)
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
		_, err = fmt.Fprintf(w, "%s%s", separator, b)
		separator = ",\n"
		return err
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "\n]}\n")
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
	if parts == nil {
		return "-"
	}
	return strings.Join(parts, ", ")
}

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
		if s := &img.SignatureInfo[i]; s.IsTrusted {
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
	}
	return strings.Join(parts, ", ")
}
