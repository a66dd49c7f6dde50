package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier"
)

// Identities at scale: some keyless signatures in storage, under a daemon; many more as
// facts in a store of this process, which publishes them for a reader.

const (
	scaleIssuer = "https://token.example"
	scaleRule   = "- issuer: " + scaleIssuer + "\n  subjectRegExp: https://git\\.example/acme/.*\n"
)

func scaleSubject(i int) string {
	return fmt.Sprintf("https://git.example/acme/app-%d/release.yml@refs/tags/v1", i)
}

// measureKeyless measures n keyless signatures in storage and facts more in a store.
func measureKeyless(n, facts int, bin, dir, out string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "trust-worker-keyless-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	r := &Report{N: n, Date: time.Now().UTC().Format(time.DateOnly), Machine: machine(), Command: fmt.Sprintf("make bench-keyless N=%d FACTS=%d", n, facts)}
	if err := keylessStorage(r, n, bin, dir); err != nil {
		return err
	}
	if err := keylessFacts(r, facts, filepath.Join(dir, "facts")); err != nil {
		return err
	}
	if out == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
}

// keylessStorage signs n images, each by an identity of its own, and changes identities
// and roots under a daemon.
func keylessStorage(r *Report, n int, bin, dir string) error {
	root := filepath.Join(dir, "registry")
	s := signtest.NewSigstore("scale")
	start := time.Now()
	const perRepo = 10
	images := make([]place, n)
	var work errgroup.Group
	work.SetLimit(2 * runtime.NumCPU())
	for repo := range (n + perRepo - 1) / perRepo {
		work.Go(func() error {
			st := signtest.NewStorage(root)
			st.Batch(func() {
				for i := repo * perRepo; i < min(n, (repo+1)*perRepo); i++ {
					img := st.Content(repoName(repo), fmt.Sprint(i), fmt.Sprint(i))
					o := signtest.KeylessOptions{Issuer: scaleIssuer, Subject: scaleSubject(i)}
					if i%2 == 0 {
						st.SignKeyless(img, s, o)
					} else {
						st.SignKeylessBundle(img, s, o)
					}
					images[i] = place{repoName(repo), img.Trust()}
				}
			})
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	st := signtest.NewStorage(root)
	st.TrustFile("trusted_root.json", s.Root().JSON())
	r.add("storage made", time.Since(start).Seconds(), "s", "", fmt.Sprintf("%d keyless signatures, each by an identity of its own", n))
	d := &driver{g: &generator{}, r: r, bin: bin, root: root, state: filepath.Join(dir, "state")}
	if err := os.Mkdir(d.state, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	defer d.stop()
	start, err := d.start()
	if err != nil {
		return err
	}
	end, err := until("first pass", 20*time.Millisecond, func() bool { return d.status().FirstPass })
	if err != nil {
		return err
	}
	if d.reader, err = cache.OpenReader(d.state); err != nil {
		return err
	}
	defer d.reader.Close()
	calls := d.status().Work.Calls
	r.add("first pass", end.Sub(start).Seconds(), "s", "", fmt.Sprintf("%d verifications", calls))
	some := images[:min(len(images), 500)]
	all := func() bool { return !slices.ContainsFunc(some, func(p place) bool { return !d.trusted(p, 0) }) }
	none := func() bool { return !slices.ContainsFunc(some, func(p place) bool { return d.trusted(p, 0) }) }
	var came, went []float64
	for range 5 {
		start = time.Now()
		st.TrustFile("identities.yaml", []byte(scaleRule))
		if end, err = until("trusted", time.Millisecond, all); err != nil {
			return err
		}
		came = append(came, end.Sub(start).Seconds())
		start = time.Now()
		st.Untrust("_cosign/identities.yaml")
		if end, err = until("not trusted", time.Millisecond, none); err != nil {
			return err
		}
		went = append(went, end.Sub(start).Seconds())
	}
	r.add("identity added: rename → 500 images trusted", median(came), "s", "", "median of 5")
	r.add("identity removed: unlink → 500 images not trusted", median(went), "s", "≤ 0.2", "median of 5")
	st.TrustFile("identities.yaml", []byte(scaleRule))
	swapped := s.Root()
	swapped.CertificateAuthorities[0].URI = "https://moved.example"
	st.TrustFile("trusted_root.json", swapped.JSON())
	swappedAt := time.Now()
	if _, err = until("the swapped root in force, and nothing owed", 20*time.Millisecond, func() bool {
		is := d.status()
		return is.Confirmed.After(swappedAt) && is.Queue == 0
	}); err != nil {
		return err
	}
	if !all() {
		return errors.New("the swapped root trusts less")
	}
	r.add("identities and a root with the same authorities: verifications", float64(d.status().Work.Calls-calls), "", "0", "")
	return nil
}

// keylessFacts publishes the facts of n keyless signatures, each by an identity of its
// own, and takes the identity away.
func keylessFacts(r *Report, n int, dir string) (err error) {
	s, err := store.Open(dir, store.Options{Lease: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var authorities []trust.Authority
	var evidence []trust.Evidence
	at := time.Now().AddDate(-1, 0, 0).Unix()
	for _, role := range []trust.Role{trust.CertificateAuthority, trust.CTLog, trust.TransparencyLog} {
		a := trust.Authority{Role: role, ID: trust.AuthorityID(role, trust.SumOf([]byte{byte(role)}))}
		e := trust.Evidence{Authority: a.ID, At: at}
		if role == trust.CertificateAuthority {
			e.At = 0
		}
		authorities, evidence = append(authorities, a), append(evidence, e)
	}
	root := trust.Root{File: "trusted_root.json", Authorities: authorities}
	terms := func(rules ...trust.IdentityRule) *trust.InForce {
		return trust.NewInForce(trust.Terms{Cosign: true, Roots: []trust.Root{root}, Materials: []trust.Material{{Signer: root.Signer(), File: "_cosign/trusted_root.json"}}, Identities: rules})
	}
	rule := trust.IdentityRule{File: "_cosign/identities.yaml", Line: 1, Root: "trusted_root.json", Issuer: scaleIssuer, SubjectRegExp: `https://git\.example/acme/.*`}
	if _, err := s.SetTrust(terms(rule)); err != nil {
		return err
	}
	number := func(kind string, i int) trust.Digest {
		return trust.SumOf(binary.BigEndian.AppendUint64([]byte(kind), uint64(i)))
	}
	start := time.Now()
	const perRepo, batch = 10, 100
	for first := 0; first < n; first += perRepo * batch {
		var batches []store.Batch
		for repo := first / perRepo; repo < min((n+perRepo-1)/perRepo, first/perRepo+batch); repo++ {
			b := store.Batch{Place: repoName(repo), SetTags: true, Complete: true, Tags: map[string]trust.Digest{}}
			for i := repo * perRepo; i < min(n, (repo+1)*perRepo); i++ {
				img, sig := number("image", i), number("signature", i)
				b.Tags[fmt.Sprint(i)] = img
				b.Rows = append(b.Rows, store.Row{Digest: img, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 400, Present: true, Tagged: true,
					References: []store.Reference{{Digest: sig, Carrier: trust.CosignBundle}}})
				b.Facts = append(b.Facts, store.Fact{Subject: img, Signature: sig, Context: store.Context{Tool: trust.Cosign}, Trust: s.TrustGeneration(), Epoch: verifier.Epoch,
					Verdicts: []trust.Verdict{{Format: trust.Bundle, Epoch: verifier.Epoch, VerifiedAt: at, Grounds: []trust.Ground{{Proof: &trust.Proof{Evidence: evidence}}},
						Identity: &trust.Identity{Issuer: scaleIssuer, Subject: scaleSubject(i)}}}})
			}
			slices.SortFunc(b.Rows, func(x, y store.Row) int { return slices.Compare(x.Digest[:], y.Digest[:]) })
			batches = append(batches, b)
		}
		if _, err := s.Commit(batches...); err != nil {
			return err
		}
	}
	if err := s.Publish(context.Background()); err != nil {
		return err
	}
	r.add(fmt.Sprintf("%d facts put into a store and published", n), time.Since(start).Seconds(), "s", "", "not verified; each by an identity of its own")
	reader, err := cache.OpenReader(dir)
	if err != nil {
		return err
	}
	defer reader.Close()
	is := func(i int) bool {
		snap, err := reader.Snapshot()
		if err != nil {
			return false
		}
		defer snap.Close()
		yes, err := snap.IsTrusted(repoName(i/perRepo), number("image", i))
		return err == nil && yes
	}
	some := make([]int, 0, 1000)
	for i := 0; i < n; i += max(1, n/1000) {
		some = append(some, i)
	}
	if slices.ContainsFunc(some, func(i int) bool { return !is(i) }) {
		return errors.New("what was published is not trusted")
	}
	var went, came []float64
	for range 5 {
		start := time.Now()
		if err := s.PublishTrust(terms(), start); err != nil {
			return err
		}
		if slices.ContainsFunc(some, is) {
			return errors.New("trusted without an identity")
		}
		went = append(went, time.Since(start).Seconds())
		start = time.Now()
		if err := s.PublishTrust(terms(rule), start); err != nil {
			return err
		}
		if slices.ContainsFunc(some, func(i int) bool { return !is(i) }) {
			return errors.New("not trusted with the identity")
		}
		came = append(came, time.Since(start).Seconds())
	}
	r.add(fmt.Sprintf("identity removed over %d: publication → %d images not trusted", n, len(some)), median(went), "s", "≤ 0.2", "median of 5, the look-ups included")
	r.add(fmt.Sprintf("identity back over %d: publication → %d images trusted", n, len(some)), median(came), "s", "", "median of 5, the look-ups included")
	// Every identity is matched once: the memory of it is bounded.
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start = time.Now()
	for i := range n {
		if !is(i) {
			return fmt.Errorf("image %d is not trusted", i)
		}
	}
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	r.add(fmt.Sprintf("%d look-ups, each of another identity", n), took.Seconds()/float64(n)*1e6, "µs", "", "each")
	r.add("  heap that they leave in the reader", float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1e6, "MB", "", "")
	return nil
}
