package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"trust-worker/trust"
)

// newManCommand writes the manual, a page for each command, for packages.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages into a directory", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.Long += manReasons()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "trust-worker " + versions().Version, Manual: "trust-worker", Date: buildDate()}
			return doc.GenManTree(root, header, args[0])
		},
	}
}

// manReasons is a part of the manual's first page, in Markdown: exit codes, statuses and
// reasons, from the table that decides them.
func manReasons() string {
	var b strings.Builder
	b.WriteString(`

# EXIT CODES
**0** fine (get, verify: trusted), **1** an error, **2** wrong usage, **10** unsigned, **11** not found, **12** signed but not trusted, **14** not decided. Of several answers the worst counts: 14, 11, 12, 10, 0.

# STATUSES AND REASONS
`)
	for _, status := range []struct {
		status trust.Status
		what   string
	}{{trust.Trusted, "a trusted signer made it, and the dates that are enforced include now"},
		{trust.Expired, "the signer is trusted; now is outside the dates that are enforced"},
		{trust.Untrusted, "it was looked at, and is not trusted"},
		{trust.Unknown, "nothing could be decided; it is tried again"},
		{trust.Pending, "it has not been looked at under the trust in force"}} {
		fmt.Fprintf(&b, "\n**%s**: %s.\n", status.status, status.what)
		for _, r := range trust.Reasons() {
			if e := r.Explain(); r.Status() == status.status {
				fmt.Fprintf(&b, "\n* _%s_: %s %s\n", r, e.What, e.Do)
			}
		}
	}
	return b.String()
}

// buildDate is SOURCE_DATE_EPOCH, for the same bytes from the same source, or nil for now.
func buildDate() *time.Time {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return nil
	}
	t := time.Unix(seconds, 0).UTC()
	return &t
}
