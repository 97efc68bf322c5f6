#!/usr/bin/env bash
# The documentation as a site, OUTPUT/book: build.sh EMBC OUTPUT. Installs mdBook under target/, once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=$here/../../target/tools
if [ ! -x "$tools/bin/mdbook" ]; then
    cargo install --quiet --locked mdbook --version 0.5.4 --root "$tools"
fi
python3 "$here/build.py" "$1" "$tools/bin/mdbook" "$2"
