#!/usr/bin/env bash
# What `embc choose` answers beside a grid of all schemes, and what each costs, on six sets of real rows:
# writes results/choose.md and results/choose.csv. Takes hours, and goes on where it was cut off.
#   scripts/choose/compare.sh EMBC FOLDER DATASETS.toml [SET...]
set -euo pipefail
cd "$(dirname "$0")/../.."
embc=$(realpath "$1") folder=$2 datasets=$3

# Experiment and budget: a 15th to a 74th of the full table's bytes.
sets="lma_criteo_117k 256KiB
lma_avazu_48k 16KiB
gmf_ml1m_half_bytes 32KiB
mlp_frappe 16KiB
memcom_steam 32KiB
memcom_20news 256KiB"
wanted=" ${*:4} "

mkdir -p "$folder"
while read -r name budget; do
    [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || continue
    choose() {
        "$embc" choose "configs/$name.toml" --budget-bytes "$budget" --datasets "$datasets" \
            --data-dir "$folder/data" --results "$folder/results" "$@" < /dev/null
    }
    choose --everything --output "$folder/$name/grid" > "$folder/$name.grid.md"
    choose --output "$folder/$name/choice" > "$folder/$name.md"
    # Which trials each of the two wanted.
    for what in grid choice; do
        "$embc" sweep --config "$folder/$name/$what/$name-choice.toml" --list --datasets "$datasets" \
            --data-dir "$folder/data" --results "$folder/results" --quiet > "$folder/$name.$what.list"
    done
    echo "$name $budget" > "$folder/$name.set"
done <<< "$sets"
python3 scripts/choose/results.py "$folder" results/choose
