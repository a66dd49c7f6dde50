package integration

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
)

// The commands that make images and signatures.

func init() {
	corpusCommand("image", "REPO:TAG [as=REPO:TAG]", 1, 2, (*world).cmdImage)
	corpusCommand("index", "REPO:TAG CHILD...", 2, -1, (*world).cmdIndex)
	corpusCommand("tag", "REPO:TAG TAG", 2, 2, (*world).cmdTag)
	corpusCommand("untag", "REPO:TAG | signature", 1, 1, (*world).cmdUntag)
	corpusCommand("sign", "REPO:TAG SIGNER FORM [OPTION=VALUE...]", 3, -1, (*world).cmdSign)
	corpusCommand("attach", "REPO:TAG FORM FILE... [OPTION=VALUE...]", 2, -1, (*world).cmdAttach)
	corpusCommand("payload", "FILE simple|statement|target|header REPO:TAG", 3, 3, (*world).cmdPayload)
}

// options are OPTION=VALUE arguments; a value @FILE is the file's content, and that
// of NAME=@FILE is NAME= and the file's content.
type options map[string][]string

func (w *world) options(args []string) options {
	o := options{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			w.fail("%q is not OPTION=VALUE", arg)
		}
		if file, ok := strings.CutPrefix(value, "@"); ok {
			value = string(w.read(file))
		} else if inner, file, ok := strings.Cut(value, "=@"); ok {
			value = inner + "=" + string(w.read(file))
		}
		o[name] = append(o[name], value)
	}
	return o
}

func (o options) has(name string) bool { return len(o[name]) > 0 }

func (o options) get(name string) string {
	if !o.has(name) {
		return ""
	}
	return o[name][0]
}

// known fails for options that a command does not have.
func (w *world) known(o options, names ...string) options {
	for name := range o {
		if !slices.Contains(names, name) {
			w.fail("no option %s; there are %s", name, strings.Join(names, ", "))
		}
	}
	return o
}

func (w *world) number(text string) int64 {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
	w.check(err)
	return n
}

// at is a moment, given as a duration from now.
func (w *world) at(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	d, err := time.ParseDuration(text)
	w.check(err)
	return time.Now().Add(d)
}

func (w *world) cmdImage(args []string) {
	o := w.known(w.options(args[1:]), "as")
	if o.has("as") {
		repo, tag, _ := strings.Cut(args[0], ":")
		w.images[args[0]] = w.Content(repo, tag, o.get("as"))
	}
	img := w.image(args[0])
	w.ts.Setenv("IMAGE", w.blobPath(img.Repo, img.Digest))
	w.ts.Setenv("DIGEST", img.Digest.String())
}

func (w *world) cmdIndex(args []string) {
	var children []signtest.Image
	for _, name := range args[1:] {
		children = append(children, w.image(name))
	}
	repo, tag, _ := strings.Cut(args[0], ":")
	w.images[args[0]] = w.Index(repo, tag, children...)
}

func (w *world) cmdTag(args []string) {
	img := w.image(args[0])
	w.images[img.Repo+":"+args[1]] = w.Tag(img, args[1])
}

func (w *world) cmdUntag(args []string) {
	if args[0] == "signature" {
		w.Remove(w.last)
		return
	}
	w.Remove(w.image(args[0]))
	delete(w.images, args[0])
}

// cmdPayload writes what is going to be signed, or a JWS's protected header.
func (w *world) cmdPayload(args []string) {
	img := w.image(args[2])
	var b []byte
	switch args[1] {
	case "simple":
		b = signtest.Payload(img.Trust())
	case "statement":
		b = signtest.Statement(img.Trust(), signtest.SignPredicate)
	case "target":
		b = signtest.Target(img.Descriptor)
	case "header":
		b, _ = json.Marshal(signtest.Protected("ES256", time.Now()))
	default:
		w.fail("no such payload: %s", args[1])
	}
	w.write(args[0], b)
}

