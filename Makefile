# Debian or Ubuntu with rustup and Python 3 is all that is assumed. Every target first installs what it
# needs, pinned, into git-ignored folders (.venv, .tools); only missing Debian packages need root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
SETUP := integration/setup.sh
FILTER := flag-definitions-filter
# Panic messages name source files: without the places where this machine keeps them, so that the same sources give the
# same bytes anywhere. Expanded where it is used, since rustc need not be there yet.
REMAP = --remap-path-prefix=$(CURDIR)=/flag-definitions-filter \
	--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}/registry/src=/crates \
	--remap-path-prefix=$$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$$(rustc -vV | sed -n 's/^commit-hash: //p')
# Half of LLVM's own threshold: 60 KB less, and no slower.
INLINE = -Cllvm-args=-inline-threshold=80
FILTER_BUILD = CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="$(REMAP) $(INLINE)" \
	CARGO_TARGET_WASM32_WASIP1_LINKER="$(CURDIR)/src/wasm/link.sh" \
	cargo build --release --locked --target wasm32-wasip1 -p $(FILTER)
# What is built in beside PostHog's surface: all, or nothing with SURFACES=posthog.
FEATURES = $(if $(SURFACES),$(if $(filter posthog,$(SURFACES)),--no-default-features --features host,$(error SURFACES=$(SURFACES): expected posthog, or nothing for all)))
WASM := flag_definitions_filter.wasm

# Tools installed here come after those of the machine.
export PATH := $(PATH):$(CURDIR)/.tools/bin

# Read by the launcher; `make up EDGE_PORT=11000` and `EDGE_PORT=11000 make up` are the same.
export EDGE_PORT ADMIN_PORT HEALTH_PORT REDIS_PORT WEBDIS_PORT
export FLAGSMITH_CONFIG FLAGSMITH_UPSTREAM FLAGD_URI OFREP_UPSTREAM
export SNAPSHOT CONFIG UPSTREAM CONCURRENCY WATCH DATABASE_URL PUBLISHER_PORT

# Stamps: a finished installation is not looked at again until its pin changes.
VENV := .venv/installed
NODE_PACKAGES := integration/node/node_modules/installed
RUST := .tools/rust
NEXTEST := .tools/nextest
WASM_BINDGEN := .tools/wasm-bindgen
CARGO_FUZZ := .tools/cargo-fuzz
OHA := .tools/oha

.PHONY: help
help: ## Show this list
	@echo 'Targets:'
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  \1\t\2/p' Makefile | expand -t 20
	@echo 'Variables of run, up and down, with their defaults:'
	@echo '  EDGE_PORT 10000, ADMIN_PORT 9901, HEALTH_PORT 10001, REDIS_PORT 16379, WEBDIS_PORT 17379'
	@echo '  SNAPSHOT          source document to publish (samples)'
	@echo '  CONFIG            plugin configuration: a JSON file, or JSON (filter-config/examples/local.json)'
	@echo '  UPSTREAM          host:port behind the filter (none: other paths answer 404)'
	@echo '  SURFACES          posthog: a filter without the other surfaces (of build; all)'
	@echo '  FLAGSMITH_CONFIG  a Flagsmith Edge Proxy configuration file: the publisher follows its environments (off)'
	@echo '  FLAGSMITH_UPSTREAM  host:port of an Edge Proxy behind the filter (none)'
	@echo '  FLAGD_URI         flagd sources, separated by spaces: file:PATH, http://… or https://…: the publisher follows them (off)'
	@echo '  OFREP_UPSTREAM    host:port of a flagd behind the filter (none)'
	@echo '  CONCURRENCY       Envoy workers (2)'
	@echo '  WATCH=1           the publisher watches the PostgreSQL of DATABASE_URL instead of publishing SNAPSHOT'
	@echo '  DATABASE_URL      postgresql://user:password@host:port/database, for WATCH=1'
	@echo '  PUBLISHER_PORT    its /metrics and /healthz (9105)'
	@echo 'Variable of test:'
	@echo '  TEST_PROCESSES    files of integration tests side by side (2)'
	@echo 'Variable of bench, bench-soak and bench-instructions:'
	@echo '  BENCH_OPTIONS     of the Python file that each of them runs, e.g. --quick or --help'

# === Parts ===

.PHONY: setup
# Benchmarks and fuzzing install what they alone need: compiling it takes longer than all else together.
setup: $(VENV) $(NODE_PACKAGES) $(RUST) $(NEXTEST) $(WASM_BINDGEN) test-packages ## Install what the targets but bench and fuzz need
	@$(SETUP) packages node

.PHONY: stack-packages
stack-packages:
	@$(SETUP) packages redis-server webdis

.PHONY: test-packages
test-packages: stack-packages
	@$(SETUP) packages postgresql busybox

$(VENV): integration/requirements.txt $(SETUP)
	$(SETUP) python
	@touch $@

$(NODE_PACKAGES): integration/node/package-lock.json $(SETUP)
	@$(SETUP) packages node
	$(SETUP) node-packages
	@touch $@

