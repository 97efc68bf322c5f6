#!/usr/bin/env bash
# GitHub's workflows are what their schema allows, which cannot be seen here by running them.
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=target/workflow
if [ ! -x "$environment/bin/check-jsonschema" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet check-jsonschema==0.37.1
fi
"$environment/bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml
# And no step names a file of the repository that is not there.
for file in $(grep -ohE '(scripts|docs)/[A-Za-z0-9_./-]+' .github/workflows/*.yml | sort -u); do
    [ -e "$file" ] || { echo "$file: named by a workflow, and not there" >&2; exit 1; }
done
