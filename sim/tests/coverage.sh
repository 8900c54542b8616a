#!/usr/bin/env bash
# How much of core the simulator alone reaches: the sample of runs that docs/simulation.md speaks of, built with counters. With LINES_LEFT=1 the lines that it does not
# reach. Needs a nightly toolchain with llvm-tools.
set -euo pipefail
cd "$(dirname "$0")/../.."

host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc +nightly --print sysroot)/lib/rustlib/$host/bin
target=target/sim-coverage
counts=$PWD/$target/counts

# Small functions that other crates take over would not be counted; `verify` has Raft check itself after each step.
export RUSTFLAGS="--cfg madsim --cfg verify -C instrument-coverage -Z cross-crate-inline-threshold=never"
LLVM_PROFILE_FILE=/dev/null cargo +nightly build --profile sim --target-dir "$target" -p detcd-sim --bin detcd-sim
rm -rf "$counts"

sample() {
  local kind=$1 count=$2
  shift 2
  LLVM_PROFILE_FILE="$counts/$kind-%p-%m.profraw" "$target/sim/detcd-sim" --kind "$kind" --count "$count" "$@" | grep -E '^FAILED|^[0-9]+ passed'
}

sample engine 62 --seed 1
sample server 8 --seed 1
sample services 12 --seed 1
sample cluster 90 --seed 1
# What only a trace makes.
sample cluster 2 --seed 91 --trace

"$tools/llvm-profdata" merge -o "$counts/all.profdata" "$counts"/*.profraw
of=("$target/sim/detcd-sim" -instr-profile="$counts/all.profdata" -ignore-filename-regex='(tests|_tests)\.rs$' core/src)
if [ -n "${LINES_LEFT:-}" ]; then
  "$tools/llvm-cov" show "${of[@]}" | grep -E '^ +[0-9]+\| +0\||^/' || true
else
  "$tools/llvm-cov" report "${of[@]}" -show-region-summary=false -show-branch-summary=false |
    awk '/^TOTAL/ { printf "core: %d lines, %d of them reached, %s\n", $5, $5 - $6, $7 }'
fi
