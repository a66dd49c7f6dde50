package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/changes"
	"trust-worker/scheduler"
	"trust-worker/server"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// What is measured from outside: a worker's store and server, without storage. Facts are put
// into the store as the scheduler does once it has verified.

const (
	signers   = 5  // of each image
	perRepo   = 10 // images
	trustKeys = 1000
)

type noTrust struct{}

func (noTrust) ReloadNow(context.Context) error    { return nil }
func (noTrust) TrustStore() *truststore.TrustStore { return nil }

// source is the process that publishes: n signatures first, then what each line asks for.
type source struct {
	s       *store.Store
	n       int
	removed bool
}

func sum(kind string, n int) trust.Digest {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte(kind), uint64(n)))
}

func key(n int) trust.Signer {
	return trust.Signer{Tool: trust.Cosign, Fingerprint: sum("key", n%trustKeys)}
}

// images makes a batch of one repository.
func images(repository, first, count int) store.Batch {
	stamp := fmt.Sprint(first)
	b := store.Batch{Place: fmt.Sprintf("team-%d/app-%d", repository%100, repository), SetTags: true, Complete: true, Tags: map[string]trust.Digest{}, Update: &store.PlaceUpdate{Stamp: &stamp}}
	for i := first; i < first+count; i++ {
		d := sum("image", i)
		row := store.Row{Digest: d, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 400, Present: true, Tagged: true}
		for j := range signers {
			sig := sum("signature", i*signers+j)
			row.References = append(row.References, store.Reference{Digest: sig, Carrier: trust.CosignTag})
			b.Facts = append(b.Facts, store.Fact{Subject: d, Signature: sig, Context: store.Context{Tool: trust.Cosign}, Verdicts: []trust.Verdict{{Format: trust.SimpleSigning,
				VerifiedAt: 1, Epoch: trust.MinEpoch, Grounds: []trust.Ground{{Signers: []trust.SignerID{key(i*signers + j).ID()}}}}}})
		}
		b.Rows = append(b.Rows, row)
		b.Tags[fmt.Sprintf("1.%d", i-first)] = d
	}
	return b
}

func (s *source) trust() error {
	terms := trust.Terms{Cosign: true}
	for i := range trustKeys {
		if i > 0 || !s.removed {
			terms.Materials = append(terms.Materials, trust.Material{Signer: key(i), File: fmt.Sprintf("_cosign/key-%d.pub", i), Author: fmt.Sprintf("-----BEGIN PUBLIC KEY-----\n%0124d\n-----END PUBLIC KEY-----\n", i)})
		}
	}
	return s.s.PublishTrust(trust.NewInForce(terms), time.Now())
}

// runSource is the program with -role source: it says where it serves, then answers each
// line "push", "trust" or "fold" with the generation and the microseconds that it took.
func runSource(state string, signatures int, listen string) error {
	st, err := store.Open(state, store.Options{})
	if err != nil {
		return err
	}
	s := &source{s: st}
	if _, err := st.SetTrust(trust.NewInForce(trust.Terms{Cosign: true})); err != nil {
		return err
	}
	for s.n < signatures/signers {
		var batches []store.Batch
		for range 80 {
			batches = append(batches, images(s.n/perRepo, s.n, perRepo))
			s.n += perRepo
		}
		if _, err := st.Commit(batches...); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := errors.Join(s.trust(), st.Publish(ctx), st.SetWhole(true), st.Confirm(time.Now())); err != nil {
		return err
	}
	reader, err := cache.OpenReader(state)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	srv, err := server.New(server.Config{Listen: []string{listen}, Reader: reader, Trust: noTrust{}, Changes: changes.OpenJournal(state, log),
		Status: func() scheduler.Status { return scheduler.Status{FirstPass: true} }, StateDir: state, Log: log})
	if err != nil {
		return err
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	go func() { _ = srv.Serve(ctx) }()
	go func() { // as the daemon does
		for range time.Tick(5 * time.Second) {
			_ = st.Confirm(time.Now())
		}
	}()
	folding := make(chan struct{}, 1)
	go func() {
		for range folding {
			if err := st.Fold(ctx); err != nil {
				log.Error("fold", "error", err)
			}
		}
	}()
	fmt.Printf("http://%s\n", srv.Addresses()[0])
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		began := time.Now()
		switch lines.Text() {
		case "push":
			if _, err = st.Commit(images(7_000_000+s.n, s.n, 1)); err == nil {
				err = st.Publish(ctx)
			}
			s.n++
			select {
			case folding <- struct{}{}:
			default:
			}
		case "trust":
			s.removed = !s.removed
			err = s.trust()
		}
		if err != nil {
			return err
		}
		fmt.Printf("%d %d\n", st.Generation(), time.Since(began).Microseconds())
	}
	return nil
}