// made is one signature, not yet attached.
type made struct {
	layer ocispec.Descriptor
	blob  []byte
}

var (
	signOptions = []string{"of", "payload", "blob", "to", "times", "tag", "size", "digest", "mediatype"}
	formOptions = map[string][]string{
		"simple":   {"hash", "pure", "certificate", "annotation"},
		"referrer": {"hash", "pure", "certificate", "annotation"},
		"bundle":   {"hash", "pure", "predicate", "type"},
		"jws":      {"header", "mac", "time", "expiry", "critical", "authority", "stamp", "stamped"},
		"cose":     {"time", "expiry", "critical", "authority"},
	}
	artifactTypes = map[string]string{"referrer": signtest.CosignArtifactType, "bundle": signtest.BundleMediaType,
		"jws": signtest.NotationArtifactType, "cose": signtest.NotationArtifactType}
	layerTypes = map[string]string{"simple": signtest.SimpleMediaType, "referrer": signtest.SimpleMediaType, "bundle": signtest.BundleMediaType,
		"jws": signtest.JWSMediaType, "cose": signtest.COSEMediaType}
)

func (w *world) cmdSign(args []string) {
	form := args[2]
	if formOptions[form] == nil {
		w.fail("no such form: %s", form)
	}
	o := w.known(w.options(args[3:]), append(slices.Clone(signOptions), formOptions[form]...)...)
	img := w.image(args[0])
	of := img
	if o.has("of") {
		of = w.image(o.get("of"))
	}
	times := int64(1)
	if o.has("times") {
		times = w.number(o.get("times"))
	}
	var all []made
	for range times {
		all = append(all, w.alter(w.make(of, args[1], form, o), o))
	}
	if o.has("to") {
		w.write(o.get("to"), all[0].blob)
		return
	}
	w.attach(img, form, o.get("tag"), all...)
}

// make makes a signature by signer about an image.
func (w *world) make(of signtest.Image, signer, form string, o options) made {
	var payload []byte
	if o.has("payload") {
		payload = w.read(o.get("payload"))
	}
	switch form {
	case "simple", "referrer", "bundle":
		c := signtest.CosignOptions{Payload: payload, Pure: o.has("pure"), Certificate: o.get("certificate"),
			PredicateType: o.get("predicate"), PayloadType: o.get("type"), Annotations: map[string]string{}, Hash: hashes[o.get("hash")]}
		for _, a := range o["annotation"] {
			name, value, _ := strings.Cut(a, "=")
			c.Annotations[name] = value
		}
		if form == "bundle" {
			return layerOf(form, signtest.BundleJSON(of.Trust(), w.key(signer), c))
		}
		layer, blob := signtest.SimpleLayer(of.Trust(), w.key(signer), c)
		return made{layer, blob}
	}
	chain := w.leaf(signer)
	if payload == nil {
		payload = signtest.Target(of.Descriptor)
	}
	if o.has("header") {
		envelope := signtest.RawJWS(w.read(o.get("header")), payload, chain)
		if o.has("mac") {
			envelope = macJWS(envelope, chain.Cert())
		}
		return layerOf(form, envelope)
	}
	n := signtest.NotationOptions{COSE: form == "cose", Payload: payload, Time: w.at(o.get("time")), Expiry: w.at(o.get("expiry")),
		SigningAuthority: o.has("authority"), Stamped: w.at(o.get("stamped"))}
	if o.has("stamp") {
		n.TSA = w.stamps[o.get("stamp")]
	}
	for _, a := range o["critical"] {
		name, value, _ := strings.Cut(a, "=")
		n.Attributes = append(n.Attributes, signature.Attribute{Key: name, Critical: true, Value: value})
	}
	_, envelope := signtest.Envelope(of.Descriptor, chain, n)
	return layerOf(form, envelope)
}

var hashes = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha224": crypto.SHA224, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

func layerOf(form string, blob []byte) made {
	return made{ocispec.Descriptor{MediaType: layerTypes[form], Digest: digest.FromBytes(blob), Size: int64(len(blob))}, blob}
}

