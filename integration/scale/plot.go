package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"slices"
	"strings"
)

func load(files []string) ([]Report, error) {
	var all []Report
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var r Report
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Report) int { return cmp.Or(a.N-b.N, a.Repositories-b.Repositories) })
	return all, nil
}

// printTable prints the rows of several runs side by side.
func printTable(w io.Writer, files []string) error {
	all, err := load(files)
	if err != nil {
		return err
	}
	fmt.Fprint(w, "| what | target |")
	for _, r := range all {
		fmt.Fprintf(w, " %d signatures, %d repositories |", r.N, r.Repositories)
	}
	fmt.Fprint(w, "\n|---|---|", strings.Repeat("---|", len(all)), "\n")
	times := map[string]int{} // a name comes again
	for _, row := range all[0].Rows {
		times[row.What]++
		fmt.Fprintf(w, "| %s | %s |", strings.ReplaceAll(row.What, "  ", "– "), row.Target)
		for _, r := range all {
			if same := r.named(row.What); len(same) >= times[row.What] {
				same := same[times[row.What]-1]
				fmt.Fprintf(w, " %.3g %s |", same.Value, same.Unit)
			} else {
				fmt.Fprint(w, " |")
			}
		}
		fmt.Fprintln(w)
	}
	return nil
}

// grows are the rows of which printGrowth tells.
var grows = []string{"first pass, processor time", "restart with nothing changed: answers confirmed", "pass with nothing changed, processor time",
	"key added: rename → all trusted, new to the cache", "key removed: unlink → not trusted", "is it trusted? asked in another process, p50",
	"resident anonymous memory, idle", "  after compaction", "published bytes on disk per signature"}

// printGrowth writes the exponent of each row between neighbours: 1 is in proportion to
// the number of signatures, 0 is the same for any.
func printGrowth(w io.Writer, files []string) error {
	all, err := load(files)
	if err != nil {
		return err
	}
	fmt.Fprint(w, "| what |")
	for i := range all[1:] {
		fmt.Fprintf(w, " %d to %d |", all[i].N, all[i+1].N)
	}
	fmt.Fprint(w, "\n|---|", strings.Repeat("---|", len(all)-1), "\n")
	for _, what := range grows {
		fmt.Fprintf(w, "| %s |", strings.ReplaceAll(what, "  after compaction", "private bytes on disk per signature, after compaction"))
		for i := range all[1:] {
			a, b := all[i].named(what), all[i+1].named(what)
			if len(a) == 0 || len(b) == 0 {
				fmt.Fprint(w, " |")
				continue
			}
			fmt.Fprintf(w, " %.2f |", math.Log(b[0].Value/a[0].Value)/math.Log(float64(all[i+1].N)/float64(all[i].N)))
		}
		fmt.Fprintln(w)
	}
	return nil
}

func (r *Report) named(what string) (rows []Row) {
	for _, row := range r.Rows {
		if row.What == what {
			rows = append(rows, row)
		}
	}
	return rows
}

// plotted are the rows drawn, in seconds.
var plotted = []string{"first pass", "restart with nothing changed: answers confirmed", "pass with nothing changed",
	"key added: rename → all trusted, new to the cache", "key removed: unlink → not trusted", "new signature pushed → trusted"}

// draw writes an SVG of seconds against signatures, both logarithmic.
func draw(path string, files []string) error {
	all, err := load(files)
	if err != nil {
		return err
	}
	const width, height, left, right, top, bottom = 900, 520, 70, 330, 20, 50
	loN, hiN := math.Log10(float64(all[0].N)), math.Log10(float64(all[len(all)-1].N))
	if loN == hiN {
		hiN++
	}
	const loS, hiS = -2.0, 3.0 // 10 ms to 1000 s
	x := func(n int) float64 {
		return left + (math.Log10(float64(n))-loN)/(hiN-loN)*(width-left-right)
	}
	y := func(s float64) float64 {
		l := min(max(math.Log10(max(s, 1e-9)), loS), hiS)
		return top + (hiS-l)/(hiS-loS)*(height-top-bottom)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13"><rect width="100%%" height="100%%" fill="white"/>`, width, height)
	for e := loS; e <= hiS; e++ {
		s := math.Pow(10, e)
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g s</text>`, left, width-right, y(s), y(s), left-8, y(s)+4, s)
	}
	for _, r := range all {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%d</text>`, x(r.N), x(r.N), top, height-bottom, x(r.N), height-bottom+20, r.N)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">signatures</text>`, left+(width-left-right)/2, height-10)
	colours := []string{"#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b"}
	for i, what := range plotted {
		var points []string
		for _, r := range all {
			for _, row := range r.Rows {
				if row.What == what {
					points = append(points, fmt.Sprintf("%.1f,%.1f", x(r.N), y(row.Value)))
				}
			}
		}
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`, colours[i], strings.Join(points, " "))
		for _, p := range points {
			xy := strings.Split(p, ",")
			fmt.Fprintf(&b, `<circle cx="%s" cy="%s" r="4" fill="%s"/>`, xy[0], xy[1], colours[i])
		}
		ly := top + 20 + 24*i
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="14" height="4" fill="%s"/><text x="%d" y="%d" font-size="12">%s</text>`, width-right+20, ly-5, colours[i], width-right+42, ly, html.EscapeString(strings.TrimSuffix(what, ", new to the cache")))
	}
	b.WriteString("</svg>\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
