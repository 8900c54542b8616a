#!/usr/bin/env bash
# What the inputs of fuzz targets run through: fuzz/coverage.sh [TARGET…], without one all of them.
# For each target the lines of what it attacks, and how many of them its seeds and its discoveries (fuzz/corpus/) reach;
# with LINES_LEFT=1 the lines that they do not reach. Not while a fuzzer runs, which changes its corpus. Needs a nightly toolchain with llvm-tools, and cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")"
. ./golden.sh

# What a target attacks, relative to the workspace.
attacked() {
  case $1 in
    apply)
      echo core/src/apply core/src/mvcc/{delete,draft,index,put,range,span,txn,validate,view}.rs core/src/mvcc/index \
        core/src/{lease/table,alarm,quota}.rs io/src/codec/{entry,request}.rs
      ;;
    bbolt) echo io/src/bbolt ;;
    boot)
      echo io/src/boot/{execute,forced,found,identity,import,inspect,plan,url}.rs io/src/boot/import \
        io/src/wal/{decoder,entry,record,recover,repair}.rs io/src/bbolt/{page,read}.rs io/src/store/load.rs
      ;;
    config) echo server/src/config ;;
    peer) echo io/src/peer/{codec,msgappv2,shape,stream}.rs ;;
    snap) echo io/src/snap.rs ;;
    snapshot) echo io/src/peer/{arrival,spool}.rs io/src/bbolt/{page,read}.rs io/src/boot/import/source.rs io/src/installer.rs ;;
    wal) echo io/src/wal/{decoder,entry,record,recover,repair}.rs ;;
    *) echo "no target $1" >&2 && return 2 ;;
  esac
}

[ $# -gt 0 ] || set -- apply bbolt boot config peer snap snapshot wal
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc +nightly --print sysroot)/lib/rustlib/$host/bin
# Fuzzers' own functions and tests are not what is attacked.
own='(fuzz|made|tests|_tests)\.rs$'

log=$(mktemp)
trap 'rm -f "$log"' EXIT

for target in "$@"; do
  mapfile -t sources < <(attacked "$target" | xargs -n 1 printf '../%s\n')
  inputs=("corpus/$target" "seeds/$target")
  golden=$(golden "$target")
  if [ -n "$golden" ]; then
    # A fuzzer reads directories to their depths, a measure only the files that lie in them.
    # shellcheck disable=SC2086
    mapfile -t -O 2 inputs < <(find $golden -type f -printf '%h\n' | sort -u)
  fi
  mkdir -p "corpus/$target"
  rm -rf "coverage/$target"
  cargo +nightly fuzz coverage "$target" "${inputs[@]}" > "$log" 2>&1 || { tail -20 "$log" | cut -c1-200 >&2; exit 1; }
  binary=$(find target -path "*/coverage/*/release/$target" -type f | head -1)
  of=("$binary" -instr-profile="coverage/$target/coverage.profdata" -ignore-filename-regex="$own" "${sources[@]}")
  if [ -n "${LINES_LEFT:-}" ]; then
    "$tools/llvm-cov" show "${of[@]}" | grep -E '^ +[0-9]+\| +0\||^/' || true
  else
    "$tools/llvm-cov" report "${of[@]}" -show-region-summary=false -show-branch-summary=false |
      awk -v target="$target" '/^TOTAL/ { printf "| `%s` | %d | %d | %s |\n", target, $5, $5 - $6, $7 }'
  fi
done
