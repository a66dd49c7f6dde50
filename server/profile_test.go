package server

import (
	"context"
	"net"
	"net/http"
	"testing"
)

func TestProfiles(t *testing.T) {
	if err := ServeProfiles(t.Context(), "0.0.0.0:0"); err == nil {
		t.Error("profiles were served to everybody")
	}
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveProfiles(ctx, l) }()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for host, want := range map[string]int{"localhost": 200, "evil.example": http.StatusMisdirectedRequest} {
		req := must[*http.Request](t)(http.NewRequest("GET", "http://"+l.Addr().String()+"/debug/pprof/cmdline", nil))
		req.Host = host
		doWith(t, http.DefaultClient, req).want(t, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShellQuote(t *testing.T) {
	for path, want := range map[string]string{"/a/b-c.token": "/a/b-c.token", "/a b/c": "'/a b/c'", "/it's": `'/it'\''s'`} {
		if got := shellQuote(path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}
