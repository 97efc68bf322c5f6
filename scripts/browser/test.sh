#!/usr/bin/env bash
# Opens reports in headless Chromium as a reader would: they render, sort and open trials, on a desk
# and on a phone, light and dark, from file://, without a word on the console.
#   scripts/browser/test.sh PAGE.html...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if ! command -v chromium > /dev/null; then
    run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
    run apt-get update -qq
    run apt-get install -y -qq --no-install-recommends chromium > /dev/null
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for page in "$@"; do
    copy="$scratch/$(basename "$page")"
    { cat "$page"; printf '<script>\n'; cat "$here/test.js"; printf '</script>\n'; } > "$copy"
    for size in 1200,900 400,800; do
        for dark in 0 1; do
            chromium --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/profile" \
                --host-resolver-rules='MAP * ~NOTFOUND' --window-size="$size" \
                --blink-settings=preferredColorScheme=$dark --enable-logging=stderr \
                --virtual-time-budget=10000 --dump-dom "file://$copy" \
                > "$scratch/dom" 2> "$scratch/log"
            if grep CONSOLE "$scratch/log"; then
                echo "$page: a message on the console" >&2
                exit 1
            fi
            said=$(grep -o 'data-test="[^"]*"' "$scratch/dom" | head -1)
            if [ "$said" != 'data-test="ok"' ]; then
                echo "$page at $size: ${said:-the test did not run}" >&2
                exit 1
            fi
        done
    done
    echo "$page: fine"
done
