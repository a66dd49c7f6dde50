package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const packaging = "../../packaging"

func packaged(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(packaging, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// parses fails unless the program takes these arguments.
func parses(t *testing.T, where string, args []string) {
	t.Helper()
	c, rest, err := newRootCommand().Find(args)
	if err == nil {
		err = c.ParseFlags(rest)
	}
	most := 0
	if args[0] == "follow" {
		most = 1 // the source
	}
	if err != nil || c.Name() != args[0] || c.Flags().NArg() != most {
		t.Errorf("%s: trust-worker %s: %v", where, strings.Join(args, " "), err)
	}
}

// container is one of Kubernetes or of compose, as far as it concerns us.
type container struct {
	Name, Image     string
	Args, Command   []string
	SecurityContext struct {
		ReadOnlyRootFilesystem   bool
		AllowPrivilegeEscalation *bool
		Capabilities             struct{ Drop []string }
	}
	StartupProbe, LivenessProbe, ReadinessProbe struct{ HTTPGet struct{ Path string } }
	VolumeMounts                                []struct{ Name, MountPath string }
}

var units = []string{"systemd/trust-worker.service", "systemd/trust-worker-follow.service"}

// What the packages start are commands that the program has.
func TestPackagedCommands(t *testing.T) {
	for _, unit := range units {
		exec := regexp.MustCompile(`(?m)^ExecStart=/usr/bin/trust-worker (.*)$`).FindStringSubmatch(packaged(t, unit))
		if exec == nil {
			t.Fatalf("%s starts nothing", unit)
		}
		parses(t, unit, strings.Fields(exec[1]))
		if strings.Contains(packaged(t, unit), "\nRestartPreventExitStatus=") {
			t.Errorf("%s: a daemon that the watchdog aborts ends with the code of wrong usage, and has to be started again", unit)
		}
	}

	lists := regexp.MustCompile(`(?m)(?:^CMD|  *CMD|^ENTRYPOINT) (\[.*\])$`).FindAllStringSubmatch(packaged(t, "docker/Dockerfile"), -1)
	if len(lists) != 3 {
		t.Fatalf("Dockerfile: %q", lists)
	}
	for _, l := range lists {
		var words []string
		if err := json.Unmarshal([]byte(l[1]), &words); err != nil {
			t.Fatal(err)
		}
		if words[0] == "/usr/bin/trust-worker" {
			words = words[1:]
		}
		if len(words) > 0 {
			parses(t, "Dockerfile", words)
		}
	}

	var compose struct {
		Services map[string]struct{ Command []string }
	}
	if err := yaml.Unmarshal([]byte(packaged(t, "docker/compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	parses(t, "compose", compose.Services["trust-worker"].Command)
}

// The manifests start what the program has, mount only what they declare, ask
// for the probes that it answers, and give it nothing more than it needs.
func TestKubernetesManifests(t *testing.T) {
	type volumes []struct{ Name string }
	check := func(where string, c container, declared []string) {
		parses(t, where, c.Args)
		s := c.SecurityContext
		if !s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("%s is not confined: %+v", where, s)
		}
		if c.StartupProbe.HTTPGet.Path != "/startupz" || c.LivenessProbe.HTTPGet.Path != "/livez" || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
			t.Errorf("%s asks for other probes", where)
		}
		mounted := map[string]bool{}
		for _, m := range c.VolumeMounts {
			if !slices.Contains(declared, m.Name) {
				t.Errorf("%s mounts %s, which is not declared", where, m.Name)
			}
			mounted[m.MountPath] = true
		}
		for _, arg := range c.Args {
			if _, path, ok := strings.Cut(arg, "=/"); ok && !mounted["/"+path] && !mounted[filepath.Dir("/"+path)] {
				t.Errorf("%s: nothing is mounted for %s", where, arg)
			}
		}
	}
	names := func(lists ...volumes) (all []string) {
		for _, l := range lists {
			for _, v := range l {
				all = append(all, v.Name)
			}
		}
		return all
	}

	var values struct {
		ExtraContainers []container
		ExtraVolumes    volumes
	}
	if err := yaml.Unmarshal([]byte(packaged(t, "kubernetes/zot-values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	check("zot-values", values.ExtraContainers[0], append(names(values.ExtraVolumes), "data"))

	var kinds []string
	for _, doc := range append(strings.Split(packaged(t, "kubernetes/standalone.yaml"), "\n---\n"), packaged(t, "kubernetes/follow-sidecar.yaml")) {
		var o struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct {
						Containers []container
						Volumes    volumes
					}
				}
				VolumeClaimTemplates []struct{ Metadata struct{ Name string } }
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, o.Kind)
		declared := names(o.Spec.Template.Spec.Volumes)
		for _, c := range o.Spec.VolumeClaimTemplates {
			declared = append(declared, c.Metadata.Name)
		}
		for _, c := range o.Spec.Template.Spec.Containers {
			if c.Name != "search" { // the reader's own
				check(o.Kind, c, declared)
			}
		}
	}
	if !slices.Equal(kinds, []string{"Service", "StatefulSet", "Deployment"}) {
		t.Errorf("there are %v", kinds)
	}
}

// The packaged configuration is valid as it is, and with all that it shows in
// comments.
func TestPackagedConfiguration(t *testing.T) {
	text := packaged(t, "config.yaml")
	all := regexp.MustCompile(`(?m)^( *)#( *[a-zA-Z]+:(?: .*)?)$`).ReplaceAllString(text, "$1$2")
	if strings.Count(all, "\n#http") > 0 || !strings.Contains(all, "\nhttp:") || !strings.Contains(all, "\n  cosignDir: /etc") {
		t.Fatalf("the examples were not found:\n%s", all)
	}
	for name, text := range map[string]string{"as it is": text, "with all examples": all} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		serve, _, err := newRootCommand().Find([]string{"serve"})
		if err != nil {
			t.Fatal(err)
		}
		values, err := readConfig(path, true, serve.Flags())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if serve.Flags().Lookup("listen") == nil || (name == "as it is") != (values.flags["listen"].text == "") {
			t.Errorf("%s: listens on %q", name, values.flags["listen"].text)
		}
	}
}

// exposure is systemd's own figure for how much an intruder in the service could
// do, which docs/operations.md names.
func TestUnitIsConfined(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the unit's exposure is not measured")
	}
	unit := filepath.Join(packaging, "systemd/trust-worker.service")
	out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	if bytes.Contains(out, []byte("offline")) && err != nil {
		t.Skipf("systemd-analyze is too old to look at a file: %s", out)
	}
	m := regexp.MustCompile(`Overall exposure level for trust-worker.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("%v: %s", err, out)
	}
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "exposure level of " + string(m[1]) + " "; !bytes.Contains(page, []byte(want)) {
		t.Errorf("docs/operations.md does not say %q", want)
	}
}

func TestScriptsOfPackages(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join(packaging, "scripts/*.sh"))
	if err != nil || len(scripts) != 3 {
		t.Fatal(scripts, err)
	}
	for _, script := range append(scripts, filepath.Join(packaging, "release.sh"), filepath.Join(packaging, "reproducible.sh")) {
		b, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		shell := "sh"
		if bytes.HasPrefix(b, []byte("#!/usr/bin/env bash\n")) {
			shell = "bash"
		}
		if out, err := exec.Command(shell, "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

// Where systemd is not running, as in the build of an image, or is not there at
// all, the scripts of the packages end well.
func TestScriptsOfPackagesWithoutSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("systemd is running: the scripts would talk to it")
	}
	empty, broken := t.TempDir(), t.TempDir()
	for name, code := range map[string]string{"systemd-sysusers": "0", "systemd-tmpfiles": "1"} {
		if err := os.WriteFile(filepath.Join(broken, name), []byte("#!/bin/sh\nexit "+code+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{empty, broken} {
		for _, line := range []string{ // as dpkg and rpm call them; never with "purge", which removes
			"postinstall configure", "postinstall configure 1.0", "postinstall 1", "postinstall 2",
			"preremove remove", "preremove upgrade 1.0", "preremove 0", "preremove 1",
			"postremove remove", "postremove 0", "postremove 1",
		} {
			words := strings.Fields(line)
			c := exec.Command("/bin/sh", append([]string{filepath.Join(packaging, "scripts", words[0]+".sh")}, words[1:]...)...)
			c.Env = []string{"PATH=" + path}
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
		}
	}
}
