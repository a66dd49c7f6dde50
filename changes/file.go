package changes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// The file is the header, padded so that it can be written again in place, and
// one change a line. Changes are appended and synced before the header says
// that they are told, so that a file never claims what it does not hold. A new
// file takes its place, by rename, when it has grown to twice what is held.

const (
	headerSize = 256
	// maxLine bounds a line that is read: fields of a change are names and
	// digests, 255 bytes each at most.
	maxLine = 64 << 10
)

// journalFile is the file as written so far.
type journalFile struct {
	f       *os.File
	size    int64
	lines   int
	written uint64 // the number of the last change in it
	head    header // as it is in the file
	rewrite bool   // a new file is needed
	failed  bool   // the last save did
}

func (j *journalFile) close() error {
	if j.f == nil {
		return nil
	}
	f := j.f
	j.f = nil
	return f.Close()
}

// save makes the file hold what is held.
func (j *journalFile) save(path string, head header, held []Change) error {
	err := j.write(path, head, held)
	j.failed = err != nil
	return err
}

func (j *journalFile) write(path string, head header, held []Change) error {
	if j.f == nil || j.rewrite || j.lines > 2*MaxHeld || !j.inPlace(path) {
		return j.replace(path, head, held)
	}
	var b []byte
	last, lines := j.written, j.lines
	for i := range held {
		if held[i].Position.Number > j.written {
			line, err := json.Marshal(&held[i])
			if err != nil {
				return err
			}
			b = append(append(b, line...), '\n')
			last, lines = held[i].Position.Number, lines+1
		}
	}
	if len(b) > 0 {
		_, err := j.f.WriteAt(b, j.size)
		if err == nil {
			err = j.f.Sync()
		}
		if err != nil {
			return errors.Join(err, j.f.Truncate(j.size))
		}
		j.size, j.written, j.lines = j.size+int64(len(b)), last, lines
	}
	if head == j.head {
		return nil
	}
	line, err := head.line()
	if err != nil {
		return err
	}
	if _, err := j.f.WriteAt(line, 0); err != nil {
		return err
	}
	j.head = head
	return nil
}

// inPlace reports whether the path still leads to the file that is open.
func (j *journalFile) inPlace(path string) bool {
	a, errA := j.f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

func (j *journalFile) replace(path string, head header, held []Change) error {
	var b bytes.Buffer
	line, err := head.line()
	if err != nil {
		return err
	}
	b.Write(line)
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for i := range held {
		if err := e.Encode(&held[i]); err != nil {
			return err
		}
	}
	if err := renameio.WriteFile(path, b.Bytes(), 0o640, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = j.close()
	*j = journalFile{f: f, size: int64(b.Len()), lines: len(held), head: head}
	if n := len(held); n > 0 {
		j.written = held[n-1].Position.Number
	}
	return err
}

// line is the header as it is written: always of the same length.
func (h header) line() ([]byte, error) {
	b, err := json.Marshal(h)
	if err != nil || len(b) >= headerSize {
		return nil, fmt.Errorf("encode header of %d bytes: %w", len(b), err)
	}
	b = append(b, bytes.Repeat([]byte(" "), headerSize-1-len(b))...)
	return append(b, '\n'), nil
}

// readFile reads a journal's file. Of one that does not exist it returns
// nothing and no error; a last line without its end is left out.
func readFile(path string) (header, []Change, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return header{}, nil, nil
	}
	if err != nil {
		return header{}, nil, err
	}
	defer f.Close()
	return read(f)
}

func read(r io.Reader) (head header, held []Change, err error) {
	b := bufio.NewReaderSize(io.LimitReader(r, headerSize+3*MaxHeld*maxLine), maxLine)
	line, err := b.ReadSlice('\n')
	if err != nil || len(line) != headerSize {
		return header{}, nil, errors.New("it has no header")
	}
	if err := json.Unmarshal(line, &head); err != nil || head.Format != fileFormat {
		return header{}, nil, fmt.Errorf("its header cannot be read, or is of another format: %w", err)
	}
	for {
		line, err := b.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return head, held, nil
		}
		if err != nil {
			return header{}, nil, fmt.Errorf("after %d changes: %w", len(held), err)
		}
		var c Change
		if err := json.Unmarshal(line, &c); err != nil {
			return header{}, nil, fmt.Errorf("after %d changes: %w", len(held), err)
		}
		if n := len(held); n > 0 && c.Position.Number != held[n-1].Position.Number+1 || c.Position.CacheID != head.CacheID {
			return header{}, nil, fmt.Errorf("change %s is out of order", c.Position)
		}
		held = append(held, c)
	}
}
