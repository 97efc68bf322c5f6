#!/usr/bin/env bash
# Two machines and one folder, as far as one machine can be two: each in a process namespace and a mount
# namespace of its own, with clocks ten minutes apart and a lease of one second, killed again and again
# at random. Then the same folder through FUSE, which has no flock here. The records are those of one
# sweep that nobody disturbed.
#   scripts/machines/test.sh EMBC [KILLS]
set -euo pipefail
cd "$(dirname "$0")/../.."
same=$PWD/scripts/slurm/same.py
slurm=$PWD/scripts/slurm
embc=$(realpath "$1")
kills=${2:-30}

run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! command -v faketime bindfs > /dev/null; then
    run apt-get update -qq
    run apt-get install -y -qq --no-install-recommends faketime bindfs > /dev/null
fi
work=$(mktemp -d)
stop() { run umount "$work/fuse" 2> /dev/null || true; rm -rf "$work"; }
trap stop EXIT
mkdir -p "$work/shared/configs" "$work/fuse"
cp "$slurm/cluster.data.toml" "$work/shared"
cp "$slurm/cluster.toml" "$work/shared/configs"
cd "$work/shared"
sweep=(sweep --config cluster --set 'train.seeds=[1,2]' -q)
"$embc" "${sweep[@]}" --results "$work/alone" > "$work/alone.md"

# machine N FOLDER RESULTS: a sweep there, until it ends or is killed; its process is that of the namespace.
machine() {
    local clock="+0m"
    [ "$1" = 1 ] || clock="+10m"
    (cd "$2" && exec run unshare --pid --mount --uts --fork --mount-proc --kill-child \
        sh -c "hostname machine$1 && exec faketime -f $clock '$embc' ${sweep[*]@Q} --jobs 1 --lease 1s \
        --checkpoint-every 100ms --results $3 > /dev/null")
}
seed() { RANDOM=$1; }
seed "${SEED:-1}"
for folder in "$work/shared" "$work/fuse"; do
    results="results-$(basename "$folder")"
    [ "$folder" = "$work/shared" ] || run bindfs --no-allow-other "$work/shared" "$folder"
    done=0
    pids=(0 0)
    while [ "$done" -lt "$kills" ]; do
        for n in 0 1; do
            if ! kill -0 "${pids[n]}" 2> /dev/null; then
                machine $((n + 1)) "$folder" "$results" & pids[n]=$!
            fi
        done
        sleep "0.$((RANDOM % 9 + 1))"
        victim=${pids[RANDOM % 2]}
        # The namespace's first process takes all others with it.
        run kill -9 "$victim" 2> /dev/null && done=$((done + 1)) || true
        wait "$victim" 2> /dev/null || true
        # What is done begins anew, so that there is always something to kill.
        if [ -e "$folder/$results/cluster.jsonl" ] && [ "$done" -lt "$kills" ]; then
            python3 "$same" "$work/alone/cluster.jsonl" "$folder/$results/cluster.jsonl" > /dev/null 2>&1 && rm "$folder/$results/cluster.jsonl" || true
        fi
    done
    for n in 0 1; do machine $((n + 1)) "$folder" "$results" & pids[n]=$!; done
    wait "${pids[@]}"
    python3 "$same" "$work/alone/cluster.jsonl" "$folder/$results/cluster.jsonl"
    ls -A "$folder/$results" | grep -vx cluster.jsonl && { echo "something is left" >&2; exit 1; }
    echo "$done kills on $folder"
done
