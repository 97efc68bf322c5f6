"""Files as people have them, for tests/cli/own.rs, and what pandas and DuckDB count in them.

    python -m venv /tmp/own && /tmp/own/bin/pip install pandas pyarrow duckdb
    /tmp/own/bin/python scripts/own/make.py crates/embc/tests/own [u.data of ml-100k]

The rows are made up; only u.data is real, and of that only counts are written. Each file is counted
as it was written, by another program than the one that is tested.
"""

import gzip
import json
import sys
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(1)
n, users, items = 600, 40, 25
user, item = rng.integers(0, users, n), rng.integers(0, items, n)
click = (rng.random(n) < 1 / (1 + np.exp(-(user % 5 - 2) - (item % 3 - 1)))).astype(int)
price = np.round(rng.gamma(2, 5, n), 2)
when = pd.to_datetime("2024-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 90 * 86400, n)), unit="s")
city = rng.choice(["Paris", "New York", "São Paulo", "Köln"], n)
names = ["Action", "Comedy", "Drama", "Noir", "War"]
genres = [[names[g] for g in sorted(set(rng.integers(0, 5, rng.integers(1, 4))))] for _ in range(items)]
counts = {}


def count(name, frame, several=()):
    """Rows, and of each column its distinct values and the missing ones."""
    columns = {}
    for column in frame.columns:
        values = frame[column]
        if column in several:
            columns[column] = {"distinct": int(values.explode().nunique())}
        else:
            columns[column] = {"distinct": int(values.nunique()), "missing": int(values.isna().sum())}
    counts[name] = {"rows": len(frame), "columns": columns}


# A CSV as a German Excel writes it.
frame = pd.DataFrame(
    {
        "row_id": np.arange(n) + 10000,
        "when": when.strftime("%Y-%m-%dT%H:%M:%S"),
        "user": [f"u{u}" for u in user],
        "item": [f"i{i:03}" for i in item],
        "price": price,
        "city": city,
        "country": "X",
        "clicked": np.where(click, "true", "false"),
    }
)
frame.to_csv(out / "semicolons.csv", sep=";", decimal=",", index=False)
count("semicolons", duckdb.sql(f"select * from read_csv('{out}/semicolons.csv', delim=';', decimal_separator=',')").df())

# A folder as Spark leaves it, with nulls and lists.
frame = frame.assign(
    user=user.astype("int64"),
    when=when,
    age=pd.array(rng.integers(18, 70, n), dtype="Int32"),
    genres=[genres[i] for i in item],
    clicked=click.astype(bool),
)
frame.loc[rng.random(n) < 0.1, "age"] = pd.NA
frame.loc[rng.random(n) < 0.05, "city"] = None
folder = out / "spark"
folder.mkdir(exist_ok=True)
(folder / "_SUCCESS").touch()
for part in range(4):
    rows = frame.iloc[part * n // 4 : (part + 1) * n // 4]
    rows.to_parquet(folder / f"part-{part:05}-5f2a.snappy.parquet", compression="snappy", index=False)
count("spark", duckdb.sql(f"select * from '{folder}/*.parquet'").df(), several=["genres"])

# RecBole's atomic files.
with open(out / "ml.inter", "w") as file:
    file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
    for row in range(n):
        file.write(f"{user[row]}\t{item[row]}\t{float(click[row] * 2 + rng.integers(1, 4))}\t{when[row].timestamp():.0f}\n")
with open(out / "ml.item", "w") as file:
    file.write("item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n")
    for i in range(items):
        file.write(f"{i}\tMovie {i}\t{1990 + i % 9}\t{' '.join(genres[i])}\n")
read = pd.read_csv(out / "ml.inter", sep="\t").rename(columns=lambda name: name.split(":")[0])
side = pd.read_csv(out / "ml.item", sep="\t").rename(columns=lambda name: name.split(":")[0])
side["movie_title"] = side["movie_title"].str.split(" ")
side["class"] = side["class"].str.split(" ")
count("ml", read.merge(side, on="item_id"), several=["movie_title", "class"])

# libffm.
with open(out / "fields.ffm", "w") as file:
    for row in range(n):
        file.write(f"{click[row]} 0:{user[row]}:1 1:{users + item[row]}:1 2:{users + items + item[row] % 5}:1\n")
read = [line.split() for line in open(out / "fields.ffm")]
fields = {f: [[p.split(":")[1] for p in row[1:] if p.startswith(f + ":")] for row in read] for f in "012"}
count("fields", pd.DataFrame(fields), several=["0", "1", "2"])

# A log of JSON objects, with lists and without some prices.
with open(out / "log.jsonl", "w") as file:
    for row in range(n):
        line = {
            "ts": int(when[row].timestamp()),
            "user": int(user[row]),
            "item": f"i{item[row]}",
            "tags": genres[item[row]],
            "price": float(price[row]) if row % 9 else None,
            "label": int(click[row]),
        }
        file.write(json.dumps(line) + "\n")
count("log", pd.read_json(out / "log.jsonl", lines=True), several=["tags"])

# A TSV without a header, packed.
with gzip.open(out / "plain.tsv.gz", "wt") as file:
    for row in range(n):
        file.write(f"{click[row]}\t{price[row]}\t{user[row]:08x}\t{item[row]:05x}\t{city[row]}\n")
read = pd.read_csv(out / "plain.tsv.gz", sep="\t", header=None, dtype={2: str, 3: str})
count("plain", read.rename(columns=str))

# One table in five forms.
table = pd.DataFrame(
    {
        "click": click,
        "price": np.where(rng.random(n) < 0.1, np.nan, price),
        "user": user,
        "item": [None if i == 3 else f"item {i}" for i in item],
        "when": [int(moment.timestamp()) for moment in when],
        "tags": [genres[i] if r % 7 else [] for r, i in enumerate(item)],
    }
)
arrow = pa.Table.from_pandas(table, preserve_index=False)
pyarrow.parquet.write_table(arrow, out / "table.parquet", compression="zstd", row_group_size=250)
pyarrow.feather.write_feather(arrow, out / "table.arrow", compression="lz4", chunksize=250)
table.to_json(out / "table.jsonl", orient="records", lines=True)
text = table.assign(tags=table["tags"].map("|".join))
text.to_csv(out / "table.csv", index=False)
with zipfile.ZipFile(out / "table.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("table.csv", text.to_csv(index=False))

# What is easily read in two ways: single precision, no number, lists of numbers, whole numbers as
# floats, codes; in Parquet, and as pandas writes it as text.
odd = pd.DataFrame(
    {
        "click": click,
        "single": np.array([0.1, -2.5, 3, np.nan, 1e-7, 16777217], dtype="float32")[np.arange(n) % 6],
        "never": np.where(np.arange(n) % 5 == 0, -np.nan, price),
        "user": user.astype("float64"),
        "code": pd.Categorical([f"c{i % 9}" if i % 7 else None for i in range(n)]),
        "ids": [[float(i % 4), float(i % 3)][: i % 3] for i in range(n)],
    }
)
odd.to_parquet(out / "odd.parquet", index=False)
odd.assign(ids=odd["ids"].map(json.dumps)).to_csv(out / "odd.csv", index=False)

if len(sys.argv) > 2:
    read = duckdb.sql(f"select * from read_csv('{sys.argv[2]}', delim='\t', header=false)").df()
    read.columns = ["0", "1", "2", "3"]
    count("u", read)
(out / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")
