// Figures that step. A page has <div class="lik-steps" data-figure="NAME"></div>, and a short
// file says what NAME draws:
//
//     lik.figure("NAME", { title, height, make(draw) { ...; return [[text, function], ...]; } });
//
// Each function draws its step whole, from whatever stands there, so that steps may be taken in
// any order. Keys, where the figure has the focus: right and left, home and end, space to play.
"use strict";
window.lik = (() => {
  const figures = {};
  const WIDTH = 420;
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  // What a figure draws with: every call makes an element, which it returns.
  function pen(svg) {
    const make = (name, attributes, text) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const key in attributes) element.setAttribute(key, attributes[key]);
      if (text !== undefined) element.textContent = text;
      svg.append(element);
      return element;
    };
    return {
      rect: (x, y, width, height, more) =>
        make("rect", { x, y, width, height, rx: 2, fill: "var(--lik-soft)", stroke: "var(--lik-line)", ...more }),
      line: (x1, y1, x2, y2, more) => make("line", { x1, y1, x2, y2, stroke: "var(--lik-line)", "stroke-width": 1.5, ...more }),
      text: (x, y, words, more) => make("text", { x, y, ...more }, words),
      number: (x, y, words, more) => make("text", { x, y, class: "number", ...more }, words),
    };
  }

  const set = (element, attributes) => {
    for (const key in attributes) {
      if (key === "text") element.textContent = attributes.text;
      else element.setAttribute(key, attributes[key]);
    }
  };

  function button(words, label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  }

  function build(root, figure) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${figure.height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${figure.title}: the text below says what each step shows`);
    const words = document.createElement("p");
    words.setAttribute("aria-live", "polite");
    const steps = figure.make(pen(svg));
    const count = document.createElement("output");
    let at = 0;
    let timer = 0;

    function go(to) {
      at = Math.max(0, Math.min(steps.length - 1, to));
      words.textContent = steps[at][0];
      steps[at][1]();
      count.textContent = `${at + 1} / ${steps.length}`;
      root.dataset.step = at;
      if (at === steps.length - 1) pause();
    }
    function pause() {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
      play.setAttribute("aria-label", "Play the steps");
    }
    function toggle() {
      if (timer) return pause();
      if (still.matches) return go(at === steps.length - 1 ? 0 : at + 1);
      if (at === steps.length - 1) go(0);
      timer = setInterval(() => go(at + 1), 1700);
      play.textContent = "Pause";
      play.setAttribute("aria-label", "Pause");
    }
    const step = (by) => { pause(); go(at + by); };
    const play = button("Play", "Play the steps", toggle);
    const bar = document.createElement("div");
    bar.className = "lik-bar";
    bar.append(button("‹", "Previous step", () => step(-1)), button("›", "Next step", () => step(1)), play, count);

    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", `${figure.title}. Arrow keys step, space plays.`);
    root.addEventListener("keydown", (event) => {
      const keys = { ArrowRight: () => step(1), ArrowLeft: () => step(-1), Home: () => step(-1e9), End: () => step(1e9), " ": toggle };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === " " && event.target !== root) return; // a button takes its own
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    });
    root.append(svg, bar, words);
    go(0);
  }

  function show() {
    for (const root of document.querySelectorAll(".lik-steps:empty")) {
      if (figures[root.dataset.figure]) build(root, figures[root.dataset.figure]);
    }
  }
  document.addEventListener("DOMContentLoaded", show);
  return { set, figure: (name, figure) => { figures[name] = figure; } };
})();
