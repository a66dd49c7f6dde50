package main

// column is how one column of a table is shown.
type column struct {
	head string // empty in all columns of a block: no line for them
	fit  fit
}

// fit is what is done to a column when there is no room for all of it.
type fit int

const (
	keep   fit = iota // nothing, until the others are as narrow as they can be
	spare             // it is left out
	end               // the end of its cells is left out: who, why
	middle            // their middle is: both ends of a path or a name tell it from others
	wrap              // they go on below; in the last column only
)

const (
	gap   = 2  // blanks between columns
	ample = 24 // what columns that can be narrow should have; else others are left out
	least = 12 // what they keep as long as that helps
)

// fitColumns makes the widths such that a line is at most total wide, which needs
// twice as much as there are columns. A column of no width is left out.
func fitColumns(columns []column, widths []int, total int) {
	for i := range widths {
		widths[i] = min(widths[i], total)
	}
	floor := floors(columns, widths, ample)
	for i := len(columns) - 1; i >= 0 && lineWidth(floor) > total; i-- {
		if columns[i].fit == spare {
			widths[i], floor[i] = 0, 0
		}
	}
	narrow(widths, floors(columns, widths, least), total)
	narrow(widths, make([]int, len(widths)), total)
}

// floors are the widths, those of columns that can be narrow at most n, or what
// their head takes.
func floors(columns []column, widths []int, n int) []int {
	floor := append([]int(nil), widths...)
	for i, c := range columns {
		if c.fit >= end {
			floor[i] = min(widths[i], max(n, widthOf(c.head)))
		}
	}
	return floor
}

// narrow takes from the widest column that is above its floor, as long as the
// line is too wide. Each keeps a width of one.
func narrow(widths, floor []int, total int) {
	for over := lineWidth(widths) - total; over > 0; over-- {
		widest := -1
		for i, w := range widths {
			if w > max(floor[i], 1) && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

// lineWidth is how wide a line of such columns is.
func lineWidth(widths []int) int {
	sum := 0
	for _, w := range widths {
		if w > 0 {
			sum += w + gap
		}
	}
	return max(sum-gap, 0)
}
