#!/usr/bin/env bash
# Two machines and one folder, as far as one machine can be two: each in a process namespace and a mount
# namespace of its own, with clocks ten minutes apart and a lease of one second, killed again and again
# at random; then the same folder through FUSE. The records are those of one sweep that nobody disturbed,
# and nobody has asked for a file lock.
#   scripts/cluster/machines.sh EMBC [KILLS]
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/scripts/cluster
embc=$(realpath "$1")
kills=${2:-30}

as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
if ! command -v faketime > /dev/null || ! command -v bindfs > /dev/null || ! command -v strace > /dev/null; then
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends faketime bindfs strace > /dev/null
fi
work=$(mktemp -d)
stop() { "${as_root[@]}" umount "$work/fuse" 2> /dev/null || true; rm -rf "$work"; }
trap stop EXIT
mkdir -p "$work/shared/configs" "$work/fuse"
cp "$here/cluster.data.toml" "$work/shared"
cp "$here/cluster.toml" "$work/shared/configs"
cd "$work/shared"
sweep=(sweep --config cluster --set 'train.seeds=[1,2]' -q)
strace -f -qq -e trace=flock,fcntl -o "$work/calls" "$embc" "${sweep[@]}" --results "$work/alone" > /dev/null
if grep -E "flock|F_(OFD_)?SETLK" "$work/calls"; then
    echo "a file lock was asked for" >&2
    exit 1
fi

# machine N FOLDER RESULTS: a sweep there, until it ends or is killed, with all of its namespace. To be
# run in the background.
machine() {
    local clock="+0m"
    [ "$1" = 1 ] || clock="+10m"
    cd "$2"
    exec "${as_root[@]}" unshare --pid --mount --uts --fork --mount-proc --kill-child \
        sh -c "hostname machine$1 && export LD_PRELOAD=$fake FAKETIME=$clock NO_FAKE_STAT=1 \
        && exec '$embc' ${sweep[*]@Q} --jobs 1 --lease 1s --checkpoint-every 100ms --results $3 > /dev/null"
}
RANDOM=${SEED:-1}
fake=$(echo /usr/lib/*/faketime/libfaketime.so.1)
for folder in "$work/shared" "$work/fuse"; do
    results="results-$(basename "$folder")"
    [ "$folder" = "$work/shared" ] || "${as_root[@]}" bindfs --no-allow-other "$work/shared" "$folder"
    done=0
    for n in 0 1; do machine $((n + 1)) "$folder" "$results" & pids[n]=$!; done
    while [ "$done" -lt "$kills" ]; do
        sleep "0.$((RANDOM % 9 + 1))"
        for n in 0 1; do
            if [ "$n" = "$((RANDOM % 2))" ] && "${as_root[@]}" kill -9 "${pids[n]}" 2> /dev/null; then
                done=$((done + 1))
                wait "${pids[n]}" 2> /dev/null || true
                machine $((n + 1)) "$folder" "$results" & pids[n]=$!
            elif ! kill -0 "${pids[n]}" 2> /dev/null; then
                # Nothing but a kill may end it before the sweep's end.
                wait "${pids[n]}"
                machine $((n + 1)) "$folder" "$results" & pids[n]=$!
            fi
        done
        # What is done begins anew, so that there is always something to kill.
        if [ -e "$folder/$results/cluster.jsonl" ] && [ "$done" -lt "$kills" ] &&
            python3 "$here/same.py" "$work/alone/cluster.jsonl" "$folder/$results/cluster.jsonl" > /dev/null 2>&1; then
            rm "$folder/$results/cluster.jsonl"
        fi
    done
    for n in 0 1; do wait "${pids[n]}"; done
    # Whoever was killed while it folded is gone by now.
    sleep 1
    machine 1 "$folder" "$results" & wait $!
    python3 "$here/same.py" "$work/alone/cluster.jsonl" "$folder/$results/cluster.jsonl"
    ls -A "$folder/$results" | grep -vx -e cluster.jsonl -e cluster.details.jsonl.gz -e cluster.html && { echo "something is left" >&2; exit 1; }
    echo "$done kills on $folder"
done
