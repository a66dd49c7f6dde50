package integration

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"trust-worker/internal/signtest"
)

// The commands that change what the others have made, and that make signers.

func init() {
	corpusCommand("edit", "FILE|signature|image:REPO:TAG|index:REPO REGEXP REPLACEMENT", 3, 3, (*world).cmdEdit)
	corpusCommand("swap", "FILE FILE REGEXP", 3, 3, (*world).cmdSwap)
	corpusCommand("fill", "FILE TEXT [TIMES]", 2, 3, (*world).cmdFill)
	corpusCommand("flip", "FILES [AFTER [OFFSET]]", 1, 3, (*world).cmdFlip)
	corpusCommand("resize", "FILE|index:REPO BYTES", 2, 2, (*world).cmdResize)
	corpusCommand("fifo", "FILE", 1, 1, func(w *world, args []string) { w.check(unix.Mkfifo(w.path(args[0]), 0o644)) })
	corpusCommand("gzip", "FILE", 1, 1, (*world).cmdGzip)
	corpusCommand("zstd", "FILE", 1, 1, (*world).cmdZstd)
	corpusCommand("key", "NAME KIND", 2, 2, func(w *world, args []string) { w.newKey(args[0], signtest.Kind(args[1])) })
	corpusCommand("ca", "NAME [OPTION=VALUE...]", 1, -1, (*world).cmdCA)
	corpusCommand("leaf", "NAME CA [OPTION=VALUE...]", 2, -1, (*world).cmdLeaf)
	corpusCommand("tsa", "NAME CA [as=TSA]", 2, 3, (*world).cmdTSA)
	corpusCommand("trust", "NAME [STORE]", 1, 2, (*world).cmdTrust)
	corpusCommand("pem", "FILE key|private|certificate NAME", 3, 3, (*world).cmdPEM)
	corpusCommand("x5c", "FILE NAME[*TIMES]...", 2, -1, (*world).cmdX5C)
}

// include is a file in a replacement.
var include = regexp.MustCompile(`@[a-z]+`)

// cmdEdit replaces the first match, with the content of FILE for @FILE. A signature's manifest, and an image, are then
// stored under the digest that they have come to; index.json stays as it is
// left, whatever that is, so nothing may be added to its repository afterwards.
func (w *world) cmdEdit(args []string) {
	pattern, err := regexp.Compile("(?s)" + args[1])
	w.check(err)
	replace := func(b []byte) []byte {
		m := pattern.FindSubmatchIndex(b)
		if m == nil {
			w.fail("%s: nothing matches %s in\n%.4000s", args[0], args[1], b)
		}
		text, err := strconv.Unquote(`"` + strings.ReplaceAll(args[2], `"`, `\"`) + `"`)
		w.check(err)
		text = include.ReplaceAllStringFunc(text, func(name string) string { return string(w.read(name[1:])) })
		return append(pattern.Expand(bytes.Clone(b[:m[0]]), []byte(text), b, m), b[m[1]:]...)
	}
	if name, ok := strings.CutPrefix(args[0], "image:"); ok {
		img := w.image(name)
		b := w.read(w.blobPath(img.Repo, img.Digest))
		w.Remove(img)
		w.images[name] = w.Manifest(img.Repo, img.Tag, img.MediaType, replace(b))
		return
	}
	if args[0] == "signature" {
		old := w.last
		b := w.read(w.blobPath(old.Repo, old.Digest))
		w.Remove(old)
		w.last = w.Manifest(old.Repo, old.Tag, old.MediaType, replace(b))
		w.ts.Setenv("MANIFEST", w.blobPath(old.Repo, w.last.Digest))
		return
	}
	file := w.target(args[0])
	w.write(file, replace(w.read(file)))
}

