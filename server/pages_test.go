package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// listWorld has, in each repository, tags, an image without a tag, an index and
// its child. The names of the whole list are returned in order.
func listWorld(t *testing.T) (w *world, all []string) {
	w = start(t, nil)
	for _, repo := range []string{"a", "a/b", "empty", "z"} {
		tags, rows := map[string]trust.Digest{}, []store.Row{}
		row := func(name string, r store.Row) trust.Digest {
			r.Digest, r.MediaType, r.Present = digestOf(repo+name), "m", true
			rows = append(rows, r)
			return r.Digest
		}
		if repo != "empty" {
			for _, tag := range []string{"1", "2", "Latest"} {
				tags[tag] = row(tag, store.Row{Tagged: true})
				all = append(all, repo+":"+tag)
			}
			child := row("child", store.Row{Child: true})
			tags["multi"] = row("multi", store.Row{Tagged: true, Children: []store.Child{{Digest: child}}})
			all = append(all, repo+":multi")
			alone := []trust.Digest{row("alone", store.Row{}), row("alone too", store.Row{})}
			slices.SortFunc(alone, func(a, b trust.Digest) int { return slices.Compare(a[:], b[:]) })
			all = append(all, repo+"@"+alone[0].String(), repo+"@"+alone[1].String())
		}
		w.commit(repo, tags, rows, nil)
	}
	return w, all
}

// pages reads a list page by page, and returns its names and how many pages
// there were.
func (w *world) pages(repo string, f imageFilter, limit, most, names int) (list []string, turns int) {
	w.t.Helper()
	snap := must[*cache.Snapshot](w.t)(w.reader.Snapshot())
	defer snap.Close()
	var after cursor
	for turns = 1; turns < 200; turns++ {
		p := pager{snap: snap, filter: f, limit: limit, most: most, names: names, after: after}
		check(w.t, p.collect(repo))
		if len(p.page.Images) > limit || p.read > most || p.named > names {
			w.t.Fatalf("a page of %d images, %d read, %d names: at most %d, %d, %d", len(p.page.Images), p.read, p.named, limit, most, names)
		}
		for _, img := range p.page.Images {
			name := img.RepoName + ":" + img.Tag
			if img.Tag == "" {
				name = img.RepoName + "@" + img.Digest.String()
			}
			list = append(list, name)
		}
		if p.page.Next == "" {
			return list, turns
		}
		after = must[cursor](w.t)(parseCursor(p.page.Next))
	}
	w.t.Fatal("the list does not end")
	return nil, 0
}

// The pages together are what is wanted, in order, wherever they end.
func TestPagesOfFilters(t *testing.T) {
	w, all := listWorld(t)
	contains := func(part string) (out []string) {
		for _, name := range all {
			if strings.Contains(name, part) {
				out = append(out, name)
			}
		}
		return out
	}
	tagged := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return strings.Contains(name, "@") })
	lone := digestOf("a/balone")
	for _, c := range []struct {
		repo   string
		filter imageFilter
		want   []string
	}{
		{"", imageFilter{}, tagged}, {"", imageFilter{untagged: true}, all}, {"", imageFilter{state: "unsigned", untagged: true}, all},
		{"", imageFilter{state: "trusted", untagged: true}, nil}, {"a", imageFilter{untagged: true}, all[:6]},
		{"empty", imageFilter{untagged: true}, nil}, {"", imageFilter{query: newNameQuery("a/"), untagged: true}, contains("a/")},
		{"", imageFilter{query: newNameQuery("b:lat")}, []string{"a/b:Latest"}}, {"", imageFilter{query: newNameQuery(lone.Hex()[:9]), untagged: true}, []string{"a/b@" + lone.String()}},
		{"", imageFilter{query: newNameQuery(lone.String()), untagged: true}, []string{"a/b@" + lone.String()}}, {"", imageFilter{query: newNameQuery("zz")}, nil},
	} {
		for _, limit := range []int{1, 2, 5, 100} {
			for _, names := range []int{1, 2, 7, 1000} {
				if got, _ := w.pages(c.repo, c.filter, limit, max(names/2, 1), names); !slices.Equal(got, c.want) {
					t.Errorf("%q %+v in pages of %d, %d names: %v, want %v", c.repo, c.filter, limit, names, got, c.want)
				}
			}
		}
	}
	if _, turns := w.pages("", imageFilter{state: "trusted", untagged: true}, 100, 5, 1000); turns != 4 {
		t.Errorf("%d pages for 18 images, 5 read for each", turns)
	}
}

func TestCursorRoundTrip(t *testing.T) {
	for _, c := range []cursor{{}, {repo: "a"}, {repo: "a", tag: "1"}, {repo: "a/b", untagged: true}, {repo: "a/b", untagged: true, digest: digestOf("x")}} {
		if got, err := parseCursor(c.String()); err != nil || got != c {
			t.Errorf("%+v: %+v %v", c, got, err)
		}
	}
	for _, bad := range []string{"!", "YQ", fmt.Sprint(cursor{repo: "a", untagged: true})[:20]} {
		if got, err := parseCursor(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}
