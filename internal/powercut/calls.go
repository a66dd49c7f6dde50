package powercut

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// call takes in one call that succeeded.
func (p *parser) call(name string, args []string, result string) error {
	if slices.Contains(refused, name) {
		if slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, p.root) }) {
			return fmt.Errorf("%s is not modelled", name)
		}
		return nil
	}
	switch name {
	case "open", "creat":
		return p.open(filepath.Clean(text(args[0])), strings.Join(args[1:], " ")+map[bool]string{true: "O_WRONLY|O_CREAT|O_TRUNC"}[name == "creat"], result)
	case "openat":
		return p.open(under(args[0], args[1]), args[2], result)
	case "write":
		return p.write(args, result)
	case "pwrite64":
		return p.pwrite(args, result)
	case "lseek":
		at, err := strconv.ParseInt(result, 10, 64)
		p.offsets[number(args[0])] = at
		return err
	case "mmap":
		if _, ok := p.below(described(args[4])); ok && strings.Contains(args[2], "PROT_WRITE") && strings.Contains(args[3], "MAP_SHARED") {
			return errors.New("a writable shared mapping is not modelled")
		}
		return nil
	case "ftruncate":
		size, err := strconv.ParseInt(args[1], 10, 64)
		return errors.Join(err, p.add(Op{Kind: Truncate, Path: described(args[0]), Size: size}))
	case "fsync":
		return p.add(Op{Kind: Sync, Path: described(args[0])})
	case "fdatasync":
		return p.add(Op{Kind: SyncData, Path: described(args[0])})
	case "mkdir":
		return p.add(Op{Kind: Mkdir, Path: text(args[0])})
	case "mkdirat":
		return p.add(Op{Kind: Mkdir, Path: under(args[0], args[1])})
	case "unlink", "rmdir":
		return p.add(Op{Kind: Unlink, Path: text(args[0])})
	case "unlinkat":
		return p.add(Op{Kind: Unlink, Path: under(args[0], args[1])})
	case "symlink":
		return p.add(Op{Kind: Symlink, Path: text(args[1]), To: text(args[0])})
	case "symlinkat":
		return p.add(Op{Kind: Symlink, Path: under(args[1], args[2]), To: text(args[0])})
	case "rename":
		return p.rename(text(args[0]), text(args[1]), "0")
	case "renameat":
		return p.rename(under(args[0], args[1]), under(args[2], args[3]), "0")
	case "renameat2":
		return p.rename(under(args[0], args[1]), under(args[2], args[3]), args[4])
	case "utimensat":
		at := described(args[0])
		if args[1] != "NULL" {
			at = under(args[0], args[1])
		}
		return p.times(at, args[2])
	}
	return fmt.Errorf("%s is traced and not known", name)
}

// add notes an operation whose paths are absolute, if it is below root.
func (p *parser) add(o Op) error {
	below, ok := p.below(o.Path)
	if ok {
		o.Path = below
		p.ops = append(p.ops, o)
	}
	return nil
}

// below returns a path relative to root.
func (p *parser) below(path string) (string, bool) {
	rel, err := filepath.Rel(p.root, path)
	return rel, err == nil && filepath.IsLocal(rel) && !strings.HasSuffix(path, "(deleted)")
}

func (p *parser) open(path, flags, result string) error {
	fd := number(result)
	p.offsets[fd] = 0
	if strings.Contains(flags, "O_RDWR") || strings.Contains(flags, "O_APPEND") {
		p.offsets[fd] = -1 // reads move it too, and those are not traced
	}
	if _, ok := p.below(path); !ok {
		return nil
	}
	for _, flag := range []string{"O_TMPFILE", "SYNC", "O_DIRECT|"} {
		if strings.Contains(flags, flag) {
			return fmt.Errorf("%s is not modelled", flag)
		}
	}
	if strings.Contains(flags, "O_CREAT") {
		if err := p.add(Op{Kind: Create, Path: path}); err != nil {
			return err
		}
	}
	if strings.Contains(flags, "O_TRUNC") {
		return p.add(Op{Kind: Truncate, Path: path})
	}
	return nil
}

func (p *parser) write(args []string, result string) error {
	fd, data := number(args[0]), text(args[1])
	n, err := strconv.Atoi(result)
	if err != nil || n > len(data) {
		return errors.New("more was written than is known")
	}
	if fd == "1" {
		p.ops = append(p.ops, Op{Kind: Said, Data: []byte(data[:n])})
		return nil
	}
	if _, ok := p.below(described(args[0])); !ok {
		return nil
	}
	at, ok := p.offsets[fd]
	if !ok || at < 0 {
		return errors.New("written at an offset that is not known")
	}
	p.offsets[fd] += int64(n)
	return p.add(Op{Kind: Write, Path: described(args[0]), Data: []byte(data[:n]), Offset: at})
}

func (p *parser) pwrite(args []string, result string) error {
	data := text(args[1])
	n, err := strconv.Atoi(result)
	at, err2 := strconv.ParseInt(args[3], 10, 64)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	if n > len(data) {
		return errors.New("more was written than is known")
	}
	return p.add(Op{Kind: Write, Path: described(args[0]), Data: []byte(data[:n]), Offset: at})
}

func (p *parser) rename(from, to, flags string) error {
	a, okA := p.below(from)
	b, okB := p.below(to)
	switch {
	case !okA && !okB:
		return nil
	case okA != okB, filepath.Dir(a) != filepath.Dir(b), flags != "0" && flags != "RENAME_NOREPLACE":
		return errors.New("a rename from one directory to another is not modelled")
	}
	p.ops = append(p.ops, Op{Kind: Rename, Path: a, To: b})
	return nil
}

var timeOf = regexp.MustCompile(`tv_sec=(-?\d+), tv_nsec=(\d+)`)

// times takes the second of the two times: the modification's.
func (p *parser) times(path, times string) error {
	if _, ok := p.below(path); !ok {
		return nil
	}
	both := timeOf.FindAllStringSubmatch(times, -1)
	if len(both) != 2 {
		return errors.New("times that are not modelled")
	}
	seconds, err := strconv.ParseInt(both[1][1], 10, 64)
	nanoseconds, err2 := strconv.ParseInt(both[1][2], 10, 64)
	return errors.Join(err, err2, p.add(Op{Kind: Times, Path: path, Time: time.Unix(seconds, nanoseconds)}))
}

// number is the descriptor in "3</path>".
func number(arg string) string {
	n, _, _ := strings.Cut(arg, "<")
	return n
}

// described is the path in "3</path>" or "AT_FDCWD</path>"; "(deleted)" stays at
// its end.
func described(arg string) string {
	_, path, _ := strings.Cut(arg, "<")
	if end := strings.LastIndex(path, ">"); end >= 0 {
		path = path[:end] + path[end+1:]
	}
	return path
}

// text is what quotes hold.
func text(arg string) string {
	return strings.TrimSuffix(strings.TrimPrefix(arg, `"`), `"`)
}

// under is a path that a call gave relative to a descriptor.
func under(fd, path string) string {
	if path = text(path); filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(described(fd), path)
}
