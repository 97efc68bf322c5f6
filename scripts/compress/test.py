"""What embc compress writes, in other programs; see test.sh."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from model2vec import StaticModel

EMBC, MODEL, SCRATCH = (Path(word).resolve() for word in sys.argv[1:4])
METHODS = ["scalar", "pq", "opq", "rq", "factorized", "truncate_rare", "clusters", "cce", "tiers"]
# Sums of products, which engines add in an order of their own.
PRODUCTS = {"opq", "factorized"}


def embc(*args):
    done = subprocess.run([EMBC, *map(str, args)], capture_output=True, text=True, cwd=SCRATCH)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_onnx(folder):
    """The rows of all ids, as ONNX Runtime computes them."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    rows = np.load(folder / "rows.npy")
    return session.run(["id_row"], {"id": np.arange(len(rows))})[0], rows


def ranks(values):
    """Equal values share the mean of their ranks."""
    _, which, n = np.unique(values.astype(np.float32), return_inverse=True, return_counts=True)
    return (np.cumsum(n) - (n - 1) / 2)[which]


def model2vec():
    """A real model: smaller, the same vectors but for the rounding of weights, read by model2vec."""
    out = SCRATCH / "small"
    embc("compress", MODEL, "--budget-bytes", "1.7MB", "--method", "as_it_is",
         "--format", "packed,onnx,npy,model2vec", "--output", out)
    size = (out / "model.embc").stat().st_size
    assert size <= 1_700_000, size
    before, after = StaticModel.from_pretrained(MODEL), StaticModel.from_pretrained(out)
    assert (before.embedding == after.embedding).all()
    assert (before.token_mapping == after.token_mapping).all()
    assert (before.weights.astype(np.float16) == after.weights).all()
    texts = ["the quick brown fox", "an embedding table that is too big"]
    assert np.abs(before.encode(texts) - after.encode(texts)).max() < 1e-3
    theirs, ours = in_onnx(out)
    assert (theirs == ours).all()
    # What has no parts is written row by row.
    plain = SCRATCH / "plain"
    embc("compress", MODEL, "--budget-bytes", "4MB", "--method", "rq", "--output", plain)
    embc("decompress", plain / "model.embc", "--format", "model2vec", "--like", MODEL, "--output", plain)
    assert StaticModel.from_pretrained(plain).encode(texts).shape == (2, 64)
    print(f"model2vec: {(MODEL / 'model.safetensors').stat().st_size} bytes, packed {size}")


def methods():
    """Every method in ONNX Runtime, its error and cosines as numpy has them."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 24))[rng.integers(0, 60, 5000)] + 0.4 * rng.normal(size=(5000, 24))
    x = x.astype(np.float32)
    np.save(SCRATCH / "table.npy", np.asfortranarray(x))
    (SCRATCH / "words.txt").write_text("".join(f"w{i}\n" for i in range(len(x))))
    pairs = rng.integers(0, 5000, (300, 2))
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    gold = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1) + 0.3 * rng.normal(size=300)
    lines = (f"w{a}\tw{b}\t{g:.6f}\n" for (a, b), g in zip(pairs, gold))
    (SCRATCH / "pairs.tsv").write_text("".join(lines))
    for method in METHODS:
        out = SCRATCH / method
        embc("compress", SCRATCH / "table.npy", "--budget-bytes", "60kB", "--method", method,
             "--format", "packed,onnx,npy", "--output", out, "--vocab", SCRATCH / "words.txt",
             "--eval", "similarity", SCRATCH / "pairs.tsv")
        theirs, ours = in_onnx(out)
        if method in PRODUCTS:
            assert np.abs(theirs - ours).max() < 1e-5, method
        else:
            assert (theirs == ours).all(), method
        tried = [json.loads(line) for line in (out / "tried.jsonl").open()]
        error = np.linalg.norm(ours - x) / np.linalg.norm(x)
        best = min(tried, key=lambda of: abs(of["kept"][0]["error"] - error))
        kept = best["kept"][0]
        assert abs(kept["error"] - error) < 1e-5, (method, kept, error)
        length = np.maximum(np.linalg.norm(ours, axis=1), 1e-30)[:, None]
        cosine = (unit * ours / length).sum(1)
        assert abs(kept["cosine"] - cosine.mean()) < 1e-5, method
        now = ours / length
        said = (now[pairs[:, 0]] * now[pairs[:, 1]]).sum(1)
        value = np.corrcoef(ranks(gold), ranks(said))[0, 1]
        assert abs(best["scores"][0]["value"] - value) < 1e-3, (method, best["scores"], value)
        print(f"{method}: {best['bytes']} bytes, error {error:.4f}, as numpy and ONNX Runtime say")


model2vec()
methods()
