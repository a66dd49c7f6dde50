package page

import (
	"net/url"
	"slices"
	"time"

	"trust-worker/cache"
)

// ending is a day on which something ends.
type ending struct {
	Day          Moment
	Date         string
	Signatures   int
	URL          string // the list of images with signatures that have expired by then
	Certificates []Text
}

// shownDays is how many days the calendar has.
const shownDays = 8

// calendar lists what ends when, the first day first: signatures, and certificates of trust
// stores.
func calendar(signatures []cache.Ending, files []file, now time.Time) []ending {
	days := map[time.Time]*ending{}
	at := func(t time.Time) *ending {
		day := t.UTC().Truncate(24 * time.Hour)
		e := days[day]
		if e == nil {
			within := day.Add(24 * time.Hour).Sub(now).Truncate(time.Second)
			e = &ending{Day: moment(day, now), Date: day.Format("2 Jan 2006"), URL: Root + "?" + url.Values{"expiring": {within.String()}}.Encode()}
			days[day] = e
		}
		return e
	}
	for _, s := range signatures {
		at(s.Day).Signatures = int(s.Signatures)
	}
	for _, f := range files {
		if f.notAfter.After(now) {
			e := at(f.notAfter)
			e.Certificates = append(e.Certificates, f.Path)
		}
	}
	var list []ending
	order := make([]time.Time, 0, len(days))
	for day := range days {
		order = append(order, day)
	}
	slices.SortFunc(order, time.Time.Compare)
	for _, day := range order[:min(len(order), shownDays)] {
		list = append(list, *days[day])
	}
	return list
}
