package powercut

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var said = Op{Kind: Said, Data: []byte("done")}

// states replays operations on what setUp made and returns what is found after
// the last of them, each as "name=content" in order; a directory ends in /.
func states(t *testing.T, names Names, setUp func(dir string), ops ...Op) []string {
	t.Helper()
	start := t.TempDir()
	if setUp != nil {
		setUp(start)
	}
	var all []string
	ops = append(ops, said) // what was found before is found again after it
	seq, points := Replay(start, ops, Plan{Random: 60, Seed: 1})
	if points != len(ops)+1 {
		t.Errorf("%d points of %d operations", points, len(ops))
	}
	for s, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if s.Names > names || !strings.HasPrefix(s.After, fmt.Sprintf("operation %d,", len(ops))) {
			continue
		}
		dir := filepath.Join(t.TempDir(), "state")
		if err := s.Write(dir); err != nil {
			t.Fatal(err)
		}
		all = append(all, show(t, dir))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func show(t *testing.T, dir string) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case e.IsDir():
			rel += "/"
		case e.Type()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			found = append(found, rel+"->"+target)
			return err
		default:
			b, err := os.ReadFile(path)
			if len(b) > 20 { // runs of one byte
				b = []byte(fmt.Sprintf("%d bytes, %q", len(b), slices.Compact(b)))
			}
			found = append(found, rel+"="+strings.ReplaceAll(string(b), "\x00", "0"))
			return err
		}
		found = append(found, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(found, " ")
}

func file(name, content string) func(string) {
	return func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			panic(err)
		}
	}
}

func create(path string) Op          { return Op{Kind: Create, Path: path} }
func write(path, content string) Op  { return Op{Kind: Write, Path: path, Data: []byte(content)} }
func rename(from, to string) Op      { return Op{Kind: Rename, Path: from, To: to} }
func unlink(path string) Op          { return Op{Kind: Unlink, Path: path} }
func mkdir(path string) Op           { return Op{Kind: Mkdir, Path: path} }
func fsync(path string) Op           { return Op{Kind: Sync, Path: path} }
func symlink(path, target string) Op { return Op{Kind: Symlink, Path: path, To: target} }

