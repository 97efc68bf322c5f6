"""Work of native peers beside embc's, called by bench.py with a job as JSON: prints a JSON line.

bpr   implicit's BPR matrix factorisation (C++, lock-free): positives a second, each with one negative.
logit vowpal wabbit's logistic regression on hashed features, one pass over its own text format:
      rows a second with reading, and AUC on the test rows.
"""

import json
import math
import sys
import time


def bpr(job):
    import numpy
    import scipy.sparse
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    pairs = numpy.loadtxt(job["file"], delimiter=",", skiprows=1, usecols=(0, 1, 2), dtype=numpy.int32)
    users, items = pairs[pairs[:, 2] == 0, :2].T
    ratings = scipy.sparse.csr_matrix((numpy.ones(len(users), numpy.float32), (users, items)))

    def seconds(epochs):
        model = BayesianPersonalizedRanking(factors=job["dim"], iterations=epochs, num_threads=job["threads"], random_state=1)
        start = time.perf_counter()
        model.fit(ratings, show_progress=False)
        return time.perf_counter() - start

    # What comes before the first epoch is none of it.
    few, many = seconds(1), seconds(1 + job["epochs"])
    return {"examples_per_s": job["epochs"] * len(users) / (many - few)}


def auc(scores, labels):
    """The area under the curve, ties halved."""
    order = sorted(zip(scores, labels))
    rank, area, at = 1, 0.0, 0
    while at < len(order):
        end = at
        while end < len(order) and order[end][0] == order[at][0]:
            end += 1
        area += sum(label for _, label in order[at:end]) * (rank + (end - at - 1) / 2)
        rank, at = rank + end - at, end
    positives = sum(labels)
    return (area - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))


def logit(job):
    import vowpalwabbit

    def line(fields):
        dense = ((i, float(x)) for i, x in enumerate(fields[1:14]) if x)
        numbers = " ".join(f"i{i}:{math.copysign(math.log1p(abs(x)), x):.4f}" for i, x in dense)
        ids = " ".join(f"c{i}={x}" for i, x in enumerate(fields[14:]))
        return f"{1 if fields[0] == '1' else -1} | {numbers} {ids}"

    rows = [line(text.rstrip("\n").split("\t")) for text in open(job["file"])]
    trains, held_out = int(len(rows) * job["train"]), int(len(rows) * job["test"])
    text = job["scratch"]
    with open(text, "w") as file:
        file.write("\n".join(rows[:trains]) + "\n")
    options = f"--quiet --loss_function logistic --link logistic -b {job['bits']}"
    start = time.perf_counter()
    model = vowpalwabbit.Workspace(f"{options} -d {text}")
    took = time.perf_counter() - start
    scores = [model.predict(row) for row in rows[-held_out:]]
    labels = [int(row.startswith("1 ")) for row in rows[-held_out:]]
    return {"examples_per_s": trains / took, "auc": auc(scores, labels)}


job = json.loads(sys.argv[1])
print(json.dumps({"bpr": bpr, "logit": logit}[job["work"]](job)))
