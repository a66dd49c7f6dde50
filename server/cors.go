package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Cross-origin reads (WHATWG Fetch, section "CORS protocol"): off by default. The
// origins that are named may send GET, by themselves or with a token that their
// page holds. Cookies there are none, and no origin may send anything else: what
// changes something, GraphQL by POST included, is refused whoever is named.

// checkOrigin validates an origin as a browser sends it. A "*" is refused: on a
// loopback address it would let every page read.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || origin != u.Scheme+"://"+u.Host || strings.ToLower(origin) != origin {
		return fmt.Errorf("CORS origin %.80q: give it as a browser sends it, as https://host[:port] in lower case", origin)
	}
	return nil
}

// cors wraps everything, and is there only when origins are named.
func (s *Server) cors(next http.Handler) http.Handler {
	if len(s.cfg.Auth.CORSOrigins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		named := origin != "" && slices.Contains(s.cfg.Auth.CORSOrigins, origin)
		switch wants := r.Header.Get("Access-Control-Request-Method"); {
		case r.Method == http.MethodOptions && wants != "":
			if !named || wants != http.MethodGet {
				s.fail(w, r, refuse(http.StatusForbidden, codeDenied, "requests from another origin are refused", "origins that are named may GET"))
				return
			}
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Methods", http.MethodGet)
			h.Set("Access-Control-Allow-Headers", "Authorization, If-None-Match, Last-Event-ID")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		case named && r.Method == http.MethodGet:
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", "ETag, Retry-After, "+headerGeneration)
		}
		next.ServeHTTP(w, r)
	})
}
