// One query token and one document: the running maximum, its position, ties, masks, NaN.
"use strict";
lik.figure("maximum", {
  title: "The running maximum of one query token",
  height: 284,
  make(draw) {
    const P = [0.31, -0.12, 0.58, 0.22, 0.91, 0.76, 0.58, 0.76, 0.4], DROPPED = [4];
    const X = 24, WIDE = 42, ZERO = 170, SCALE = 130;
    draw.text(8, 16, "products <q[s], d[t]> with the tokens of one document");
    draw.line(8, ZERO, 412, ZERO);
    const bars = P.map((p, t) => {
      const box = draw.rect(X + t * WIDE, p < 0 ? ZERO : ZERO - p * SCALE, 30, Math.abs(p) * SCALE);
      const text = draw.number(X + t * WIDE + 15, p < 0 ? ZERO + 32 : ZERO - p * SCALE - 5, p.toFixed(2), { class: "number small" });
      draw.number(X + t * WIDE + 15, 228, `t ${t}`, { class: "number small" });
      return { box, text };
    });
    const level = draw.line(8, 0, 412, 0, { stroke: "var(--lik-win)", "stroke-width": 2.5 });
    const now = draw.text(8, 266, "", { style: "font-size:16px" });

    function state(upTo, end) {
      let best = -Infinity, at = -1;
      for (let t = 0; t < upTo; t++) if (!DROPPED.includes(t) && P[t] > best) { best = P[t]; at = t; }
      return () => {
        bars.forEach((bar, t) => {
          const out = DROPPED.includes(t) && t < upTo, seen = t < upTo;
          lik.set(bar.box, { fill: t === at ? "var(--lik-win)" : out || !seen ? "transparent" : "var(--lik-query)", "stroke-dasharray": out || !seen ? "3 3" : "none", opacity: out ? 0.5 : 1 });
          lik.set(bar.text, { text: out ? "left out" : seen ? P[t].toFixed(2) : "" });
        });
        const y = best > -Infinity ? ZERO - best * SCALE : ZERO + 20;
        lik.set(level, { y1: y, y2: y, opacity: best > -Infinity ? 1 : 0 });
        lik.set(now, { text: end ? `adds w[s] × ${best.toFixed(2)} to the score; argmax ${at}` : `best ${best > -Infinity ? best.toFixed(2) : "-inf"}, at ${at}` });
      };
    }
    const steps = [["Before the first token the best is minus infinity, at no token (-1). A document without tokens is a special case: it scores 0.", state(0)]];
    P.forEach((p, t) => {
      const before = Math.max(...P.slice(0, t).filter((_, i) => !DROPPED.includes(i)), -Infinity);
      steps.push([
        DROPPED.includes(t) ? `Token ${t} is dropped by the mask. It is left out, not counted as 0: its vector is never read, whatever it holds.`
          : p > before ? `Token ${t}: ${p.toFixed(2)} is above the best so far, and takes its place.`
            : p === before ? `Token ${t}: ${p.toFixed(2)} again. Equals do not displace: the lowest token keeps the maximum.`
              : `Token ${t}: ${p.toFixed(2)} is not above the best. Nothing changes.`, state(t + 1)]);
    });
    steps.push(["The document ends. The maximum, times the query token's weight, is one term of the score. Where training or an explanation wants to know, the position is kept as well: 2 bytes. (A NaN product would have stayed the maximum from its token on.)", state(P.length, true)]);
    return steps;
  },
});
