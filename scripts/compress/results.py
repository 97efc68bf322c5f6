"""The report of `embc compress` as a committed result: results.py FOLDER results/NAME.

NAME.md is the report without its pictures and times, NAME.csv all values.
"""

import csv
import json
import re
import sys
from pathlib import Path

folder, name = Path(sys.argv[1]), sys.argv[2]
text = (folder / "report.md").read_text()
text = re.sub(r"!\[[^\n]*\n\n", "", text)
lines, timed = [], False
for line in text.splitlines():
    # The last column of the first table is a time.
    timed = line.startswith("|") and (timed or "fitted in" in line)
    lines.append(line.rsplit("|", 2)[0] + "|" if timed else line)
Path(f"{name}.md").write_text("\n".join(lines) + "\n")

tried = [json.loads(line) for line in (folder / "tried.jsonl").open()]
with open(f"{name}.csv", "w", newline="") as out:
    table = csv.writer(out, lineterminator="\n")
    tasks = [score["task"] for score in tried[0]["scores"]]
    table.writerow(["method", "sizes", "bytes", "rows", "error", "cosine", "cosine_low", "neighbours", *tasks])
    for of in tried:
        for kept in of["kept"]:
            values = [kept[key] for key in ["error", "cosine", "cosine_low", "neighbours"]]
            scores = [score["value"] if kept["rows"] == "all" else "" for score in of["scores"]]
            row = [f"{x:.5f}" if isinstance(x, float) else x for x in [*values, *scores]]
            table.writerow([of["method"], of["sizes"], of["bytes"], kept["rows"], *row])
