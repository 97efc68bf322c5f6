"""results/frontier/frontier.md and .csv from the records of configs/frontier/*.toml:
scripts/frontier/results.py EMBC DATASETS.toml DATA_DIR"""

import csv
import glob
import json
import math
import os
import statistics
import subprocess
import sys
import tomllib

embc, datasets, data = map(os.path.abspath, sys.argv[1:])
os.chdir(os.path.join(os.path.dirname(__file__), "../.."))
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
# What needs the full table while it trains.
AFTER = {"full", "pq", "opq", "rq", "binary"}


def interval(values):
    n = len(values)
    return T[n - 1] * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan


def wanted(name):
    """The ids of an experiment's trials: other records are of other versions."""
    where = ["--datasets", datasets, "--data-dir", data, "--results", "results", "--quiet"]
    listed = subprocess.run([embc, "sweep", "--config", name, "--list", *where], check=True, capture_output=True, text=True)
    return {line.split()[0] for line in listed.stdout.splitlines() if line.strip()}


def cells(records):
    """Records of seeds by label and budget."""
    found = {}
    for record in records:
        if record["status"] == "ok":
            budget = record["budget"]["bytes"] if record["budget"] else None
            found.setdefault((record["label"], budget), {})[record["seed"]] = record
    return found


def size(of):
    return max(r["param_bytes"] + r["index_bytes"] for r in of.values())


def uncompressed(of):
    """Whether what trained was the full table, which the budget holds in narrower values."""
    first = next(iter(of.values()))
    return first["scheme"] != "full" and first["compression_params"] == 1 and first["index_bytes"] == 0


def with_full(of):
    first = next(iter(of.values()))
    return uncompressed(of) or first["scheme"] in AFTER and not first["label"].endswith("trained")


def ranked(found, limit, seeds, valid, after):
    """The best form of each label within so many bytes, best first, by validation alone."""
    best = {}
    for (label, _), of in found.items():
        if label != "full" and not uncompressed(of) and with_full(of) == after and of.keys() == seeds and size(of) <= limit:
            mean = statistics.mean(r["metrics"][valid] for r in of.values())
            best[label] = max(best.get(label, (-math.inf, {})), (mean, of), key=lambda x: x[0])
    return [of for _, of in sorted(best.values(), key=lambda x: -x[0])]


def change(of, full, key):
    """What is lost against the full table, in percent of it, paired by seed; 95 % over seeds."""
    lost = [100 * (r["metrics"][key] / full[seed]["metrics"][key] - 1) for seed, r in of.items()]
    return f"{statistics.mean(lost):+.1f} ± {interval(lost):.1f} %"


rows, text, sets = [], [], []
for path in sorted(glob.glob("configs/frontier/*.toml")):
    name, config = os.path.basename(path)[:-5], tomllib.load(open(path, "rb"))
    select, seeds = config["train"]["select"], set(config["train"]["seeds"])
    assert select.split("@")[0] in ("auc", "ndcg", "accuracy"), "more is better"
    if not os.path.exists(f"results/frontier/{name}.jsonl"):
        print(f"{name} has no records yet and is left out")
        continue
    ids = wanted(name)
    records = [json.loads(line) for line in open(f"results/frontier/{name}.jsonl")]
    records = [record for record in records if record["trial"] in ids]
    found = cells(records)
    if len({record["trial"] for record in records}) < len(ids) or found[("full", None)].keys() != seeds:
        print(f"{name} is not finished and is left out")
        continue
    sets.append(name)
    valid, full = f"valid/{select}", found[("full", None)]
    key = valid if config["table"].get("split") == "valid" else f"test/{select}"
    values = [r["metrics"][key] for r in full.values()]
    picked = "; picked by the very numbers that are shown, as the protocol has no test rows" if key == valid else ""
    text.append(f"\n## [{name}]({name}.md)\n\n{config['title'].split(': ', 1)[1]}. `full`: {key} {statistics.mean(values):.4f} ± {interval(values):.4f} in {size(full):,} bytes{picked}.\n")
    text.append("| bytes | with the full table in training | next | third | without it | next | third |\n|---|---|---|---|---|---|---|")
    for limit in config["budget"]["bytes"]:
        line = [f"{limit:,}"]
        for after in (True, False):
            three = ranked(found, limit, seeds, valid, after)[:3]
            said = [f"{next(iter(of.values()))['label']}, {change(of, full, key)}" for of in three]
            line += said + ["–"] * (3 - len(said))
        text.append("| " + " | ".join(line) + " |")
    for (label, budget), of in sorted(found.items(), key=lambda cell: (cell[0][0], cell[0][1] or 0)):
        values = [r["metrics"][key] for r in of.values()]
        rows.append([name, label, budget or "", "with" if with_full(of) else "without", key, len(of), f"{statistics.mean(values):.6g}", f"{interval(values):.6g}", size(of)])

head = f"""# The frontier: quality within bytes

{len(sets)} experiments on real rows, at a fourth to a 256th of the full table's bytes, made by `embc sweep --config frontier_…` and `scripts/frontier/results.py`. Two frontiers in each: what is encoded from a full table that was trained, and what never held one in fp32 while it trained. At each size the first three by validation, of those that fit (a smaller one may win), and what they change of the full table's metric: mean over three seeds, with 95 % t-intervals of the differences by seed. They were picked on the same seeds that are shown, which flatters whoever is first: neighbours whose intervals overlap are not told apart. A scheme whose budget holds all rows in four bits trained the full table, and is none of either. Left out as slow or seldom good there: tt, dhe, lma, hashednet, bloom, signed_hash, double_hash, cqr. All forms: [frontier.csv](frontier.csv).
"""
open("results/frontier/frontier.md", "w").write(head + "\n".join(text) + "\n")
with open("results/frontier/frontier.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["experiment", "label", "within", "full table in training", "metric", "seeds", "mean", "half of the 95 % interval", "bytes"])
    writer.writerows(rows)
