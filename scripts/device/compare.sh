#!/usr/bin/env bash
# Trains the models of results/device.md and measures them, by embc's reader and by other engines, which
# it installs into a folder of its own (PyTorch takes some GB). Run it on a machine that does nothing else.
#   EMBC_DATASETS=... scripts/device/compare.sh EMBC FOLDER
set -euo pipefail
cd "$(dirname "$0")/../.."
embc=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")

train() { # data config compression scheme storage
    local out="$folder/$1-$4-$5" sets=(--set "scheme.kind=${4%_bias}" --set "scheme.quantize=$5" --set "budget.compression=[$3]")
    [ "$4" != memcom_bias ] || sets+=(--set scheme.bias=true)
    [ "$4" != hash ] || sets+=(--set scheme.hash=mod)
    [ -f "$out/model.json" ] || "$embc" train --config "configs/$2.toml" --seed 1 "${sets[@]}" \
        --results "$folder/results" --data-dir "$folder/data" --out "$out" --quiet > /dev/null 2> "$out.log" \
        || { cat "$out.log" >&2; grep -q 'cannot reach' "$out.log" && return 0; exit 1; }
    echo "$out"
}
models=()
for of in "ml1m memcom_ml1m 16" "criteo dlrm_criteo_117k 4"; do
    read -r data config compression <<< "$of"
    for scheme in full hash qr memcom memcom_bias factorized cce pq; do
        for storage in fp32 int8 int4; do
            models+=($(train "$data" "$config" "$compression" "$scheme" "$storage"))
        done
    done
done

python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check -r scripts/onnx/requirements.txt torch
"$folder/python/bin/python" scripts/device/compare.py "$embc" results/device "${models[@]}"
