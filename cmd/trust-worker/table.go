package main

import (
	"bufio"
	"io"
	"strings"

	"trust-worker/internal/inert"
)

// table is what a command prints for people: blocks of aligned columns. On a
// terminal no line is longer than the terminal is wide: columns that can be
// spared are left out if that helps the others, those that may be cut are, the
// widest first; digests and times are short. Otherwise, and with --no-trunc,
// everything is there and whole.
//
// Cells come from storage and trust files: nothing in them may act on the
// terminal, see inert.
type table struct {
	screen
	blocks []*block
}

type block struct {
	columns []column
	rows    [][]string
}

// record are the columns of a table that nobody gave any: a label, and text
// that is never cut.
var record = []column{{}, {fit: wrap}}

// columns begins a block.
func (t *table) columns(c ...column) { t.blocks = append(t.blocks, &block{columns: c}) }

// row adds a row of at most as many cells as there are columns.
func (t *table) row(cells ...string) {
	if t.blocks == nil {
		t.columns(record...)
	}
	for i, c := range cells {
		cells[i] = inert.Text(c)
	}
	s := t.blocks[len(t.blocks)-1]
	s.rows = append(s.rows, cells)
}

// write lays the table out.
func (t *table) write(w io.Writer) error {
	if !t.whole {
		t.shortenDigests()
	}
	b := bufio.NewWriter(w)
	for _, s := range t.blocks {
		s.write(b, t.width)
	}
	return b.Flush() // reports what failed before, too
}

// shortenDigests cuts all digests to one length, at which no two are the same.
func (t *table) shortenDigests() {
	var cells []string
	for _, s := range t.blocks {
		for _, r := range s.rows {
			cells = append(cells, r...)
		}
	}
	n := digestLength(cells)
	for _, s := range t.blocks {
		for _, r := range s.rows {
			for i := range r {
				r[i] = shortDigests(r[i], n)
			}
		}
	}
}

// write writes lines of at most width columns; 0 is no limit.
func (b *block) write(w *bufio.Writer, width int) {
	rows := b.rows
	if b.columns[0].head != "" {
		heads := make([]string, len(b.columns))
		for i, c := range b.columns {
			heads[i] = c.head
		}
		rows = append([][]string{heads}, rows...)
	}
	widths := make([]int, len(b.columns))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], widthOf(c))
		}
	}
	if width > 0 {
		fitColumns(b.columns, widths, width)
	}
	for _, r := range rows {
		b.line(w, r, widths, width)
	}
}

// line writes a row, in more than one line if its last cell goes on. Whatever
// the widths, a line is cut at width.
func (b *block) line(w *bufio.Writer, cells []string, widths []int, width int) {
	var first strings.Builder
	var more []string
	indent := 0
	for i, c := range cells {
		if widths[i] == 0 {
			continue
		}
		if width > 0 {
			switch b.columns[i].fit {
			case wrap:
				lines := wrapText(c, widths[i], widths[i])
				c, more = lines[0], lines[1:]
			case middle:
				c = cutMiddle(c, widths[i])
			default:
				c = cutEnd(c, widths[i])
			}
		}
		first.WriteString(c)
		if i < len(cells)-1 {
			first.WriteString(strings.Repeat(" ", widths[i]-widthOf(c)+gap))
			indent += widths[i] + gap
		}
	}
	for i, l := range append([]string{first.String()}, more...) {
		if i > 0 {
			l = strings.Repeat(" ", indent) + l
		}
		if width > 0 {
			l = cutEnd(l, width)
		}
		w.WriteString(strings.TrimRight(l, " "))
		w.WriteByte('\n')
	}
}
