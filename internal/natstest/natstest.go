// Package natstest runs real NATS servers with JetStream for tests: processes of the test
// binary started again, or within the test's process.
package natstest

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// environment is the variable in which a server that is a process of its own finds what it is.
const environment = "NATSTEST_SERVER"

// settings are what a server is told.
type settings struct {
	Name, Store, Cluster string
	Password             string
	Port, ClusterPort    int
	Routes               []string
}

// Main is a NATS server, for ever, if the process was started to be one. TestMain calls it
// first.
func Main() {
	text := os.Getenv(environment)
	if text == "" {
		return
	}
	var s settings
	err := json.Unmarshal([]byte(text), &s)
	if err == nil {
		err = run(s, func(*server.Server) { select {} })
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Program is nats-server, as its own command.
func Program() {
	fs := flag.NewFlagSet("nats-server", flag.ExitOnError)
	o, err := server.ConfigureOptions(fs, os.Args[1:], func() {}, fs.Usage, func() {})
	if err == nil {
		var srv *server.Server
		if srv, err = server.NewServer(o); err == nil {
			srv.ConfigureLogger()
			if err = server.Run(srv); err == nil {
				srv.WaitForShutdown()
				return
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func run(s settings, then func(*server.Server)) error {
	o := &server.Options{ServerName: s.Name, Host: "127.0.0.1", Port: s.Port, JetStream: true, StoreDir: s.Store, NoSigs: true, NoLog: true,
		JetStreamMaxStore: 4 << 30, JetStreamMaxMemory: 256 << 20}
	if s.Password != "" {
		o.Username, o.Password = "user", s.Password
	}
	if s.Cluster != "" {
		o.Cluster = server.ClusterOpts{Name: s.Cluster, Host: "127.0.0.1", Port: s.ClusterPort}
		for _, r := range s.Routes {
			u, err := url.Parse(r)
			if err != nil {
				return err
			}
			o.Routes = append(o.Routes, u)
		}
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return err
	}
	go srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		return errors.New("the NATS server does not get ready")
	}
	then(srv)
	return nil
}

// Port returns a port of the loopback address that was free, below those that connections
// get: until a server has it, no other test's connection may take it.
func Port() (int, error) {
	const first, count = 20_000, 12_000
	var err error
	for range 100 {
		port := first + rand.IntN(count)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

// InProcess runs a server in this process until the test ends, and returns its URL.
func InProcess(t testing.TB) string {
	t.Helper()
	url := ""
	err := run(settings{Name: "one", Port: server.RANDOM_PORT, Store: t.TempDir()}, func(srv *server.Server) {
		url = srv.ClientURL()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	})
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// Server is a server in a process of its own.
type Server struct {
	URL string
	s   settings
	cmd *exec.Cmd
}

// Servers starts a cluster of so many servers, or a single one, until the test ends.
func Servers(t testing.TB, count int) []*Server {
	t.Helper()
	all, err := Begin(t.TempDir(), count)
	for _, s := range all {
		t.Cleanup(s.Kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Begin starts a cluster of so many servers, or a single one, which store below dir.
func Begin(dir string, count int) (all []*Server, err error) {
	var routes []string
	for i := range count {
		s := settings{Name: fmt.Sprintf("nats-%d", i), Store: filepath.Join(dir, fmt.Sprint(i))}
		if s.Port, err = Port(); err != nil {
			return nil, err
		}
		if count > 1 {
			if s.ClusterPort, err = Port(); err != nil {
				return nil, err
			}
			s.Cluster = "test"
			routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", s.ClusterPort))
		}
		all = append(all, &Server{URL: fmt.Sprintf("nats://127.0.0.1:%d", s.Port), s: s})
	}
	for _, s := range all {
		s.s.Routes = routes
		if err := s.Begin(); err != nil {
			return all, err
		}
	}
	return all, nil
}

// URLs are those of all servers, as --cluster takes them.
func URLs(all []*Server) string {
	var urls []string
	for _, s := range all {
		urls = append(urls, s.URL)
	}
	return strings.Join(urls, ",")
}

// Start starts it again, with what it has stored.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
}

// Begin is Start.
func (s *Server) Begin() error {
	b, err := json.Marshal(s.s)
	if err != nil {
		return err
	}
	s.cmd = exec.Command(os.Args[0], "-test.run", "^$")
	s.cmd.Env, s.cmd.Stderr = append(os.Environ(), environment+"="+string(b)), os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "nats://"))
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return fmt.Errorf("a NATS server does not listen: %w", err)
		}
	}
}

// Kill ends it as a power cut would.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // it may have ended
		_ = s.cmd.Wait()         // its exit code says nothing
		s.cmd = nil
	}
}

// Store is the directory with what it has stored.
func (s *Server) Store() string { return s.s.Store }

// Password is what it asks for when it is started again; "" for nothing.
func (s *Server) Password(p string) { s.s.Password = p }

// Signal sends it a signal.
func (s *Server) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
