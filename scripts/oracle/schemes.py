"""Writes crates/embc-core/tests/oracle/schemes.json: what PyTorch makes of small embeddings.

Each case has the tensors that an embedding starts with, and from there its rows, the gradients of
the first step, and for each optimizer ten losses and the rows after them. Everything is written
from the papers' formulas and the documented hash functions, in float64, with autograd and torch's
own optimizers: it shares no code with what it checks.

    pip install torch numpy && python scripts/oracle/schemes.py
"""

import json
import math
import pathlib

import numpy
import torch
import torch.nn.functional as F

VOCAB, DIM, STEPS = 20, 8, 10
MASK = (1 << 64) - 1
torch.set_default_dtype(torch.float64)
random = numpy.random.default_rng(1)


def mix64(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def scaled(hash, size):
    return (hash * size) >> 64


def mixed(key, size):
    return [scaled(mix64(i ^ key), size) for i in range(VOCAB)]


def modulo(_, size):
    return [i % size for i in range(VOCAB)]


def poly31(c, size):
    return [c * i % 0x7FFFFFFF % size for i in range(VOCAB)]


def key():
    return int(random.integers(0, 1 << 63)) * 2 + 1


def values(*shape):
    """Random float32 numbers, so that both sides start with the same."""
    return torch.tensor(random.normal(0, 0.5, shape).astype(numpy.float32).astype(numpy.float64))


def packed(numbers, bound):
    """Integers at the fewest bits, none across two 64-bit words."""
    bits = max(1, (bound - 1).bit_length())
    each = 64 // bits
    words = [0] * -(-len(numbers) // each)
    for at, number in enumerate(numbers):
        words[at // each] |= number << at % each * bits
    return words


class Case:
    """An embedding: its parameters by name, its other state, and rows(ids, look)."""

    def __init__(self, name, kind, knobs, rows, params, state, lookup, dense=()):
        self.name, self.kind, self.knobs, self.budget = name, kind, knobs, rows
        self.params, self.state, self.lookup, self.dense = params, state, lookup, dense
        self.cluster = None


def take(rows):
    """The rows of a parameter that a list over the vocabulary names, for some ids."""
    rows = torch.tensor(rows)
    return lambda ids: rows[ids]


cases = []


def case(*arguments, **named):
    cases.append(Case(*arguments, **named))
    return cases[-1]


# look(name, indices) reads rows of a parameter, with a sparse gradient where one is wanted.
case("full", "full", {}, None, {"table": values(VOCAB, DIM)}, {}, lambda ids, look: look("table", ids))

for family, hash in [("mod", modulo), ("mix64", mixed), ("poly31", poly31)]:
    seed = {"mod": 0, "mix64": key(), "poly31": 123456789}[family]
    row = take(hash(seed, 5))
    case(f"hash {family}", "hash", {"hash": family}, 5, {"table": values(5, DIM)}, {"hash": [seed]},
         lambda ids, look, row=row: look("table", row(ids)))

for combine in ["mult", "add", "concat"]:
    # Ten rows: 7 remainders and 3 quotients; half as wide, twice as many fit.
    m, width = (7, DIM) if combine != "concat" else (18, DIM // 2)
    quotients = -(-VOCAB // m)
    join = {"mult": lambda q, r: q * r, "add": lambda q, r: q + r,
            "concat": lambda q, r: torch.cat([q, r], 1)}[combine]
    case(f"qr {combine}", "qr", {"combine": combine}, 10,
         {"remainder": values(m, width), "quotient": values(quotients, width)}, {},
         lambda ids, look, m=m, join=join: join(look("quotient", ids // m), look("remainder", ids % m)))

for bias in [False, True]:
    m = 3 if bias else 5
    row = take(modulo(0, m))
    params = {"table": values(m, DIM), "weight": values(VOCAB, 1)}
    if bias:
        params["bias"] = values(VOCAB, 1)

    def memcom(ids, look, row=row, bias=bias):
        rows = look("table", row(ids)) * look("weight", ids)
        return rows + look("bias", ids) if bias else rows

    case(f"memcom{' with bias' if bias else ''}", "memcom", {"bias": bias}, 8, params, {"hash": [0]}, memcom)

for columns in [2, 4]:
    keys = [key() for _ in range(columns)]
    rows = [take(mixed(k, 5)) for k in keys]
    case(f"ce {columns} columns", "ce", {"columns": columns}, 5,
         {f"column{j}": values(5, DIM // columns) for j in range(columns)},
         {f"hash{j}": [k] for j, k in enumerate(keys)},
         lambda ids, look, rows=rows: torch.cat(
             [look(f"column{j}", row(ids)) for j, row in enumerate(rows)], 1))

k = 2
hash_keys, pick_keys = [key() for _ in range(k)], [key() for _ in range(k)]
rows, pick = [take(mixed(x, 4)) for x in hash_keys], take(mixed(pick_keys[0], 16))


def hash_embedding(ids, look):
    weights = look("weight", pick(ids))
    return sum(weights[:, j : j + 1] * look("table", row(ids)) for j, row in enumerate(rows_of_hemb))


rows_of_hemb = rows
state = {f"hash{j}": [x] for j, x in enumerate(hash_keys)}
state |= {f"pick{j}": [x] for j, x in enumerate(pick_keys)}
case("hash_embedding", "hash_embedding", {"hashes": k}, 8,
     {"table": values(4, DIM), "weight": values(16, k)}, state, hash_embedding)

for block, signed in [(4, True), (8, False), (3, False)]:
    seed, cells, blocks = key(), 24, -(-DIM // block)
    hashes = [[mix64(mix64(i ^ seed) ^ b) for b in range(blocks)] for i in range(VOCAB)]
    places = torch.tensor([[(scaled(h[j // block], cells) + j % block) % cells for j in range(DIM)] for h in hashes])
    signs = torch.tensor([[-1.0 if signed and h[j // block] & 1 else 1.0 for j in range(DIM)] for h in hashes])
    case(f"robe blocks of {block}", "robe", {"block": block, "signed": signed}, 3,
         {"cells": values(cells, 1)}, {"key": [seed]},
         lambda ids, look, places=places, signs=signs: signs[ids] * look("cells", places[ids]).squeeze(2))

for kind, scale, signed in [("signed_hash", 1, True), ("double_hash", 1, False), ("bloom", 0.5, False)]:
    k = 1 if signed else 2
    keys, sign_key = [key() for _ in range(k)], key()
    rows = [take(mixed(x, 5)) for x in keys]
    sign = torch.tensor([[-1.0 if signed and mix64(i ^ sign_key) & 1 else 1.0] for i in range(VOCAB)])
    state = {f"hash{j}": [x] for j, x in enumerate(keys)} | ({"sign_keys": [sign_key]} if signed else {})
    case(kind, kind, {"hashes": 2} if kind == "bloom" else {}, 5, {"table": values(5, DIM)}, state,
         lambda ids, look, rows=rows, sign=sign, scale=scale:
             scale * sign[ids] * sum(look("table", row(ids)) for row in rows))

seed, cells = key(), 24
places = torch.tensor([[scaled(mix64(mix64(i ^ seed) ^ j), cells) for j in range(DIM)] for i in range(VOCAB)])
case("hashednet", "hashednet", {}, 3, {"cells": values(cells, 1)}, {"key": [seed]},
     lambda ids, look, places=places: look("cells", places[ids]).squeeze(2))

case("factorized", "factorized", {}, 10, {"table": values(VOCAB, 2), "projection": values(2, DIM)}, {},
     lambda ids, look: look("table", ids) @ look("projection", None), dense=("projection",))

last = take([min(i, 4) for i in range(VOCAB)])
case("truncate_rare", "truncate_rare", {}, 5, {"table": values(5, DIM)}, {},
     lambda ids, look: look("table", last(ids)))

# Rank 2; three digits to base 3, each picks a slice with two output components.
rank, base = 2, 3


def tensor_train(ids, look):
    digits = [ids // base**2 % base, ids // base % base, ids % base]
    left = look("core0", digits[0]).reshape(-1, 2, rank)
    left = (left @ look("core1", digits[1]).reshape(-1, rank, 2 * rank)).reshape(-1, 4, rank)
    return (left @ look("core2", digits[2]).reshape(-1, rank, 2)).reshape(-1, DIM)


case("tt", "tt", {"cores": 3}, 10,
     {"core0": values(base, 2 * rank), "core1": values(base, 2 * rank * rank), "core2": values(base, 2 * rank)},
     {}, tensor_train)

width, seed = 4, key()
inputs = torch.tensor(
    [[((mix64(mix64(i ^ seed) ^ j) >> 40) / 2**23 - 1) * math.sqrt(3) for j in range(width)] for i in range(VOCAB)]
)


def deep_hash(ids, look):
    x = inputs[ids]
    for layer in range(3):
        x = F.mish(x @ look(f"layer{layer}", None))
    return x @ look("output", None)


params = {f"layer{j}": values(width, width) for j in range(3)} | {"output": values(width, DIM)}
case("dhe", "dhe", {"layers": 2}, 10, params, {"key": [seed]}, deep_hash, dense=tuple(params))

# CCE: two columns of two pointed and two helper rows. The pointed rows lie so far apart that
# k-means has one answer.
columns, k = 2, 2
pointers = [[int(x) for x in random.integers(0, k, columns)] for _ in range(VOCAB)]
helper_keys = [key() for _ in range(columns)]
params = {}
for j in range(columns):
    params[f"column{j}"] = values(2 * k, DIM // columns)
    params[f"column{j}"][0] -= 3
    params[f"column{j}"][1] += 3


class Clustered:
    def __init__(self, pointers, keys):
        self.pointers, self.helpers = torch.tensor(pointers), [torch.tensor(mixed(x, k)) for x in keys]

    def __call__(self, ids, look):
        pieces = []
        for j in range(columns):
            column = f"column{j}"
            pieces.append(look(column, self.pointers[ids, j]) + look(column, k + self.helpers[j][ids]))
        return torch.cat(pieces, 1)


flat = [row for id in pointers for row in id]
cce = case("cce", "cce", {"columns": columns, "clusterings": 1, "moments": "reset"}, 2 * k, params,
           {"pointers": packed(flat, k), "helper_keys": helper_keys, "clusterings": [0]},
           Clustered(pointers, helper_keys))
cce.cluster = [key() for _ in range(columns)]


def clustered(case, params, optimizer):
    """Points every id at the mean of its cluster; helper rows start at zero under new keys."""
    rows = case.lookup(torch.arange(VOCAB), lambda name, rows: params[name].detach()[rows])
    pointers = torch.zeros(VOCAB, columns, dtype=torch.long)
    for j in range(columns):
        pieces = rows[:, j * DIM // columns : (j + 1) * DIM // columns]
        # Lloyd's algorithm, from the lowest and the highest piece.
        order = pieces.sum(1).argsort()
        centroids = pieces[order[[0, -1]]]
        for _ in range(50):
            nearest = torch.cdist(pieces, centroids).argmin(1)
            centroids = torch.stack([pieces[nearest == c].mean(0) for c in range(k)])
        pointers[:, j] = nearest
        with torch.no_grad():
            params[f"column{j}"][:k] = centroids
            params[f"column{j}"][k:] = 0
    for moments in optimizer.state.values():
        for name, moment in moments.items():
            if name != "step":
                moment.zero_()
    return Clustered(pointers.tolist(), case.cluster)


# Bags of one to three ids, some twice; labels 0 and 1.
batches = []
for _ in range(STEPS):
    bags = [[int(i) for i in random.integers(0, VOCAB, random.integers(1, 4))] for _ in range(12)]
    batches.append({"bags": bags, "labels": [int(x) for x in random.integers(0, 2, 12)]})
readout = values(DIM)


# CCE's repository's network of hashes; here, so that what is drawn above stays as it was.
def biased(ids, look):
    x = inputs[ids] / math.sqrt(3 * width)
    for layer in ("layer0", "layer1"):
        x = F.relu(x @ look(f"{layer}.weight", None) + look(f"{layer}.bias", None))
    return x @ look("output.weight", None) + look("output.bias", None)


params = {}
for name, outputs in (("layer0", width), ("layer1", width), ("output", DIM)):
    params |= {f"{name}.weight": values(width, outputs), f"{name}.bias": values(outputs)}
hashes = next(case.state for case in cases if case.name == "dhe")
case("dhe relu", "dhe", {"network": "relu"}, 10, params, hashes, biased, dense=tuple(params))

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "adam all": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam touched": lambda p: torch.optim.SparseAdam(p, lr=0.01),
}


def loss_of(lookup, params, batch, sparse, dense):
    def look(name, rows):
        weight = params[name]
        return weight if name in dense else F.embedding(rows, weight, sparse=sparse)

    ids = torch.tensor([i for bag in batch["bags"] for i in bag])
    rows = lookup(ids, look)
    sizes = [len(bag) for bag in batch["bags"]]
    pooled = torch.stack([part.mean(0) for part in rows.split(sizes)])
    return F.binary_cross_entropy_with_logits(pooled @ readout, torch.tensor(batch["labels"], dtype=torch.float64))


def all_rows(lookup, params):
    rows = lookup(torch.arange(VOCAB), lambda name, rows: params[name] if rows is None else params[name][rows])
    return rows.detach().flatten().tolist()


def fresh(case):
    return {name: value.clone().requires_grad_() for name, value in case.params.items()}


def run(case, name):
    params, lookup = fresh(case), case.lookup
    dense = [params[n] for n in case.dense]
    sparse = [p for n, p in params.items() if n not in case.dense]
    if name == "adam touched" and dense:
        # Weights get a gradient in every step, and so are all touched.
        optimizers = [torch.optim.Adam(dense, lr=0.01)]
        optimizers += [OPTIMIZERS[name](sparse)] if sparse else []
    else:
        optimizers = [OPTIMIZERS[name](list(params.values()))]
    losses = []

    def train():
        for batch in batches:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = loss_of(lookup, params, batch, name == "adam touched", case.dense)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            losses.append(loss.item())

    train()
    result = {}
    if case.cluster:
        lookup = clustered(case, params, optimizers[0])
        result["clustered"] = all_rows(lookup, params)
        train()
    return result | {"losses": losses, "rows": all_rows(lookup, params)}


def dump(case):
    params = fresh(case)
    loss_of(case.lookup, params, batches[0], False, case.dense).backward()
    entry = {
        "name": case.name,
        "kind": case.kind,
        "knobs": case.knobs,
        "rows_budget": case.budget,
        "params": {name: value.flatten().tolist() for name, value in case.params.items()},
        "state": case.state,
        "rows": all_rows(case.lookup, params),
        "gradients": {name: value.grad.flatten().tolist() for name, value in params.items()},
        "runs": {name: run(case, name) for name in OPTIMIZERS},
    }
    if case.cluster:
        entry["new_helper_keys"] = case.cluster
    return entry


def short(value):
    """Eight significant digits: ten times finer than what is compared."""
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, dict):
        return {k: short(v) for k, v in value.items()}
    return [short(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    exact = [c.params for c in cases]
    oracle = {
        "torch": torch.__version__.split("+")[0],
        "vocab": VOCAB,
        "dim": DIM,
        "readout": readout.tolist(),
        "batches": batches,
        "cases": [short(dump(c)) for c in cases],
    }
    for entry, params in zip(oracle["cases"], exact):
        entry["params"] = {name: value.flatten().tolist() for name, value in params.items()}
    path = pathlib.Path(__file__).parents[2] / "crates/embc-core/tests/oracle/schemes.json"
    path.write_text(json.dumps(oracle) + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")
