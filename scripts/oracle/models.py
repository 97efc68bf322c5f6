"""Writes crates/embc-core/tests/oracle/models.json: what PyTorch makes of small networks.

Each case has the tensors that a network starts with, its batches, and from there the losses of
twenty steps and the scores of the first batch in evaluation after them. In float64, with
torch's own layers, losses and optimizer: it shares no code with what it checks.

    pip install torch numpy && python scripts/oracle/models.py
"""

import json
import pathlib

import numpy
import torch
import torch.nn.functional as F

VOCAB, DIM, BATCH, STEPS, CLASSES = 12, 6, 8, 20, 4
torch.set_default_dtype(torch.float64)
random = numpy.random.default_rng(2)


def values(*shape):
    """Random float32 numbers, so that both sides start with the same."""
    return torch.tensor(random.normal(0, 0.5, shape).astype(numpy.float32).astype(numpy.float64))


def bags(least, most):
    of = lambda: [int(i) for i in random.integers(0, VOCAB, random.integers(least, most + 1))]
    return [of() for _ in range(BATCH)]


def ids():
    return [[int(i)] for i in random.integers(0, VOCAB, BATCH)]


def pooled(table, bags):
    empty = torch.zeros(DIM)
    return torch.stack([table[torch.tensor(bag)].mean(0) if bag else empty for bag in bags])


class Body(torch.nn.Module):
    """Linear, batch normalisation where wanted, ReLU; weights are stored [in x out]."""

    def __init__(self, inputs, widths, norm):
        super().__init__()
        self.weights, self.biases, self.norms = [], [], []
        for width in widths:
            self.weights.append(values(inputs, width).requires_grad_())
            self.biases.append(values(width).requires_grad_())
            if norm:
                self.norms.append(torch.nn.BatchNorm1d(width))
            inputs = width
        self.width = inputs

    def forward(self, x):
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = x @ weight + bias
            x = F.relu(self.norms[i](x) if self.norms else x)
        return x

    def named(self):
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            yield f"hidden{i}.weight", weight
            yield f"hidden{i}.bias", bias
        for i, norm in enumerate(self.norms):
            yield f"norm{i}.gamma", norm.weight
            yield f"norm{i}.beta", norm.bias

    def train_mode(self, on):
        for norm in self.norms:
            norm.train(on)


def case(model, knobs, inputs, output, batches, score, loss):
    """`inputs`: width of the body's input; `output`: shape of the output's weight."""
    table = values(VOCAB, DIM).requires_grad_()
    body = Body(inputs, knobs["hidden"], knobs.get("batch_norm", False))
    weight = values(*output(body.width)).requires_grad_()
    bias = values(max(output(0))).requires_grad_()
    params = {f"model/{name}": value for name, value in body.named()}
    params |= {"table0/table": table, "model/output.weight": weight, "model/output.bias": bias}
    state = {name: value.detach().flatten().tolist() for name, value in params.items()}
    for i, norm in enumerate(body.norms):
        state |= {f"model/norm{i}.mean": norm.running_mean.tolist()}
        state |= {f"model/norm{i}.variance": norm.running_var.tolist()}
    # A bias before a normalisation, or one that a difference of scores cancels, has no gradient but
    # rounding, which Adam would blow up.
    sgd = bool(body.norms) or model == "ranknet"
    make = torch.optim.SGD if sgd else torch.optim.Adam
    optimizer = make(params.values(), lr=0.1 if sgd else 0.01)
    losses = []
    for step in range(STEPS):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        value = loss(score(table, body, weight, bias, batch, True), batch)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    body.train_mode(False)
    with torch.no_grad():
        scores = score(table, body, weight, bias, batches[0], False).flatten().tolist()
    return {"model": model, "knobs": knobs, "state": state, "sgd": sgd, "batches": batches, "losses": losses, "scores": scores}


def softmax_over_items(table, body, weight, bias, batch, _):
    return body(pooled(table, batch["fields"][0])) @ weight.T + bias


def multinomial(logits, batch):
    logs = F.log_softmax(logits, 1)
    targets = [(i, t) for i, ts in enumerate(batch["targets"]) for t in ts]
    return -sum(logs[i, t] for i, t in targets) / len(targets)


def classes(table, body, weight, bias, batch, _):
    return body(pooled(table, batch["fields"][0])) @ weight + bias


