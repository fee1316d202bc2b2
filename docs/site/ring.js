// The ring of the Hopper loop, played tick by tick: one producer warp, two warpgroups that
// multiply, a full and an empty barrier a stage.
"use strict";
lik.figure("ring", {
  title: "The ring of the Hopper loop",
  height: 400,
  make(draw) {
    const STAGES = 4, TILES = 7, COPY = 3, MULTIPLY = [2, 3], WARPS = 4;
    const X = 14, WIDE = 100, Y = 96;
    draw.text(8, 16, "producer warp", { fill: "var(--lik-document)", "font-weight": "bold" });
    const producer = draw.text(8, 36, "");
    draw.text(8, 66, "ring in shared memory", { class: "small" });
    const stages = [];
    for (let i = 0; i < STAGES; i++) {
      const x = X + i * WIDE;
      draw.text(x, Y - 6, `stage ${i}`, { class: "small" });
      stages.push({
        box: draw.rect(x, Y, 92, 64, { "stroke-width": 2 }),
        tile: draw.number(x + 46, Y + 26, ""),
        how: draw.number(x + 46, Y + 48, "", { class: "number small" }),
        full: draw.rect(x, Y + 76, 92, 26), fullText: draw.number(x + 46, Y + 93, "", { class: "number small" }),
        empty: draw.rect(x, Y + 108, 92, 26), emptyText: draw.number(x + 46, Y + 125, "", { class: "number small" }),
      });
    }
    const groups = [0, 1].map((g) => {
      const y = 270 + g * 62;
      draw.text(8, y, `warpgroup ${g}: ${g ? "the other" : "its"} query rows`, { fill: "var(--lik-query)", "font-weight": "bold" });
      return { box: draw.rect(8, y + 8, 404, 28), text: draw.text(18, y + 27, "") };
    });

    // The machine. A stage: tile, ticks until its copy has landed, arrivals of its readers.
    const ring = Array.from({ length: STAGES }, () => ({ tile: -1, left: 0, arrived: 0, reading: [] }));
    const made = { next: 0, waits: false };
    const readers = [0, 1].map((g) => ({ next: 0, left: 0, tile: -1, taken: MULTIPLY[g] }));
    const frames = [];
    let before = "";
    function frame(words, always) {
      const s = JSON.parse(JSON.stringify({ ring, made, readers }));
      const seen = JSON.stringify([ring.map((at) => [at.tile, at.left > 0, at.arrived]), made, readers.map((r) => [r.tile, r.next])]);
      if (seen === before && !always) return; // a tick in which nothing is seen to happen
      before = seen;
      frames.push([words, () => {
        s.ring.forEach((at, i) => {
          const busy = s.readers.filter((r) => r.tile >= 0 && r.tile % STAGES === i).length;
          const free = at.tile < 0, flying = !free && at.left > 0;
          lik.set(stages[i].box, { fill: free ? "transparent" : "var(--lik-soft)", stroke: free ? "var(--lik-line)" : flying ? "var(--lik-document)" : "var(--lik-query)", "stroke-dasharray": flying ? "5 4" : "none" });
          lik.set(stages[i].tile, { text: free ? "free" : `tile ${at.tile}` });
          lik.set(stages[i].how, { text: free ? "" : flying ? "being copied" : busy ? "being read" : "here" });
          lik.set(stages[i].full, { fill: free || flying ? "transparent" : "var(--lik-good)" });
          lik.set(stages[i].fullText, { text: free ? "full: no" : flying ? "full: not yet" : "full: yes", fill: free || flying ? "var(--lik-ink)" : "var(--lik-paper)" });
          lik.set(stages[i].empty, { fill: free ? "var(--lik-good)" : "transparent" });
          lik.set(stages[i].emptyText, { text: free ? "empty: yes" : `empty: ${at.arrived} of ${2 * WARPS}`, fill: free ? "var(--lik-paper)" : "var(--lik-ink)" });
        });
        lik.set(producer, { text: s.made.waits ? `waits until stage ${s.made.next % STAGES} is empty` : s.made.next < TILES ? `next: tile ${s.made.next}, into stage ${s.made.next % STAGES}` : "has copied all" });
        s.readers.forEach((r, g) => {
          const waiting = r.tile < 0;
          lik.set(groups[g].box, { fill: waiting ? "transparent" : "var(--lik-soft)", stroke: waiting ? "var(--lik-wait)" : "var(--lik-query)", "stroke-dasharray": waiting ? "4 4" : "none" });
          lik.set(groups[g].text, { text: r.next >= TILES && waiting ? "done: maxima are summed" : waiting ? `waits until stage ${r.next % STAGES} is full` : `multiplies tile ${r.tile}, takes its maxima` });
        });
      }]);
    }
    frame("Shared memory holds a ring of stages. Each has two barriers: 'full', which the copy engine completes when the bytes are there, and 'empty', at which every warp that reads the stage arrives when it is through: four a warpgroup. At first all stages are empty.");
    for (let tick = 0; tick < 60 && readers.some((r) => r.next < TILES || r.tile >= 0); tick++) {
      const said = [];
      for (const at of ring) if (at.tile >= 0 && at.left > 0 && --at.left === 0) said.push(`tile ${at.tile} has landed: its 'full' barrier completes`);
      readers.forEach((r, g) => {
        if (r.tile >= 0 && --r.left === 0) {
          const at = ring[r.tile % STAGES];
          at.arrived += WARPS;
          said.push(`the four warps of warpgroup ${g} arrive at 'empty' of stage ${r.tile % STAGES}`);
          if (at.arrived === 2 * WARPS) { said.push(`stage ${r.tile % STAGES} is free again`); Object.assign(at, { tile: -1, arrived: 0 }); }
          r.tile = -1;
        }
        const at = ring[r.next % STAGES];
        if (r.tile < 0 && r.next < TILES && at.tile === r.next && at.left === 0) {
          Object.assign(r, { tile: r.next++, left: r.taken });
          said.push(`warpgroup ${g} begins to multiply tile ${r.tile}`);
        }
      });
      made.waits = false;
      if (made.next < TILES) {
        const at = ring[made.next % STAGES];
        if (at.tile < 0) {
          Object.assign(at, { tile: made.next++, left: COPY, arrived: 0 });
          said.push(`the producer asks for tile ${at.tile}: it tells 'full' of stage ${at.tile % STAGES} how many bytes will come, and does not wait for them`);
        } else {
          made.waits = true;
          said.push(`the producer waits for stage ${made.next % STAGES}, which is still being read`);
        }
      }
      const words = said.join("; ") || "copies are under way";
      frame(words[0].toUpperCase() + words.slice(1) + ".");
    }
    frame("All tiles are through. Copies and products overlapped all the while: nobody waited for anybody but at the two barriers, and only the producer ever knew of layouts and offsets: how many columns count, and which document ends where, travels with each tile.", true);
    return frames;
  },
});
