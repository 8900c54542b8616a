#!/usr/bin/env bash
# Runs a fuzz target for some seconds and enters the run into docs/fuzz-ledger.tsv:
#   fuzz/run.sh TARGET SECONDS
# Exits as the fuzzer did.
set -uo pipefail
cd "$(dirname "$0")"
. ./golden.sh
target=$1
seconds=$2

mkdir -p "corpus/$target" "artifacts/$target"
commit=$(git rev-parse --short HEAD)
git diff --quiet HEAD -- ':(top)' ':(top,exclude)docs/fuzz-ledger.tsv' || commit+=-dirty # the ledger grows with every run
log=$(mktemp)
spent=$(mktemp)
trap 'rm -f "$log" "$spent"' EXIT
findings() { find "artifacts/$target" -type f | wc -l; }

dict=()
[ ! -f "dict/$target" ] || dict=(-dict="dict/$target")
before=$(findings)
cargo +nightly fuzz build "$target" || exit
began=$SECONDS
run() {
  # shellcheck disable=SC2046
  cargo +nightly fuzz run "$target" "corpus/$target" "seeds/$target" $(golden "$target") -- \
    -max_total_time="$seconds" -max_len=65536 -print_final_stats=1 "${dict[@]}" 2>&1 | tee "$log"
  return "${PIPESTATUS[0]}"
}
TIMEFORMAT='%U %S'
{ time run; } 2> "$spent"
status=$?
took=$((SECONDS - began))
core=$(awk 'END { printf "%d", $1 + $2 }' "$spent") # less than it took where others ran
sed '$d' "$spent" >&2                               # what else was said there

inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%F)" "$target" "$commit" "$took" "${core:-?}" "${inputs:-?}" "${edges:-?}" \
  $(($(findings) - before)) >> ../docs/fuzz-ledger.tsv
exit "$status"
