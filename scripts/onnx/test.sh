#!/usr/bin/env bash
# Exports models of every scheme, storage, pooling and kind, runs them in ONNX Runtime and in tract, and
# compares what these say of real test rows with what embc says. Installs both into a folder of its own.
#   scripts/onnx/test.sh EMBC RATINGS.csv [NAME...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
    run apt-get update -qq
    run apt-get install -y -qq --no-install-recommends python3 python3-venv > /dev/null
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/python"
"$scratch/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
"$scratch/python/bin/python" "$here/test.py" "$1" "$2" "$scratch" "${@:3}"
