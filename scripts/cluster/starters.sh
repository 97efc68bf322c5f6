#!/usr/bin/env bash
# What --on script and --on kubernetes print: four workers under GNU parallel do a sweep, and the job is
# one by the published schema of the Kubernetes API. Wrong configs end with exit code 2, as its policy has it.
#   scripts/cluster/starters.sh EMBC
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/scripts/cluster
embc=$(realpath "$1")
as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
if ! command -v parallel > /dev/null; then
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends parallel python3-venv > /dev/null
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/shared/configs"
cp "$here/cluster.data.toml" "$work/shared"
cp "$here/cluster.toml" "$work/shared/configs"
cd "$work/shared"
sweep=(sweep --config cluster --set train.epochs=2 -q)

"$embc" "${sweep[@]}" --results "$work/alone" > /dev/null
"$embc" "${sweep[@]}" --on script > worker.sh
(cd / && seq 4 | parallel -N0 -j 4 sh "$work/shared/worker.sh" > /dev/null)
python3 "$here/same.py" "$work/alone/cluster.jsonl" results/cluster.jsonl

python3 -m venv "$work/python"
"$work/python/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0
"$embc" "${sweep[@]}" --on kubernetes --workers 8 -- image=registry/embc:1 claim=shared cpu=4 memory=16Gi > job.yaml
"$work/python/bin/kubernetes-validate" --strict job.yaml
code=0
"$embc" sweep --config cluster --set train.epohcs=2 2> /dev/null || code=$?
python3 - "$code" <<'PY'
import json, sys

spec = json.load(open("job.yaml"))["spec"]
rules = spec["podFailurePolicy"]["rules"]
# The first rule that fits decides: evictions are retried, a wrong config fails its index at once.
assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
assert rules[1]["action"] == "FailIndex" and int(sys.argv[1]) in rules[1]["onExitCodes"]["values"]
assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 8
PY
