package watcher_test

import (
	"context"
	"fmt"
	"os"

	"trust-worker/watcher"
)

// The caller loads the trust directories upon each notice, and nothing else
// makes it do so: the first notice comes once all watches are in place.
func ExampleTrust() {
	dir, _ := os.MkdirTemp("", "trust")
	defer os.RemoveAll(dir)

	ctx, stop := context.WithCancel(context.Background())
	trust := watcher.NewTrust([]string{dir + "/_cosign", dir + "/_notation"}, watcher.Options{Stop: dir})
	ended := make(chan error)
	go func() { ended <- trust.Run(ctx) }()

	load := func() { // stands for reading every key and comparing with those in force
		keys, _ := os.ReadDir(dir + "/_cosign")
		fmt.Println("keys:", len(keys))
	}
	n := <-trust.C()
	load()
	trust.Reconciled(n)

	os.Mkdir(dir+"/_cosign", 0o755)
	n = <-trust.C()
	load()
	trust.Reconciled(n)

	stop()
	fmt.Println("error:", <-ended)
	// Output:
	// keys: 0
	// keys: 0
	// error: <nil>
}

// A scanner takes hints between its periodic scans, and gives the outcome of
// each walk to the watcher.
func ExampleRepositories() {
	root, _ := os.MkdirTemp("", "registry")
	defer os.RemoveAll(root)
	os.Mkdir(root+"/app", 0o755)

	ctx, stop := context.WithCancel(context.Background())
	repositories := watcher.NewRepositories(watcher.Options{})
	repositories.Set(map[string]watcher.Dir{root: {}, root + "/app": {Repository: "app"}})
	ended := make(chan error)
	go func() { ended <- repositories.Run(ctx) }()

	<-repositories.C()
	fmt.Println("all:", repositories.Take().All) // watches are in place from here on

	os.WriteFile(root+"/app/index.json", []byte("{}"), 0o644)
	<-repositories.C()
	fmt.Println("scan:", repositories.Take().Names)

	stop()
	fmt.Println("error:", <-ended)
	// Output:
	// all: true
	// scan: [app]
	// error: <nil>
}
