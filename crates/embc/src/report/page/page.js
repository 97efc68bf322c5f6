"use strict";
// Tables that sort, charts that can be asked, trials that open. No library, no network.
const NS = "http://www.w3.org/2000/svg";
const COLOURS = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f"];

function element(name, attributes, ...children) {
  const svg = ["svg", "path", "line", "circle", "text", "g", "title", "polygon"].includes(name);
  const node = svg ? document.createElementNS(NS, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const UNITS = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
// "1,234 ± 5" is 1234, "1.5 KiB" is 1536; what begins with no number is text.
function number(text) {
  const found = /^[+−-]?[\d,]*\.?\d+(e[+-]?\d+)?/.exec(text.trim());
  if (!found) return NaN;
  const unit = /^\s*(KiB|MiB|GiB|B)\b/.exec(text.trim().slice(found[0].length));
  return Number(found[0].replace(/,/g, "").replace("−", "-")) * (unit ? UNITS[unit[1]] : 1);
}

function sortable(table) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = table.tBodies[0];
      body.querySelectorAll("tr.detail").forEach((row) => row.remove());
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...body.rows].map((row) => [row, number(key(row)), key(row)]);
      // Numbers first, text after them, in both directions.
      rows.sort(([, a, s], [, b, t]) => {
        if (isNaN(a) !== isNaN(b)) return isNaN(a) ? 1 : -1;
        const order = isNaN(a) ? s.localeCompare(t) : a - b;
        return ascending ? order : -order;
      });
      body.append(...rows.map(([row]) => row));
    });
  });
}

function short(x) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e9) return +(x / 1e9).toPrecision(3) + " G";
  if (size >= 1e6) return +(x / 1e6).toPrecision(3) + " M";
  if (size >= 1e4) return +(x / 1e3).toPrecision(3) + " k";
  return String(+x.toPrecision(4));
}

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const m of high / low > 1e3 ? [1] : [1, 2, 5]) found.push(m * 10 ** e);
    return found.filter((x) => x >= low * 0.999 && x <= high * 1.001);
  }
  const power = 10 ** Math.floor(Math.log10((high - low) / 5));
  const step = power * ([5, 2, 1].find((m) => m * power <= (high - low) / 5) || 1);
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + step / 1e6; x += step) found.push(x);
  return found;
}

// As wide as the screen, up to a limit, so that its letters are as large as the page's.
const WIDE = Math.min(760, document.documentElement.clientWidth - 32);

