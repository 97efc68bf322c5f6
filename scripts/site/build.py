"""The documentation as a site: build.py EMBC MDBOOK OUTPUT

The pages of docs/, a page of all schemes from `embc list schemes`, and the committed reports, as an
mdBook; then every link of what was built is followed."""

import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import xml.etree.ElementTree

embc, mdbook, output = (os.path.abspath(path) for path in sys.argv[1:])
root = pathlib.Path(__file__).resolve().parents[2]
site = pathlib.Path(output)
source = site / "src"
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]+)(#[^)]*)?\)")


def run(*command):
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def drawn(scheme):
    """What a small table of a scheme computes, as a drawing of its program."""
    with tempfile.TemporaryDirectory() as scratch:
        size = [] if scheme == "full" else ["--set", "budget.compression=[4]"]
        run(embc, "train", "--config", "gmf_synth_1m", "--set", f"scheme.kind={scheme}", *size,
            "--set", "dataset=synth-gmf-small", "--set", "embedding.dim=16", "--set", "train.epochs=1",
            "--set", "train.max_steps=2", "--data-dir", f"{site}/data", "--results", scratch, "--out", f"{scratch}/m")
        run(embc, "export", f"{scratch}/m", "--part", "embedding", "--format", "svg", "--output", scratch)
        xml.etree.ElementTree.parse(f"{scratch}/program.svg")
        shutil.copy(f"{scratch}/program.svg", source / f"{scheme}.svg")
    return f"![The program of {scheme}]({scheme}.svg)\n"


def schemes():
    """Each scheme as it describes itself, and the program of a small table, in 16 columns at a fourth."""
    text = ["# Schemes\n"]
    for scheme in json.loads(run(embc, "list", "schemes", "--format", "json")):
        text.append(f"## {scheme['name']}: {scheme['short']}\n")
        text.append(f"    {scheme['equation']}\n")
        text.append(f"{scheme['long']}\n")
        text.append(f"* stores {scheme['stores']}\n* collisions: {scheme['collisions']}\n* from: {scheme['paper']}\n")
        text.append(drawn(scheme["name"]))
        if scheme["knobs"]:
            text.append("| knob | what it is |\n|---|---|")
            text.append("\n".join(f"| `{k['name']}` | {k['doc'].replace('|', chr(92) + '|')} |" for k in scheme["knobs"]) + "\n")
    return "\n".join(text)


def staged(path, place):
    """A page, with what it links to beside it: other pages by their place, files as they are."""

    def link(match):
        text, target, anchor = match.groups()
        if "://" in target:
            return match[0]
        file = (root / path).parent / target
        to = os.path.relpath(file.resolve(), root)
        inside = to.removeprefix("docs/")
        if file.is_dir() or to.endswith(".md") and not to.startswith(("docs/", "results/")):
            return text[text.startswith("!") + 1 : -1]
        if not to.endswith(".md") and not (source / inside).exists():
            (source / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, source / inside)
        return f"{text}({os.path.relpath(inside, os.path.dirname(place) or '.')}{anchor or ''})"

    (source / place).parent.mkdir(parents=True, exist_ok=True)
    (source / place).write_text(LINK.sub(link, (root / path).read_text()))


def title(path):
    return next(line.lstrip("# ").strip() for line in open(path) if line.startswith("#"))


def reports():
    """Lines of the summary: verdicts, and a chapter for each folder of results."""
    lines = ["- [Verdicts](results/verdicts.md)"]
    for place in ["quickstart", "choose", "device", "compress_glove", "compress_wordllama"]:
        lines.append(f"- [{title(root / f'results/{place}.md')}](results/{place}.md)")
    for folder in sorted(path for path in (root / "results").iterdir() if path.is_dir()):
        pages = sorted(folder.glob("*.md"))
        lines.append(f"- [{folder.name}]()" if pages else "")
        lines += [f"  - [{title(page)}](results/{folder.name}/{page.name})" for page in pages]
    return lines


class Links(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name in ("id", "name"):
                self.ids.add(value)


def broken(book):
    """Links of the built site that lead nowhere."""
    pages = {page: Links(page.read_text()) for page in book.rglob("*.html")}
    for page, links in pages.items():
        for link in links.links:
            path, anchor = urllib.parse.urldefrag(link)
            if "://" in path or path.startswith(("mailto:", "data:", "/")):
                continue
            target = (page.parent / urllib.parse.unquote(path)).resolve() if path else page
            if not target.exists() or anchor and target in pages and anchor not in pages[target].ids:
                yield f"{page.relative_to(book)}: {link}"


shutil.rmtree(site, ignore_errors=True)
source.mkdir(parents=True)
(source / "schemes.md").write_text(schemes())
summary = (root / "docs/SUMMARY.md").read_text().rstrip() + "\n- [Schemes](schemes.md)\n"
summary += "\n# Results\n\n" + "\n".join(reports()) + "\n"
(source / "SUMMARY.md").write_text(summary)
for path in re.findall(r"\]\(([^)]+\.md)\)", summary):
    if path != "schemes.md":
        staged(path if path.startswith("results/") else f"docs/{path}", path)
(site / "book.toml").write_text('[book]\ntitle = "embc"\n\n[output.html]\nno-section-label = true\n')
subprocess.run([mdbook, "build", site], check=True)
wrong = list(broken(site / "book"))
print("\n".join(wrong) or f"{len(list((site / 'book').rglob('*.html')))} pages, no link leads nowhere")
sys.exit(bool(wrong))
