# The verbs. Each is one job that runs the same on a laptop and in CI; `check` never writes, `fix` may.

SEED ?= 1
N ?= 20
KIND ?= engine
COMMIT ?= $(shell git describe --always --dirty 2>/dev/null)
OPS ?= 2000
SEEDS ?= 2
TIME ?= 60
T ?= wal
ROUNDS ?= 5
CUTS ?= 10
KILLS ?= 1000
MODEL ?= elections
ADDRESS ?= 127.0.0.1:3000
OUT ?= docs/benchmarks.md
DIRECTORY ?= /tmp/detcd-cluster

# Each run is a thread that allocates much and then ends: its pages are kept for the next one. They may be huge: 4 % faster, and some MB more.
SIM_ALLOCATOR = MIMALLOC_PURGE_DELAY=-1
SIM = $(SIM_ALLOCATOR) RUSTFLAGS="--cfg madsim" cargo run --profile campaign --target-dir target/sim -p detcd-sim --bin detcd-sim --
SIM_MUTANTS = $(SIM_ALLOCATOR) RUSTFLAGS="--cfg madsim --cfg mutants --cfg verify" cargo run --profile campaign --target-dir target/sim-mutants -p detcd-sim --bin detcd-sim --

# Known bugs that clients can see, of one member and between members; the histories of those runs of them that break a promise.
KV_BUGS = ReadBeforeReplay ReportBeforeSync RowsBeforeIndex OwnMatchAtAppend
KV_BUGS_BETWEEN = ReadWithoutQuorum
KV_BUG = $(SIM_MUTANTS) --kind $(1) --mutant $(2) --seed 1 --count $(3) --jobs 2 --less trouble=50 --history target/sim/mutants/$(2) --only-broken | grep -E '^[0-9]+ passed' || true

.PHONY: build run cluster check test sim report-check sim-test sim-coverage crash-images mutants model model-larger kills explore fuzz fuzz-coverage corpus conformance second-opinion second-opinion-mutants bench bench-smoke fix

build:
	cargo build --release -p detcd-server -p detcd-ctl

# A member on its embedded store; ARGS are detcd's own flags.
run: build
	./target/release/detcd $(ARGS)

# Three members on this machine, in DIRECTORY; Ctrl-C ends them.
cluster: build
	./tests/cluster.sh target/release/detcd $(DIRECTORY)

# All that needs only Rust and a C compiler.
test:
	cargo test --workspace --exclude detcd-sim

check:
	cargo fmt --all --check
	cargo clippy --workspace --exclude detcd-sim --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --exclude detcd-sim --no-deps --quiet
	cargo test -p detcd-tests --test tidy

# The simulator: N runs of a KIND (engine, server, cluster or services) from SEED on. One seed repeats a run. LESS takes something away from what the seed draws,
# REPORT=1 draws every run (target/sim/<kind>-<seed>.html), TRACE=1 prints it, HISTORY=directory keeps what clients saw, MUTANT puts a known bug into it,
# TWICE=1 plays it twice and compares (of many runs, one in twenty).
sim:
	$(if $(MUTANT),$(SIM_MUTANTS) --mutant $(MUTANT),$(SIM)) --kind $(KIND) --seed $(SEED) --count $(N) --commit "$(COMMIT)" $(if $(LESS),--less $(LESS)) $(if $(REPORT),--report) $(if $(TRACE),--trace) $(if $(TWICE),--check-determinism) $(if $(HISTORY),--history $(HISTORY))

# The diagram of a run in a headless browser: it must be drawn, all its buttons pressed, without an error (needs Chromium).
report-check:
	./sim/tests/report-check.sh

# Crash points, one by one, and the simulator's own tests; before them what `check` asks of all other packages, which needs this build.
sim-test:
	RUSTFLAGS="--cfg madsim" cargo clippy --profile sim --target-dir target/sim -p detcd-sim --no-deps --all-targets -- -D warnings
	RUSTFLAGS="--cfg madsim" RUSTDOCFLAGS="--cfg madsim -D warnings" cargo doc --profile sim --target-dir target/sim -p detcd-sim --no-deps --quiet
	RUSTFLAGS="--cfg madsim" cargo test --profile sim --target-dir target/sim -p detcd-sim

# The lines of core that a sample of runs reaches, for docs/simulation.md (needs a nightly toolchain with llvm-tools).
sim-coverage:
	./sim/tests/coverage.sh

