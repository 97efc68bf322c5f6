"""Checks the metrics of the worlds of tests/cli/worlds.rs with scikit-learn and numpy.

    EMBC_WORLDS=target/worlds cargo test --release -p embc --test cli worlds
    python scripts/oracle/metrics.py target/worlds
"""

import csv
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, log_loss, ndcg_score, roc_auc_score

CUTS = [1, 3, 20, None]


def close(where, name, got, expect):
    assert abs(got - expect) < 1e-9, f"{where}: {name} is {got}, not {expect}"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rows(where, table, metrics):
    label = np.array([int(r["label"]) for r in table])
    score = np.array([np.float32(r["score"]) for r in table], dtype="f8")
    user = np.array([r["user"] for r in table])
    chance = sigmoid(score)
    close(where, "logloss", metrics["test/logloss"], log_loss(label, chance, labels=[0, 1]))
    close(where, "accuracy", metrics["test/accuracy"], accuracy_score(label, score > 0))
    if "test/auc" in metrics:
        close(where, "auc", metrics["test/auc"], roc_auc_score(label, score))
    if "test/gauc" in metrics:
        both = [(user == u) for u in set(user) if len(set(label[user == u])) == 2]
        weight = sum(m.sum() for m in both)
        gauc = sum(m.sum() * roc_auc_score(label[m], score[m]) for m in both) / weight
        close(where, "gauc", metrics["test/gauc"], gauc)
    if "test/ece" in metrics:
        bins = np.minimum((chance * 15).astype(int), 14)
        parts = [(bins == b) for b in range(15) if (bins == b).any()]
        ece = sum(m.mean() * abs(chance[m].mean() - label[m].mean()) for m in parts)
        close(where, "ece", metrics["test/ece"], ece)
    if "test/calibration" in metrics:
        close(where, "calibration", metrics["test/calibration"], chance.mean() / label.mean())


def classes(where, table, metrics):
    ids = sorted({int(r["row"]) for r in table})
    logits = {i: [] for i in ids}
    label = {}
    for r in table:
        logits[int(r["row"])].append(np.float32(r["score"]))
        label[int(r["row"])] = int(r["label"])
    x = np.array([logits[i] for i in ids], dtype="f8")
    y = np.array([label[i] for i in ids])
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    taken = x.shape[1] - 1 - np.argmax(x[:, ::-1], 1)
    close(where, "logloss", metrics["test/logloss"], log_loss(y, p, labels=range(x.shape[1])))
    close(where, "accuracy", metrics["test/accuracy"], accuracy_score(y, taken))
    close(where, "macro-f1", metrics["test/macro-f1"], f1_score(y, taken, average="macro"))


def orders(score, label):
    """Where the wanted stand, in all orders of equal scores, each as likely as the others."""
    groups = []
    for value in sorted(set(score), reverse=True):
        inside = [l for s, l in zip(score, label) if s == value]
        places = itertools.combinations(range(len(inside)), sum(inside))
        groups.append([[int(i in chosen) for i in range(len(inside))] for chosen in places])
    return [sum(parts, []) for parts in itertools.product(*groups)]


def of_order(order, wanted, k):
    k = k or 1000
    first = np.array(order[:k] + [0])
    discount = 1 / np.log2(np.arange(2, len(first) + 2))
    ideal = (1 / np.log2(np.arange(2, min(wanted, k) + 2))).sum()
    hits = np.flatnonzero(first)
    return {
        "ndcg": (first * discount).sum() / ideal,
        "hr": float(len(hits) > 0),
        "recall": len(hits) / wanted,
        "precision": len(hits) / k,
        "mrr": 1 / (1 + hits[0]) if len(hits) else 0.0,
        "map": sum((i + 1) / (h + 1) for i, h in enumerate(hits)) / min(wanted, k),
    }


def rankings(where, table, metrics):
    queries = {}
    for r in table:
        queries.setdefault(r["query"], []).append(r)
    for k in CUTS:
        sums = {}
        for query in queries.values():
            ranked = [r for r in query if r["score"]]
            label = [int(r["label"]) for r in ranked]
            score = [np.float32(r["score"]) for r in ranked]
            wanted = sum(int(r["label"]) for r in query)
            each = [of_order(order, wanted, k) for order in orders(score, label)]
            means = {name: np.mean([values[name] for values in each]) for name in each[0]}
            if len(ranked) == len(query) and len(ranked) > 1:
                close(where, "sklearn's ndcg", means["ndcg"], ndcg_score([label], [score], k=k))
            for name, value in means.items():
                sums[name] = sums.get(name, 0) + value / len(queries)
        for name, expect in sums.items():
            key = f"test/{name}" + (f"@{k}" if k else "")
            if key in metrics:
                close(where, key, metrics[key], expect)


worlds = 0
for folder in sorted(Path(sys.argv[1]).iterdir(), key=lambda path: int(path.name)):
    record = json.loads((folder / "w.jsonl").read_text().splitlines()[-1])
    for path in sorted(folder.glob("*.csv")):
        with path.open() as file:
            table = list(csv.DictReader(file))
        kind = rankings if "query" in table[0] else classes if "class" in table[0] else rows
        kind(folder.name, table, record["metrics"])
    worlds += 1
assert worlds >= 200, worlds
print(f"{worlds} worlds agree with scikit-learn and numpy to 1e-9")