// cmdSwap gives each of two files the other's match.
func (w *world) cmdSwap(args []string) {
	pattern, err := regexp.Compile("(?s)" + args[2])
	w.check(err)
	a, b := w.read(args[0]), w.read(args[1])
	x, y := pattern.Find(a), pattern.Find(b)
	if x == nil || y == nil || bytes.Equal(x, y) {
		w.fail("nothing to swap")
	}
	w.write(args[0], bytes.Replace(a, x, y, 1))
	w.write(args[1], bytes.Replace(b, y, x, 1))
}

// target is the file that is meant by FILE or index:REPO.
func (w *world) target(name string) string {
	if repo, ok := strings.CutPrefix(name, "index:"); ok {
		w.surround()
		w.surroundOne(repo)
		w.Storage = signtest.NewStorage(w.Dir) // which does not know that index.json by heart
		return filepath.Join(w.Dir, repo, "index.json")
	}
	return w.path(name)
}

// cmdFill writes TEXT so many times; TEXT may hold Go's escapes, such as \xd2.
func (w *world) cmdFill(args []string) {
	text, err := strconv.Unquote(`"` + strings.ReplaceAll(args[1], `"`, `\"`) + `"`)
	w.check(err)
	n := int64(1)
	if len(args) == 3 {
		n = w.number(args[2])
	}
	w.write(args[0], bytes.Repeat([]byte(text), int(n)))
}

// cmdFlip flips one bit: of the middle byte, or of the OFFSETth byte behind each
// occurrence of AFTER, which may hold Go's escapes.
func (w *world) cmdFlip(args []string) {
	files, err := filepath.Glob(w.path(args[0]))
	w.check(err)
	flips := 0
	for _, file := range files {
		b := w.read(file)
		var at []int
		if len(args) == 1 {
			at = []int{len(b) / 2}
		} else {
			after, err := strconv.Unquote(`"` + args[1] + `"`)
			w.check(err)
			offset := int64(0)
			if len(args) == 3 {
				offset = w.number(args[2])
			}
			for i := 0; ; {
				j := bytes.Index(b[i:], []byte(after))
				if j < 0 {
					break
				}
				i += j + len(after)
				at = append(at, i+int(offset))
			}
		}
		for _, i := range at {
			if i < len(b) {
				b[i] ^= 1
				flips++
			}
		}
		info, err := os.Stat(file)
		w.check(err)
		w.check(os.WriteFile(file, b, info.Mode()))
	}
	if flips == 0 {
		w.fail("nothing to flip in %s", args[0])
	}
}

// cmdResize cuts a file or makes it longer, by a hole.
func (w *world) cmdResize(args []string) {
	file := w.target(args[0])
	if _, err := os.Lstat(file); os.IsNotExist(err) {
		w.write(file, nil)
	}
	w.check(os.Truncate(file, w.number(args[1])))
}

func (w *world) cmdGzip(args []string) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(w.read(args[0]))
	w.check(err)
	w.check(z.Close())
	w.write(args[0], b.Bytes())
}

// cmdZstd makes a frame with one raw block (RFC 8878, section 3.1.1).
func (w *world) cmdZstd(args []string) {
	b := w.read(args[0])
	if len(b) > 1<<16 {
		w.fail("too large")
	}
	n := len(b)
	head := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, byte(n), byte(n >> 8), byte(n >> 16), 0, byte(n<<3 | 1), byte(n >> 5), byte(n >> 13)}
	w.write(args[0], append(head, b...))
}

var certificateOptions = []string{"under", "kind", "cn", "from", "until", "crl", "ocsp", "odd"}

func (w *world) certOptions(name string, o options) signtest.CertOptions {
	c := signtest.CertOptions{CommonName: name, Kind: signtest.Kind(o.get("kind")), NotBefore: w.at(o.get("from")), NotAfter: w.at(o.get("until")),
		CRL: o.get("crl"), OCSP: o.get("ocsp")}
	if c.Kind != "" {
		w.newKey("certificate of "+name, c.Kind)
		c.Key = w.key("certificate of " + name)
	}
	if o.has("cn") {
		c.CommonName = o.get("cn")
	}
	odd := oddities[o.get("odd")]
	if o.has("odd") && odd.template == nil && odd.publicKey == nil {
		w.fail("no such oddity: %s", o.get("odd"))
	}
	c.Change = func(t *x509.Certificate) {
		if o.has("from") && !o.has("until") {
			t.NotAfter = t.NotBefore.AddDate(100, 0, 0)
		}
		if odd.template != nil {
			odd.template(t)
		}
	}
	return c
}

