#!/usr/bin/env bash
# Opens diagrams of a cluster run and of an engine run in a headless browser. Each page presses all its own buttons and says what it drew;
# an error in its script fails the check.
set -euo pipefail
cd "$(dirname "$0")/../.."

browser=${BROWSER:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$browser" ]; then
  echo "report-check needs Chromium: install it, or name it with BROWSER"
  exit 2
fi
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT

check() {
  local page=$1 dom
  dom=$("$browser" --headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync \
    --user-data-dir="$profile" --virtual-time-budget=20000 --dump-dom "file://$PWD/$page#check" 2>/dev/null)
  if grep -q 'data-error=' <<<"$dom" || ! grep -Eq 'data-drawn="[0-9]{3,}"' <<<"$dom"; then
    grep -Eo '<body[^>]*>' <<<"$dom" || true
    echo "$page: its script failed, or drew nothing"
    exit 1
  fi
  echo "$page: $(grep -Eo 'data-drawn="[0-9]+"' <<<"$dom") without an error, $(wc -c <"$page") bytes"
}

for kind in cluster engine; do
  make --no-print-directory sim KIND=$kind SEED=1 N=1 LESS=trouble=12 REPORT=1
  check "target/sim/$kind-1.html"
done
