#!/usr/bin/env bash
# A page for each folder of results, with curves to ask and every trial: pages.sh EMBC OUTPUT
set -euo pipefail
embc=$(realpath "$1") output=$(realpath "$2")
cd "$(dirname "$0")/.."
for folder in results/*/; do
    names=$(basename -a -s .jsonl "$folder"*.jsonl 2> /dev/null | grep -v '^\*$') || continue
    "$embc" report $names --format html --output "$output/$(basename "$folder").html"
done
