"""results/choose.md and .csv from what compare.sh left in a folder: results.py FOLDER results/choose"""

import csv
import glob
import json
import math
import os
import statistics
import sys
import tomllib

folder, out = sys.argv[1:]
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def interval(values):
    n = len(values)
    return T[n - 1] * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan


def trials(name, what):
    return sorted({line.split()[0] for line in open(f"{folder}/{name}.{what}.list")})


def seeds_of(name, what):
    """The seeds that pick in a grid or a race, and those that confirm."""
    config = tomllib.load(open(f"{folder}/{name}/{what}/{name}-choice.toml", "rb"))
    picking, confirm = config["train"]["seeds"], config.get("sweep", {}).get("confirm", 0)
    return set(picking), set(range(max(picking) + 1, max(picking) + 1 + confirm))


def cells(records, seeds):
    """Records by label, of those that have all seeds."""
    found = {}
    for record in records:
        if record["seed"] in seeds and record["status"] == "ok":
            found.setdefault(record["label"], []).append(record)
    return {label: of for label, of in found.items() if len(of) == len(seeds)}


lines, rows, answers = [], [], []
for path in sorted(glob.glob(f"{folder}/*.set")):
    name, budget = open(path).read().split()
    records = [json.loads(line) for line in open(f"{folder}/results/{name}-choice.jsonl")]
    by_id = {record["trial"]: record for record in records}
    grid = [by_id[id] for id in trials(name, "grid") if id in by_id]
    raced = [by_id[id] for id in trials(name, "choice") if id in by_id]
    spec = records[0]["spec"]
    metric = spec["schedule"]["select"]
    key = f"test/{metric}" if f"test/{metric}" in records[0]["metrics"] else f"valid/{metric}"
    limit = next(int(r["budget"]["bytes"]) for r in grid if r["budget"])
    size = lambda r: r["param_bytes"] + r["index_bytes"]
    values = lambda of: [r["metrics"][key] for r in of]
    (of_grid, _), (picks, confirms) = seeds_of(name, "grid"), seeds_of(name, "choice")
    fitting = {l: of for l, of in cells(grid, of_grid).items() if size(of[0]) <= limit}
    for label, of in sorted(fitting.items()):
        rows.append([name, budget, "grid", label, key, len(of), statistics.mean(values(of)), interval(values(of)), size(of[0]), sum(r["wall_s"] for r in of)])
    best = max(sorted(fitting), key=lambda label: statistics.mean(values(fitting[label])))
    least = statistics.mean(values(fitting[best])) - interval(values(fitting[best]))
    winner = json.load(open(f"{folder}/{name}/choice/model/trial.json"))["label"]
    fresh = cells([r for r in raced if r["label"] == winner], confirms)[winner]
    mean = statistics.mean(values(fresh))
    rows.append([name, budget, "choice", winner, key, len(fresh), mean, interval(values(fresh)), size(fresh[0]), sum(r["wall_s"] for r in fresh)])
    answers.append(f"### {name}\n\n" + open(f"{folder}/{name}.md").read())
    seconds = lambda of: sum(r["wall_s"] for r in of)
    picking = [r for r in raced if r["seed"] in picks]
    share = seconds(picking) / seconds(grid)
    full = statistics.mean(values(cells(grid, of_grid)["full"]))
    lines.append(
        f"| {name} | {budget} | {key} | {full:.4f} | {winner} | {mean:.4f} ± {interval(values(fresh)):.4f} | {best} "
        f"| {statistics.mean(values(fitting[best])):.4f} ± {interval(values(fitting[best])):.4f} | {'yes' if mean >= least else 'no'} "
        f"| {seconds(grid) / 60:.1f} min, {len(grid)} | {seconds(picking) / 60:.1f} min, {len(picking)} | {100 * share:.0f} % "
        f"| {seconds([r for r in raced if r['seed'] in confirms]) / 60:.1f} min |"
    )

host = records[0]["host"]
text = f"""# What `embc choose` answers beside a grid of all schemes

Both on the same six samples of real rows, made by `scripts/choose/compare.sh`. The grid is `embc choose --everything`: every scheme, trained compressed ones at 4 and 8 bits, what follows from the full table at 16 to 2 bits and as codes, three seeds of each. The choice is `embc choose`. Its answer is said of five seeds that nothing was picked by, the grid's best of the three seeds that it was picked by **on the test rows**, which flatters it: the answer is *within* where its mean is not below the lower end of that cell's 95 % t-interval over seeds. Minutes are the sum of all trials' (a stage after a shared training counts by itself, and the training once), on {host['cores']} cores of {host['cpu']}, others at work beside; trials that grid and choice share were trained once, and count for both. Confirming is beyond what the grid does, and stands apart.

| experiment | within | metric | full | answer | on five fresh seeds | the grid's best | on its three | within it | grid | choice | of the grid's time | confirming |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
""" + "\n".join(lines) + """

All cells of the grids: [choose.csv](choose.csv).

## What it said

""" + "\n".join(answers)
open(out + ".md", "w").write(text)
with open(out + ".csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["experiment", "within", "of", "label", "metric", "seeds", "mean", "half of the 95 % interval", "bytes", "seconds of training"])
    writer.writerows([[f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows])
