package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"trust-worker/scheduler"
	"trust-worker/server"
)

// httpSettings are what `serve` may be told about HTTP. It is off unless there is
// an address to listen on.
type httpSettings struct {
	listen                  []string
	reads                   string
	insecureUploads         bool
	readTokens, writeTokens []string
	htpasswd                string
	admins                  []string
	tlsCert, tlsKey         string
	clientCA                string
	hostNames               []string
	defaultStore            string
	profiles                string
}

// register declares the flags of `serve`.
func (h *httpSettings) register(f *pflag.FlagSet) {
	f.StringSliceVar(&h.listen, "listen", nil, "serve HTTP on host:port or unix:/path (repeatable; default off)")
	f.StringVar(&h.reads, "http-reads", "", "who may read over TCP: open or credential (default open on loopback, credential elsewhere)")
	f.BoolVar(&h.insecureUploads, "insecure-uploads", false, "let anyone who can connect change what is trusted")
	f.StringSliceVar(&h.readTokens, "http-read-token-file", nil, "file of bearer tokens that may read, one a line (repeatable)")
	f.StringSliceVar(&h.writeTokens, "http-write-token-file", nil, "file of bearer tokens that may also upload and delete (repeatable)")
	f.StringVar(&h.htpasswd, "http-htpasswd", "", "file of users with bcrypt hashes, who may read")
	f.StringSliceVar(&h.admins, "http-admin", nil, "user, or common name of a client certificate, that may also upload and delete (repeatable)")
	f.StringVar(&h.tlsCert, "tls-cert", "", "TLS certificate file; renewed files are picked up")
	f.StringVar(&h.tlsKey, "tls-key", "", "TLS key file")
	f.StringVar(&h.clientCA, "tls-client-ca", "", "CA certificates of clients, who may read")
	f.StringSliceVar(&h.hostNames, "http-host-name", nil, "name by which clients call a loopback listener, besides localhost (repeatable)")
	f.StringVar(&h.defaultStore, "truststore-name", "", "trust store of certificate uploads that name none (default: such uploads are refused)")
	f.StringVar(&h.profiles, "pprof", "", "serve profiles on this loopback address (default off)")
}

// httpConfig is the configuration file's http: zot's keys where zot has them.
type httpConfig struct {
	Address string `json:"address,omitempty"`
	Port    string `json:"port,omitempty"`
	TLS     *struct {
		Cert   string `json:"cert,omitempty"`
		Key    string `json:"key,omitempty"`
		CACert string `json:"cacert,omitempty"`
	} `json:"tls,omitempty"`
	Auth *struct {
		HTPasswd *struct {
			Path string `json:"path,omitempty"`
		} `json:"htpasswd,omitempty"`
	} `json:"auth,omitempty"`
	AccessControl *struct {
		AdminPolicy *struct {
			Users []string `json:"users,omitempty"`
		} `json:"adminPolicy,omitempty"`
	} `json:"accessControl,omitempty"`

	// The daemon's own.
	Listen          []string `json:"listen,omitempty"`
	Reads           string   `json:"reads,omitempty"`
	InsecureUploads *bool    `json:"insecureUploads,omitempty"`
	ReadTokenFiles  []string `json:"readTokenFiles,omitempty"`
	WriteTokenFiles []string `json:"writeTokenFiles,omitempty"`
	HostNames       []string `json:"hostNames,omitempty"`
	TruststoreName  string   `json:"truststoreName,omitempty"`
	Pprof           string   `json:"pprof,omitempty"`
}

// values turns the file's http into flag values.
func (c *httpConfig) values(text func(name, value string), flag func(name string, value *bool)) {
	if c == nil {
		return
	}
	listen := c.Listen
	if c.Port != "" {
		address := c.Address
		if address == "" {
			address = "127.0.0.1"
		}
		listen = append([]string{net.JoinHostPort(address, c.Port)}, listen...)
	}
	text("listen", strings.Join(listen, ","))
	if c.TLS != nil {
		text("tls-cert", c.TLS.Cert)
		text("tls-key", c.TLS.Key)
		text("tls-client-ca", c.TLS.CACert)
	}
	if c.Auth != nil && c.Auth.HTPasswd != nil {
		text("http-htpasswd", c.Auth.HTPasswd.Path)
	}
	if c.AccessControl != nil && c.AccessControl.AdminPolicy != nil {
		text("http-admin", strings.Join(c.AccessControl.AdminPolicy.Users, ","))
	}
	text("http-reads", c.Reads)
	flag("insecure-uploads", c.InsecureUploads)
	text("http-read-token-file", strings.Join(c.ReadTokenFiles, ","))
	text("http-write-token-file", strings.Join(c.WriteTokenFiles, ","))
	text("http-host-name", strings.Join(c.HostNames, ","))
	text("truststore-name", c.TruststoreName)
	text("pprof", c.Pprof)
}

// httpDaemon is the scheduler, as the server needs it.
type httpDaemon interface {
	server.Trust
	Status() scheduler.Status
}

// serveHTTP listens, says how to upload, and serves until ctx ends. The cache's
// state directory must exist. It returns at once when HTTP is off.
func (s *settings) serveHTTP(ctx context.Context, h *httpSettings, d httpDaemon, log *slog.Logger) (err error) {
	g, ctx := errgroup.WithContext(ctx)
	if h.profiles != "" {
		g.Go(func() error { return server.ServeProfiles(ctx, h.profiles) })
	}
	if len(h.listen) > 0 {
		g.Go(func() error { return s.serveAPI(ctx, h, d, log) })
	}
	return g.Wait()
}

func (s *settings) serveAPI(ctx context.Context, h *httpSettings, d httpDaemon, log *slog.Logger) (err error) {
	reader, err := s.reader() // as any other process reads
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	srv, err := server.New(server.Config{
		Listen: h.listen, Reader: reader, Trust: d, Status: d.Status, StateDir: s.state,
		Cosign: s.enable && s.cosign, Notation: s.enable && s.notation, CosignDir: s.cosignDir, NotationDir: s.notationDir,
		DefaultStore: h.defaultStore, HostNames: h.hostNames, Version: versions().Version, Log: log,
		Auth: server.Auth{Reads: h.reads, InsecureUploads: h.insecureUploads, ReadTokens: h.readTokens,
			WriteTokens: h.writeTokens, Htpasswd: h.htpasswd, Admins: h.admins},
		TLS: server.TLS{CertFile: h.tlsCert, KeyFile: h.tlsKey, ClientCA: h.clientCA},
	})
	if err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	if line := srv.Curl(); line != "" {
		fmt.Fprintf(os.Stderr, "To trust another key:\n  %s\n", line)
	}
	return srv.Serve(ctx)
}
