package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/internal/imageref"
	"trust-worker/internal/inert"
	"trust-worker/trust"
)

func newListCommand(s *settings) *cobra.Command {
	var o output
	var wanted imageFilter
	c := &cobra.Command{
		Use:   "list [REPO]",
		Short: "List every image with its state",
		Example: `  trust-worker list --root /var/lib/registry
  trust-worker list team/app --status untrusted
  trust-worker list --signer team.pub -o json
  trust-worker list -o csv > images.csv`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wanted.check(); err != nil {
				return err
			}
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
				if ref, err = s.named(ref, snap.HasRepository); err != nil {
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
			wanted.noteSigner(cmd.ErrOrStderr(), snap)
			if err := wanted.listImages(cmd.OutOrStdout(), &o, snap, only); err != nil {
				return err
			}
			return incomplete(cmd.ErrOrStderr(), snap, only)
		},
	}
	o.register(c, "csv")
	c.Flags().StringVar(&wanted.state, "status", "", "only images that are "+strings.Join(imageStates, ", ")+" (one of them)")
	c.Flags().StringVar(&wanted.reason, "reason", "", "only images of which some signature reads this reason, such as no-trusted-key")
	c.Flags().StringVar(&wanted.predicate, "predicate", "", "only images with a trusted attestation of this predicate type")
	c.Flags().StringVar(&wanted.signer, "signer", "", "only images with a signature by this signer: a file such as team.pub, a fingerprint, or a certificate's subject")
	c.RegisterFlagCompletionFunc("status", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return imageStates, cobra.ShellCompDirectiveNoFileComp
	})
	c.RegisterFlagCompletionFunc("reason", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var all []string
		for _, r := range trust.Reasons() {
			all = append(all, string(r))
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// imageStates are the words for an image's state.
var imageStates = []string{string(trust.Trusted), string(trust.Expired), string(trust.Untrusted), string(trust.Unknown), string(trust.Pending), cache.Unsigned}

// noteSigner says of a signer whom nothing can be listed of why.
func (f *imageFilter) noteSigner(w io.Writer, snap *cache.Snapshot) {
	t := snap.InForce().Terms()
	entry := func(r trust.IdentityRule) bool { return f.signer == r.File || f.signer == path.Base(r.File) }
	if f.signer == "" || slices.ContainsFunc(t.Identities, entry) {
		return
	}
	q, name := &changes.Query{}, fmt.Sprintf("%.300s", inert.Text(f.signer))
	if !q.By(snap, f.signer) {
		fmt.Fprintf(w, "trust-worker: no key or certificate of the file or subject %s is or was in force, as far as is known\n", name)
	} else if !slices.ContainsFunc(t.Materials, func(m trust.Material) bool { return slices.Contains(q.Signers, m.Signer.Fingerprint) }) {
		fmt.Fprintf(w, "trust-worker: %s is not in force, so no image is trusted by it; trust-worker history --signer %s says since when\n", name, name)
	}
}

// imageFilter says which images are listed; what is empty lets all through.
type imageFilter struct{ state, reason, signer, predicate string }

func (f *imageFilter) check() error {
	if f.state != "" && !slices.Contains(imageStates, f.state) {
		return usageError{fmt.Errorf("--status %.40q: choose %s", f.state, strings.Join(imageStates, ", "))}
	}
	if f.reason != "" && !slices.Contains(trust.Reasons(), trust.Reason(f.reason)) {
		return usageError{fmt.Errorf("--reason %.40q is none; docs/statuses.md has them all", f.reason)}
	}
	return nil
}

func (f *imageFilter) wants(img *cache.Image) bool {
	return (f.state == "" || img.State() == f.state) && (f.reason == "" || img.Has(trust.Reason(f.reason))) &&
		(f.predicate == "" || slices.ContainsFunc(img.Attestations, func(a cache.Attestation) bool { return a.PredicateType == f.predicate && a.Status == trust.Trusted })) &&
		(f.signer == "" || slices.ContainsFunc(img.SignatureInfo, f.signedBy))
}

func (f *imageFilter) signedBy(sig cache.Signature) bool {
	if sig.SignerFingerprint == (trust.Digest{}) {
		return false
	}
	return f.signer == sig.SignerFile || f.signer == path.Base(sig.SignerFile) || f.signer == sig.SignerFingerprint.String() ||
		f.signer == sig.SignerFingerprint.Hex() || sig.Tool == trust.Notation && f.signer == sig.Author
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// eachImage calls fn with every image that is wanted, or those of one repository.
func (f *imageFilter) eachImage(snap *cache.Snapshot, only string, fn func(*cache.Image) error) error {
	one := func(name string) error {
		return snap.Images(name, func(img cache.Image) error {
			if !f.wants(&img) {
				return nil
			}
			return fn(&img)
		})
	}
	if only != "" {
		return one(only)
	}
	return snap.Repositories(one)
}

// listImages writes the list as it is read: JSON of a million images needs no
// million images in memory.
func (f *imageFilter) listImages(w io.Writer, o *output, snap *cache.Snapshot, only string) error {
	if o.format == "json" {
		return f.listJSON(w, snap, only)
	}
	if o.format == "yaml" {
		return f.listYAML(w, snap, only)
	}
	if o.format == "csv" {
		return f.listCSV(w, snap, only)
	}
	var readErr error
	err := o.print(w, nil, func(t *table) {
		t.columns(column{"IMAGE", middle}, column{"STATE", keep}, column{"SIGNATURES", spare}, column{"WHY", end})
		readErr = f.eachImage(snap, only, func(img *cache.Image) error {
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
		fmt.Fprintf(stderr, "trust-worker: could not be listed or read: %s\n", inert.Text(name))
	}
	if n := len(names) - enough; n > 0 {
		fmt.Fprintf(stderr, "trust-worker: … nor could %d more\n", n)
	}
	return &codeError{trust.ExitUndecided, errors.New("there may be images that are not known; " + unlistedRemedy(names...))}
}

// unlisted returns the directories that could not be listed, each with why, those
// below them left out: all, or only those at and below one.
func unlisted(snap *cache.Snapshot, only string) (names []string, err error) {
	all := map[string]bool{}
	err = snap.Unlisted(func(name, why string) error {
		all[name] = true
		for above := path.Dir(name); above != "."; above = path.Dir(above) {
			if all[above] { // it comes first
				return nil
			}
		}
		if only == "" || name == only || strings.HasPrefix(name, only+"/") {
			if why != "" {
				name += " (" + why + ")"
			}
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

func (f *imageFilter) listJSON(w io.Writer, snap *cache.Snapshot, only string) error {
	if _, err := io.WriteString(w, `{"Images":[`); err != nil {
		return err
	}
	separator := "\n"
	err := f.eachImage(snap, only, func(img *cache.Image) error {
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

func (f *imageFilter) listYAML(w io.Writer, snap *cache.Snapshot, only string) error {
	head := "Images:\n"
	err := f.eachImage(snap, only, func(img *cache.Image) error {
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
	return img.RepoName + "@" + img.DigestText()
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
			if s.Tool == trust.Notation || s.Subject != "" {
				add(s.Author)
			} else {
				add("key " + cmp.Or(s.SignerFile, s.SignerFingerprint.String()))
			}
		}
	}
	if len(parts) == 0 {
		for i := range img.SignatureInfo {
			add(string(img.SignatureInfo[i].Reason))
		}
		if img.SignaturesOmitted > 0 || len(img.SignatureInfo) == 0 {
			add(string(img.Reason()))
		}
	}
	slices.Sort(parts) // signatures are in the order of their digests, which means nothing
	return strings.Join(parts, ", ")
}
