package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// benchmarks are the Go benchmarks that design figures exist for: name, what it
// is in words, the metric that is a ratio to a floor of the same run, target.
var benchmarks = []struct{ name, what, metric, target string }{
	{"BenchmarkCosign/simple/keys=1/trusted=true", "one cosign P-256 signature, simple signing, 1 key", "×bare", "≤ 1.15"},
	{"BenchmarkLibrary/simple", "– floor: cosign alone, handed the key", "×bare", ""},
	{"BenchmarkCosign/bundle/keys=1/trusted=true", "the same, bundle", "×bare", "≤ 1.3"},
	{"BenchmarkLibrary/bundle", "– floor: cosign and sigstore-go alone, handed the key", "×bare", ""},
	{"BenchmarkCosign/simple/keys=1000/trusted=true", "simple signing, 1,000 keys, trusted", "×bare", "≤ 2.3"},
	{"BenchmarkCosignGuessed", "simple signing, 1,000 keys, the key that signed the one before", "×bare", ""},
	{"BenchmarkCosign/simple/keys=1000/trusted=false", "simple signing, 1,000 keys, not trusted", "×bare", "≤ 2.3"},
	{"BenchmarkCosign/bundle/keys=1000/trusted=true", "bundle, 1,000 keys, trusted", "×bare", "≤ 2.3"},
	{"BenchmarkCosign/bundle/keys=1000/trusted=false", "bundle, 1,000 keys, not trusted", "×bare", "≤ 2.3"},
	{"BenchmarkCandidates/P-256", "– floor of both: recovering the key alone", "×verify", ""},
	{"BenchmarkNotation/jws/certificates=1/trusted=true", "one notation P-256 signature, JWS, 1 certificate", "×bare", "≤ 5"},
	{"BenchmarkNotation/jws/certificates=1000/trusted=true", "JWS, 1,000 certificates", "×bare", "≤ 5"},
	{"BenchmarkLibrary/jws", "– floor: notation-go alone, handed the certificate", "×bare", ""},
	{"BenchmarkNotation/cose/certificates=1/trusted=true", "COSE, 1 certificate", "×bare", "≤ 5"},
	{"BenchmarkNotation/cose/certificates=1000/trusted=true", "COSE, 1,000 certificates", "×bare", "≤ 5"},
	{"BenchmarkLibrary/cose", "– floor: notation-go alone, handed the certificate", "×bare", ""},
	{"BenchmarkKeyless/layer", "one keyless signature with SCT and log entry, simple signing, 1 trusted root", "×bare", "≤ 1.3 × its floor"},
	{"BenchmarkLibrary/keyless-layer", "– floor: cosign alone, on the same bytes", "×bare", ""},
	{"BenchmarkKeyless/bundle", "the same, bundle", "×bare", "≤ 1.3 × its floor"},
	{"BenchmarkLibrary/keyless-bundle", "– floor: sigstore-go alone, on the same bytes", "×bare", ""},
	{"BenchmarkLookup/trusted", "is it trusted? with a snapshot of its own, in one process; floor: one bbolt look-up", "×floor", ""},
	{"BenchmarkLookup/image", "one look-up with a snapshot of its own, five signatures, in one process; floor: one bbolt look-up", "×floor", ""},
}

var processors = regexp.MustCompile(`-\d+$`)

// printBenchmarks prints the output of `go test -bench` (the median of several
// counts) as a Markdown table.
func printBenchmarks(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	values := map[string][]float64{} // "name metric"
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(fields[0], "")
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				key := name + " " + fields[i+1]
				values[key] = append(values[key], v)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	fmt.Fprint(w, "| what | target | measured |\n|---|---|---|\n")
	for _, b := range benchmarks {
		found := values[b.name+" "+b.metric]
		if len(found) == 0 {
			continue
		}
		slices.Sort(found)
		fmt.Fprintf(w, "| %s | %s | %.2f × |\n", b.what, b.target, found[len(found)/2])
	}
	return nil
}