# A loaded member, the real process, killed KILLS times; each life must have everything that was ever acknowledged.
kills:
	KILLS=$(KILLS) cargo test -p detcd-server --test process kills_under_load -- --nocapture

# Images of the disk under the production store and log, CUTS power cuts for each of their calls (Linux only): docs/simulation.md.
crash-images:
	CRASH_IMAGES=$(CUTS) cargo test -p detcd-io --test crash_images -- --nocapture

# Known bugs, each of which runs of a KIND (engine or cluster) must find: docs/scoreboard.md.
mutants:
	$(SIM_MUTANTS) --kind $(KIND) --commit "$(COMMIT)" --scoreboard docs/scoreboard.md

# Stateright over the shipping Raft type, and its mutants.
model:
	RUSTFLAGS="--cfg mutants --cfg verify" cargo test --target-dir target/model -p detcd-tests --test raft_model

# Models too large for CI: minutes of two cores each.
model-larger:
	RUSTFLAGS="--cfg mutants --cfg verify" cargo test --target-dir target/model -p detcd-tests --test raft_model -- --ignored --nocapture --test-threads 1

# One of the models in a browser, at ADDRESS: docs/model.md.
explore:
	MODEL=$(MODEL) ADDRESS=$(ADDRESS) cargo run -p detcd-tests --example explore

# cargo-fuzz on target T for TIME seconds, entered into docs/fuzz-ledger.tsv (needs a nightly toolchain and cargo-fuzz): docs/fuzzing.md.
fuzz:
	./fuzz/run.sh $(T) $(TIME)

# The lines that the inputs of all fuzz targets reach, for the table in docs/fuzzing.md.
fuzz-coverage:
	./fuzz/coverage.sh

# Histories of simulated runs, judged by Porcupine with rules of its own (needs Go).
second-opinion:
	rm -rf target/sim/history
	$(SIM) --kind engine --seed $(SEED) --count 8 --history target/sim/history
	$(SIM) --kind cluster --seed $(SEED) --count 6 --history target/sim/history
	cd tests/conformance && go run ./cmd/secondopinion ../../target/sim/history

# The same of known bugs that clients can see: Porcupine must see each of them, too.
second-opinion-mutants:
	rm -rf target/sim/mutants
	for bug in $(KV_BUGS); do $(call KV_BUG,engine,$$bug,6); done; for bug in $(KV_BUGS_BETWEEN); do $(call KV_BUG,cluster,$$bug,90); done
	cd tests/conformance && go run ./cmd/secondopinion -bugs $(KV_BUGS:%=../../target/sim/mutants/%) $(KV_BUGS_BETWEEN:%=../../target/sim/mutants/%)

# detcd against the real etcd 3.7.3 (needs Go), and the second opinion on simulated histories.
conformance: build second-opinion
	cd tests/conformance && go vet ./... && go test ./... && go run ./cmd/conformance -detcd ../../target/release/detcd -seed $(SEED) -ops $(OPS) -seeds $(SEEDS)

# Files that the real etcd wrote, for the tests and the fuzzers.
corpus:
	cd tests/conformance && go run ./cmd/conformance make-corpus -out ../../tests/golden/wal
	cd tests/conformance && go run ./cmd/conformance make-directories -out ../../tests/golden/etcd
	cd tests/conformance && go run ./cmd/conformance make-peer-corpus -out ../../tests/golden/peer

# detcd, the real etcd and the floor, interleaved (ETCD is the path of an etcd binary). ROWS chooses (`make bench ROWS=fanout,lease`),
# DATASET is the size of the stores that are filled beforehand, OUT the page that is written.
bench: build
	cargo build --release -p detcd-bench
	target/release/detcd-bench --detcd target/release/detcd --floor target/release/detcd-floor $(if $(ETCD),--etcd $(ETCD)) --rounds $(ROUNDS) $(if $(ROWS),--rows '$(ROWS)') $(if $(DATASET),--dataset $(DATASET)) --out $(OUT)

bench-smoke: build
	cargo build --release -p detcd-bench
	target/release/detcd-bench --detcd target/release/detcd --floor target/release/detcd-floor $(if $(ETCD),--etcd $(ETCD)) --smoke

fix:
	cargo fmt --all
	cargo clippy --workspace --exclude detcd-sim --all-targets --fix --allow-dirty
