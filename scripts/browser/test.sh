#!/usr/bin/env bash
# Opens reports in headless Chromium as a reader would: they render, sort, copy and open trials, on a
# desk and on a phone, light and dark, from file://, without a word on the console, in time.
#   scripts/browser/test.sh PAGE.html...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# Bytes of a page, and milliseconds until it can be used.
most_bytes=3000000
most_ms=1000

if ! command -v chromedriver > /dev/null; then
    run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
    run apt-get update -qq
    run apt-get install -y -qq --no-install-recommends chromium chromium-driver curl > /dev/null
fi

scratch=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
chromedriver --port="$port" > "$scratch/driver" 2>&1 &
driver=$!
trap 'kill "$driver" 2> /dev/null; rm -rf "$scratch"' EXIT
say() { # PATH JSON
    curl --silent --fail-with-body --max-time 120 --data "$2" "http://127.0.0.1:$port/$1"
}
for _ in $(seq 100); do
    curl --silent --output "$scratch/status" "http://127.0.0.1:$port/status" && break
    sleep 0.1
done

look() { # PAGE SIZE DARK
    local args options session said
    args="\"headless\",\"no-sandbox\",\"disable-gpu\",\"window-size=$2\",\"blink-settings=preferredColorScheme=$3\",\"host-resolver-rules=MAP * ~NOTFOUND\",\"user-data-dir=$scratch/profile\""
    options="\"goog:chromeOptions\":{\"args\":[$args]},\"goog:loggingPrefs\":{\"browser\":\"ALL\"}"
    session=$(say session "{\"capabilities\":{\"alwaysMatch\":{$options}}}" | grep -o '"sessionId":"[^"]*"' | cut -d'"' -f4)
    say "session/$session/url" "{\"url\":\"file://$1\"}" > /dev/null
    local script='const done = arguments[0]; (function look() { const said = document.documentElement.dataset.test; said ? done(said) : setTimeout(look, 20); })()'
    said=$(say "session/$session/execute/async" "{\"script\":\"$script\",\"args\":[]}" || true)
    local console
    console=$(say "session/$session/se/log" '{"type":"browser"}')
    curl --silent --request DELETE "http://127.0.0.1:$port/session/$session" > /dev/null
    [ "$console" = '{"value":[]}' ] || { echo "$1: on the console: $console" >&2; return 1; }
    [[ $said =~ \"value\":\"ok,\ ([0-9]+)\ ms\" ]] || { echo "$1 at $2: $said" >&2; return 1; }
    ms=${BASH_REMATCH[1]}
}

for page in "$@"; do
    copy="$scratch/$(basename "$page")"
    { cat "$page"; printf '<script>\n'; cat "$here/test.js"; printf '</script>\n'; } > "$copy"
    # What disturbs one look does not disturb all.
    fastest=1000000
    for size in 1400,900 390,800; do
        for dark in 0 1; do
            look "$copy" "$size" "$dark"
            fastest=$((ms < fastest ? ms : fastest))
        done
    done
    bytes=$(stat -c %s "$page")
    echo "$page: fine, $bytes bytes, usable after $fastest ms"
    [ "$bytes" -le $most_bytes ] || { echo "$page: more than $most_bytes bytes" >&2; exit 1; }
    [ "$fastest" -le $most_ms ] || { echo "$page: more than $most_ms ms" >&2; exit 1; }
done