// Lines of {name, colour, dash, points: [{x, y, half, text}]}; `front` are points to join by steps.
function chart(lines, { x, y, logX, front = [], W = WIDE, H = Math.max(260, Math.round(0.55 * WIDE)) }) {
  const L = 64, R = 12, T = 12, B = 46;
  const points = lines.flatMap((line) => line.points);
  if (points.length === 0) return element("p", { class: "dim" }, "nothing to show");
  const span = (values) => [Math.min(...values), Math.max(...values)];
  let [x0, x1] = span(points.map((p) => p.x));
  let [y0, y1] = span(points.flatMap((p) => [p.y - (p.half || 0), p.y + (p.half || 0)]));
  if (x0 === x1) [x0, x1] = logX ? [x0 / 2, x1 * 2] : [x0 - 1, x1 + 1];
  if (y0 === y1) [y0, y1] = [y0 - 1e-3, y1 + 1e-3];
  const at = (v, a, b, log) => (log ? Math.log(v / a) / Math.log(b / a) : (v - a) / (b - a));
  const px = (v) => L + 8 + at(v, x0, x1, logX) * (W - L - R - 16);
  const py = (v) => H - B - 8 - at(v, y0, y1, false) * (H - T - B - 16);
  const svg = element("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${y} against ${x}` });
  for (const v of ticks(x0, x1, logX))
    svg.append(element("text", { x: px(v), y: H - B + 18, "text-anchor": "middle" }, short(v)));
  for (const v of ticks(y0, y1, false))
    svg.append(element("line", { class: "axis", x1: L, x2: W - R, y1: py(v), y2: py(v) }),
      element("text", { x: L - 6, y: py(v) + 4, "text-anchor": "end" }, short(v)));
  svg.append(element("text", { x: (L + W) / 2, y: H - 6, "text-anchor": "middle" }, x),
    element("text", { x: 14, y: H / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${H / 2})` }, y));
  for (const { name, colour, dash = "none", points } of lines) {
    const sorted = [...points].sort((a, b) => a.x - b.x);
    const path = sorted.map((p, i) => `${i ? "L" : "M"}${px(p.x)} ${py(p.y)}`).join("");
    if (sorted.some((p) => p.half)) {
      const edge = (list, sign) => list.map((p) => `${px(p.x)},${py(p.y + sign * (p.half || 0))}`);
      const band = [...edge(sorted, 1), ...edge([...sorted].reverse(), -1)].join(" ");
      svg.append(element("polygon", { points: band, fill: colour, opacity: 0.13 }));
    }
    svg.append(element("path", { d: path, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash, fill: "none" }));
    if (sorted.length <= 40)
      for (const p of sorted)
        svg.append(element("circle", { cx: px(p.x), cy: py(p.y), r: 4, fill: colour },
          element("title", {}, `${name}: ${p.text || `${short(p.x)}, ${short(p.y)}`}`)));
  }
  if (front.length > 1) {
    const steps = front.map((p, i) => (i ? `H${px(p.x)}V${py(p.y)}` : `M${px(p.x)} ${py(p.y)}`));
    svg.append(element("path", { class: "front", d: steps.join("") }));
  }
  return svg;
}

// What a page's style gives a chart, in the chart itself: it is read without the page.
function standalone(svg) {
  const copy = svg.cloneNode(true);
  const [nodes, copies] = [svg, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  nodes.forEach((node, i) => {
    const style = getComputedStyle(node);
    const kept = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity"];
    if (node.tagName === "text") kept.push("font-family", "font-size", "text-anchor");
    for (const key of kept) copies[i].style.setProperty(key, style.getPropertyValue(key));
  });
  const [, , width, height] = svg.getAttribute("viewBox").split(" ");
  for (const [key, value] of Object.entries({ xmlns: NS, width, height })) copy.setAttribute(key, value);
  copy.style.background = getComputedStyle(document.body).backgroundColor;
  return new XMLSerializer().serializeToString(copy);
}

// Twice as fine as on the page.
async function pixels(svg) {
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(standalone(svg));
  await image.decode();
  const canvas = element("canvas", { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function csv(lines, { x, y }) {
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  const rows = lines.flatMap((line) => line.points.map((p) => [quote(line.name), p.x, p.y, p.half ?? ""]));
  return [["name", quote(x), quote(y), "half of the 95 % interval"], ...rows].map((row) => row.join(",")).join("\n") + "\n";
}

// A chart that can be taken along: to the clipboard, or as a file where there is none.
function figure(name, lines, axes) {
  const svg = chart(lines, axes);
  const node = element("figure", {}, svg);
  if (svg.tagName !== "svg") return node;
  const said = element("output", { class: "dim" });
  const forms = {
    SVG: () => new Blob([standalone(svg)], { type: "image/svg+xml" }),
    PNG: () => pixels(svg),
    CSV: () => new Blob([csv(lines, axes)], { type: "text/csv" }),
  };
  const take = async (form) => {
    const blob = await forms[form]();
    try {
      if (form === "PNG") await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
      else await navigator.clipboard.writeText(await blob.text());
      said.textContent = "copied";
    } catch {
      const link = element("a", { href: URL.createObjectURL(blob), download: `${name}.${form.toLowerCase()}` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      said.textContent = "saved";
    }
  };
  const buttons = Object.keys(forms).map((form) => element("button", { type: "button", onclick: () => take(form) }, form));
  node.append(element("figcaption", {}, "copy as ", ...buttons, said));
  node.forms = forms;
  return node;
}

// The cells that no other beats in both size and metric, smallest first.
function pareto(points, higher) {
  const best = [];
  for (const p of [...points].sort((a, b) => a.x - b.x || (higher ? b.y - a.y : a.y - b.y)))
    if (!best.length || (higher ? p.y > best.at(-1).y : p.y < best.at(-1).y)) best.push(p);
  return best;
}

const SIZES = {
  params: ["trained parameters", (c) => c.params],
  bytes: ["bytes, with pointers and codes", (c) => c.bytes],
  compression_params: ["compression by parameters", (c) => c.compression_params],
  compression_bytes: ["compression by bytes", (c) => c.compression_bytes],
};

function curves(place, data) {
  const option = (value, text) => element("option", { value }, text);
  const size = element("select", {}, ...Object.entries(SIZES).map(([k, [text]]) => option(k, text)));
  const metrics = [...new Set(data.cells.flatMap((c) => Object.keys(c.metrics)))].sort();
  const metric = element("select", {}, ...metrics.map((m) => option(m, m)));
  size.value = "bytes";
  metric.value = data.metric;
  const labels = [...new Set(data.cells.map((c) => c.label))];
  const colour = (label) => COLOURS[labels.indexOf(label) % COLOURS.length];
  // Colours come again with broken lines.
  const dash = (label) => ["none", "8 3", "2 3"][Math.floor(labels.indexOf(label) / COLOURS.length) % 3];
  const hidden = new Set();
  const legend = element("div", { class: "legend" });
  const canvas = element("div", { class: "chart" });
  const draw = () => {
    const [name, of] = SIZES[size.value];
    const point = (c) => {
      const [mean, half, seeds] = c.metrics[metric.value];
      const interval = half === null ? "" : ` ± ${half.toPrecision(2)}`;
      return { x: of(c), y: mean, half, text: `${c.name}, ${mean.toPrecision(4)}${interval} over ${seeds} seeds, ${c.params.toLocaleString("en")} parameters, ${c.bytes.toLocaleString("en")} bytes` };
    };
    const shown = data.cells.filter((c) => c.metrics[metric.value] && !hidden.has(c.label) && of(c) > 0);
    const lines = labels.map((label) => ({
      name: label, colour: colour(label), dash: dash(label),
      points: shown.filter((c) => c.label === label).map(point),
    }));
    const small = size.value.startsWith("compression") ? -1 : 1;
    const higher = !data.less.includes(metric.value);
    const front = pareto(shown.map(point).map((p) => ({ ...p, x: small * p.x })), higher);
    canvas.replaceChildren(figure(`${place.closest("section").id} ${metric.value}`.replace("/", " "), lines, {
      x: name, y: metric.value, logX: true, front: front.map((p) => ({ ...p, x: small * p.x })),
    }));
  };
  for (const label of labels) {
    const button = element("button", { type: "button", "aria-pressed": "true" },
      element("i", { style: `border-color:${colour(label)};background:${dash(label) === "none" ? colour(label) : "none"}` }), label);
    button.addEventListener("click", () => {
      hidden.has(label) ? hidden.delete(label) : hidden.add(label);
      button.setAttribute("aria-pressed", String(!hidden.has(label)));
      draw();
    });
    legend.append(button);
  }
  size.addEventListener("change", draw);
  metric.addEventListener("change", draw);
  place.append(
    element("p", {}, element("label", {}, "against ", size), element("label", {}, "metric ", metric)),
    canvas, legend,
    element("p", { class: "dim" }, "Bands: 95 % t-intervals over seeds. Dashed: the Pareto front, cells that no other beats in both. Point at a mark for its numbers; press a name to hide it."));
  draw();
}

// One small chart a set: the best cells of each kind of scheme, and the frontier of all.
function multiples(place, sets) {
  const kind = (cell) => cell.label.split(" ")[0];
  const kinds = [...new Set(sets.flatMap(({ data }) => data.cells.map(kind)))];
  const colour = (name) => COLOURS[kinds.indexOf(name) % COLOURS.length];
  const dash = (name) => ["none", "8 3", "2 3"][Math.floor(kinds.indexOf(name) / COLOURS.length) % 3];
  const legend = kinds.map((name) => element("span", {},
    element("i", { style: `border-color:${colour(name)};background:${dash(name) === "none" ? colour(name) : "none"}` }), name));
  for (const { id, data } of sets) {
    const higher = !data.less.includes(data.metric);
    const cells = data.cells.filter((c) => c.metrics[data.metric] && c.bytes > 0);
    const points = (list) => list.map((c) => ({ x: c.bytes, y: c.metrics[data.metric][0], text: c.name }));
    const lines = kinds.map((name) => ({
      name, colour: colour(name), dash: dash(name), points: pareto(points(cells.filter((c) => kind(c) === name)), higher),
    })).filter((line) => line.points.length);
    const axes = { x: "bytes", y: data.metric, logX: true, front: pareto(points(cells), higher), W: Math.min(380, WIDE), H: 260 };
    place.append(element("div", {}, element("a", { href: `#${id}` }, data.title), figure(id, lines, axes)));
  }
  place.after(element("div", { class: "legend" }, ...legend));
}

async function unpacked(section) {
  const packed = section.querySelector("script[type='text/plain']").textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

// The trials are unpacked and laid out once they are asked for.
function trials(place, section, data) {
  const details = element("details", {}, element("summary", {}, `All ${data.trials} trials: curves, configs, provenance`));
  details.ready = new Promise((done) => {
    details.addEventListener("toggle", async () => {
      if (details.open && !details.querySelector("table")) {
        table(details, { ...data, ...(await unpacked(section)) });
        done();
      }
    });
  });
  place.append(details);
}

function table(place, data) {
  const filter = element("input", { type: "search", placeholder: "filter trials", "aria-label": "filter trials" });
  const heads = ["trial", "status", data.metric, "parameters", "bytes", "best epoch", "seconds", "examples/s", "id"];
  const body = element("tbody");
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads.map((h) => element("th", { scope: "col" }, h)))), body);
  for (const t of data.trials) {
    const cell = (text) => element("td", {}, text === null ? "–" : String(text));
    const row = element("tr", { tabindex: 0 }, cell(t.name), cell(t.status), cell(t.value), cell(t.params.toLocaleString("en")), cell(t.bytes.toLocaleString("en")), cell(t.best_epoch), cell(t.wall_s.toFixed(1)), cell(Math.round(t.examples_per_s).toLocaleString("en")), cell(t.id));
    row.cells[1].className = t.status === "ok" ? "good" : t.status === "error" ? "bad" : "dim";
    const open = () => {
      if (row.nextSibling?.classList.contains("detail")) {
        row.nextSibling.remove();
        row.classList.remove("open");
        return;
      }
      row.classList.add("open");
      const facts = { ...t.facts, config: { ...data.config, ...t.config } };
      const parts = [];
      if (t.error) parts.push(element("p", {}, t.error));
      if (t.curve.length > 1) {
        const line = (name, i, colour) => ({ name, colour, points: t.curve.filter((p) => p[i] !== null).map((p) => ({ x: p[0], y: p[i] })) });
        parts.push(figure(t.id, [line(data.select, 1, COLOURS[1])], { x: "epoch", y: data.select }));
        parts.push(figure(t.id, [line("train/loss", 2, COLOURS[0])], { x: "epoch", y: "train/loss" }));
      }
      parts.push(element("pre", {}, JSON.stringify(facts, null, 1)));
      row.after(element("tr", { class: "detail" }, element("td", { colspan: heads.length }, ...parts)));
    };
    row.addEventListener("click", open);
    row.addEventListener("keydown", (event) => event.key === "Enter" && open());
    body.append(row);
  }
  filter.addEventListener("input", () => {
    body.querySelectorAll("tr.detail").forEach((row) => row.remove());
    for (const row of body.rows)
      row.hidden = !filter.value.toLowerCase().split(/\s+/).every((word) => row.textContent.toLowerCase().includes(word));
  });
  place.append(element("p", {}, filter), element("div", { class: "wide" }, table));
  sortable(table);
}

const sets = [...document.querySelectorAll("section")].map((section) => {
  const data = JSON.parse(section.querySelector("script[type='application/json']").textContent);
  curves(section.querySelector(".curves"), data);
  trials(section.querySelector(".trials"), section, data);
  return { id: section.id, data };
});
const place = document.querySelector(".multiples");
if (place) multiples(place, sets);
document.querySelectorAll("section table, article table").forEach(sortable);
