package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"runtime/debug"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// This test's own program has dependencies; each is in its bill of materials,
// with the hash of go.sum, and the same file gives the same bytes.
func TestEveryModuleIsListed(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000")
	file, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := run(b, "1.2.3", file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two runs differ")
	}
	var bom cdx.BOM
	if err := json.Unmarshal(first.Bytes(), &bom); err != nil {
		t.Fatal(err)
	}
	if bom.Metadata.Component.Version != "1.2.3" || bom.Metadata.Timestamp != "2001-09-09T01:46:40Z" {
		t.Errorf("%+v", bom.Metadata)
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]cdx.Component{}
	for _, c := range *bom.Components {
		listed[c.Name] = c
	}
	if listed["std"].Version != info.GoVersion {
		t.Errorf("std is %q, built with %s", listed["std"].Version, info.GoVersion)
	}
	if len(info.Deps) == 0 {
		t.Fatal("no dependencies to look for")
	}
	for _, m := range info.Deps {
		c, ok := listed[m.Path]
		if !ok || c.Version != m.Version || c.Hashes == nil || len((*c.Hashes)[0].Value) != 64 {
			t.Errorf("%s %s: %+v", m.Path, m.Version, c)
		}
	}
	if err := run(&first, "1", os.DevNull); err == nil {
		t.Error("no error for a file that is no program")
	}
}

// A package URL's version is percent-encoded; the component's own is as Go has it.
func TestPackageURL(t *testing.T) {
	c, err := library(&debug.Module{Path: "example.com/old", Version: "v3.5.1+incompatible"})
	if err != nil || c.PackageURL != "pkg:golang/example.com/old@v3.5.1%2Bincompatible" || c.Version != "v3.5.1+incompatible" {
		t.Errorf("%+v, %v", c, err)
	}
}
