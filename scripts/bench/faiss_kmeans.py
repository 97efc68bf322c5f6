"""The work of benches/kmeans.rs in FAISS: prints the seconds of training and of assignment."""

import json
import sys
import time

import faiss
import numpy

IDS, DIM, CENTROIDS = 10_000_000, 4, 10_000
threads = int(sys.argv[1])
faiss.omp_set_num_threads(threads)
points = numpy.random.default_rng(1).standard_normal((IDS, DIM), dtype=numpy.float32)
kmeans = faiss.Kmeans(DIM, CENTROIDS, niter=20, max_points_per_centroid=256, seed=1)
start = time.perf_counter()
kmeans.train(points[: 256 * CENTROIDS])
train = time.perf_counter() - start
start = time.perf_counter()
distances, _ = kmeans.index.search(points, 1)
assign = time.perf_counter() - start
print(json.dumps({"train_s": train, "assign_s": assign, "error": float(distances.mean()), "threads": threads}))
