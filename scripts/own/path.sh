#!/usr/bin/env bash
# README's five commands from a Parquet file to scores in a Python process, as they stand there; the
# scores are those of `embc predict`.
#   scripts/own/path.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
    run apt-get update -qq
    run apt-get install -y -qq --no-install-recommends python3 python3-venv > /dev/null
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/python"
"$scratch/python/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1

# A clone's folder, but for what the commands leave.
mkdir "$scratch/clone"
for name in "$root"/*; do ln -s "$name" "$scratch/clone/"; done
rm "$scratch/clone/results" "$scratch/clone/data" 2> /dev/null || true
export CARGO_INSTALL_ROOT=$scratch CARGO_TARGET_DIR=$root/target PATH=$scratch/bin:$PATH
"$scratch/python/bin/python" scripts/own/path.py README.md write "$scratch/clone"
python3 scripts/own/path.py README.md commands > "$scratch/commands"
cd "$scratch/clone"
while read -r command; do
    echo "\$ $command" >&2
    # Cargo in the clone itself: it would build all of it again for another path.
    case $command in cargo*) where=$root ;; *) where=$scratch/clone ;; esac
    (cd "$where" && $command) > "$scratch/said" < /dev/null
done < "$scratch/commands"
embc predict clicks-choice/model one.parquet > "$scratch/predicted"
python3 "$root/scripts/own/path.py" "$root/README.md" check "$scratch/predicted" "$scratch/said"
