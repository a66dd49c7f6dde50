package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"trust-worker/cache"
	"trust-worker/preview"
)

// What a change of trust would cost, asked before it is made. An answer may read everything
// that is published.

const (
	// maxPreviews are asked at once.
	maxPreviews = 2
	// maxPreviewed is how many images each list of an answer has; its Counts are of all.
	maxPreviewed = 1000
	// maxPreviewBody bounds the files that would come.
	maxPreviewBody = 4 << 20
)

// previewRequest is the body of a POST; contents are text.
type previewRequest struct {
	Remove []string
	Add    []struct{ Name, Place, Content string }
	Policy *string
}

// restPreview answers about files or signers that would go.
func (s *Server) restPreview(w http.ResponseWriter, r *http.Request, _ identity) error {
	remove := r.URL.Query()["remove"]
	for name := range r.URL.Query() {
		if name != "remove" {
			return refuse(http.StatusBadRequest, codeInvalid, fmt.Sprintf("the parameter %.40q is not known", name), "this route takes remove; POST takes additions and a policy")
		}
	}
	return s.sendPreview(w, r, &preview.Change{Remove: remove})
}

// restPreviewOf answers about any change.
func (s *Server) restPreviewOf(w http.ResponseWriter, r *http.Request, _ identity) error {
	var in previewRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPreviewBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		return refuse(http.StatusBadRequest, codeInvalid, "the body cannot be read", `send JSON: {"Remove":["team.pub"],"Add":[{"Name":"new.pub","Place":"team-a","Content":"…"}],"Policy":"…"}`)
	}
	change := &preview.Change{Remove: in.Remove}
	for _, a := range in.Add {
		change.Add = append(change.Add, preview.Addition{Name: a.Name, Place: a.Place, Content: []byte(a.Content)})
	}
	if in.Policy != nil {
		change.Policy = []byte(*in.Policy)
	}
	return s.sendPreview(w, r, change)
}

func (s *Server) sendPreview(w http.ResponseWriter, r *http.Request, change *preview.Change) error {
	a, err := s.preview(w, r, change, maxPreviewed)
	if err != nil {
		return err
	}
	return s.sendJSON(w, r, a)
}

// preview answers in its turn and time.
func (s *Server) preview(w http.ResponseWriter, r *http.Request, change *preview.Change, most int) (a *preview.Answer, err error) {
	if change.IsEmpty() {
		return nil, refuse(http.StatusBadRequest, codeInvalid, "nothing would change", "say what would go, come or rule: /api/v1/preview?remove=team.pub")
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Limits.WriteTimeout/2)
	defer cancel()
	err = s.readingOf(s.previews, w, r, func(snap *cache.Snapshot) (err error) {
		t := s.cfg.Previewed
		t.CosignDir, t.NotationDir = s.cfg.CosignDir, s.cfg.NotationDir
		if a, err = preview.Ask(ctx, snap, t, change, most); err != nil {
			t.Temp = s.cfg.StateDir // there may be no directory for temporary files
			if wrong := (*preview.ChangeError)(nil); !errors.As(err, &wrong) && ctx.Err() == nil {
				a, err = preview.Ask(ctx, snap, t, change, most)
			}
		}
		return err
	})
	var wrong *preview.ChangeError
	switch {
	case errors.As(err, &wrong):
		return nil, refuse(http.StatusBadRequest, codeInvalid, "that change cannot be made", wrong.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return nil, refuse(http.StatusServiceUnavailable, codeTooMany, "it took too long", "trust-worker keys preview has no bound")
	}
	return a, err
}
