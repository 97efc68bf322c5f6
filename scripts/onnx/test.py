"""Every scheme, storage, pooling and model through ONNX Runtime and tract; see test.sh.

Rows of embeddings are equal bit for bit where integers and gathers decide them, scores to 1e-5 of
1 + their size. The rows are MovieLens ratings in the order of time: whether a film got four stars or
more, from the user, the film, the user's last films and two numbers.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tract
from safetensors.numpy import load_file

EMBC, RATINGS, SCRATCH = (Path(word).resolve() for word in sys.argv[1:4])
ONLY = sys.argv[4:]
ROWS = 1000
BOUND = 1e-5
STORAGES = ["fp32", "fp16", "int8", "int4", "int2"]
# Rows that are sums of products, which engines add in an order of their own.
PRODUCTS = {"factorized", "mixed_dim", "tt", "dhe", "opq"}
BY_HASH = {"hash", "signed_hash", "double_hash", "bloom", "hash_embedding", "ce", "cce", "robe",
           "hashednet", "lma"}
# tract 0.23.9 takes a minute to load two tables of this scheme whose weights are codes, and none for
# one: it is left out there, and tested with floats and halves.
TRACT_SLOW = {"hash_embedding"}
# What tract cannot do, by what it says.
tract_refused = {}

REGISTRY = """
[clicks]
title = "MovieLens ratings by time"
format = "csv"
split = { rule = "tail", valid = 0.1, test = 0.2 }
columns = { label = "click", dense = ["before", "hour"], categorical = ["user", "item"], \
multi = [{ name = "last", separator = "|" }] }
files.data = { path = "clicks.csv" }

[stars]
title = "MovieLens stars"
format = "csv"
split = { rule = "tail", valid = 0.1, test = 0.2 }
columns = { label = "stars", classes = true, dense = ["before"], categorical = ["user", "item"], \
multi = [{ name = "last", separator = "|" }] }
files.data = { path = "clicks.csv" }

[two]
title = "MovieLens users and films"
format = "csv"
split = { rule = "tail", valid = 0.1, test = 0.2 }
columns = { label = "click", categorical = ["user", "item"] }
files.data = { path = "clicks.csv" }

[likes]
title = "MovieLens likes"
format = "pairs-csv"
split = { rule = "last-per-user", valid = 1, test = 1 }
files.data = { path = "likes.csv" }
"""

CONFIG = """
title = "through other engines"
dataset = "%(data)s"
[data]
%(view)s
[model]
kind = "%(model)s"
%(knobs)s
[embedding]
dim = 8
pooling = "%(pooling)s"
sharing = "%(sharing)s"
[train]
optimizer = { kind = "adam", lr = 0.01 }
batch = 256
epochs = 1
[budget]
compression = [2]
[[scheme]]
kind = "%(scheme)s"
quantize = "%(storage)s"
"""


def write_data():
    """The ratings of the last 12,000 rows by time, and their users' likes."""
    rows = [line.split(",") for line in Path(RATINGS).read_text().splitlines()[1:]]
    rows = sorted(rows, key=lambda row: int(row[3]))[-12000:]
    last, before = {}, {}
    lines = ["click,stars,user,item,last,before,hour"]
    likes = ["user,item"]
    for user, item, stars, time in rows:
        films = last.setdefault(user, [])
        n = before.get(item, 0)
        hour = "" if n % 7 == 3 else str(int(time) // 3600 % 24)
        films_now = "|".join(films[-5:])
        lines.append(f"{int(float(stars) >= 4)},{int(float(stars))},{user},{item},{films_now},{n},{hour}")
        films.append(item)
        before[item] = n + 1
        if float(stars) >= 4:
            likes.append(f"{user},{item}")
    (SCRATCH / "clicks.csv").write_text("\n".join(lines) + "\n")
    (SCRATCH / "likes.csv").write_text("\n".join(likes) + "\n")
    (SCRATCH / "data.toml").write_text(REGISTRY)


def embc(*args):
    command = [EMBC, *args, "--quiet", "--datasets", "data.toml"]
    done = subprocess.run(command, cwd=SCRATCH, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def train(**of):
    """A model in SCRATCH/m."""
    fill = dict(data="clicks", view='dense = "log1p"', model="mlp", knobs="hidden = [16]", pooling="mean",
                sharing="per-field", scheme="full", storage="fp32")
    (SCRATCH / "c.toml").write_text(CONFIG % {**fill, **of})
    embc("train", "--config", "c.toml", "--out", "m")


class Sample:
    """Test rows that the model keeps, and its scores."""

    def __init__(self):
        tensors = load_file(SCRATCH / "m/sample.safetensors")
        n = int(tensors["size"][0])
        self.n = min(n, ROWS)
        self.scores = tensors["scores"].reshape(n, -1)[: self.n]
        dense = tensors["dense"].view(np.float64).reshape(n, -1)[: self.n]
        self.feeds = []
        for i in range(sum(name.startswith("ids") for name in tensors)):
            ids, offsets = tensors[f"ids{i}"], tensors[f"offsets{i}"]
            if len(offsets) == 0:
                self.feeds.append(ids[: self.n].astype(np.int64))
                continue
            most = max(1, int(np.diff(offsets[: self.n + 1].astype(np.int64)).max()))
            bag = np.full((self.n, most), -1, np.int64)
            for row in range(self.n):
                of = ids[offsets[row] : offsets[row + 1]]
                bag[row, : len(of)] = of
            self.feeds.append(bag)
        if dense.shape[1]:
            self.feeds.append(dense)


def in_onnxruntime(path, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, feeds)))