// macJWS replaces a JWS's signature by an HMAC keyed with what everybody knows:
// the PEM text of the signer's public key.
func macJWS(envelope []byte, cert *x509.Certificate) []byte {
	var e map[string]any
	if err := json.Unmarshal(envelope, &e); err != nil {
		panic(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: cert.RawSubjectPublicKeyInfo})
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(e["protected"].(string) + "." + e["payload"].(string)))
	e["signature"] = base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return b
}

// alter makes a layer's descriptor say something else than its blob is, or its
// blob something else than was signed.
func (w *world) alter(m made, o options) made {
	if o.has("blob") {
		m.blob = w.read(o.get("blob"))
		m.layer.Digest, m.layer.Size = digest.FromBytes(m.blob), int64(len(m.blob))
	}
	if o.has("size") {
		m.layer.Size = w.number(o.get("size"))
	}
	if o.has("digest") {
		m.layer.Digest = digest.Digest(o.get("digest"))
	}
	if o.has("mediatype") {
		m.layer.MediaType = o.get("mediatype")
	}
	return m
}

func (w *world) cmdAttach(args []string) {
	img, form := w.image(args[0]), args[1]
	if artifactTypes[form] == "" {
		w.fail("no such form: %s", form)
	}
	var layers []ocispec.Descriptor
	o := w.known(w.options(slices.DeleteFunc(slices.Clone(args[2:]), isFile)), "size", "digest", "mediatype")
	var m made
	for _, file := range args[2:] {
		if !isFile(file) {
			continue
		}
		m = w.alter(layerOf(form, w.read(file)), o)
		w.Blob(img.Repo, m.blob)
		layers = append(layers, m.layer)
	}
	w.stored(w.Attach(img, artifactTypes[form], layers...), m.blob)
}

func isFile(arg string) bool { return !strings.Contains(arg, "=") }

// attach stores signatures as registries hold them: simple ones as layers of the
// image's .sig manifest, referrers as layers of one manifest, others each in a
// manifest of its own. A tag replaces that of the .sig manifest.
func (w *world) attach(img signtest.Image, form, tag string, all ...made) {
	if tag == "" {
		tag = signtest.SigTag(img.Trust())
	}
	switch form {
	case "simple":
		w.layers[img.Repo+":"+tag] = append(w.layers[img.Repo+":"+tag], all...)
		w.stored(w.Layers(img.Repo, tag, w.blobs(img.Repo, w.layers[img.Repo+":"+tag])...), all[len(all)-1].blob)
	case "referrer":
		w.stored(w.Attach(img, artifactTypes[form], w.blobs(img.Repo, all)...), all[len(all)-1].blob)
	default:
		w.Batch(func() {
			for _, m := range all {
				w.stored(w.Attach(img, artifactTypes[form], w.blobs(img.Repo, []made{m})...), m.blob)
			}
		})
	}
}

func (w *world) blobs(repo string, all []made) (layers []ocispec.Descriptor) {
	for i, m := range all {
		if i == 0 || !bytes.Equal(m.blob, all[i-1].blob) {
			w.Blob(repo, m.blob)
		}
		layers = append(layers, m.layer)
	}
	return layers
}

// stored remembers what was stored last: "signature" in other commands, and its
// files in $MANIFEST and $BLOB.
func (w *world) stored(manifest signtest.Image, blob []byte) {
	w.last = manifest
	if w.ts == nil {
		return // before the first line
	}
	w.ts.Setenv("SIGNATURE", manifest.Digest.String())
	w.ts.Setenv("MANIFEST", w.blobPath(manifest.Repo, manifest.Digest))
	w.ts.Setenv("BLOB", w.blobPath(manifest.Repo, digest.FromBytes(blob)))
}

func (w *world) blobPath(repo string, d digest.Digest) string {
	return filepath.Join(w.Dir, filepath.FromSlash(repo), "blobs", "sha256", d.Encoded())
}
