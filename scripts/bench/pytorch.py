"""Trains one model of `just bench` in PyTorch on random rows, and prints samples a second.

The best that plain PyTorch gives on a CPU: rows ready in memory, sparse gradients where the
optimizer takes them, hashes looked up in a table made beforehand, no evaluation. Says the sgemm
roof too, if asked for `roof`.

    python pytorch.py '{"work": "dlrm", "threads": 1, "batch": 2048, "seconds": 10, ...}'
"""

import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def mlp(widths, last):
    layers = []
    for i, (a, b) in enumerate(zip(widths, widths[1:])):
        layers.append(nn.Linear(a, b))
        if last or i + 2 < len(widths):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class Dlrm(nn.Module):
    """Bottom MLP, a table for each field, all pairs of inner products, top MLP."""

    def __init__(self, vocabularies, dim, bottom, top, sparse):
        super().__init__()
        self.tables = nn.ModuleList()
        for rows in vocabularies:
            table = torch.empty(rows, dim).uniform_(-0.05, 0.05)
            self.tables.append(nn.Embedding.from_pretrained(table, freeze=False, sparse=sparse))
        vectors = len(vocabularies) + 1
        self.bottom = mlp([13, *bottom, dim], True)
        self.top = mlp([dim + vectors * (vectors - 1) // 2, *top, 1], False)
        i, j = torch.tril_indices(vectors, vectors, -1)
        self.pairs = i * vectors + j

    def forward(self, dense, ids):
        x = self.bottom(dense)
        z = torch.stack([x] + [table(ids[f]) for f, table in enumerate(self.tables)], 1)
        dots = torch.bmm(z, z.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        return self.top(torch.cat([x, dots], 1)).squeeze(1)


class Full(nn.Module):
    def __init__(self, vocab, rows, dim):
        super().__init__()
        self.table = nn.Embedding(vocab, dim)

    def forward(self, ids):
        return self.table(ids)


class Hash(nn.Module):
    def __init__(self, vocab, rows, dim):
        super().__init__()
        self.table = nn.Embedding(rows, dim)
        self.register_buffer("row", torch.randint(rows, (vocab,)))

    def forward(self, ids):
        return self.table(self.row[ids])


class Ce(nn.Module):
    """Columns of dim / columns; each id has a row in each, `terms` rows for CCE's two tables."""

    def __init__(self, vocab, rows, dim, columns=4, terms=1):
        super().__init__()
        each = rows // terms
        self.table = nn.Parameter(torch.randn(columns * terms * each, dim // columns))
        start = torch.arange(columns * terms) * each
        self.register_buffer("row", torch.randint(each, (vocab, columns * terms)) + start)
        self.shape = (columns, terms, dim // columns)

    def forward(self, ids):
        pieces = F.embedding(self.row[ids], self.table).view(-1, *self.shape)
        return pieces.sum(2).flatten(1) if self.shape[1] > 1 else pieces.flatten(1)


class Cells(nn.Module):
    """HashedNet: a cell of one memory for each component. ROBE: blocks of them."""

    def __init__(self, vocab, rows, dim, block=1):
        super().__init__()
        self.cells = nn.Parameter(torch.randn(rows * dim))
        first = torch.randint(rows * dim, (vocab, dim // block, 1))
        place = ((first + torch.arange(block)) % (rows * dim)).flatten(1)
        self.register_buffer("place", place)

    def forward(self, ids):
        return self.cells[self.place[ids]]


class TensorTrain(nn.Module):
    """Three cores; rank and digits as embc's tt chose them for the same budget."""

    def __init__(self, vocab, rows, dim, rank, base, parts):
        super().__init__()
        self.base, self.rank, self.parts = base, rank, parts
        a, b, c = parts
        self.cores = nn.ParameterList([
            torch.randn(base[0], a * rank), torch.randn(base[1], rank * b * rank),
            torch.randn(base[2], rank * c)])

    def forward(self, ids):
        (_, y, z), (a, b, c), r = self.base, self.parts, self.rank
        left = F.embedding(ids // (y * z), self.cores[0]).view(-1, a, r)
        left = torch.bmm(left, F.embedding(ids // z % y, self.cores[1]).view(-1, r, b * r))
        right = F.embedding(ids % z, self.cores[2]).view(-1, r, c)
        return torch.bmm(left.reshape(-1, a * b, r), right).flatten(1)


class Dhe(nn.Module):
    """Hashes of an id as inputs of an MLP of the same widths as embc's."""

    def __init__(self, vocab, rows, dim, width, layers):
        super().__init__()
        self.register_buffer("inputs", torch.rand(vocab, width) * 2 - 1)
        widths = [width] * (layers + 1)
        stack = [m for a, b in zip(widths, widths[1:]) for m in (nn.Linear(a, b, bias=False), nn.Mish())]
        self.net = nn.Sequential(*stack, nn.Linear(width, dim, bias=False))

    def forward(self, ids):
        return self.net(self.inputs[ids])


SCHEMES = {
    "full": Full, "hash": Hash, "ce": Ce, "cce": lambda *a: Ce(*a, terms=2),
    "robe": lambda *a, **k: Cells(*a, block=8, **k), "hashednet": Cells, "tt": TensorTrain, "dhe": Dhe,
}


class Gmf(nn.Module):
    def __init__(self, vocab, dim, scheme, rows, knobs):
        super().__init__()
        self.user, self.item = (SCHEMES[scheme](v, rows, dim, **knobs) for v in vocab)

    def forward(self, _, ids):
        return (self.user(ids[0]) * self.item(ids[1])).sum(1)


class Softmax(nn.Module):
    """Mean of a history's rows, a logit for each item; the loss is that of all targets."""

    def __init__(self, vocab, dim, items):
        super().__init__()
        self.history, self.output = nn.EmbeddingBag(vocab, dim, mode="mean"), nn.Linear(dim, vocab)
        self.items = items

    def forward(self, _, ids):
        history, targets = ids.view(-1, 2 * self.items).split(self.items, 1)
        logs = F.log_softmax(self.output(self.history(history)), 1)
        return -logs.gather(1, targets).mean()


def roof(seconds):
    """GFLOP/s of a product of 2048 x 2048 matrices."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        n += 1
    return {"gflops": n * 2 * 2048**3 / (time.perf_counter() - start) / 1e9}


def main():
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    torch.manual_seed(1)
    if job["work"] == "roof":
        return roof(job["seconds"])
    batch = job["batch"]
    loss_of = F.binary_cross_entropy_with_logits
    if job["work"] == "softmax":
        loss_of = lambda loss, _: loss
    vocab = job["vocab"]
    if job["work"] == "dlrm":
        model = Dlrm(vocab, job["dim"], job["bottom"], job["top"], job["optimizer"] == "sgd")
    elif job["work"] == "softmax":
        model = Softmax(vocab[0], job["dim"], job["items"])
        vocab = vocab * 2 * job["items"]
    else:
        model = Gmf(vocab, job["dim"], job["scheme"], job["rows"], job.get("knobs", {}))
    weights = list(model.parameters())
    optimizer = {
        "sgd": lambda: torch.optim.SGD(weights, lr=0.1),
        "adam": lambda: torch.optim.Adam(weights, lr=1e-3),
        "adamw": lambda: torch.optim.AdamW(weights, lr=1e-3),
    }[job["optimizer"]]()
    # The ranks that embc's generator draws: log-uniform for criteo, uniform for gmf.
    batches = []
    for _ in range(64):
        u = torch.rand(len(vocab), batch, dtype=torch.float64)
        size = torch.tensor(vocab, dtype=torch.float64).unsqueeze(1)
        ids = (size**u - 1 if job["work"] == "dlrm" else size * u).long()
        batches.append((torch.rand(batch, 13), ids.clamp_max_((size - 1).long()), torch.randint(2, (batch,)).float()))
    done, start = 0, None
    for step in range(10**9):
        if step == 10:
            done, start = 0, time.perf_counter()
        elif start and time.perf_counter() - start > job["seconds"]:
            break
        dense, ids, labels = batches[step % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        loss_of(model(dense, ids), labels).backward()
        optimizer.step()
        done += batch
    return {"samples_per_s": done / (time.perf_counter() - start)}


print(json.dumps(main()))