def in_tract(path, feeds):
    model = tract.onnx().load(path)
    feeds = feeds[: model.input_count()]
    for i, feed in enumerate(feeds):
        kind = {"int64": "i64", "float64": "f64"}[str(feed.dtype)]
        model.set_input_fact(i, ",".join([*map(str, feed.shape), kind]))
    return [value.to_numpy() for value in model.into_model().into_runnable().run(feeds)]


def off(ours, theirs):
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((np.abs(ours - theirs) / (1 + np.abs(ours))).max(initial=0))


def check(what, scheme, embeddings=True, hash_as="graph"):
    if ONLY and not any(word in what for word in ONLY):
        return
    embc("export", "m", "--hash-as", hash_as, "--output", "m/onnx")
    embc("export", "m", "--hash-as", hash_as, "--part", "embedding", "--output", "m/rows")
    sample = Sample()
    onnx.checker.check_model(str(SCRATCH / "m/onnx/model.onnx"))
    engines = [("ONNX Runtime", in_onnxruntime), ("tract", in_tract)]
    worst = 0
    if scheme in TRACT_SLOW and any(storage in what for storage in STORAGES[2:]):
        engines.pop()
    for engine, run in engines:
        path = str(SCRATCH / "m/onnx/model.onnx")
        try:
            (logits,) = run(path, sample.feeds)
        except tract.TractError as error:
            tract_refused.setdefault(str(error).split("Stack backtrace")[0].strip(), []).append(what)
            continue
        worst = max(worst, off(sample.scores, logits))
        assert worst <= BOUND, f"{what}: {engine} is off by {worst}"
        if embeddings:
            rows(what, scheme, engine, run, sample)
    print(f"{what}: {sample.n} rows, off by {worst:.0e}", flush=True)


def rows(what, scheme, engine, run, sample):
    """Rows of single ids are those of the plain arrays, bit for bit where no product rounds them."""
    embc("export", "m", "--format", "npy", "--output", "m/npy")
    path = str(SCRATCH / "m/rows/model.onnx")
    graph = onnx.load(path, load_external_data=False).graph
    out = run(path, sample.feeds)
    for ids, row, value in zip(sample.feeds, out, graph.output):
        if ids.ndim == 1:
            table = np.load(SCRATCH / f"m/npy/{value.name.removesuffix('_row')}.npy")
            if scheme in PRODUCTS:
                assert off(table[ids], row) <= BOUND, (what, engine, value.name)
            else:
                assert np.array_equal(table[ids], row), (what, engine, value.name)


def main():
    write_data()
    listed = subprocess.run([EMBC, "list", "schemes", "--format", "json"], capture_output=True, text=True)
    schemes = [scheme["name"] for scheme in json.loads(listed.stdout)]
    assert len(schemes) >= 21
    for scheme in schemes:
        for storage in STORAGES:
            for pooling in ["mean", "sum"]:
                what = f"{scheme} {storage} {pooling}"
                if ONLY and not any(word in what for word in ONLY):
                    continue
                train(scheme=scheme, storage=storage, pooling=pooling)
                check(what, scheme)
                if storage == "int8" and pooling == "mean" and scheme in BY_HASH:
                    check(f"{what} remap", scheme, hash_as="remap")
    models = {
        "gmf": dict(data="two", view="", knobs=""),
        "dlrm": dict(knobs="bottom = [16]\ntop = [16]"),
        "dlrm linear": dict(model="dlrm", knobs="bottom = [16]\ntop = [16]\nbottom_linear = true"),
        "deepfm": dict(knobs="hidden = [16]\nbatch_norm = true"),
        "dcn": dict(knobs="hidden = [16, 8]\ncross = 2"),
        "classifier": dict(data="stars", view=""),
        "pointwise": dict(data="likes", view="", knobs="hidden = [16]"),
        "ranknet": dict(data="likes", view="history = 20", knobs="hidden = [16]"),
    }
    for name, of in models.items():
        for scheme in ["memcom", "cce"]:
            what = f"model {name} {scheme}"
            if ONLY and not any(word in what for word in ONLY):
                continue
            train(**{"model": name.split()[0], "scheme": scheme, "storage": "int8", **of})
            check(what, scheme)
    for view in ["raw", "log1p", "standard", "floor-log2"]:
        train(view=f'dense = "{view}"', scheme="qr")
        check(f"dense {view}", "qr")
    for scheme in ["hash", "lma", "truncate_rare"]:
        train(scheme=scheme, sharing="global", storage="int4")
        check(f"one memory, {scheme}", scheme)
    assert not tract_refused, "\n".join(f"tract refuses {of}: {error}" for error, of in tract_refused.items())


main()
