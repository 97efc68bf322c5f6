"""embc beside PyTorch and FAISS on the same work: writes scripts/bench/results.md.

Each line of the table is a shape. embc (its figure includes reading the cache and drawing batches)
and pytorch.py (rows ready in memory) train it in turn, so that a busy machine slows both; the ratio
is the median over rounds. One thread means one core for the whole process. The sgemm roof is a
product of 2048 x 2048 matrices in the same run, the better of both libraries'.

    just bench [--rounds N] [--only REGEX]
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "bench"
EMBC = ROOT / "target" / "release" / "embc"
KAGGLE = {"dim": 16, "bottom": [512, 256, 64], "top": [512, 256]}
BARS = {"dim": 10, "bottom": [400, 400, 400], "top": [400, 400, 400]}
GMF = ["full", "hash", "ce", "cce", "robe", "hashednet", "tt", "dhe"]


def shapes():
    """Name, batch, config of embc, job of pytorch.py."""
    for batch in [2048, 128]:
        yield "DLRM Kaggle", batch, dlrm(KAGGLE, batch, 'kind = "sgd", lr = 0.1', 0), {"optimizer": "sgd", **KAGGLE}
    yield "DLRM BARS, dense Adam", 4096, dlrm(BARS, 4096, 'kind = "adam", lr = 1e-3, touch = "all"', 10), {
        "optimizer": "adam", **BARS}
    # 20,000 users with 20 training items on average, half of them history and half targets.
    yield "softmax over 20 k items", 256, SOFTMAX, {"optimizer": "adam", "dim": 64, "items": 10}
    for batch in [256, 4096]:
        for scheme in GMF:
            config = gmf(scheme, batch)
            yield f"GMF {scheme}", batch, config, {"optimizer": "adamw", "dim": 32, "scheme": scheme, "rows": 1024}


SOFTMAX = """
title   = "bench"
dataset = "bench-softmax"
data    = { vocab = "all" }
model   = { kind = "pointwise" }
embedding = { dim = 64 }
train   = { optimizer = { kind = "adam", lr = 1e-3, touch = "all" }, batch = 256, epochs = 1, select = "ndcg" }
[[scheme]]
kind = "full"
"""
REGISTRY = """
[bench-softmax]
title  = "a million uniform pairs of 20,000 users and items"
format = "synth"
split  = { rule = "random-per-user", valid = 0.1, test = 0.1, seed = 1 }
synth  = { kind = "gmf", rows = 1000000, vocab = 20000, seed = 1 }
"""


def dlrm(shape, batch, optimizer, min_count):
    steps = 50 if min_count else 300_000 // batch
    return f"""
title   = "bench"
dataset = "synth-criteo-45m"
data    = {{ vocab = "all", min_count = {min_count}, dense = "log1p", shuffle = {{ window = 1000000 }}, split = {{ rule = "tail", valid = 0.0002, test = 0.0002 }} }}
model   = {{ kind = "dlrm", bottom = {shape["bottom"]}, top = {shape["top"]} }}
embedding = {{ dim = {shape["dim"]} }}
train   = {{ optimizer = {{ {optimizer} }}, batch = {batch}, epochs = 1, max_steps = {steps}, select = "auc" }}
[[scheme]]
kind = "full"
"""


def gmf(scheme, batch):
    slow = scheme in ["tt", "dhe"] or (scheme == "full" and batch == 256)
    return f"""