$(RUST): rust-toolchain.toml $(SETUP)
	$(SETUP) rust
	@mkdir -p $(@D) && touch $@

$(NEXTEST): $(SETUP)
	$(SETUP) nextest
	@mkdir -p $(@D) && touch $@

$(WASM_BINDGEN): $(SETUP)
	$(SETUP) wasm-bindgen
	@mkdir -p $(@D) && touch $@

$(CARGO_FUZZ): $(SETUP)
	$(SETUP) fuzz
	@mkdir -p $(@D) && touch $@

$(OHA): $(SETUP)
	$(SETUP) oha
	@mkdir -p $(@D) && touch $@

# === Build ===

.PHONY: build
build: filter ## Build the filter (wasm) and the publisher
	cargo build --release --locked -p flag-definitions-publisher

# With its SHA-256, which Envoy Gateway and Istio ask for.
.PHONY: filter
filter: $(RUST)
	$(FILTER_BUILD) $(FEATURES)
	cd target/wasm32-wasip1/release && sha256sum $(WASM) > $(WASM).sha256

.PHONY: reproducible
reproducible: $(RUST) ## Build the filter twice, in two places, and compare
	@integration/reproducible.sh

# The same filter with faults that tests can trigger. Never what `build` leaves behind.
.PHONY: build-faults
build-faults: $(RUST)
	$(FILTER_BUILD) --features fault-injection --target-dir target/faults

# As `make build SURFACES=posthog` builds it, beside the one of all surfaces.
.PHONY: build-posthog
build-posthog: $(RUST)
	$(FILTER_BUILD) --no-default-features --features host --target-dir target/posthog

# All that the tests need. Each of the four ends in a step of one core, so the publisher's runs beside those of the filters.
.PHONY: build-tested
build-tested: filter
	cargo build --release --locked -p flag-definitions-publisher & publisher=$$!; \
	$(MAKE) --no-print-directory build-faults build-posthog && wait $$publisher || { wait; exit 1; }

FLAGD_PEER := target/peers/flagd/flagd

# What the benchmark compares with; flagd's engine where there is Go.
.PHONY: build-bench
build-bench: build $(if $(shell command -v go),$(FLAGD_PEER))
	cargo build --release --locked --target wasm32-wasip1 -p bench-filters
	cargo build --release --locked -p bench-service

# === Local stack ===

.PHONY: run
run: build $(VENV) stack-packages ## Run the stack in the foreground until Ctrl-C
	@exec $(PYTHON) integration/stack.py run

.PHONY: up
up: build $(VENV) stack-packages ## Start the stack in the background; returns when it is ready
	@$(PYTHON) integration/stack.py up

.PHONY: down
down: $(VENV) ## Stop the stack of this EDGE_PORT
	@$(PYTHON) integration/stack.py down

# === Checks ===

.PHONY: test
test: test-rust test-node test-integration ## Run all tests; needs nothing started

.PHONY: test-rust
test-rust: $(RUST) $(NEXTEST) test-packages
	cargo nextest run --locked
	cargo test --doc --locked

# The pure rooms, compiled to wasm and run under Node.
.PHONY: test-node
test-node: $(RUST) $(WASM_BINDGEN)
	@$(SETUP) packages node
	CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$(CURDIR)/.tools/bin/wasm-bindgen-test-runner \
	cargo test --locked --target wasm32-unknown-unknown -p $(FILTER) --no-default-features --features flagsmith,ofrep --lib

# The tests wait more than they compute: two files run side by side, each with stacks of its own.
TEST_PROCESSES ?= 2

# Real Envoy, Redis, webdis and SDKs.
.PHONY: test-integration
test-integration: build-tested $(VENV) $(NODE_PACKAGES) test-packages
	.venv/bin/pytest integration -m "not alone" --numprocesses $(TEST_PROCESSES) --dist loadfile
	.venv/bin/pytest integration -m alone

JAVA_PEERS := $(patsubst %,target/peers/%/built,flagsmith-java ofrep-java)

# The tests of programs that not every machine can build: outside of `make test`.
.PHONY: compare-peers
compare-peers: $(JAVA_PEERS) $(FLAGD_PEER) build $(VENV) stack-packages ## Compare with peers that need JDK 17, Maven and Go 1.26; fails without
	.venv/bin/pytest integration/peers

.PHONY: jvm
jvm:
	@$(SETUP) jvm

.PHONY: go-compiler
go-compiler:
	@$(SETUP) go-compiler

target/peers/%/built: integration/peers/%/pom.xml integration/peers/%/src/Driver.java integration/peers/java/Lines.java | jvm
	cd integration/peers/$* && mvn --quiet --batch-mode compiler:compile dependency:copy-dependencies
	@touch $@

# flagd's engine behind OFREP.
.PHONY: flagd-peer
flagd-peer: $(FLAGD_PEER)

