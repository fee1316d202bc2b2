// The backward pass from the argmax: gathers of winning rows, in one order, without atomics.
"use strict";
lik.figure("winners", {
  title: "The backward pass by winners",
  height: 330,
  make(draw) {
    const WON = [3, 1, 3, 4, 3], TOKENS = 6, S = WON.length;
    const qx = 60, dx = 300, y = (i) => 46 + i * 34;
    const colors = ["query", "good", "document", "win", "fifth"].map((name) => `var(--lik-${name})`);
    draw.text(14, 20, "query tokens", { fill: "var(--lik-query)" });
    draw.text(270, 20, "document tokens", { fill: "var(--lik-document)" });
    const arrows = WON.map((t, s) => draw.line(qx + 34, y(s) + 12, dx - 6, y(t) + 12, { stroke: "var(--lik-win)", "stroke-width": 2 }));
    const q = WON.map((_, s) => ({ box: draw.rect(qx, y(s), 30, 24, { "stroke-width": 2 }), text: draw.number(qx + 15, y(s) + 16, `q${s}`), grad: draw.text(4, y(s) + 16, "", { class: "small" }) }));
    const d = Array.from({ length: TOKENS }, (_, t) => ({ box: draw.rect(dx, y(t), 30, 24, { "stroke-width": 2 }), text: draw.number(dx + 15, y(t) + 16, `d${t}`), grad: draw.text(dx + 36, y(t) + 16, "", { class: "small" }) }));
    const listName = draw.text(14, 272, "", { class: "small" });
    const list = WON.map((_, i) => ({ box: draw.rect(14 + i * 80, 282, 72, 26), text: draw.number(50 + i * 80, 300, "", { class: "number small" }) }));
    const order = WON.map((t, s) => ({ s, t }));
    const sorted = [...order].sort((a, b) => a.t - b.t || a.s - b.s);

    function state({ arrowsOf = () => true, qDone = 0, entries = null, dDone = 0, name = "" }) {
      return () => {
        arrows.forEach((a, s) => lik.set(a, { opacity: arrowsOf(s) ? 1 : 0.12, stroke: colors[s] }));
        q.forEach((row, s) => {
          lik.set(row.box, { stroke: s < qDone ? "var(--lik-good)" : "var(--lik-query)", fill: s < qDone ? "var(--lik-soft)" : "transparent" });
          lik.set(row.grad, { text: s < qDone ? `g·d${WON[s]}` : "" });
        });
        d.forEach((row, t) => {
          const mine = sorted.filter((e) => e.t === t).map((e) => `q${e.s}`);
          lik.set(row.box, { stroke: t < dDone ? "var(--lik-good)" : "var(--lik-document)", fill: t < dDone ? "var(--lik-soft)" : "transparent" });
          lik.set(row.grad, { text: t < dDone ? (mine.length ? `g·(${mine.join("+")})` : "0") : "" });
        });
        lik.set(listName, { text: name });
        list.forEach((cell, i) => {
          const e = entries && entries[i];
          lik.set(cell.box, { opacity: e ? 1 : 0, stroke: e ? colors[e.s] : "none", "stroke-width": 2 });
          lik.set(cell.text, { text: e ? `q${e.s} → d${e.t}` : "" });
        });
      };
    }
    const steps = [
      ["The forward pass left one number a query token: the document token that gave its maximum. Only these pairs have a gradient; all other products have none, so they need not be made again. g is the gradient of the score (times the query token's weight).", state({})],
    ];
    for (let s = 0; s < S; s++) steps.push([`Gradient of q${s}: the row of its winner, d${WON[s]}, times g. One row is read; over many documents, one each, added in their order.`, state({ qDone: s + 1, arrowsOf: (i) => i === s })]);
    steps.push(["The other way round a document token may have won several query tokens, or none. So the winners of the document are listed ...", state({ qDone: S, entries: order, name: "entries, as the argmax has them" })]);
    steps.push(["... and sorted by document token, by counting: stable, so that the order within a token is that of the query tokens.", state({ qDone: S, entries: sorted, name: "entries, sorted by document token" })]);
    for (let t = 0; t < TOKENS; t++) {
      const mine = sorted.filter((e) => e.t === t).map((e) => `q${e.s}`);
      steps.push([mine.length ? `d${t} adds ${mine.join(", ")}${mine.length > 1 ? ", in this order," : ""} and writes its row once: no atomic addition, so the bits are the same every time.` : `d${t} won nothing: its row is written as zeros.`, state({ qDone: S, entries: sorted, dDone: t + 1, arrowsOf: (s) => WON[s] === t, name: "entries, sorted by document token" })]);
    }
    return steps;
  },
});
