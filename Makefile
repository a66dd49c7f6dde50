# make help lists the targets.
SHELL := /bin/bash
GO ?= go
export GOFLAGS ?= -mod=readonly
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.1.4
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.11
GQLGEN := github.com/99designs/gqlgen@v0.17.94
PACKAGES := ./...
# A module of its own, since it remakes the fixtures with the signing tools.
FIXTURES := integration/fixtures
FUZZTIME ?= 1m

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: bin/trust-worker ## build bin/trust-worker

.PHONY: bin/trust-worker
bin/trust-worker:
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/trust-worker

.PHONY: run
run: build ## run on ROOT=DIR; without ROOT on a small sample registry (trust-worker demo)
ifdef ROOT
	./bin/trust-worker serve --root '$(ROOT)' $(ARGS)
else
	./bin/trust-worker demo $(ARGS)
endif

.PHONY: test
test: ## run all tests (race detector, shuffled)
	$(GO) test -race -shuffle=on -timeout 20m $(PACKAGES)
	$(GO) test -race -shuffle=on -timeout 20m ./scheduler -layout distribution
	$(GO) -C $(FIXTURES) test -race -shuffle=on ./...

.PHONY: screenshots
screenshots: ## remake docs/images with a headless chromium
	TRUST_WORKER_SCREENSHOTS='$(CURDIR)/docs/images' $(GO) test -count 1 -run TestScreenshots ./server

.PHONY: torture
torture: ## the long loops: more turns, more cases; prints what they did
	@mkdir -p bin
	set -o pipefail; TRUST_WORKER_TORTURE=1 $(GO) test -race -shuffle=on -timeout 6h -v -run 'Torture|Model|Script|Corpus|Differential|Kill|Damage|FullDisk|History|AGroup' $(PACKAGES) | tee bin/torture.log
	@grep -E 'wrongly trusted' bin/torture.log

.PHONY: lint
lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'not gofmt-ed:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet $(PACKAGES)
	$(GO) run $(STATICCHECK) $(PACKAGES)
	$(GO) -C $(FIXTURES) vet ./...
	cd $(FIXTURES) && $(GO) run $(STATICCHECK) ./...

.PHONY: vuln
vuln: ## govulncheck (needs its on-line database)
	$(GO) run $(GOVULNCHECK) $(PACKAGES)

.PHONY: fuzz
# By default each input of interest may be made smaller for a minute, which a
# target whose coverage varies spends on nothing else.
fuzz: ## give each fuzz target FUZZTIME
	@set -e; for pkg in $$($(GO) list $(PACKAGES)); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
	  done; done

.PHONY: bench
bench: ## benchmarks, each with its floor beside it
	$(GO) test -run '^$$' -bench . -benchmem $(PACKAGES)

ARCH ?= $(shell $(GO) env GOHOSTARCH)
.PHONY: package
package: ## build deb, rpm and archive for ARCH into bin/package
	VERSION='$(VERSION)' GO='$(GO)' packaging/release.sh bin/package $(ARCH)

.PHONY: release
release: ## the same for amd64 and arm64, with bills of materials and hashes, into bin/release
	VERSION='$(VERSION)' GO='$(GO)' packaging/release.sh bin/release amd64 arm64

.PHONY: reproducible
reproducible: ## build the packages twice, in two directories, and compare every byte
	VERSION='$(VERSION)' GO='$(GO)' packaging/reproducible.sh $(ARCH)

.PHONY: man
man: build ## write the manual into bin/man
	rm -rf bin/man && mkdir bin/man && ./bin/trust-worker man bin/man

.PHONY: image
image: ## build a container image from the source (needs docker)
	docker build -f packaging/docker/Dockerfile --build-arg VERSION='$(VERSION)' -t trust-worker:$(VERSION) .

.PHONY: fixtures
fixtures: ## remake integration/testdata with the real signing tools
	integration/fixtures/make.sh

.PHONY: generate
generate: ## remake the table of the corpus in docs/security.md, and generated code (needs protoc)
	$(GO) test ./integration -run 'TestCorpusInTheDocumentation$$' -update
	GOBIN=$(CURDIR)/bin $(GO) install $(PROTOC_GEN_GO)
	PATH="$(CURDIR)/bin:$$PATH" protoc --go_out=. --go_opt=module=trust-worker cache/internal/cachepb/cache.proto
	GOBIN=$(CURDIR)/bin $(GO) install $(GQLGEN)
	cd server/graph/schema && $(CURDIR)/bin/gqlgen generate --config gqlgen.yml

N ?= 10000
FACTS ?= 1000000
.PHONY: bench-keyless
bench-keyless: build ## measure identities: N keyless signatures in storage, FACTS put into a store (N=10000 FACTS=1000000)
	$(GO) build -o bin/scale ./integration/scale
	./bin/scale -keyless $(N) -facts $(FACTS) -out bin/bench-keyless.json
	./bin/scale -table bin/bench-keyless.json | tee bin/bench-keyless.md

.PHONY: bench-scale
bench-scale: build ## measure the daemon on N signatures; writes bin/bench-scale-N.json and .md (N=10000)
	$(GO) build -o bin/scale ./integration/scale
	SCALE_ARGS='$(ARGS)' ./bin/scale -n $(N) -out bin/bench-scale-$(N).json $(ARGS)
	./bin/scale -table bin/bench-scale-$(N).json | tee bin/bench-scale-$(N).md

.PHONY: bench-follow
bench-follow: build ## measure replicas of N signatures: first copy, how far behind, what many cost (N=10000)
	$(GO) build -o bin/follow ./integration/follow
	./bin/follow -n $(N) $(ARGS) | tee bin/bench-follow-$(N).md

.PHONY: bench-fleet
bench-fleet: build ## measure workers that share facts over NATS, on N signatures (N=10000)
	$(GO) build -o bin/scale ./integration/scale
	$(GO) build -o bin/fleet ./integration/fleet
	./bin/fleet -n $(N) $(ARGS) | tee bin/bench-fleet-$(N).md

.PHONY: bench-noisy
bench-noisy: build ## measure how long a push waits beside repositories full of each costly kind (10 minutes)
	$(GO) run ./integration/noisy $(ARGS)

.PHONY: bench-plot
bench-plot: ## tables and picture of all runs in docs/performance
	$(GO) run ./integration/scale -benchmarks docs/performance/benchmarks.txt
	$(GO) run ./integration/scale -table docs/performance/[0-9]*.json
	$(GO) run ./integration/scale -growth $(filter-out %-repositories.json,$(wildcard docs/performance/[0-9]*.json))
	$(GO) run ./integration/scale -plot docs/performance/scale.svg $(filter-out %-repositories.json,$(wildcard docs/performance/[0-9]*.json))

REF ?= HEAD~1
.PHONY: bench-compare
bench-compare: ## compare benchmarks with those at REF (benchstat)
	@mkdir -p bin
	set -e; tmp=$$(mktemp -d); trap 'git worktree remove --force '$$tmp EXIT; git worktree add -q $$tmp $(REF); \
	(cd $$tmp && $(GO) test -run '^$$' -bench . -count 6 $(PACKAGES) >$(CURDIR)/bin/bench-old.txt); \
	$(GO) test -run '^$$' -bench . -count 6 $(PACKAGES) >bin/bench-new.txt; \
	$(GO) run golang.org/x/perf/cmd/benchstat@v0.0.0-20250710210952-7e25e3e25a9c bin/bench-old.txt bin/bench-new.txt
