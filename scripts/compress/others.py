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
part = folder / "beside.part"
known = part.read_text().splitlines()[1::4] if part.exists() else []


def keep(name, size, make):
    """Decodes what `make` makes, once: a run that was cut off goes on."""
    if name in known:
        return
    y = make()
    path = folder / f"{name.replace(' ', '_')}.npy"
    np.save(path, y.astype(np.float32))
    with part.open("a") as lines:
        lines.writelines(f"{word}\n" for word in ["--beside", name, size, path])
    known.append(name)
    error = np.linalg.norm(y - x) / np.linalg.norm(x)
    print(f"{name}: {size} bytes, error {error:.3f}", flush=True)


def code_bytes(books, bits):
    return n * ((books * bits + 7) // 8)


def pq(books, bits):
    pq = faiss.ProductQuantizer(d, books, bits)
    pq.train(sample)
    return pq.decode(pq.compute_codes(x))


def opq(books, bits):
    opq, pq = faiss.OPQMatrix(d, books), faiss.ProductQuantizer(d, books, bits)
    opq.niter = 25
    opq.train(sample)
    pq.train(opq.apply(sample))
    return opq.reverse_transform(pq.decode(pq.compute_codes(opq.apply(x))))


def rq(stages):
    rq = faiss.ResidualQuantizer(d, stages, 8)
    rq.train(sample)
    codes = [rq.compute_codes(x[i : i + 20000]) for i in range(0, n, 20000)]
    return rq.decode(np.concatenate(codes))


def sq(kind):
    sq = faiss.ScalarQuantizer(d, getattr(faiss.ScalarQuantizer, f"QT_{kind}"))
    sq.train(sample)
    return sq.decode(sq.compute_codes(x))


# model2vec's vocabulary quantisation: its KMeans is scikit-learn's, which takes hours here; FAISS finds
# the same kind of centroids.
length = np.linalg.norm(x, axis=1) + 1e-32
unit = x / length[:, None]


def clusters(n_clusters):
    kmeans = faiss.Kmeans(d, n_clusters, niter=10, seed=1, max_points_per_centroid=32)
    kmeans.train(unit)
    nearest = kmeans.index.search(unit, 1)[1][:, 0]
    centres = kmeans.centroids
    centres = quantize_embeddings(centres, DType.Int8) * (np.abs(centres).max() / 127)
    return centres[nearest] * length[:, None]


# fastText's -qnorm: directions by pq of two columns a piece, norms by one codebook; -cutoff keeps the
# rows of largest norm, here as many as fit, and the others become zeros.
def fasttext(rows):
    kept = np.argsort(-length, kind="stable")[:rows]
    pq = faiss.ProductQuantizer(d, d // 2, 8)
    pq.train(unit[kept][: 256 * 256])
    norms = faiss.ProductQuantizer(1, 1, 8)
    lengths = np.ascontiguousarray(length[kept, None], dtype=np.float32)
    norms.train(lengths)
    y = np.zeros_like(x)
    y[kept] = pq.decode(pq.compute_codes(unit[kept])) * norms.decode(norms.compute_codes(lengths))
    return y


columns = [c for c in range(1, d + 1) if d % c == 0]


def within(size, columns):
    """The (books, bits) of most bits a row."""
    fits = [
        (c, b)
        for c in columns
        for b in range(4, 9)
        if code_bytes(c, b) + 4 * 2**b * d <= size
    ]
    return max(fits, key=lambda of: (of[0] * of[1], of[1]), default=None)


for size in sizes:
    if of := within(size, columns):
        keep(f"FAISS PQ {of[0]}x{of[1]}", code_bytes(*of) + 4 * 2 ** of[1] * d, lambda: pq(*of))
    # Where each column is a piece of its own, a rotation brings nothing.
    if of := within(size - 4 * d * d, columns[:-1]):
        all = code_bytes(*of) + 4 * 2 ** of[1] * d + 4 * d * d
        keep(f"FAISS OPQ {of[0]}x{of[1]}", all, lambda: opq(*of))
    stages = max((m for m in range(1, 25) if n * m + 4 * 256 * m * d <= size), default=0)
    if stages:
        keep(f"FAISS RQ {stages}x8", n * stages + 4 * 256 * stages * d, lambda: rq(stages))
    each = (d + 1) // 2 + 1
    rows = min(n, (size - 4 * 256 * d - 4 * 256) // each)
    if rows >= 1000:
        all = rows * each + 4 * 256 * d + 4 * 256
        keep(f"fastText {rows} rows", all, lambda: fasttext(rows))

for kind, bits in [("4bit", 4), ("6bit", 6), ("8bit", 8), ("fp16", 16)]:
    size = n * ((d * bits + 7) // 8) + (0 if kind == "fp16" else 8 * d)
    if size <= sizes[-1] * 1.1:
        keep(f"FAISS SQ {kind}", size, lambda: sq(kind))
if n * d <= sizes[-1] * 1.1:
    scale = np.abs(x).max() / 127
    keep("model2vec int8", n * d, lambda: quantize_embeddings(x, DType.Int8) * np.float32(scale))
for n_clusters in [1000, 4000, 10000]:
    size = n_clusters * d + 8 * n + 4 * n
    if size <= sizes[-1]:
        keep(f"model2vec {n_clusters} clusters", size, lambda: clusters(n_clusters))
part.rename(folder / "beside")
