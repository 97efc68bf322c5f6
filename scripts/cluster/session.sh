#!/usr/bin/env bash
# docs/cluster.md on a real Slurm of four nodes: 60 trials by eight workers, whose time runs out in the
# middle of trials, while workers, a daemon and all processes of a node are killed. The records are
# those of one machine that nobody disturbed.
#   scripts/cluster/session.sh EMBC
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/scripts/cluster
embc=$(realpath "$1")
work=$(mktemp -d)
stop() { "$here/slurm.sh" stop "$work/slurm" || true; pkill -9 -f "$work" || true; rm -rf "$work"; }
trap stop EXIT

mkdir -p "$work/bin" "$work/shared/configs"
ln -s "$embc" "$work/bin/embc"
export PATH="$work/bin:$PATH" SLURM_CONF="$work/slurm/slurm.conf"
session=$(awk '/^```sh/ { inside = 1; next } /^```/ && inside { exit } inside' docs/cluster.md)
cp "$here/cluster.data.toml" "$work/shared"
cp "$here/cluster.toml" "$work/shared/configs"
cd "$work/shared"

embc sweep --config cluster --results "$work/alone" -q > "$work/alone.md"
"$here/slurm.sh" start "$work/slurm"

records() { { cat results/cluster.jsonl results/cluster.d/*.json 2> /dev/null || true; } | wc -l; }
workers() { pgrep -f " sweep --config cluster($| --data)" || true; }
# Processes of a node's jobs.
of_node() {
    for pid in $(pgrep -f " sweep --config cluster($| --data)|slurm_script|slurmstepd" || true); do
        if tr '\0' '\n' < "/proc/$pid/environ" 2> /dev/null | grep -qx "SLURMD_NODENAME=$1"; then
            echo "$pid"
        fi
    done
}

bash -euo pipefail -c "$session" > "$work/session" 2> "$work/talk" &
watching=$!
killed=0 empty=0 over=()
while kill -0 "$watching" 2> /dev/null; do
    # Slurm lets what is requeued wait for two minutes. Its last run must be over: the end of that
    # would be taken for the end of the next, and a start in its second be refused ("Job credential
    # revoked"), which ends an element for good.
    for job in $(squeue -h -t PENDING -o '%A' --sort=i 2> /dev/null); do
        if pgrep -f "slurmstepd: \[$job\.|/job$(printf %05d "$job")/slurm_script" > /dev/null; then
            over[job]=0
        elif [ "${over[job]:-0}" -lt 10 ]; then
            over[job]=$((${over[job]:-0} + 1))
        else
            scontrol update JobId="$job" StartTime=now 2> /dev/null || true
            over[job]=0
        fi
    done
    if [ -n "$(squeue -h 2> /dev/null)" ]; then empty=0; else empty=$((empty + 1)); fi
    [ "$empty" -lt 240 ] || {
        cat "$work/talk" >&2
        grep _job_complete "$work/slurm/log/slurmctld" | tail -20 >&2
        echo "nobody is in the queue, and trials are left" >&2
        exit 1
    }
    at=$(records)
    case "$killed" in
        0) [ "$at" -lt 5 ] || { kill -9 "$(workers | head -1)" && killed=1 && echo "killed a worker at $at" >&2; } ;;
        1) [ "$at" -lt 12 ] || {
            kill -9 "$(cat "$work/slurm/slurmd-n2.pid")"; "$here/slurm.sh" node 2 "$work/slurm"
            killed=2; echo "killed slurmd of n2 at $at" >&2; } ;;
        2) [ "$at" -lt 20 ] || {
            # shellcheck disable=SC2046
            kill -9 "$(cat "$work/slurm/slurmd-n3.pid")" $(of_node n3) || true
            "$here/slurm.sh" node 3 "$work/slurm"
            killed=3; echo "killed all of n3 at $at" >&2; } ;;
        3) [ "$at" -lt 30 ] || { kill -9 "$(workers | tail -1)" && killed=4 && echo "killed a worker at $at" >&2; } ;;
    esac || true
    sleep 0.5
done
wait "$watching" || { cat "$work/talk" >&2; exit 1; }
scancel --name=embc-cluster
while [ -n "$(squeue -h)" ]; do sleep 0.5; done
# Folds what no worker was left to fold.
embc sweep --config cluster -q > "$work/after.md"

fail() { echo "$1" >&2; cat "$work/talk" "$work/session" >&2; exit 1; }
[ "$killed" = 4 ] || fail "only $killed of 4 disturbances found something to disturb"
grep -q '^job [0-9]*: 8 workers' "$work/session" || fail "the job is not named"
grep -q 'to do' "$work/session" || fail "the submitting command did not return before the end"
grep -q 'job [0-9]*_[0-9]' "$work/talk" || fail "--watch names no job"
grep -q 'interrupted' results/.jobs/*.log || fail "no time limit was met"
[ ! -e results/cluster.d ] || fail "records were not folded"
diff <(grep '^|' "$work/alone.md") <(grep '^|' cluster.md)
python3 "$here/same.py" "$work/alone/cluster.jsonl" results/cluster.jsonl
echo "lost by killed workers: $(grep -c 'lost by' "$work/talk" || true)"
