package page

import (
	"embed"
	"path"

	"trust-worker/trust"
)

//go:embed static
var assetFiles embed.FS

// Asset is a file that pages refer to.
type Asset struct {
	Type    string // media type
	Content []byte
	Version string // of the content: it is in the address, so that it can be kept for ever
}

// mediaTypes by extension: the machine's own table is not asked.
var mediaTypes = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// assets by name.
var assets = readAssets()

func readAssets() map[string]Asset {
	entries, err := assetFiles.ReadDir("static")
	if err != nil {
		panic(err) // they are in the program
	}
	out := map[string]Asset{}
	for _, e := range entries {
		b, err := assetFiles.ReadFile("static/" + e.Name())
		if err != nil {
			panic(err)
		}
		out[e.Name()] = Asset{Type: mediaTypes[path.Ext(e.Name())], Content: b, Version: trust.SumOf(b).Hex()[:12]}
	}
	return out
}

// FindAsset returns the file of a name.
func FindAsset(name string) (a Asset, ok bool) {
	a, ok = assets[name]
	return a, ok
}

// assetURL is where a page finds a file.
func assetURL(name string) string { return pathAssets + name + "?v=" + assets[name].Version }
