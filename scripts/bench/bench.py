"""How fast embc is, beside others on the same work: writes results/bench/.

Each line of a table is a shape. embc (its figure includes reading the cache and drawing batches)
and the other (rows ready in memory) do it in turn, so that a busy machine slows both; the ratio is
the median over rounds. Speeds are of the steady state: embc's first step and the other's first ten
are left out. What a trial takes beside that, from the process's start to its end, is its own column.
One thread means one core for the whole process. The sgemm roof is a product of 2048 x 2048 matrices
in the same run, the better of both libraries'.

    just bench [--quick] [--rounds N] [--only REGEX] [--hide-avx512]
    just profile [--only REGEX]

`just profile` draws where a thread of embc spends its time, as a flame graph of each shape.

bench.csv has every figure of every run by revision; bench.md shows the newest of each.
"""

import argparse
import csv
import datetime
import gzip
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "bench"
EMBC = ROOT / "target" / "release" / "embc"
KAGGLE = {"dim": 16, "bottom": [512, 256, 64], "top": [512, 256]}
BARS = {"dim": 10, "bottom": [400, 400, 400], "top": [400, 400, 400]}
GMF = ["full", "hash", "ce", "cce", "robe", "hashednet", "tt", "dhe"]
BAGS = ["full", "hash", "bloom", "hash_embedding", "cce"]
OUTPUT = ROOT / "results" / "bench"


def shapes(quick):
    """Name, batch, config of embc, job of pytorch.py."""
    for batch in [2048, 128]:
        yield "DLRM Kaggle", batch, dlrm(KAGGLE, batch, 'kind = "sgd", lr = 0.1', 0), {"optimizer": "sgd", **KAGGLE}
    if quick:
        for scheme in ["full", "hash", "cce"]:
            yield f"GMF {scheme}", 256, gmf(scheme, 256), {"optimizer": "adamw", "dim": 32, "scheme": scheme, "rows": 1024}
        return
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


def bags(scheme):
    """20 Newsgroups' classifier: some hundred tokens a text, a fourth of the full table."""
    return f"""
title   = "bench"
dataset = "20news"
data    = {{ min_count = 2, history = 512 }}
model   = {{ kind = "classifier" }}
embedding = {{ dim = 128 }}
train   = {{ optimizer = {{ kind = "adam", lr = 1e-2 }}, batch = 64, epochs = 8, select = "accuracy" }}
{"" if scheme == "full" else "budget = { compression = [4] }"}
[[scheme]]
kind = "{scheme}"
{"iterations = 10" if scheme == "cce" else ""}
"""


FACTORS = """
title   = "bench"
dataset = "ml-1m-pairs"
data    = { negatives = 1 }
model   = { kind = "gmf" }
embedding = { dim = 64 }
train   = { optimizer = { kind = "sgd", lr = 0.05, touch = "touched" }, batch = 256, epochs = 5, select = "auc" }
[[scheme]]
kind = "full"
"""
LOGIT = """
title   = "bench"
dataset = "criteo-kaggle-117k"
data    = { dense = "log1p", split = { rule = "tail", valid = 0.0834, test = 0.0833 } }
model   = { kind = "dcn", cross = 0, hidden = [] }
embedding = { dim = 1 }
train   = { optimizer = { kind = "adagrad", lr = 0.1 }, batch = 128, epochs = 1, select = "auc" }
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
train   = {{ optimizer = {{ kind = "adamw", lr = 1e-3, touch = "all" }}, batch = {batch}, epochs = {1 if slow else 10}, select = "auc" }}
budget  = {{ rows = [1024] }}
[[scheme]]
kind = "{scheme}"
{"clusterings = 0" if scheme == "cce" else ""}
"""


def on(threads):
    """The first cores, and nothing else."""
    return ["taskset", "-c", f"0-{threads - 1}"]