title   = "bench"
dataset = "synth-gmf-1m"
model   = {{ kind = "gmf" }}
embedding = {{ dim = 32 }}
train   = {{ optimizer = {{ kind = "adamw", lr = 1e-3, touch = "all" }}, batch = {batch}, epochs = {1 if slow else 3}, select = "auc" }}
budget  = {{ rows = [1024] }}
[[scheme]]
kind = "{scheme}"
{"clusterings = 0" if scheme == "cce" else ""}
"""


def on(threads):
    """The first cores, and nothing else."""
    return ["taskset", "-c", f"0-{threads - 1}"]


def embc(config, threads, datasets):
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "bench.toml").write_text(config)
    (WORK / "results" / "bench.jsonl").unlink(missing_ok=True)
    command = [EMBC, "train", "--config", WORK / "bench.toml", "--threads", str(threads), "--quiet",
               "--data-dir", WORK / "data", "--results", WORK / "results", *datasets]
    subprocess.run(on(threads) + command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((WORK / "results" / "bench.jsonl").read_text().splitlines()[-1])


def torch(job, threads):
    script = pathlib.Path(__file__).with_name("pytorch.py")
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [*on(threads), sys.executable, script, json.dumps(job | {"threads": threads})]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def roof(threads):
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    command = [*on(threads), "cargo", "bench", "-q", "-p", "embc-core", "--bench", "gemm"]
    text = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    ours = float(re.search(r"2048³: (\d+) GFLOP/s", text)[1])
    return max(ours, torch({"work": "roof", "seconds": 3}, threads)["gflops"])


def of_the_same_size(job, record):
    """The job with the vocabularies and inner sizes that embc chose."""
    sizes = record["sizes"]
    if record["model"] == "dlrm":
        return job | {"work": "dlrm", "vocab": [int(re.search(r": (\d+) rows", size)[1]) for size in sizes]}
    if record["model"] == "pointwise":
        return job | {"work": "softmax", "vocab": [record["model_params"] // (job["dim"] + 1)]}
    knobs = {}
    if job["scheme"] == "tt":
        base, rank = map(int, re.search(r"base (\d+) and rank (\d+)", sizes[0]).groups())
        knobs = {"rank": rank, "base": [base] * 3, "parts": [4, 4, 2]}
    if job["scheme"] == "dhe":
        width, layers = map(int, re.search(r"(\d+) hashes, (\d+) layers", sizes[0]).groups())
        knobs = {"width": width, "layers": layers}
    return job | {"work": "gmf", "vocab": [6001, 6001], "knobs": knobs}


def flops(shape):
    """Of the MLPs' products in a training step of one example: forward, and backward into both
    factors but for the first layer's input."""
    vectors = 27
    bottom = [13, *shape["bottom"], shape["dim"]]
    top = [shape["dim"] + vectors * (vectors - 1) // 2, *shape["top"], 1]
    work = sum(a * b for widths in (bottom, top) for a, b in zip(widths, widths[1:]))
    return 2 * (3 * work - bottom[0] * bottom[1])


def kmeans(threads):
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    command = [*on(threads), "cargo", "bench", "-q", "-p", "embc-core", "--bench", "kmeans"]
    ours = json.loads(subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    script = pathlib.Path(__file__).with_name("faiss_kmeans.py")
    command = [*on(threads), sys.executable, script, str(threads)]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return ours, theirs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only shapes whose name matches")
    parser.add_argument("--datasets", action="append", default=[], help="registries for embc")
    parser.add_argument("--output", default=pathlib.Path(__file__).with_name("results.md"))
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "datasets.toml").write_text(REGISTRY)
    registries = [*arguments.datasets, WORK / "datasets.toml"]
    datasets = [x for path in registries for x in ("--datasets", path)]
    wanted = [shape for shape in shapes() if re.search(arguments.only, f"{shape[0]} {shape[1]}")]
    roofs = {threads: roof(threads) for threads in (1, 2)}
    rows, speeds = [], {}
    for name, batch, config, job in wanted:
        for threads in (1, 2):
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                record = embc(config, threads, datasets)
                ours.append(record["train_examples_per_s"])
                job_now = of_the_same_size(job, record) | {"batch": batch, "seconds": 5}
                theirs.append(torch(job_now, threads)["samples_per_s"])
            speeds[name, batch, threads] = fast = statistics.median(ours)
            ratio = statistics.median(a / b for a, b in zip(ours, theirs))
            share = ""
            if name.startswith("DLRM"):
                share = f"{100 * fast * flops(job) / 1e9 / roofs[threads]:.0f} %"
            scaling = f"{fast / speeds[name, batch, 1]:.2f}x" if threads == 2 else ""
            rows.append([name, batch, threads, f"{fast / 1e3:.1f}", f"{statistics.median(theirs) / 1e3:.1f}",
                         f"**{ratio:.2f}x**", share, scaling])
            print(*rows[-1], flush=True)
    text = ["# embc beside PyTorch and FAISS", "", __doc__.split("\n\n")[1].replace("\n", " "), "",
            f"{datetime.date.today()}, {cpu()}, {arguments.rounds} round{'s' * (arguments.rounds > 1)}. Sgemm roof: "
            + ", ".join(f"{speed:.0f} GFLOP/s on {threads} thread{'s' * (threads > 1)}" for threads, speed in roofs.items()) + ".",
            "", "| work | batch | threads | embc, k/s | PyTorch, k/s | ratio | MLPs' share of the roof | of one thread |",
            "|---|---:|---:|---:|---:|---:|---:|---:|"]
    text += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    if re.search(arguments.only, "kmeans"):
        ours, theirs = kmeans(2)
        total = [x["train_s"] + x["assign_s"] for x in (ours, theirs)]
        text += ["", "k-means of one CCE column (10 M ids x 4, 10,000 centroids, 20 iterations on 256 points each, all"
                 f" assigned), 2 threads: embc {ours['train_s']:.1f} + {ours['assign_s']:.1f} s, error {ours['error']:.4f};"
                 f" FAISS {theirs['train_s']:.1f} + {theirs['assign_s']:.1f} s, error {theirs['error']:.4f}:"
                 f" **{total[1] / total[0]:.1f}x**."]
    pathlib.Path(arguments.output).write_text("\n".join(text) + "\n")


def cpu():
    names = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{names[0].strip()}, {len(names)} cores"


main()
