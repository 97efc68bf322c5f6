"""Writes crates/embc-core/tests/oracle/optimizers.json: what torch's own optimizers and schedules make
of a matrix in ten steps, with every weight decay and learning-rate schedule that embc offers.

    pip install torch numpy && python scripts/oracle/optimizers.py
"""

import json
import pathlib

import numpy
import torch
from torch.optim import SGD, Adagrad, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

ROWS, COLUMNS, STEPS = 6, 3, 10
torch.set_default_dtype(torch.float64)
random = numpy.random.default_rng(2)
start = random.normal(0, 1, (ROWS, COLUMNS)).astype(numpy.float32).astype(numpy.float64)
gradients = random.normal(0, 1, (STEPS, ROWS, COLUMNS)).astype(numpy.float32).astype(numpy.float64)

# Each as a config writes it, and as torch does.
OPTIMIZERS = [
    ({"kind": "sgd", "lr": 0.1, "touch": "all", "weight_decay": 0.1}, lambda p: SGD(p, 0.1, weight_decay=0.1)),
    ({"kind": "momentum", "lr": 0.1, "touch": "all"}, lambda p: SGD(p, 0.1, momentum=0.9)),
    ({"kind": "momentum", "lr": 0.1, "touch": "all", "momentum": 0.5, "weight_decay": 0.1}, lambda p: SGD(p, 0.1, momentum=0.5, weight_decay=0.1)),
    ({"kind": "adagrad", "lr": 0.1}, lambda p: Adagrad(p, 0.1)),
    ({"kind": "adam", "lr": 0.1, "touch": "all", "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}, lambda p: Adam(p, 0.1, betas=(0.8, 0.95), eps=1e-3)),
    ({"kind": "adam", "lr": 0.1, "touch": "all", "weight_decay": 0.1}, lambda p: Adam(p, 0.1, weight_decay=0.1)),
    ({"kind": "adamw", "lr": 0.1, "touch": "all"}, lambda p: AdamW(p, 0.1, weight_decay=0.01)),
    ({"kind": "adamw", "lr": 0.1, "touch": "all", "weight_decay": 0.3}, lambda p: AdamW(p, 0.1, weight_decay=0.3)),
]


def warmup(optimizer, steps):
    return LinearLR(optimizer, start_factor=1 / steps, end_factor=1.0, total_iters=steps - 1)


SCHEDULES = [
    (None, lambda o: None),
    ({"kind": "constant", "warmup": 4}, lambda o: warmup(o, 4)),
    ({"kind": "linear", "end": 0.2}, lambda o: LinearLR(o, 1.0, 0.2, total_iters=STEPS)),
    ({"kind": "cosine", "end": 0.1}, lambda o: CosineAnnealingLR(o, STEPS, eta_min=0.01)),
    ({"kind": "cosine", "warmup": 3}, lambda o: SequentialLR(o, [warmup(o, 3), CosineAnnealingLR(o, STEPS - 3)], [3])),
]


def run(make, schedule):
    weights = torch.tensor(start, requires_grad=True)
    optimizer = make([weights])
    scheduler = schedule(optimizer)
    for gradient in gradients:
        weights.grad = torch.tensor(gradient)
        optimizer.step()
        if scheduler:
            scheduler.step()
    return weights.detach().flatten().tolist()


if __name__ == "__main__":
    cases = [
        {"optimizer": config, "schedule": of, "weights": [float(f"{x:.8g}") for x in run(make, schedule)]}
        for config, make in OPTIMIZERS
        for of, schedule in SCHEDULES
    ]
    oracle = {
        "torch": torch.__version__.split("+")[0],
        "columns": COLUMNS,
        "start": start.flatten().tolist(),
        "gradients": [g.flatten().tolist() for g in gradients],
        "cases": cases,
    }
    path = pathlib.Path(__file__).parents[2] / "crates/embc-core/tests/oracle/optimizers.json"
    path.write_text(json.dumps(oracle) + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")