// What may be found after a few operations: the model, case by case.
func TestModel(t *testing.T) {
	for _, c := range []struct {
		name  string
		names Names
		setUp func(string)
		ops   []Op
		want  []string
	}{
		{"a name needs its directory", Unordered, nil, []Op{create("a"), write("a", "x"), fsync("a")}, []string{"", "a=x"}},
		{"data needs its file", Ordered, nil, []Op{create("a"), write("a", "xy"), fsync(".")}, []string{"a=", "a=00", "a=xy"}},
		{"both", Unordered, nil, []Op{create("a"), write("a", "x"), fsync("a"), fsync(".")}, []string{"a=x"}},
		{"replaced without fsync", Ordered, file("a", "old"), []Op{create("b"), write("b", "new"), rename("b", "a")},
			[]string{"a=", "a=000", "a=new", "a=old", "a=old b=", "a=old b=000", "a=old b=new"}},
		{"replaced as it should be", Unordered, file("a", "old"), []Op{create("b"), write("b", "new"), fsync("b"), rename("b", "a"), fsync(".")}, []string{"a=new"}},
		{"names in order", Ordered, nil, []Op{create("a"), create("b"), create("c")}, []string{"", "a=", "a= b=", "a= b= c="}},
		{"names in any order", Unordered, nil, []Op{create("a"), create("b")}, []string{"", "a=", "a= b=", "b="}},
		{"another directory is synced, in order", Ordered, nil, []Op{mkdir("d"), create("a"), create("d/b"), fsync("d")}, []string{"a= d/ d/b="}},
		{"another directory is synced", Unordered, nil, []Op{mkdir("d"), create("a"), create("d/b"), fsync("d")}, []string{"", "a=", "a= d/ d/b=", "d/ d/b="}},
		{"a removal needs its directory", Ordered, file("a", "old"), []Op{unlink("a")}, []string{"", "a=old"}},
		{"removed", Ordered, file("a", "old"), []Op{unlink("a"), fsync(".")}, []string{""}},
		{"a link comes with its target", Unordered, nil, []Op{symlink("a", "b")}, []string{"", "a->b"}},
		{"sectors are torn, not bytes", Ordered, file("a", strings.Repeat("o", 1024)), []Op{write("a", strings.Repeat("n", 1024))},
			[]string{`a=1024 bytes, "n"`, `a=1024 bytes, "no"`, `a=1024 bytes, "o"`, `a=1024 bytes, "on"`}},
		{"fdatasync keeps the length", Unordered, nil, []Op{create("a"), fsync("."), {Kind: Truncate, Path: "a", Size: 2}, write("a", "xyz"), {Kind: SyncData, Path: "a"}}, []string{"a=xyz"}},
		{"cut short and written again", Ordered, file("a", "old"), []Op{{Kind: Truncate, Path: "a"}, write("a", "n")}, []string{"a=", "a=0", "a=n", "a=nld", "a=old"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := states(t, c.names, c.setUp, c.ops...); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// A time is kept by fsync, and by nothing else.
func TestModelOfTimes(t *testing.T) {
	at := time.Unix(1_700_000_000, 5)
	set := Op{Kind: Times, Path: "a", Time: at}
	for _, c := range []struct {
		ops  []Op
		kept bool
	}{
		{[]Op{create("a"), write("a", "x"), set, fsync("a"), fsync(".")}, true},
		{[]Op{create("a"), write("a", "x"), fsync("a"), set, fsync(".")}, false},
		{[]Op{create("a"), write("a", "x"), set, {Kind: SyncData, Path: "a"}, fsync(".")}, false},
	} {
		always := true
		c.ops = append(c.ops, said)
		seq, _ := Replay(t.TempDir(), c.ops, Plan{})
		for s, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(s.After, fmt.Sprintf("operation %d,", len(c.ops))) {
				continue
			}
			dir := filepath.Join(t.TempDir(), "state")
			if err := s.Write(dir); err != nil {
				t.Fatal(err)
			}
			fi, err := os.Stat(filepath.Join(dir, "a"))
			if err != nil {
				t.Fatal(err)
			}
			always = always && fi.ModTime().Equal(at)
		}
		if always != c.kept {
			t.Errorf("%v: always kept: %t", c.ops, always)
		}
	}
}

// What a program does is read back from its trace.
func TestRead(t *testing.T) {
	const env = "TRUST_WORKER_POWERCUT_INTO"
	if dir := os.Getenv(env); dir != "" {
		if err := work(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	Need(t)
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	c := Command(trace, os.Args[0], "-test.run", "^TestRead$")
	c.Env = append(os.Environ(), env+"="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ops, err := Read(trace, dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range ops {
		if o.Kind != Said || string(o.Data) != "PASS\n" {
			got = append(got, o.String())
		}
	}
	want := []string{"mkdir d", `create d/a "<,>`, `truncate d/a "<,> to 0`, `write d/a "<,> 0+7`, `write d/a "<,> 7+3`, `fsync d/a "<,>`, "times d/a \"<,>",
		"create b", "write b 5000+2", "truncate b to 9000", "fdatasync b", `said "half way\n"`, "symlink l to d", "rename l to m", "fsync .", "fsync d", "unlink m", "unlink b"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if o := ops[3]; string(o.Data) != oddText {
		t.Errorf("written: %q", o.Data)
	}
	if o := ops[6]; !o.Time.Equal(oddTime) {
		t.Errorf("time: %s", o.Time)
	}
}

// A call that the model does not know is an error, not left out.
func TestReadRefuses(t *testing.T) {
	for line, bad := range map[string]bool{
		`1 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3</r/a>, 0) = 0x7f0000000000`:   true,
		`1 mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3</r/a>, 0) = 0x7f0000000000`:              false,
		`1 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE, 3</r/a>, 0) = 0x7f0000000000`:  false,
		`1 fallocate(3</r/a>, 0, 0, 4096) = 0`:                                                true,
		`1 fallocate(3</other/a>, 0, 0, 4096) = 0`:                                            false,
		`1 fallocate(3</r/a>, 0, 0, 4096) = -1 EOPNOTSUPP (Operation not supported)`:          false,
		`1 openat(AT_FDCWD</>, "\x2f\x72\x2f\x61", O_WRONLY|O_CREAT|O_DSYNC, 0644) = 3</r/a>`: true,
		`1 write(3</r/a>, "\x61"..., 9000000) = 9000000`:                                      true,
		`1 write(3</r/a>, "\x61", 1) = 1`:                                                     true, // nobody saw it opened
		`1 write(3</r/a>, "\x61", 1 <detached ...>`:                                           false,
		`1 rename("\x2f\x72\x2f\x61", "\x2f\x61") = 0`:                                        true,
	} {
		trace := filepath.Join(t.TempDir(), "trace")
		file("trace", line+"\n")(filepath.Dir(trace))
		if _, err := Read(trace, "/r"); (err != nil) != bad {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// oddText is nothing that a parser may take for anything else.
const oddText = "c\x00\"\n\\>,"

var oddTime = time.Unix(1_700_000_000, 5)

// work does a little of everything below dir.
func work(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	var a, b *os.File
	write := func(f *os.File, s string) error { _, err := f.WriteString(s); return err }
	sync := func(dir string) error {
		f, err := os.Open(dir)
		return errors.Join(err, f.Sync(), f.Close())
	}
	for _, step := range []func() error{
		func() error { return os.Mkdir(at("d"), 0o755) },
		func() error {
			root, err := os.OpenRoot(dir)
			if err == nil {
				a, err = root.OpenFile(`d/a "<,>`, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
			}
			return err
		},
		func() error { return write(a, oddText) },
		func() error { return write(a, "end") },
		func() error { return a.Sync() },
		func() error { return os.Chtimes(a.Name(), oddTime, oddTime) },
		func() (err error) { b, err = os.OpenFile(at("b"), os.O_RDWR|os.O_CREATE, 0o644); return err },
		func() error { _, err := b.WriteAt([]byte("xy"), 5000); return err },
		func() error { return b.Truncate(9000) },
		func() error { return syscall.Fdatasync(int(b.Fd())) },
		func() error { _, err := fmt.Println("half way"); return err },
		func() error { return os.Symlink("d", at("l")) },
		func() error { return os.Rename(at("l"), at("m")) },
		func() error { return sync(dir) },
		func() error { return sync(at("d")) },
		func() error { return os.Remove(at("m")) },
		func() error { return os.Remove(at("b")) },
		func() error { _, err := b.WriteAt([]byte("gone"), 0); return err },
		func() error { return os.WriteFile(dir+".other", []byte("x"), 0o644) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
