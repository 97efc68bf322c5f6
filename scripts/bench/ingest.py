"""Times embc's ingest of 10 million rows of Criteo's shape, as text, gzip and Parquet, beside DuckDB
and polars, which only scan: they read every value into memory, and encode nothing.

    cargo build --release && pip install duckdb polars
    python scripts/bench/ingest.py FOLDER [ROWS]      # 8 GB free; writes scripts/bench/ingest.md
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import polars

ROOT = Path(__file__).resolve().parents[2]
folder, rows = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
embc = ROOT / "target/release/embc"
text, gz, parquet = folder / "train.txt", folder / "train.txt.gz", folder / "train.parquet"
names = ["label"] + [f"I{i}" for i in range(1, 14)] + [f"C{i}" for i in range(1, 27)]
types = "{" + ",".join(f"'{n}': '{'VARCHAR' if n[0] == 'C' else 'BIGINT'}'" for n in names) + "}"


def csv(path):
    return f"read_csv('{path}', delim='\t', header=false, columns={types}, nullstr='')"


if not text.exists():
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([embc, "-q", "data", "synth", "criteo", "--rows", str(rows), "--output", folder], check=True)
if not gz.exists():
    subprocess.run(f"gzip -1 -k {text}", shell=True, check=True)
if not parquet.exists():
    source = csv(text)
    duckdb.sql(f"COPY (SELECT * FROM {source}) TO '{parquet}' (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE 500000)")
columns = f"{{ label = 'label', dense = {names[1:14]}, categorical = {names[14:]} }}"
registry = ""
for name, file, form, extra in [("text", text, "criteo", ""), ("gz", gz, "criteo", ""), ("parquet", parquet, "parquet", f"columns = {columns}\n")]:
    registry += f"[{name}]\ntitle = '{name}'\nformat = '{form}'\nsplit = {{ rule = 'tail', valid = 0.1, test = 0.1 }}\nfiles.data = {{ path = '{file.resolve()}' }}\n{extra}\n"
(folder / "registry.toml").write_text(registry)


def timed(command):
    """Seconds, CPU seconds and peak memory in MiB of a process."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, said
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said


def ingest(name):
    shutil.rmtree(folder / "data", ignore_errors=True)
    return timed([embc, "--datasets", folder / "registry.toml", "--data-dir", folder / "data", "data", "ingest", name])


def python(code):
    return timed([sys.executable, "-c", code])


def scan(source):
    every = ", ".join(f'max("{name}")' for name in names)
    return python(f"import duckdb; duckdb.sql('set threads={os.cpu_count()}'); duckdb.sql(\"\"\"create temp table t as select * from {source}\"\"\"); duckdb.sql('''select {every} from t''').fetchall()")


runs = [
    ("text", "embc", lambda: ingest("text")),
    ("text", "DuckDB, scan", lambda: scan(csv(text))),
    ("text", "polars, scan", lambda: python(f"import polars as pl; print(pl.read_csv('{text}', separator='\\t', has_header=False, schema_overrides=[pl.Int64]*14+[pl.String]*26).height)")),
    ("text.gz", "embc", lambda: ingest("gz")),
    ("text.gz", "DuckDB, scan", lambda: scan(csv(gz))),
    ("Parquet (snappy)", "embc", lambda: ingest("parquet")),
    ("Parquet (snappy)", "DuckDB, scan", lambda: scan(f"'{parquet}'")),
    ("Parquet (snappy)", "polars, scan", lambda: python(f"import polars as pl; print(pl.read_parquet('{parquet}').height)")),
]
hashes, lines = set(), []
for file, program, run in runs:
    best = min((run() for _ in range(2)), key=lambda got: got[0])
    seconds, cpu, memory, said = best
    if program == "embc":
        hashes.add(said.strip().split()[-1])
    lines.append(f"| {file} | {program} | {seconds:.1f} | {rows / seconds / 1000:,.0f} | {cpu:.1f} | {memory:,.0f} |")
    print(lines[-1], flush=True)
assert len(hashes) == 1, f"other data: {hashes}"
sizes = ", ".join(f"{path.suffix[1:]} {path.stat().st_size / 2**30:.2f} GiB" for path in [text, gz, parquet])
cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
(ROOT / "scripts/bench/ingest.md").write_text(
    f"""# From files to a cache

{rows:,} synthetic rows of Criteo's shape ({sizes}); `scripts/bench/ingest.py` on {os.cpu_count()} cores of {cpu}, the better of two runs, files in the page cache. embc encodes vocabularies, joins columns, hashes the file and all values, and writes the cache (`--memory 2GiB`); DuckDB {duckdb.__version__} and polars {polars.__version__} only scan: they read all values into memory, and that is a part of embc's work. All three forms give one cache, to the bit.

| file | program | s | thousand rows a second | CPU s | peak MiB |
|---|---|---|---|---|---|
"""
    + "\n".join(lines)
    + "\n"
)
