package cache_test

import (
	"fmt"
	"log"

	"trust-worker/cache"
)

// A program that gates on trust: one snapshot for one decision, and everything
// but "trusted" is a no.
func ExampleOpenReader() {
	reader, err := cache.OpenReader("/var/lib/registry/_trust")
	if err != nil {
		fmt.Println("no answer:", err)
		return
	}
	defer reader.Close()

	snapshot, err := reader.Snapshot()
	if err != nil { // cache.ErrNoCache: nothing is published
		log.Fatal(err)
	}
	defer snapshot.Close()

	image, err := snapshot.Tag("team/app", "1.0")
	if err != nil { // cache.ErrNotFound
		log.Fatal(err)
	}
	for _, signature := range image.SignatureInfo {
		fmt.Println(signature.Tool, signature.IsTrusted, signature.Status, signature.Reason, signature.Author)
	}
}