def embc(config, threads, datasets, program=(EMBC,)):
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "bench.toml").write_text(config)
    for ending in ("jsonl", "details.jsonl.gz"):
        (WORK / "results" / f"bench.{ending}").unlink(missing_ok=True)
    command = [*program, "train", "--config", WORK / "bench.toml", "--threads", str(threads), "--quiet",
               "--data-dir", WORK / "data", "--results", WORK / "results", *datasets]
    start = time.perf_counter()
    subprocess.run(on(threads) + command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    record = json.loads((WORK / "results" / "bench.jsonl").read_text().splitlines()[-1])
    record |= json.loads(gzip.open(WORK / "results" / "bench.details.jsonl.gz").read().splitlines()[-1])
    return record | {"process_s": wall}


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


def program(figure):
    """The program itself: bytes, the time that it takes to say its version."""
    figure("the program", "", "", "embc", "MB", EMBC.stat().st_size / 1e6)
    times = []
    for _ in range(21):
        start = time.perf_counter()
        subprocess.run([EMBC, "--version"], check=True, stdout=subprocess.DEVNULL)
        times.append(1e3 * (time.perf_counter() - start))
    figure("the program", "", "", "embc", "start ms", statistics.median(times))


def build(figure):
    """Processor time of README's first build, in a folder of its own."""
    folder = WORK / "cold"
    subprocess.run(["rm", "-rf", folder], check=True)
    before = os.times()
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--bin", "embc", "--target-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    figure("the program", "", "", "embc", "build CPU s", spent)
    subprocess.run(["rm", "-rf", folder], check=True)


def classifier(figure, rounds, datasets):
    """Schemes at bag size: examples a second of training, clusterings included, of one thread."""
    speeds = {scheme: [] for scheme in BAGS}
    for _ in range(rounds):
        for scheme in BAGS:
            speeds[scheme].append(embc(bags(scheme), 1, datasets)["train_examples_per_s"])
    for scheme in BAGS:
        work = f"classifier {scheme}" + (" at 4x" if scheme != "full" else "")
        figure(work, 64, 1, "embc", "k/s", statistics.median(speeds[scheme]) / 1e3)
        ratio = statistics.median(a / b for a, b in zip(speeds[scheme], speeds["full"]))
        figure(work, 64, 1, "embc", "of full's", ratio)


def trained(figure, arguments, datasets, roofs):
    """Training beside PyTorch."""
    wanted = [shape for shape in shapes(arguments.quick) if re.search(arguments.only, f"{shape[0]} {shape[1]}")]
    for _, _, config, _ in {re.search("dataset = .*", shape[2])[0]: shape for shape in wanted}.values():
        # What makes its data is none of a trial's.
        embc(config, 2, datasets)
    for name, batch, config, job in wanted:
        speeds = {}
        for threads in (1, 2):
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                record = embc(config, threads, datasets)
                ours.append(record)
                job_now = of_the_same_size(job, record) | {"batch": batch, "seconds": 5}
                theirs.append(torch(job_now, threads)["samples_per_s"])
            fast = [record["train_examples_per_s"] for record in ours]
            speeds[threads] = statistics.median(fast)
            at = (name, batch, threads)
            figure(*at, "embc", "k/s", speeds[threads] / 1e3)
            figure(*at, "PyTorch", "k/s", statistics.median(theirs) / 1e3)
            figure(*at, "embc", "of PyTorch's", statistics.median(a / b for a, b in zip(fast, theirs)))
            beside = [r["process_s"] - r["curve"][-1]["step"] * batch / r["train_examples_per_s"] for r in ours]
            figure(*at, "embc", "s beside", statistics.median(beside))
            if name.startswith("DLRM"):
                figure(*at, "embc", "of the roof", speeds[threads] * flops(job) / 1e9 / roofs[threads])
            if threads == 2:
                figure(*at, "embc", "of one thread's", speeds[2] / speeds[1])


def profile(arguments, datasets):
    """Flame graphs of embc at each shape, by perf: profile-WORK.svg."""
    target = ROOT / "target" / "profiling"
    environment = os.environ | {"RUSTFLAGS": "-C force-frame-pointers=yes"}
    build = ["cargo", "build", "--profile", "profiling", "--locked", "--bin", "embc", "--target-dir", target]
    subprocess.run(build, cwd=ROOT, env=environment, check=True)
    subprocess.run(["cargo", "install", "--quiet", "--locked", "--root", ROOT / "target" / "tools", "inferno"], check=True)
    tools, data = ROOT / "target" / "tools" / "bin", WORK / "perf.data"
    wanted = [(f"{name} {batch}", config) for name, batch, config, _ in shapes(arguments.quick)]
    if arguments.datasets:
        wanted += [(f"classifier {scheme}", bags(scheme)) for scheme in BAGS]
    for name, config in wanted:
        if re.search(arguments.only, name):
            record = ["perf", "record", "--quiet", "--freq", "499", "--call-graph", "fp", "--output", data]
            embc(config, 1, datasets, program=[*record, target / "profiling" / "embc"])
            script = subprocess.run(["perf", "script", "--input", data], check=True, capture_output=True).stdout
            folded = subprocess.run([tools / "inferno-collapse-perf"], input=script, check=True, capture_output=True).stdout
            drawn = [tools / "inferno-flamegraph", "--title", f"{name}, one thread", "--minwidth", "0.2"]
            slug = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
            with open(OUTPUT / f"profile-{slug}.svg", "wb") as file:
                subprocess.run(drawn, input=folded, check=True, stdout=file)


def peers(figure, arguments, datasets):
    """Beside implicit and vowpal wabbit, on files of the first registry's folder."""
    folder = pathlib.Path(arguments.datasets[0]).resolve().parent
    of_factors = {"work": "bpr", "file": str(folder / "ml-1m-pairs" / "pairs_split.csv"), "dim": 64, "epochs": 5}
    of_logit = {"work": "logit", "file": str(folder / "criteo-kaggle-117k" / "train.txt"), "bits": 18,
                "train": 0.8333, "test": 0.0833, "scratch": str(WORK / "vw.txt")}
    script = pathlib.Path(__file__).with_name("peers.py")
    for name, who, config, job, threads, each in [
        # Its figure is of positives, ours of positives and as many negatives.
        ("matrix factorisation, dim 64, one negative", "implicit", FACTORS, of_factors, 1, 2),
        ("matrix factorisation, dim 64, one negative", "implicit", FACTORS, of_factors, 2, 2),
        ("logistic regression, one pass", "vowpal wabbit", LOGIT, of_logit, 2, 1),
    ]:
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            ours.append(embc(config, threads, datasets))
            command = [*on(threads), sys.executable, script, json.dumps(job | {"threads": threads})]
            theirs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        fast = [record["train_examples_per_s"] / each for record in ours]
        slow = [result["examples_per_s"] for result in theirs]
        figure(name, "", threads, "embc", "k/s", statistics.median(fast) / 1e3)
        figure(name, "", threads, who, "k/s", statistics.median(slow) / 1e3)
        figure(name, "", threads, "embc", f"of {who}'s", statistics.median(a / b for a, b in zip(fast, slow)))
        if "auc" in theirs[0]:
            figure(name, "", threads, "embc", "AUC", ours[0]["metrics"]["test/auc"])
            figure(name, "", threads, who, "AUC", theirs[0]["auc"])


def clustered(figure):
    """k-means of one CCE column beside FAISS."""
    work = "k-means: 10 M ids x 4, 10,000 centroids, 20 iterations on 256 points each, all assigned"
    for who, result in zip(("embc", "FAISS"), kmeans(2)):
        figure(work, "", 2, who, "s", result["train_s"] + result["assign_s"])
        figure(work, "", 2, who, "error", result["error"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten minutes: one round, few shapes, no build")
    parser.add_argument("--profile", action="store_true", help="flame graphs instead")
    parser.add_argument("--rounds", type=int, default=None, help="3, or 1 where quick")
    parser.add_argument("--only", default="", help="only parts and shapes whose name matches: program, build, classifier, peers, kmeans, DLRM, GMF …")
    parser.add_argument("--hide-avx512", action="store_true", help="all programs as on a machine with AVX2, by avx2.c")
    parser.add_argument("--datasets", action="append", default=[], help="registries for embc, for 20 Newsgroups and peers: of the folder of samples first")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "datasets.toml").write_text(REGISTRY)
    machine = cpu()
    if arguments.hide_avx512:
        machine = hide_avx512(machine)
    registries = [*arguments.datasets, WORK / "datasets.toml"]
    datasets = [x for path in registries for x in ("--datasets", path)]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if arguments.profile:
        return profile(arguments, datasets)
    run = [str(datetime.date.today()), revision(), machine, arguments.rounds]
    history = OUTPUT / "bench.csv"
    new = not history.exists()
    with open(history, "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["date", "revision", "machine", "rounds", "work", "batch", "threads", "program", "figure", "value"])

        def figure(work, batch, threads, who, what, value):
            writer.writerow([*run, work, batch, threads, who, what, f"{value:.4g}"])
            file.flush()
            print(work, batch, threads, who, f"{value:.4g}", what, flush=True)

        wants = lambda part: re.search(arguments.only, part)
        if wants("program"):
            program(figure)
        if wants("build") and not arguments.quick:
            build(figure)
        if wants("classifier") and arguments.datasets:
            classifier(figure, arguments.rounds, datasets)
        if any(wants(f"{shape[0]} {shape[1]}") for shape in shapes(arguments.quick)):
            roofs = {threads: roof(threads) for threads in (1, 2)}
            for threads, speed in roofs.items():
                figure("product of 2048 x 2048", "", threads, "the better of both", "GFLOP/s", speed)
            trained(figure, arguments, datasets, roofs)
        if wants("peers") and arguments.datasets:
            peers(figure, arguments, datasets)
        if wants("kmeans"):
            clustered(figure)
    render(history)


def render(history):
    """bench.md of the newest figures, a table a machine."""
    newest = {}
    for row in csv.DictReader(open(history)):
        newest[row["machine"], row["work"], row["batch"], row["threads"], row["program"], row["figure"]] = row
    text = ["# How fast", "", " ".join(__doc__.split("\n\n")[1].split("\n")), "",
            "Made by `just bench`, from [bench.csv](bench.csv). Each figure is the newest of its machine."]
    graphs = sorted(path.name for path in OUTPUT.glob("profile-*.svg"))
    if graphs:
        text += ["", "Where a thread spends its time (`just profile`): " + ", ".join(f"[{g[8:-4]}]({g})" for g in graphs) + "."]
    for machine in sorted({key[0] for key in newest}):
        text += ["", f"## {machine}", "", "| work | batch | threads | figures | revision | rounds |", "|---|---:|---:|---|---|---:|"]
        lines = {}
        for (_, work, batch, threads, who, what), row in ((k, r) for k, r in newest.items() if k[0] == machine):
            when = (f"{row['revision']}, {row['date']}", row["rounds"])
            lines.setdefault((work, batch, threads, *when), []).append(f"{who} {float(row['value']):g} {what}")
        for (work, batch, threads, when, rounds), figures in lines.items():
            text.append(f"| {work} | {batch} | {threads} | {', '.join(figures)} | {when} | {rounds} |")
    (OUTPUT / "bench.md").write_text("\n".join(text) + "\n")


def revision():
    """Of the program: what it writes itself is none of it."""
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return git("rev-parse", "--short=7", "HEAD") + ("-dirty" if changed else "")


def hide_avx512(machine):
    """From here on all that is started asks a processor without AVX-512."""
    shim = WORK / "avx2.so"
    source = pathlib.Path(__file__).with_name("avx2.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", shim, source], check=True)
    os.environ["LD_PRELOAD"] = str(shim)
    # What libc picks before that is of the same kind.
    os.environ["GLIBC_TUNABLES"] = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ"
    return machine.replace("AVX-512", "AVX2 (its AVX-512 hidden)")


def cpu():
    """The machine, and the widest vectors that it has."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    names = re.findall(r"model name\s*: (.*)", text) or ["a machine"] * (os.cpu_count() or 1)
    vectors = "AVX-512" if "avx512f" in text else "AVX2" if "avx2" in text else "NEON" if "asimd" in text else "?"
    return f"{names[0].strip()}, {len(names)} cores, {vectors}"


main()