func (w *world) cmdCA(args []string) {
	o := w.known(w.options(args[1:]), certificateOptions...)
	c := w.certOptions(args[0], o)
	if o.has("under") {
		w.authorities[args[0]] = w.authority(o.get("under")).Intermediate(c)
	} else {
		w.authorities[args[0]] = signtest.NewRoot(c)
	}
}

func (w *world) cmdLeaf(args []string) {
	o := w.known(w.options(args[2:]), certificateOptions...)
	chain := w.authority(args[1]).Leaf(w.certOptions(args[0], o))
	if key := oddities[o.get("odd")].publicKey; key != nil {
		chain.Certs[0] = w.authority(args[1]).Reissue(chain.Cert(), key(chain.Cert()))
	}
	w.leaves[args[0]] = chain
}

// cmdTSA makes a time-stamping authority below a CA; as another one: with that
// one's names and serial number, and its certificates in the token beside its own.
func (w *world) cmdTSA(args []string) {
	if len(args) == 2 {
		w.stamps[args[0]] = signtest.NewTSA(w.authority(args[1]), signtest.CertOptions{CommonName: "TSA of " + args[1]})
		return
	}
	w.stamps[args[0]] = w.stamps[w.known(w.options(args[2:]), "as").get("as")].Impostor(w.authority(args[1]))
}

func (w *world) cmdTrust(args []string) {
	if len(args) == 1 {
		w.TrustKey(args[0]+".pub", w.key(args[0]))
	} else {
		w.TrustCert(args[1], args[0]+".pem", w.authority(args[0]).Cert())
	}
}

func (w *world) cmdPEM(args []string) {
	switch args[1] {
	case "key":
		w.write(args[0], w.key(args[2]).PEM())
	case "private":
		w.write(args[0], w.key(args[2]).PrivatePEM())
	case "certificate":
		w.write(args[0], signtest.CertPEM(w.certificate(args[2])))
	default:
		w.fail("no such thing: %s", args[1])
	}
}

// cmdX5C gives a JWS other certificates: leaves by their names, authorities as
// ca:NAME, files of DER or anything as @FILE.
func (w *world) cmdX5C(args []string) {
	var e map[string]any
	w.check(json.Unmarshal(w.read(args[0]), &e))
	var chain []string
	for _, name := range args[1:] {
		name, times, ok := strings.Cut(name, "*")
		n := int64(1)
		if ok {
			n = w.number(times)
		}
		var der []byte
		if file, ok := strings.CutPrefix(name, "@"); ok {
			der = w.read(file)
		} else {
			der = w.certificate(name).Raw
		}
		for range n {
			chain = append(chain, base64.StdEncoding.EncodeToString(der))
		}
	}
	e["header"].(map[string]any)["x5c"] = chain
	b, err := json.Marshal(e)
	w.check(err)
	w.write(args[0], b)
}

// secretLines are the lines of a file that occur nowhere by accident.
func secretLines(b []byte) (lines [][]byte) {
	for _, line := range bytes.Split(b, []byte("\n")) {
		if len(line) >= 20 && !bytes.HasPrefix(line, []byte("-----")) {
			lines = append(lines, line)
			if der, err := base64.StdEncoding.DecodeString(string(line)); err == nil {
				lines = append(lines, der, []byte(hex.EncodeToString(der)))
			}
		}
	}
	return lines
}

// filesWith returns the regular files below dir that hold any of the lines.
func filesWith(dir string, lines [][]byte) (found []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, line := range lines {
			if bytes.Contains(b, line) {
				found = append(found, path)
				break
			}
		}
		return err
	})
	return found, err
}
