// A tile of products after the other, folded into running maxima: nothing else is kept.
"use strict";
lik.figure("tiles", {
  title: "Tiles in place of the similarity matrix",
  height: 330,
  make(draw) {
    const S = 4, ROWS = 3, LENGTHS = [5, 4], CELL = 40, HIGH = 24, X = 104, Y = 44;
    const total = LENGTHS[0] + LENGTHS[1];
    const product = (t, s) => ((t * 37 + s * 53 + t * s * 11) % 97) / 100 - 0.05;
    const inside = (t) => (t < LENGTHS[0] ? 0 : 1);
    const cells = [], maxima = [], scores = [];
    draw.text(X, 16, "query tokens: lanes of a vector", { fill: "var(--lik-query)" });
    for (let s = 0; s < S; s++) draw.number(X + s * CELL + CELL / 2, 36, `q${s}`);
    for (let t = 0; t < total; t++) {
      const y = Y + t * HIGH, d = inside(t);
      draw.text(8, y + 16, `${"AB"[d]}, token ${t - d * LENGTHS[0]}`, { class: "small" });
      cells.push([]);
      for (let s = 0; s < S; s++) {
        cells[t].push({ box: draw.rect(X + s * CELL, y, CELL - 3, HIGH - 3), text: draw.number(X + s * CELL + CELL / 2 - 1, y + 15, "", { class: "number small" }) });
      }
    }
    const y = Y + total * HIGH + 12;
    draw.text(8, y + 16, "maxima so far", { class: "small" });
    for (let s = 0; s < S; s++) {
      maxima.push({ box: draw.rect(X + s * CELL, y, CELL - 3, HIGH - 3, { stroke: "var(--lik-win)", "stroke-width": 2 }), text: draw.number(X + s * CELL + CELL / 2 - 1, y + 15, "", { class: "number small" }) });
    }
    for (let d = 0; d < 2; d++) {
      draw.text(284, Y + (d ? LENGTHS[0] : 0) * HIGH + 20, `score of ${"AB"[d]}`);
      scores.push(draw.text(284, Y + (d ? LENGTHS[0] : 0) * HIGH + 42, "", { "font-weight": "bold", style: "font-size:18px" }));
    }
    const held = draw.text(284, y + 15, "", { class: "small" });

    // A state is drawn whole: which rows hold products, whether all do, and what was folded.
    function state(all, from, folded) {
      const best = Array(S).fill(-Infinity), done = ["", ""];
      for (let t = 0; t < folded; t++) {
        for (let s = 0; s < S; s++) best[s] = Math.max(best[s], product(t, s));
        if (t + 1 === LENGTHS[0] || t + 1 === total) {
          done[inside(t)] = best.reduce((a, b) => a + b, 0).toFixed(2);
          if (t + 1 < folded) best.fill(-Infinity);
        }
      }
      return () => {
        let count = 0;
        for (let t = 0; t < total; t++) {
          const live = all || (from !== null && t >= from && t < from + ROWS);
          for (let s = 0; s < S; s++) {
            count += live;
            const wins = live && t < folded && inside(t) === inside(folded - 1) && product(t, s) === best[s];
            lik.set(cells[t][s].box, { fill: live ? "var(--lik-soft)" : "transparent", stroke: wins ? "var(--lik-win)" : live ? "var(--lik-query)" : "var(--lik-line)", "stroke-dasharray": live ? "none" : "2 3", "stroke-width": wins ? 2.5 : 1 });
            lik.set(cells[t][s].text, { text: live ? product(t, s).toFixed(2) : "" });
          }
        }
        for (let s = 0; s < S; s++) lik.set(maxima[s].text, { text: best[s] > -Infinity ? best[s].toFixed(2) : all ? "" : "-inf" });
        scores.forEach((score, d) => lik.set(score, { text: done[d] }));
        lik.set(held, { text: all ? `held: ${count} products` : `held: ${count} + ${S}` });
      };
    }
    const steps = [
      ["The usual way makes every product first: for each query, each document, each pair of tokens. With 1000 documents of 300 tokens and 32 query tokens that is 9.6 million numbers, written and read again.", state(true, null, 0)],
      ["Here no product is kept. What is kept is one running maximum a query token, which begins at minus infinity.", state(false, null, 0)],
    ];
    for (let from = 0; from < total; from += ROWS) {
      const crosses = inside(from) !== inside(Math.min(from + ROWS, total) - 1), n = from / ROWS + 1;
      steps.push([`Tile ${n}: ${ROWS} document tokens by ${S} query tokens are multiplied. The sums stay in registers over the whole dimension.`, state(false, from, from)]);
      if (crosses) {
        steps.push(["This tile touches two documents, so it is folded row by row. Document A ends: the sum of its maxima is its score.", state(false, from, LENGTHS[0])]);
        steps.push(["The rest of the tile belongs to document B, whose maxima begin anew. Short documents share tiles, and no lane is left empty.", state(false, from, from + ROWS)]);
      } else {
        steps.push([`The tile is folded into the maxima, an instruction for each vector of sums${from + ROWS >= total ? "; document B ends, and its score is written" : ""}. Its products are gone with the next tile.`, state(false, from, from + ROWS)]);
      }
    }
    steps.push(["Two scores are what reaches memory. The similarity matrix never existed, and adding documents adds nothing to what is held.", state(false, null, total)]);
    return steps;
  },
});