def pair(table, body, weight, bias, batch, training):
    history = pooled(table, batch["fields"][0])
    items = [pooled(table, field) for field in batch["fields"][1:]]
    towers = [torch.cat([history, item, history * item], 1) for item in items]
    # One pass for both, as batch normalisation sees it.
    first, second = (body(torch.cat(towers)) @ weight + bias).squeeze(1).split(BATCH)
    return first - second if training else first


def targets():
    return [sorted({t for t in bag}) for bag in bags(0, 3)]


DENSE = 3


def click(model, knobs, batches, extra, score):
    """Models of two fields and dense features, on a binary label. `extra`: their other tensors."""
    tables = [values(VOCAB, DIM).requires_grad_() for _ in range(2)]
    body = Body(DENSE + 2 * DIM, knobs["hidden"], False)
    extra = {name: values(*shape).requires_grad_() for name, shape in extra(body.width).items()}
    params = {f"model/{name}": value for name, value in [*body.named(), *extra.items()]}
    params |= {f"table{i}/table": table for i, table in enumerate(tables)}
    state = {name: value.detach().flatten().tolist() for name, value in params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.01)

    def logits(batch):
        rows = [table[torch.tensor(field).squeeze(1)] for table, field in zip(tables, batch["fields"])]
        dense = torch.tensor(batch["dense"]).reshape(BATCH, DENSE)
        return score(extra, body, rows, dense, torch.cat([*rows, dense], 1))

    losses = []
    for step in range(STEPS):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        labels = torch.tensor(batch["labels"], dtype=torch.float64)
        value = F.binary_cross_entropy_with_logits(logits(batch), labels)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    with torch.no_grad():
        scores = logits(batches[0]).tolist()
    return {"model": model, "knobs": knobs, "state": state, "sgd": False, "batches": batches, "losses": losses, "scores": scores}


def linear(of, name, x):
    return x @ of[f"{name}.weight"] + of[f"{name}.bias"]


def deepfm(of, body, rows, dense, joined):
    first, second = rows
    factors = (first[:, 1:] * second[:, 1:]).sum(1)
    single = first[:, 0] + second[:, 0] + linear(of, "dense", dense).squeeze(1)
    return single + factors + linear(of, "output", body(joined)).squeeze(1)


def dcn(of, body, rows, dense, joined):
    x = joined
    for layer in range(2):
        x = joined * linear(of, f"cross{layer}", x) + x
    return (linear(of, "of_cross", x) + linear(of, "of_body", body(joined))).squeeze(1)


def weights(**shapes):
    return {f"{name}.{kind}": shape for name, (i, o) in shapes.items() for kind, shape in [("weight", (i, o)), ("bias", (o,))]}


items = [{"fields": [bags(0, 4)], "targets": targets(), "labels": []} for _ in range(3)]
labelled = [{"fields": [bags(0, 4)], "targets": [], "labels": [int(x) for x in random.integers(0, CLASSES, BATCH)]} for _ in range(3)]
pairs = [{"fields": [bags(1, 4), ids(), ids()], "targets": [], "labels": [1] * BATCH} for _ in range(3)]
logistic = lambda scores, _: F.softplus(-scores).mean()
entropy = lambda logits, batch: F.cross_entropy(logits, torch.tensor(batch["labels"]))

cases = [
    case("pointwise", {"hidden": []}, DIM, lambda width: (VOCAB, width), items, softmax_over_items, multinomial),
    case("pointwise", {"hidden": [7, 5], "batch_norm": True}, DIM, lambda width: (VOCAB, width), items, softmax_over_items, multinomial),
    case("classifier", {"hidden": [7]}, DIM, lambda width: (width, CLASSES), labelled, classes, entropy),
    case("ranknet", {"hidden": [7]}, 3 * DIM, lambda width: (width, 1), pairs, pair, logistic),
]
clicks = [{"fields": [ids(), ids()], "targets": [], "labels": [int(x) for x in random.integers(0, 2, BATCH)], "dense": values(BATCH * DENSE).tolist()} for _ in range(3)]
width = DENSE + 2 * DIM
cases += [
    click("deepfm", {"hidden": [7]}, clicks, lambda deep: weights(dense=(DENSE, 1), output=(deep, 1)), deepfm),
    click("dcn", {"hidden": [7], "cross": 2}, clicks, lambda deep: weights(cross0=(width, width), cross1=(width, width), of_cross=(width, 1), of_body=(deep, 1)), dcn),
]
path = pathlib.Path(__file__).parents[2] / "crates/embc-core/tests/oracle/models.json"
path.write_text(json.dumps({"vocab": VOCAB, "dim": DIM, "classes": CLASSES, "cases": cases}))
