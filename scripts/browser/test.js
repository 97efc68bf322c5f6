// Appended to a report: uses it as a reader would, and says on <html> how that went.
"use strict";
(async () => {
  const check = (holds, what) => { if (!holds) throw new Error(what); };
  const texts = (table, column) => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
  const numbers = (list) => list.map((text) => parseFloat(text.replace(/,/g, ""))).filter((x) => !isNaN(x));
  const ordered = (list, sign) => list.every((x, i) => i === 0 || sign * (x - list[i - 1]) >= 0);
  const say = (text) => { document.documentElement.dataset.test = text; };
  // The page's own script has run, just before this one.
  const usable = Math.ceil(performance.now());
  try {
    check(location.protocol === "file:", "opens from a file");
    const sections = [...document.querySelectorAll("section")];
    check(sections.length > 0, "a section for each experiment");
    for (const section of sections) {
      const name = section.id;
      // Tables sort, by number in both directions.
      const table = section.querySelector(".wide table");
      const heads = table.querySelectorAll("th");
      const button = heads[1].querySelector("button");
      for (const [order, sign] of [["ascending", 1], ["descending", -1]]) {
        button.click();
        check(heads[1].getAttribute("aria-sort") === order, `${name}: says ${order}`);
        const values = numbers(texts(table, 1));
        check(values.length > 0 && ordered(values, sign), `${name}: sorted, ${order}: ${values}`);
      }
      // Charts draw, answer to their controls, and show the front.
      const place = section.querySelector(".curves");
      const marks = () => place.querySelectorAll("circle").length;
      // The answer and the curve come before the first table.
      const before_table = (node) => node.compareDocumentPosition(table) & Node.DOCUMENT_POSITION_FOLLOWING;
      check(before_table(place), `${name}: the curve comes first`);
      for (const answer of section.querySelectorAll(".answer"))
        check(before_table(answer) && answer.textContent.includes(" use "), `${name}: the answer comes first`);
      const before = marks();
      check(before > 0, `${name}: marks`);
      check(place.querySelectorAll("select").length === 2, `${name}: controls`);
      for (const select of place.querySelectorAll("select"))
        for (const option of select.options) {
          select.value = option.value;
          select.dispatchEvent(new Event("change"));
          check(!/NaN|Infinity|undefined/.test(place.querySelector(".chart").innerHTML), `${name}: ${option.value} draws`);
        }
      const legend = place.querySelector(".legend button");
      legend.click();
      check(legend.getAttribute("aria-pressed") === "false", `${name}: a name can be hidden`);
      legend.click();
      // Figures can be taken along.
      const { SVG, PNG, CSV } = place.querySelector("figure").forms;
      const drawn = new DOMParser().parseFromString(await SVG().text(), "image/svg+xml");
      check(!drawn.querySelector("parsererror") && drawn.querySelectorAll("circle").length === marks(), `${name}: SVG`);
      check((await CSV().text()).trim().split("\n").length === marks() + 1, `${name}: CSV`);
      const png = await createImageBitmap(await PNG());
      const [, , width, height] = place.querySelector("svg").getAttribute("viewBox").split(" ");
      check(png.width === 2 * width && png.height === 2 * height, `${name}: PNG`);
      // Trials open.
      const trials = section.querySelector(".trials");
      trials.querySelector("details").open = true;
      await trials.querySelector("details").ready;
      const row = trials.querySelector("tbody tr");
      row.click();
      const detail = trials.querySelector("tr.detail");
      check(detail && detail.querySelector("pre").textContent.includes('"seed"'), `${name}: a trial's config`);
      const failed = row.cells[1].textContent !== "ok";
      check(failed || detail.querySelector("svg") || row.cells[5].textContent <= 1, `${name}: a trial's curve`);
      const filter = trials.querySelector("input");
      filter.value = "no such trial";
      filter.dispatchEvent(new Event("input"));
      check([...trials.querySelectorAll("tbody tr")].every((row) => row.hidden), `${name}: the filter`);
      filter.value = "";
      filter.dispatchEvent(new Event("input"));
    }
    // Contents stay in sight, and sets stand side by side.
    const nav = document.querySelector("nav");
    check(getComputedStyle(nav).position === "sticky", "contents stay");
    for (const link of nav.querySelectorAll("a"))
      check(document.getElementById(decodeURIComponent(link.hash.slice(1))), `${link.hash} is there`);
    check(sections.length === 1 || document.querySelectorAll(".multiples svg").length === sections.length, "a small chart each");
    check(document.documentElement.scrollWidth <= innerWidth, "nothing wider than the screen");
    check(performance.getEntriesByType("resource").length === 0, "loads nothing");
    say(`ok, ${usable} ms`);
  } catch (error) {
    say(`failed: ${error.message}`);
  }
})();
