"""Two files of records are the same trials with the same numbers, each once: same.py A.jsonl B.jsonl"""

import gzip
import json
import sys

VOLATILE = ["train_examples_per_s", "build_s", "wall_s", "parent", "peak_rss_bytes", "threads", "jobs", "started", "finished"]


def records(path):
    all, details = {}, {}
    for line in gzip.open(path.removesuffix(".jsonl") + ".details.jsonl.gz"):
        of = json.loads(line)
        details[of["trial"]] = of
    for line in open(path):
        record = json.loads(line)
        for key in VOLATILE:
            record.pop(key, None)
        assert record["trial"] not in all, f"{path}: {record['trial']} twice"
        all[record["trial"]] = record | details[record["trial"]]
    return all


a, b = map(records, sys.argv[1:])
assert a.keys() == b.keys(), f"{len(a)} trials and {len(b)}"
for trial in a:
    assert a[trial] == b[trial], f"{trial} differs:\n{a[trial]}\n{b[trial]}"
print(f"{len(a)} records, the same bits")
