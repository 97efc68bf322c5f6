// Appended to a report: uses it as a reader would, and says on <html> how that went.
"use strict";
(() => {
  const check = (holds, what) => { if (!holds) throw new Error(what); };
  const texts = (table, column) => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
  const numbers = (list) => list.map((text) => parseFloat(text.replace(/,/g, ""))).filter((x) => !isNaN(x));
  const ordered = (list, sign) => list.every((x, i) => i === 0 || sign * (x - list[i - 1]) >= 0);
  const say = (text) => { document.documentElement.dataset.test = text; };
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
      // Trials open.
      const trials = section.querySelector(".trials");
      trials.querySelector("details").open = true;
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
    check(document.documentElement.scrollWidth <= innerWidth, "nothing wider than the screen");
    check(performance.getEntriesByType("resource").length === 0, "loads nothing");
    say("ok");
  } catch (error) {
    say(`failed: ${error.message}`);
  }
})();
