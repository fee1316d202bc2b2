// A compressed token (PLAID) on its way to a product: centroid, buckets, sum, norm.
"use strict";
lik.figure("decode", {
  title: "Decoding a compressed token",
  height: 360,
  make(draw) {
    const CODE = 5, BYTES = [0b11100100, 0b01101101], WEIGHTS = [-0.15, -0.05, 0.05, 0.15];
    const CENTROID = [0.42, -0.31, 0.12, 0.55, -0.2, 0.33, 0.08, -0.47], QUERY = [0.5, -0.2, 0.1, 0.6, -0.3, 0.2, 0.1, -0.4];
    const N = 8, X = 78, WIDE = 42;
    const bucket = (k) => (BYTES[k >> 2] >> (2 * (k & 3))) & 3;
    const sum = CENTROID.map((c, k) => c + WEIGHTS[bucket(k)]);
    const norm = Math.sqrt(sum.reduce((a, x) => a + x * x, 0));
    draw.text(8, 20, "stored:", { "font-weight": "bold" });
    const code = { box: draw.rect(X, 6, 96, 24, { "stroke-width": 2 }), text: draw.number(X + 48, 22, `code ${CODE}`) };
    const bytes = BYTES.map((b, i) => ({ box: draw.rect(X + 112 + i * 112, 6, 104, 24, { "stroke-width": 2 }), text: draw.number(X + 164 + i * 112, 22, b.toString(2).padStart(8, "0").replace(/(..)(?=.)/g, "$1 ")) }));
    const row = (y, name, color) => {
      draw.text(4, y + 17, name, { class: "small" });
      return Array.from({ length: N }, (_, k) => ({ box: draw.rect(X + k * WIDE, y, WIDE - 4, 26, { stroke: color }), text: draw.number(X + k * WIDE + WIDE / 2 - 2, y + 17, "", { class: "number small" }) }));
    };
    draw.text(X, 62, "element", { class: "small" });
    for (let k = 0; k < N; k++) draw.number(X + k * WIDE + WIDE / 2 - 2, 78, `${k}`, { class: "number small" });
    const rows = [row(86, `centroid ${CODE}`, "var(--lik-document)"), row(124, "bucket", "var(--lik-line)"), row(162, "its weight", "var(--lik-line)"), row(200, "token", "var(--lik-win)"), row(238, "unit token", "var(--lik-win)"), row(276, "query", "var(--lik-query)")];
    const values = [CENTROID.map((x) => x.toFixed(2)), CENTROID.map((_, k) => bucket(k).toString()), CENTROID.map((_, k) => WEIGHTS[bucket(k)].toFixed(2)), sum.map((x) => x.toFixed(2)), sum.map((x) => (x / norm).toFixed(2)), QUERY.map((x) => x.toFixed(2))];
    const out = draw.text(X, 336, "", { style: "font-size:16px" });

    function state(shown, { lit = -1, codeLit = false, byteLit = -1, upTo = N, words = "" } = {}) {
      return () => {
        rows.forEach((cells, r) => cells.forEach((cell, k) => {
          const seen = r < shown && (r !== lit || k < upTo);
          lik.set(cell.box, { fill: r === lit && seen ? "var(--lik-soft)" : "transparent", "stroke-width": r === lit && seen ? 2.5 : 1, opacity: seen ? 1 : 0.35 });
          lik.set(cell.text, { text: seen ? values[r][k] : "" });
        }));
        lik.set(code.box, { stroke: codeLit ? "var(--lik-win)" : "var(--lik-line)" });
        bytes.forEach((b, i) => lik.set(b.box, { stroke: byteLit === i ? "var(--lik-win)" : "var(--lik-line)" }));
        lik.set(out, { text: words });
      };
    }
    const product = sum.reduce((a, x, k) => a + (x / norm) * QUERY[k], 0);
    return [
      ["A compressed token is the number of a centroid and a few bits an element: here 2 bits for 8 elements, 2 bytes. At 128 elements and 2 bits it is 34 bytes where f32 takes 512.", state(0)],
      [`The code names the centroid, a row of a table that all tokens share.`, state(1, { lit: 0, codeLit: true })],
      ["A byte holds four buckets of 2 bits. In the order \"low-first\" the first element has the lowest bits, so the byte is read from its right end. (The files of ColBERT have another order, \"colbert\"; in the wrong one scores are noise.)", state(2, { lit: 1, byteLit: 0, upTo: 4 })],
      ["The second byte has the buckets of the other four elements.", state(2, { lit: 1, byteLit: 1 })],
      [`A bucket stands for a weight, a middle value of the residuals that fall into it. Four weights for 2 bits: ${WEIGHTS.join(", ")}.`, state(3, { lit: 2 })],
      ["Centroid and weight are added, element by element.", state(4, { lit: 3 })],
      [`What was a unit vector before compression is one again: divided by its norm, ${norm.toFixed(3)}. The inverse norm may be stored instead, in 2 bytes, and need not be computed.`, state(5, { lit: 4 })],
      ["It meets the query token where it stands: on CPUs some tokens at a time are decoded into cache, on Hopper GPUs a token goes from its bytes to the operand of a multiplication in registers. The decoded collection never exists.", state(6, { lit: 5 })],
      ["The product goes into the running maximum like any other.", state(6, { lit: 4, words: `product ${product.toFixed(3)}` })],
    ];
  },
});
