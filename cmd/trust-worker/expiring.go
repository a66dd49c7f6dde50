package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trust-worker/cache"
	"trust-worker/internal/fair"
	"trust-worker/internal/imageref"
	"trust-worker/internal/phrase"
	"trust-worker/trust"
)

// expiringAnswer is what `expiring -o json` prints.
type expiringAnswer struct {
	Within     string
	AsOf       time.Time
	Signatures []expiringSignature
	// Omitted is how many more there are. Each top-level name has its share of what is
	// not omitted, the first to end first.
	Omitted      int                   `json:",omitempty"`
	Certificates []expiringCertificate // of the trust stores

	lacking error // what the answer may lack
}

type expiringSignature struct {
	RepoName string
	Tags     []string
	Digest   trust.Digest
	Until    time.Time
	// ImageUntil is until when the image is trusted by one of its signatures; null:
	// for ever, as far as dates say.
	ImageUntil *time.Time
	Signature  cache.Signature
}

type expiringCertificate struct {
	Path, Store, Subject string
	Until                time.Time
}

// maxExpiring bounds how many signatures one answer has.
const maxExpiring = 10_000

func newExpiringCommand(s *settings) *cobra.Command {
	var o output
	within := days(30 * 24 * time.Hour)
	c := &cobra.Command{
		Use:   "expiring",
		Short: "List the trusted signatures, and the certificates of the trust stores, that dates will end",
		Long: `List the trusted signatures that dates will end, the first to end first: by their own
expiry or by that of a certificate in their chain. Where a signer has made several of
one image, the one that lasts longest is listed. A signature with a time stamp that
counts outlives its certificates. The certificates of the trust stores come after
them, where the trust directories can be read.`,
		Example: `  trust-worker expiring --within 7d --root /var/lib/registry
  trust-worker expiring --within 12h -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := s.answers(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			a, err := s.expiring(cmd, r, time.Duration(within))
			if err != nil {
				return err
			}
			if err := o.print(cmd.OutOrStdout(), a, func(t *table) { a.text(t) }); err != nil {
				return err
			}
			return a.lacking
		},
	}
	o.register(c)
	c.Flags().Var(&within, "within", "`TIME` from now, such as 12h, 7d or 4w")
	return c
}

func (s *settings) expiring(cmd *cobra.Command, r *cache.Reader, within time.Duration) (*expiringAnswer, error) {
	snap, err := r.Snapshot()
	if err != nil {
		return nil, answerError(err, imageref.Ref{})
	}
	defer snap.Close()
	if snap.Stale() {
		return nil, &codeError{trust.ExitUndecided, errors.New("unknown (stale): the daemon has not confirmed the answers within the lease; start it")}
	}
	now := time.Now()
	a := &expiringAnswer{Within: days(within).text(), AsOf: snap.AsOf(), Signatures: []expiringSignature{}, Certificates: []expiringCertificate{}}
	err = snap.Repositories(func(name string) error {
		tags := map[trust.Digest][]string{}
		if err := snap.Tags(name, func(tag string, d trust.Digest) error {
			tags[d] = append(tags[d], tag)
			return nil
		}); err != nil {
			return err
		}
		return snap.DigestsFrom(name, trust.Digest{}, func(d trust.Digest, _ bool) error {
			all, err := snap.Expirations(name, d)
			if err != nil {
				return err
			}
			for _, e := range all.First {
				if e.Until.After(now.Add(within)) {
					break
				}
				one := expiringSignature{RepoName: name, Tags: tags[d], Digest: d, Until: e.Until, Signature: e.Signature}
				if one.Tags == nil {
					one.Tags = []string{}
				}
				if !all.Until.IsZero() {
					one.ImageUntil = &all.Until
				}
				a.add(one)
			}
			a.Omitted += all.Omitted // whenever they end
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	a.first(maxExpiring)
	if err := s.expiringCertificates(cmd, a, now.Add(within)); err != nil {
		return nil, err
	}
	a.lacking = incomplete(cmd.ErrOrStderr(), snap, "")
	return a, nil
}

func (a *expiringAnswer) add(one expiringSignature) {
	if a.Signatures = append(a.Signatures, one); len(a.Signatures) >= 2*maxExpiring {
		a.first(maxExpiring)
	}
}

// first keeps the n that end first, a share for each top-level name: whoever has many
// hides nobody else's.
func (a *expiringAnswer) first(n int) {
	inOrder := func() {
		slices.SortStableFunc(a.Signatures, func(x, y expiringSignature) int { return x.Until.Compare(y.Until) })
	}
	inOrder()
	if more := len(a.Signatures) - n; more > 0 {
		shared := fair.Order(a.Signatures, func(e expiringSignature) string { return fair.TopLevel(e.RepoName) })
		a.Signatures, a.Omitted = shared[:n:n], a.Omitted+more
		inOrder()
	}
}

// expiringCertificates adds those of the trust stores, if they can be read here.
func (s *settings) expiringCertificates(cmd *cobra.Command, a *expiringAnswer, by time.Time) error {
	if _, err := os.Stat(s.notationDir); err != nil {
		return nil // whoever reads answers elsewhere has none
	}
	log, err := s.logger()
	if err != nil {
		return err
	}
	loader, err := s.loader(log)
	if err != nil {
		return err
	}
	store, err := loader.Load(cmd.Context(), time.Now())
	if err != nil {
		return err
	}
	for _, f := range store.Loaded() {
		if !f.NotAfter.IsZero() && f.NotAfter.Before(by) {
			a.Certificates = append(a.Certificates, expiringCertificate{f.Path, f.Signer.Store(), f.Subject, f.NotAfter})
		}
	}
	slices.SortStableFunc(a.Certificates, func(x, y expiringCertificate) int { return x.Until.Compare(y.Until) })
	return nil
}

func (a *expiringAnswer) text(t *table) {
	now := time.Now()
	if len(a.Signatures)+len(a.Certificates) == 0 {
		t.columns(column{fit: wrap})
		t.row("nothing ends within " + a.Within)
		return
	}
	if len(a.Signatures) > 0 {
		t.columns(column{"SIGNATURE ENDS", keep}, column{"IMAGE", middle}, column{"SIGNER", end}, column{"THE IMAGE", keep})
		for i := range a.Signatures {
			e := &a.Signatures[i]
			name := e.RepoName + "@" + e.Digest.String()
			if len(e.Tags) > 0 {
				name = e.RepoName + ":" + e.Tags[0]
			}
			then := "stays trusted"
			if e.ImageUntil != nil {
				then = "is trusted until " + t.when(*e.ImageUntil)
				if e.ImageUntil.Equal(e.Until) {
					then = "is no longer trusted"
				}
			}
			signer := e.Signature.Author
			if e.Signature.Tool == trust.Cosign {
				signer = "key " + e.Signature.SignerFile
			}
			t.row(t.when(e.Until)+", "+phrase.Distance(e.Until, now), name, signer, then)
		}
	}
	if a.Omitted > 0 {
		t.columns(column{fit: wrap})
		t.row(fmt.Sprintf("and %s more, under names that have many", phrase.Number(a.Omitted)))
	}
	if len(a.Certificates) > 0 {
		t.columns(column{"CERTIFICATE ENDS", keep}, column{"FILE", middle}, column{"SUBJECT", end})
		for _, c := range a.Certificates {
			t.row(t.when(c.Until)+", "+phrase.Distance(c.Until, now), c.Path, c.Subject)
		}
	}
}

// days is a duration that may be given in days and weeks: "7d", "4w", "36h".
type days time.Duration

var errDays = errors.New("not a time such as 12h, 7d or 4w")

// Set implements pflag.Value.
func (d *days) Set(text string) error {
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			n, err := strconv.ParseFloat(number, 64)
			if err != nil || n < 0 || n > 1e5 {
				return errDays
			}
			*d = days(n * float64(unit))
			return nil
		}
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return errDays
	}
	*d = days(v)
	return nil
}

// String implements pflag.Value.
func (d *days) String() string { return d.text() }

func (d days) text() string {
	const day = 24 * time.Hour
	if v := time.Duration(d); v%day == 0 && v != 0 {
		return strconv.Itoa(int(v/day)) + "d"
	}
	return time.Duration(d).String()
}

// Type implements pflag.Value.
func (d *days) Type() string { return "duration" }