# What Go fetches and compiles stays here, too; `make clean` must be able to remove it.
$(FLAGD_PEER): $(wildcard integration/peers/flagd/*.go integration/peers/flagd/go.*) | go-compiler
	cd integration/peers/flagd && GOMODCACHE=$(CURDIR)/target/peers/go/modules GOCACHE=$(CURDIR)/target/peers/go/build \
	GOFLAGS=-modcacherw go build -trimpath -o $(CURDIR)/$@ .

.PHONY: lint
lint: $(RUST) $(VENV) ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p $(FILTER) -p bench-filters --target wasm32-wasip1 --locked -- -D warnings
	cargo clippy -p $(FILTER) --no-default-features --features host --target wasm32-wasip1 --locked -- -D warnings
	.venv/bin/ruff check integration bench
	.venv/bin/ruff format --check integration bench

# The commit that figures of a change are compared with.
BASELINE := ec79c148d664

.PHONY: count
count: ## Count the lines of code of src/, beside those of the commit BASELINE
	@python3 integration/count_code.py --against $(BASELINE)

BENCH_OPTIONS ?=

.PHONY: bench
bench: build-bench $(VENV) $(OHA) stack-packages ## Measure against Envoy's own limit; writes bench/results.json, docs/*.svg
	@$(SETUP) packages wrk
	$(PYTHON) bench/run.py $(BENCH_OPTIONS)

.PHONY: bench-soak
bench-soak: build-bench $(VENV) stack-packages ## 20 million requests, and whether memory stays; adds to bench/results.json
	@$(SETUP) packages wrk
	$(PYTHON) bench/soak.py $(BENCH_OPTIONS)

# For `make bench-instructions BENCH_OPTIONS='--against .tools/baseline.wasm'`.
.PHONY: baseline
baseline: .tools/baseline-$(BASELINE) ## Build the filter of the commit that figures are compared with: .tools/baseline.wasm
.tools/baseline-$(BASELINE): | $(RUST)
	@git cat-file -e $(BASELINE) || { echo 'error: this clone lacks the commit $(BASELINE): git fetch --unshallow' >&2; exit 1; }
	rm -rf .tools/baseline && mkdir -p .tools/baseline/.tools && touch .tools/baseline/.tools/rust
	git archive $(BASELINE) | tar -x -C .tools/baseline
	$(MAKE) -C .tools/baseline filter
	cp .tools/baseline/target/wasm32-wasip1/release/$(WASM) .tools/baseline.wasm
	rm -rf .tools/baseline && touch $@

.PHONY: bench-instructions
bench-instructions: build-bench $(VENV) stack-packages ## Count an Envoy's instructions per request and tick; adds to bench/results.json
	@$(SETUP) packages valgrind
	$(PYTHON) bench/instructions.py $(BENCH_OPTIONS)

.PHONY: bench-watch
bench-watch: build $(VENV) test-packages ## Measure the watching publisher with a million credentials; adds to bench/results.json
	$(PYTHON) bench/watch.py

.PHONY: bench-environments
bench-environments: build $(VENV) stack-packages ## Measure workers with 3 000 Flagsmith environments, and how soon changes are served
	$(PYTHON) bench/environments.py $(BENCH_OPTIONS)

.PHONY: bench-long-definitions
bench-long-definitions: build $(VENV) stack-packages ## Measure workers with 10 000 of flagd's flags, long contexts, and how soon changes are served
	$(PYTHON) bench/long_definitions.py $(BENCH_OPTIONS)

.PHONY: bench-timeouts
bench-timeouts: build $(VENV) stack-packages ## Measure callouts that read large payloads; adds to bench/results.json
	$(PYTHON) bench/timeouts.py $(BENCH_OPTIONS)

FUZZ_TARGETS := value resp request snapshot
FUZZ_SECONDS ?= 60

# The sanitizer is behind an unstable flag, which RUSTC_BOOTSTRAP lets the pinned stable compiler take. Of two folders
# libFuzzer writes what it finds into the first: the corpus in the repository stays as it is.
.PHONY: fuzz
fuzz: export RUSTC_BOOTSTRAP := 1
# Freed memory that the sanitizer holds back counts towards the limit.
fuzz: export ASAN_OPTIONS := quarantine_size_mb=64
fuzz: $(RUST) $(CARGO_FUZZ) ## Fuzz each reader of foreign bytes for FUZZ_SECONDS (60)
	@$(SETUP) packages g++
	.tools/bin/cargo-fuzz build
	@for target in $(FUZZ_TARGETS); do \
	  echo "=== $$target: $(FUZZ_SECONDS) s ==="; \
	  mkdir -p fuzz/found/$$target; \
	  .tools/bin/cargo-fuzz run $$target fuzz/found/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024 -max_len=4096 -malloc_limit_mb=32; \
	done

.PHONY: clean
clean: ## Remove everything built or installed here; refuses while a stack is up
	@! compgen -G '.run/*/pids.json' >/dev/null || { echo 'error: a stack is up, see .run/; stop it first' >&2; exit 1; }
	rm -rf target fuzz/target fuzz/found .venv .tools .run .ruff_cache integration/.pytest_cache integration/node/node_modules
