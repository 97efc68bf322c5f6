"""What trained models cost on this computer, by embc's reader, and beside it ONNX Runtime, tract and
PyTorch: see compare.sh. Writes OUT.csv, a line a model and an engine, and OUT.md.

Every engine has one thread, warm memory, and the same ids: those of real test rows. The one-hot product
is what MEmCom (arXiv 2203.10135) argues against: the row as a product of a one-hot vector with the table.
"""

import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import tract
from onnx import TensorProto, helper
from safetensors.numpy import load_file

EMBC, OUT, MODELS = sys.argv[1], Path(sys.argv[2]), [Path(m) for m in sys.argv[3:]]
CALLS = 2000
# Storages that other engines run: the third tells nothing new.
ELSEWHERE = ("fp32", "int8")
torch.set_num_threads(1)


def embc(*args):
    done = subprocess.run([EMBC, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def p50(call):
    """Median microseconds of a call, of up to CALLS, for half a second at most."""
    for i in range(20):
        call(i)
    times, end = [], time.perf_counter() + 0.5
    for i in range(CALLS):
        start = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - start)
        if times[-1] + start > end:
            break
    return 1e6 * float(np.median(times))


def alone(path, name):
    """The graph of one input's rows, of single ids."""
    model = onnx.load(path)
    graph, need, nodes = model.graph, {f"{name}_row"}, []
    for node in reversed(graph.node):
        if node.output[0] in need:
            nodes.append(node)
            need.update(node.input)
    for field, keep in [
        ("node", nodes[::-1]),
        ("output", [o for o in graph.output if o.name in need]),
        ("input", [i for i in graph.input if i.name in need]),
        ("initializer", [i for i in graph.initializer if i.name in need]),
    ]:
        keep = [type(x).FromString(x.SerializeToString()) for x in keep]
        del getattr(graph, field)[:]
        getattr(graph, field).extend(keep)
    path = path.with_name("alone.onnx")
    onnx.save(model, path)
    return path


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def in_tract(path, feeds):
    model = tract.onnx().load(str(path))
    for i, feed in enumerate(feeds):
        kind = {"int64": "i64", "float64": "f64"}[str(feed.dtype)]
        model.set_input_fact(i, ",".join([*map(str, feed.shape), kind]))
    return model.into_model().into_runnable()


def examples(folder):
    """Inputs of single examples, as ONNX has them, and what the sample says of its ids."""
    tensors = load_file(folder / "sample.safetensors")
    n = int(tensors["size"][0])
    dense = tensors["dense"].view(np.float64).reshape(n, -1)
    fields = sum(name.startswith("ids") for name in tensors)

    def one(example):
        feeds = []
        for i in range(fields):
            ids, offsets = tensors[f"ids{i}"], tensors[f"offsets{i}"]
            if len(offsets):
                of = ids[offsets[example] : offsets[example + 1]].astype(np.int64)
                feeds.append(of[None] if len(of) else np.full((1, 1), -1, np.int64))
            else:
                feeds.append(ids[example : example + 1].astype(np.int64))
        return feeds + ([dense[example : example + 1]] if dense.shape[1] else [])

    return [one(example) for example in range(min(n, 500))], tensors


def one_hot(rows, width):
    """ONNX Runtime's product of a one-hot vector with a table."""
    table = helper.make_tensor("w", TensorProto.FLOAT, [rows, width], np.random.rand(rows, width).astype("f").tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.zeros((1, rows), np.float32)
    x[0, rows // 2] = 1
    return p50(lambda i: run.run(None, {"x": x}))


def engines(folder, measured):
    """Other engines' microseconds: of one id, of a session of 100, of an example."""
    name = measured["input"]
    embc("export", folder, "--output", folder / "onnx", "--quiet")
    embc("export", folder, "--part", "embedding", "--output", folder / "rows", "--quiet")
    feeds, tensors = examples(folder)
    graph = onnx.load(folder / "rows/model.onnx", load_external_data=False).graph
    place = [i.name for i in graph.input].index(name)
    # A history is looked up id by id, too.
    shape = (1, 1) if len(graph.input[place].type.tensor_type.shape.dim) == 2 else (1,)
    ids = tensors[f"ids{place}"].astype(np.int64)
    path, many = alone(folder / "rows/model.onnx", name), (-1,) if shape == (1,) else (-1, 1)
    of_ids = session(path)
    one = lambda i: of_ids.run(None, {name: ids[i % len(ids)].reshape(shape)})
    hundred = lambda i: of_ids.run(None, {name: np.resize(ids[i % len(ids) :], 100).reshape(many)})
    whole = session(folder / "onnx/model.onnx")
    names = [i.name for i in whole.get_inputs()]
    score = lambda i: whole.run(None, dict(zip(names, feeds[i % len(feeds)])))
    result = {"ONNX Runtime": [p50(one), p50(hundred), p50(score)]}
    if not folder.name.endswith("fp32"):
        # tract takes longer to load codes than all else here takes to run.
        return result
    run = in_tract(path, [np.zeros(shape, np.int64)])
    run_many = in_tract(path, [np.zeros(100, np.int64).reshape(many)])
    # tract is loaded for one shape: histories of one length alone would be another work.
    scored = None
    if all(feed.shape == feeds[0][i].shape for of in feeds for i, feed in enumerate(of)):
        run_score = in_tract(folder / "onnx/model.onnx", feeds[0])
        scored = p50(lambda i: run_score.run(feeds[i % len(feeds)]))
    result["tract"] = [
        p50(lambda i: run.run([ids[i % len(ids)].reshape(shape)])),
        p50(lambda i: run_many.run([np.resize(ids[i % len(ids) :], 100).reshape(many)])),
        scored,
    ]
    if "full" in folder.name and "fp32" in folder.name:
        embc("export", folder, "--format", "npy", "--output", folder / "npy", "--quiet")
        table = np.load(folder / f"npy/{name}.npy")
        weight = torch.nn.Embedding.from_pretrained(torch.from_numpy(table))
        with torch.no_grad():
            result["PyTorch"] = [
                p50(lambda i: weight(torch.from_numpy(ids[i % len(ids)].reshape(1)))),
                p50(lambda i: weight(torch.from_numpy(np.resize(ids[i % len(ids) :], 100)))),
                None,
            ]
        result["one-hot product"] = [one_hot(*table.shape), None, None]
    if "hash-fp32" in folder.name:
        sizes = json.loads((folder / "trial.json").read_text())["sizes"]
        rows = max(int(re.search(r"(\d+) rows", size)[1]) for size in sizes)
        width = np.prod(of_ids.get_outputs()[0].shape[1:])
        result["one-hot product"] = [one_hot(rows, int(width)), None, None]
    return result


def quality(record):
    metrics = record["metrics"]
    key = next(key for key in ["test/auc", "test/ndcg@20", "test/ndcg"] if key in metrics)
    return key.removeprefix("test/"), metrics[key]


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def text(x, digits=2):
    return "-" if x is None else f"{x:.{digits}f}"


def main():
    lines, costs, others = [], {}, {}
    for folder in MODELS:
        measured = json.loads(embc("bench", folder, "--format", "json"))["measured"]
        record = json.loads((folder / "trial.json").read_text())
        metric, value = quality(record)
        data, label = folder.name.split("-", 1)
        cold, warm = measured["cold"], measured["warm"]
        costs.setdefault((data, metric), []).append([
            label, f"{measured['file'] / 1024:,.0f}", text(cold["open_ms"]),
            text(cold["open_anonymous"] / 1024, 0), f"{warm['usage']['file'] / 1024:,.0f}",
            f"{cold['usage']['major_faults']}", text(warm["id"]["p50"]), text(warm["id"]["p99"]),
            text(cold["id"]["p99"]), text(warm["session"]["p50"]), text(warm["score"]["p50"], 1),
            text(warm["score"]["p99"], 1), text(warm["ns_per_id"], 0), f"{measured['drift']:.0e}", text(value, 4),
        ])
        all_engines = {"embc-device": [warm["id"]["p50"], warm["session"]["p50"], warm["score"]["p50"]]}
        if folder.name.endswith(ELSEWHERE):
            all_engines |= engines(folder, measured)
        for engine, (one, hundred, score) in all_engines.items():
            lines.append([data, label, record["param_bytes"] + record["index_bytes"], measured["file"], engine, one, hundred, score, metric, value])
            others.setdefault(data, []).append([label, engine, text(one), text(hundred), text(score, 1)])
        print(folder.name, {engine: [text(x) for x in times] for engine, times in all_engines.items()}, flush=True)
    with open(OUT.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["data", "model", "table_bytes", "file_bytes", "engine", "id_us", "session_us", "score_us", "metric", "value"])
        writer.writerows([[f"{x:.4f}" if isinstance(x, float) else x for x in line] for line in lines])
    write_markdown(costs, others, lines)


def answer(lines):
    """What the table says, in a sentence for each data set."""
    said, number = [], lambda x: f"{x:,.0f}" if x >= 100 else f"{x:.2g}"
    for data, title in [("ml1m", "MovieLens-1M"), ("criteo", "Criteo")]:
        parts = []
        for place, what in [(5, "the row of one id"), (7, "a whole score")]:
            spans = []
            for engine in ["embc-device", "ONNX Runtime", "tract", "PyTorch", "one-hot product"]:
                times = [line[place] for line in lines if line[0] == data and line[4] == engine and line[place] is not None]
                if times:
                    low, high = min(times), max(times)
                    span = number(low) + (f" to {number(high)}" if high > 1.05 * low else "")
                    spans.append(f"{span} by {engine.replace('one-hot', 'a one-hot')}")
            parts.append(f"{what} takes " + ", ".join(spans))
        said.append(f"**{title}**, microseconds at p50 over these models: " + "; ".join(parts) + ".")
    return said


def write_markdown(costs, others, lines):
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    wide = "AVX-512" if "avx512f" in open("/proc/cpuinfo").read() else "AVX2"
    out = [
        "# On a device: what compressed models cost where they run",
        f"**Host CPU, not a phone**: one core of an {cpu} with {wide}, {time.strftime('%Y-%m-%d')}; one seed a model. "
        "`embc bench` packs each model and reads it in a process of its own; ids are those of real test rows. "
        "*Cold*: the file was dropped from the page cache before. Times are microseconds, p50 and p99; "
        "made by `scripts/device/compare.sh`, values in `device.csv`.",
        *answer(lines),
    ]
    header = ["model", "file KiB", "open ms", "own memory KiB at opening", "file in memory KiB", "major faults, cold", "one id", "p99", "p99, cold", "100 ids", "a score", "p99", "ns an id at 4,096", "drift"]
    titles = {"ml1m": "Pointwise model on MovieLens-1M, tables 16x smaller", "criteo": "DLRM on the Criteo sample of 117,335 rows, tables 4x smaller"}
    for (data, metric), rows in costs.items():
        out += [f"## {titles[data]}", table([*header, metric], rows)]
        out += ["The same work in other engines, microseconds at p50:", table(["model", "engine", "one id", "100 ids", "a score"], others[data])]
    OUT.with_suffix(".md").write_text("\n\n".join(out) + "\n")


main()
