# `just` lists these. Each line is what it runs: no magic.

[private]
default:
    @just --list

# Format all code
fmt:
    cargo fmt --all

# Formatting and lints, as CI has them
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# All tests
test:
    cargo test --release --workspace

# What runs before anything lands
ci:
    .ci/run

# Render every committed result anew, with its plot where it has one
report:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release
    for results in results/*/*.jsonl; do
        name=$(basename "$results" .jsonl) place=${results%.jsonl}
        ./target/release/embc report "$name" --output "$place.md"
        if grep -q "($name.svg)" "$place.md"; then
            ./target/release/embc report "$name" --format svg --output "$place.svg"
        fi
    done
    ./target/release/embc report --claims results/claims.toml --output results/verdicts.md

# Train what is missing of every table whose data is here, and render all anew (hours; may be interrupted, and goes on)
tables *arguments:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release
    embc=target/release/embc
    for name in $($embc list experiments --format json | jq -r '.[] | select(.trials > 0) | .place'); do
        $embc sweep --config "$name" {{arguments}} > /dev/null || echo "$name: left out" >&2
    done
    $embc list experiments
    just report

# Pages of all committed results, a folder each, into target/pages: curves to ask, tables that sort, every trial
pages:
    cargo build --release
    mkdir -p target/pages
    scripts/pages.sh target/release/embc target/pages

# The documentation as a site, into target/site/book: docs/, every scheme, every result
site:
    cargo build --release
    scripts/site/build.sh target/release/embc target/site

# Compute and render every study of `embc theory` anew (some minutes)
theory:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release
    for kind in lsq lma; do
        for config in $(grep -l "^theory *= \"$kind\"" configs/*/*.toml); do
            folder=results/$(basename "$(dirname "$config")")
            ./target/release/embc theory "$kind" --config "$config" --format all --output "$folder"
        done
    done

# Lookups a second of each scheme beside the uncompressed table (bench-schemes memcom: only that)
bench-schemes filter="":
    cargo bench -p embc-core --bench schemes -- {{filter}}

# What sharing a folder costs: workers that take trials which only sleep, ten thousand records
bench-workers:
    cargo bench -p embc-lab --bench workers

# Products of a training step beside the machine's best
bench-gemm:
    cargo bench -p embc-core --bench gemm

# A training step of DLRM without data and large tables
bench-step:
    cargo bench -p embc-core --bench step

# How fast embc is, beside PyTorch, FAISS, implicit and vowpal wabbit; adds to results/bench/ (an hour, 30 GB; --quick: ten minutes; --only GMF)
bench *arguments:
    cargo build --release
    python3 -m venv target/oracle
    target/oracle/bin/pip install --quiet torch numpy faiss-cpu implicit vowpalwabbit
    target/oracle/bin/python scripts/bench/bench.py {{arguments}}

# Flame graphs of embc at the shapes of `just bench`, into results/bench/ (--only GMF, --quick)
profile *arguments:
    python3 scripts/bench/bench.py --profile {{arguments}}

# Check the metrics with scikit-learn, and write the PyTorch oracles of schemes and models anew
# (installs both under target/)
oracle:
    python3 -m venv target/oracle
    target/oracle/bin/pip install --quiet torch numpy scikit-learn
    EMBC_WORLDS=$PWD/target/worlds cargo test --release -p embc --test cli worlds
    target/oracle/bin/python scripts/oracle/metrics.py target/worlds
    target/oracle/bin/python scripts/oracle/schemes.py
    target/oracle/bin/python scripts/oracle/models.py
    target/oracle/bin/python scripts/oracle/optimizers.py
