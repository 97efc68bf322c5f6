"""README's path from a Parquet file to scores in a Python process, as it stands there.

    path.py README write FOLDER     clicks.parquet and score.py into the folder
    path.py README commands         the commands, a line each
    path.py README check PREDICTED PRINTED   that the script printed what `embc predict` says
"""

import ast
import math
import random
import re
import sys

readme, task, *rest = sys.argv[1:]
section = re.search(r"<!-- path -->(.*?)<!-- /path -->", open(readme).read(), re.S).group(1)
shell, python = re.findall(r"```(?:sh|python)\n(.*?)```", section, re.S)

if task == "commands":
    print(shell, end="")
elif task == "write":
    import pyarrow
    import pyarrow.parquet

    draw = random.Random(1)
    rows = []
    for time in range(30_000):
        user, item = int(300 * draw.random() ** 2), int(500 * draw.random() ** 2)
        price = round(1 + 19 * draw.random(), 1)
        likes = math.sin(7.0 * user + 3.0 * (item % 8)) - 0.05 * price
        clicked = draw.random() < 1 / (1 + math.exp(-2 * likes))
        rows.append((f"u{user}", f"i{item}", f"c{item % 8}", price, 1_700_000_000 + time, int(clicked)))
    # The example that the script asks about comes last, and so is a test row.
    rows.append(("u17", "i3", "c2", 9.5, 1_800_000_000, 1))
    names = ["user", "item", "category", "price", "time", "clicked"]
    table = pyarrow.table({name: list(column) for name, column in zip(names, zip(*rows))})
    pyarrow.parquet.write_table(table, f"{rest[0]}/clicks.parquet")
    pyarrow.parquet.write_table(table.slice(len(rows) - 1), f"{rest[0]}/one.parquet")
    open(f"{rest[0]}/score.py", "w").write(python)
elif task == "check":
    header, row = open(rest[0]).read().splitlines()
    predicted = dict(zip(header.split(","), row.split(",")))
    (logit,) = ast.literal_eval(open(rest[1]).read())
    print(f"the script: a logit of {logit:.6f}; embc predict: {predicted['score']}")
    assert abs(float(predicted["score"]) - logit) < 1e-5 * (1 + abs(logit)), (logit, predicted)
