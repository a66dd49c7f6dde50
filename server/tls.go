package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// certificates serves the TLS files, and renewed ones as they come. A renewal
// that cannot be used is logged, and the last good files stay.
type certificates struct {
	files TLS
	log   *slog.Logger

	mu      sync.Mutex
	watched watchedFiles
	cur     *tls.Config
}

func newCertificates(files TLS, log *slog.Logger) (*certificates, error) {
	c := &certificates{files: files, log: log, watched: watchFiles(files.CertFile, files.KeyFile, files.ClientCA)}
	cur, err := c.load()
	if err != nil {
		return nil, err
	}
	c.cur = cur
	return c, nil
}

func (c *certificates) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load TLS certificate: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if c.files.ClientCA != "" {
		b, err := os.ReadFile(c.files.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("load client CA: %w", err)
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(b) {
			return nil, errors.New("load client CA: the file holds no PEM certificate")
		}
		// Others may come with a token: who presents no certificate is
		// anonymous, who presents a wrong one is not let in.
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return cfg, nil
}

// config is for a listener: each handshake takes the files of the moment.
func (c *certificates) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current(), nil }}
}

func (c *certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watched.changed() {
		return c.cur
	}
	next, err := c.load()
	if err != nil {
		// Perhaps the key was renewed and its certificate is still to come.
		c.watched.forget()
		c.log.Error("renewed TLS files cannot be used; the last good ones stay", "error", err)
		return c.cur
	}
	c.cur = next
	c.log.Info("TLS files renewed")
	return c.cur
}
