"""What other programs make of a table, decoded to .npy: others.py TABLE SIZES FOLDER.

Writes FOLDER/beside, the arguments of `embc compress --beside`, one a line. Bytes are those that each
program stores: codes, codebooks at 32 bits, rotations, and model2vec's mapping of 64 bits.
"""

import sys
import faiss
import numpy as np
from pathlib import Path
from model2vec.quantization import DType, quantize_embeddings

table, sizes, folder = sys.argv[1], [int(n) for n in sys.argv[2].split(",")], Path(sys.argv[3])
if table.endswith(".npy"):
    x = np.ascontiguousarray(np.load(table), dtype=np.float32)
else:
    from safetensors.numpy import load_file

    x = np.ascontiguousarray(next(iter(load_file(table).values())), dtype=np.float32)
n, d = x.shape
rng = np.random.default_rng(1)
sample = x[np.sort(rng.choice(n, min(n, 65536), replace=False))]
lines = []


def keep(name, size, y):
    path = folder / f"{name.replace(' ', '_')}.npy"
    np.save(path, y.astype(np.float32))
    lines.extend(["--beside", name, str(size), str(path)])
    error = np.linalg.norm(y - x) / np.linalg.norm(x)
    print(f"{name}: {size} bytes, error {error:.3f}", flush=True)


def code_bytes(books, bits):
    return n * ((books * bits + 7) // 8)


def best(fits):
    """The (books, bits) with most bits a row."""
    return max(fits, key=lambda of: (of[0] * of[1], of[1]), default=None)


columns = [c for c in range(1, d + 1) if d % c == 0]
done = set()
for size in sizes:

    def within(extra, width):
        return best(
            (c, b)
            for c in columns
            for b in range(4, 9)
            if code_bytes(c, b) + 4 * 2**b * width(c) + extra <= size
        )

    if (of := within(0, lambda c: d)) and ("pq", of) not in done:
        done.add(("pq", of))
        pq = faiss.ProductQuantizer(d, *of)
        pq.train(sample)
        keep(f"FAISS PQ {of[0]}x{of[1]}", code_bytes(*of) + 4 * 2 ** of[1] * d, pq.decode(pq.compute_codes(x)))
    if (of := within(4 * d * d, lambda c: d)) and ("opq", of) not in done:
        done.add(("opq", of))
        opq, pq = faiss.OPQMatrix(d, of[0]), faiss.ProductQuantizer(d, *of)
        opq.niter = 25
        opq.train(sample)
        y = opq.apply(x)
        pq.train(opq.apply(sample))
        back = opq.reverse_transform(pq.decode(pq.compute_codes(y)))
        keep(f"FAISS OPQ {of[0]}x{of[1]}", code_bytes(*of) + 4 * 2 ** of[1] * d + 4 * d * d, back)
    stages = max((m for m in range(1, 25) if n * m + 4 * 256 * m * d <= size), default=0)
    if stages and ("rq", stages) not in done:
        done.add(("rq", stages))
        rq = faiss.ResidualQuantizer(d, stages, 8)
        rq.train(sample)
        codes = np.concatenate([rq.compute_codes(x[i : i + 20000]) for i in range(0, n, 20000)])
        keep(f"FAISS RQ {stages}x8", n * stages + 4 * 256 * stages * d, rq.decode(codes))

for kind, bits in [("4bit", 4), ("6bit", 6), ("8bit", 8), ("fp16", 16)]:
    sq = faiss.ScalarQuantizer(d, getattr(faiss.ScalarQuantizer, f"QT_{kind}"))
    sq.train(sample)
    size = n * sq.code_size + 4 * (0 if kind == "fp16" else 2 * d)
    if size <= sizes[-1] * 1.05:
        keep(f"FAISS SQ {kind}", size, sq.decode(sq.compute_codes(x)))

scale = np.abs(x).max() / 127
if n * d <= sizes[-1] * 1.05:
    keep("model2vec int8", n * d, quantize_embeddings(x, DType.Int8).astype(np.float32) * scale)

# model2vec's vocabulary quantisation: its KMeans is scikit-learn's, which takes hours here; FAISS finds the
# same kind of centroids.
length = np.linalg.norm(x, axis=1) + 1e-32
unit = x / length[:, None]
for clusters in [1000, 4000, 10000]:
    size = clusters * d + 8 * n + 4 * n
    if size <= sizes[-1]:
        kmeans = faiss.Kmeans(d, clusters, niter=20, seed=1)
        kmeans.train(unit)
        nearest = kmeans.index.search(unit, 1)[1][:, 0]
        centres = kmeans.centroids
        centres = quantize_embeddings(centres, DType.Int8) * (np.abs(centres).max() / 127)
        keep(f"model2vec {clusters} clusters", size, centres[nearest] * length[:, None])

# fastText's -qnorm: directions by pq of two columns a piece, norms by one codebook; -cutoff keeps the rows
# of largest norm, here as many as fit, and the others become zeros.
each = (d + 1) // 2 + 1
for size in sizes:
    rows = min(n, (size - 4 * 256 * d - 4 * 256) // each)
    if rows > 0 and (rows < n or ("fasttext", n) not in done):
        done.add(("fasttext", rows))
        kept = np.argsort(-length, kind="stable")[:rows]
        pq = faiss.ProductQuantizer(d, d // 2, 8)
        pq.train(unit[kept][: 256 * 256])
        norms = faiss.ProductQuantizer(1, 1, 8)
        lengths = np.ascontiguousarray(length[kept, None], dtype=np.float32)
        norms.train(lengths)
        y = np.zeros_like(x)
        y[kept] = pq.decode(pq.compute_codes(unit[kept])) * norms.decode(norms.compute_codes(lengths))
        keep(f"fastText {rows} rows", rows * each + 4 * 256 * d + 4 * 256, y)

(folder / "beside").write_text("".join(line + "\n" for line in lines))
