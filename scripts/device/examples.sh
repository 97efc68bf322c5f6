#!/usr/bin/env bash
# Compiles and runs the examples of embc-device in C, Python and Rust on a model that embc packed: all
# three say the same. The shared library stays below 1 MB.
#   scripts/device/examples.sh EMBC
set -euo pipefail
cd "$(dirname "$0")/../.."
embc=$(realpath "$1")

run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! command -v python3 > /dev/null || ! command -v cc > /dev/null; then
    run apt-get update -qq
    run apt-get install -y -qq --no-install-recommends python3 gcc libc6-dev > /dev/null
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$embc" train --config configs/cce/gmf_synth_1m.toml --set dataset=synth-gmf-small --set embedding.dim=16 \
    --set scheme.kind=memcom --set train.epochs=1 \
    --data-dir "$scratch/data" --results "$scratch/results" --out "$scratch/m" --quiet > /dev/null
"$embc" export "$scratch/m" --format packed --output "$scratch" --quiet > /dev/null
model=$scratch/model.embc
value=$(sed -n '8s/"//gp' "$scratch/m/vocab-user.txt")

cargo build --release --quiet -p embc-device --lib --examples
library=$PWD/target/release/libembc_device.so
size=$(stat -c %s "$library")
[ "$size" -lt 1000000 ] || { echo "$library has $size bytes" >&2; exit 1; }

crate=crates/embc-device
cc -Wall -Wextra -Werror -std=c99 -I "$crate/include" "$crate/examples/rows.c" \
    -L target/release -lembc_device -o "$scratch/rows"
export LD_LIBRARY_PATH=$PWD/target/release
"$scratch/rows" "$model" user "$value" > "$scratch/c"
python3 "$crate/examples/rows.py" "$library" "$model" user "$value" > "$scratch/python"
diff "$scratch/c" "$scratch/python"
target/release/examples/rows "$model" user "$value" > "$scratch/rust"
# The same numbers, as Rust writes them: 9 digits tell every float.
python3 - "$scratch/c" "$scratch/rust" << 'PYTHON'
import re, struct, sys
bits = lambda path: [struct.pack("f", float(x)) for x in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", open(path).read())]
ours, theirs = map(bits, sys.argv[1:])
assert ours == theirs and len(ours) == 18, (ours, theirs)
PYTHON

# What is wrong is said, and nothing crashes.
refused() { if "$@" > "$scratch/out" 2> "$scratch/err"; then exit 1; fi; grep -q . "$scratch/err"; }
refused "$scratch/rows" nowhere.embc user 1
refused "$scratch/rows" "$model" nobody 1
head -c 3000 "$model" > "$scratch/cut.embc"
refused "$scratch/rows" "$scratch/cut.embc" user 1
refused python3 "$crate/examples/rows.py" "$library" "$scratch/cut.embc" user 1
echo "C, Python and Rust read the same; libembc_device.so has $size bytes"
