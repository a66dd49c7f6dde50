package server

import (
	"net"
	"strings"
	"testing"
)

// 0.0.0.0 is IPv4 alone, and what is printed to copy leads to it.
func TestListenOnAllOfIPv4(t *testing.T) {
	w := start(t, func(c *Config) { c.Listen = []string{"0.0.0.0:0"}; c.Auth.InsecureUploads = true })
	at := w.srv.Addresses()[0].(*net.TCPAddr)
	if at.IP.To4() == nil {
		t.Errorf("it listens on %s", at)
	}
	for _, text := range []string{w.srv.PageURL(), w.srv.Curl()} {
		if !strings.Contains(text, "http://localhost:") {
			t.Errorf("%q is no address of this machine", text)
		}
	}
}
