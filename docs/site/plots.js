// The benchmarks: bars of times, a group a case, from the figures that figures.js holds. A
// machine and a table are chosen, cases and programs are filtered; a bar says all about itself
// where it is pointed at or has the focus.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const root = document.querySelector(".lik-plots");
  if (!root || !window.likFigures) return;
  const HIGH = 20;
  const element = (name, attributes = {}, text) => {
    const svg = ["svg", "g", "rect", "text"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  // A time in the unit that fits `most`, the longest of its group: bars that are compared share one.
  const time = (ms, most) => (most >= 1000 ? `${+(ms / 1000).toPrecision(3)} s` : most >= 0.1 ? `${+ms.toPrecision(3)} ms` : `${+(ms * 1000).toPrecision(3)} µs`);
  const ours = (who) => /^(lik|cpu|avx|amx|exact|int8|fp8|16 bits|float|bfloat)/.test(who);

  function choice(label, values) {
    const box = element("label", {}, label), select = element("select");
    for (const [value, words] of values) select.append(element("option", { value }, words));
    box.append(select);
    return [box, select];
  }
  const machines = [...new Set(likFigures.map((t) => t.machine))].sort();
  const [machineBox, machine] = choice("Machine", [["", "all"], ...machines.map((m) => [m, m])]);
  const [tableBox, table] = choice("Table", []);
  const filterBox = element("label", {}, "Cases with");
  const filter = element("input", { type: "search", placeholder: "f16, packed, 1 x 32 ..." });
  filterBox.append(filter);
  const [whoBox, who] = choice("Program or storage", [["", "all"]]);
  const bar = element("div", { class: "lik-choose" });
  bar.append(machineBox, tableBox, filterBox, whoBox);
  const about = element("p", { class: "lik-about" });
  const drawing = element("div", { class: "lik-drawing" });
  const tip = element("div", { class: "lik-tip", role: "tooltip", hidden: "" });
  root.append(bar, about, drawing, tip);

  function tables() {
    return likFigures.map((t, i) => [i, t]).filter(([, t]) => !machine.value || t.machine === machine.value);
  }
  function fillTables() {
    const before = table.value;
    table.replaceChildren(...tables().map(([i, t]) => element("option", { value: i }, `${t.title} (${t.date})`)));
    if (tables().some(([i]) => `${i}` === before)) table.value = before;
    fillPrograms();
  }
  function fillPrograms() {
    const names = [...new Set(likFigures[table.value].rows.map((row) => row[1]))].sort();
    who.replaceChildren(...[["", "all"], ...names.map((n) => [n, n])].map(([v, w]) => element("option", { value: v }, w)));
    draw();
  }

  function show(event, words) {
    tip.textContent = words;
    tip.style.left = "4px"; // its width is taken where it has all the room
    tip.hidden = false;
    const at = event.target.getBoundingClientRect(), size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(innerWidth - size.width - 4, event.clientX ? event.clientX + 12 : at.left))}px`;
    tip.style.top = `${at.bottom + size.height + 8 > innerHeight ? at.top - size.height - 6 : at.bottom + 6}px`;
  }

  function plot(title, rows, t) {
    const figure = element("div", { class: "lik-case" });
    figure.append(element("h3", {}, title));
    const wide = Math.max(240, drawing.clientWidth || 600), name = Math.min(190, wide * 0.36), room = wide - name - 84;
    const most = Math.max(...rows.map((r) => r[2]));
    const svg = element("svg", { viewBox: `0 0 ${wide} ${rows.length * HIGH + 4}`, role: "group", "aria-label": `${title}: times` });
    rows.forEach(([, by, ms, note], i) => {
      const words = `${by}: ${time(ms, most)}${note ? `, ${note}` : ""}. ${t.machine}, ${t.date}`;
      const g = element("g", { tabindex: 0, role: "img", "aria-label": words, class: ours(by) ? "ours" : "peer" });
      const fits = Math.floor(name / 6.6);
      g.append(element("text", { x: 0, y: i * HIGH + 15 }, by.length > fits ? `${by.slice(0, fits - 1)}…` : by),
        element("rect", { x: name, y: i * HIGH + 3, width: Math.max(2, (ms / most) * room), height: HIGH - 6, rx: 2 }),
        element("text", { x: name + Math.max(2, (ms / most) * room) + 6, y: i * HIGH + 15 }, time(ms, most)));
      for (const kind of ["mousemove", "focus"]) g.addEventListener(kind, (event) => show(event, words));
      for (const kind of ["mouseleave", "blur"]) g.addEventListener(kind, () => { tip.hidden = true; });
      svg.append(g);
    });
    figure.append(svg);
    return figure;
  }

  function draw() {
    const t = likFigures[table.value], words = filter.value.toLowerCase().split(/\s*,\s*/).filter(Boolean);
    const cases = new Map();
    for (const row of t.rows) {
      if (!words.every((w) => row[0].toLowerCase().includes(w)) || (who.value && row[1] !== who.value)) continue;
      cases.set(row[0], [...(cases.get(row[0]) || []), row]);
    }
    tip.hidden = true;
    about.replaceChildren(`${t.machine}, ${t.date}: ${cases.size} cases. Times, median; shorter is better. All values: `,
      element("a", { href: `repo/bench/results/${t.file}` }, t.file));
    drawing.replaceChildren(...[...cases].map(([title, rows]) => plot(title, rows, t)));
  }
  machine.addEventListener("change", fillTables);
  table.addEventListener("change", fillPrograms);
  who.addEventListener("change", draw);
  filter.addEventListener("input", draw);
  let wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; draw(); } });
  fillTables();
});
