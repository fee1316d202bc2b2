/* The live page: what lik.classic.js and demo.js hold, ranked and drawn. A classic script, since
 * modules do not load from files. */
"use strict";

(async () => {
    const at = (id) => document.getElementById(id);
    /* A query is timed again until one of the last two is used up. */
    const TOP = 10, REPEATS = 7, PATIENCE_MS = 100;

    /* A tensor file's arrays by name. */
    function readSafetensors(base64) {
        const types = { I8: Int8Array, F32: Float32Array, I64: BigInt64Array };
        const bytes = Uint8Array.from(atob(base64), (x) => x.charCodeAt(0));
        const size = Number(new DataView(bytes.buffer).getBigUint64(0, true));
        const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
        const arrays = {};
        for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(header))
            arrays[name] = new types[dtype](bytes.buffer.slice(8 + size + from, 8 + size + to));
        return arrays;
    }

    /* A collection: its arrays, texts, and where each sequence begins. */
    function collection({ vectors, texts }) {
        const x = readSafetensors(vectors), lengths = [...x.lengths].map(Number), begins = [0];
        lengths.forEach((length) => begins.push(begins.at(-1) + length));
        return { ...x, texts, lengths, begins, dim: x.embeddings.length / begins.at(-1) };
    }

    /* Sequence i as options of tokens; `apart`: each of its tokens a sequence. */
    function sequence(x, i, apart, weighted) {
        const [from, to] = [x.begins[i], x.begins[i + 1]];
        return {
            data: x.embeddings.subarray(from * x.dim, to * x.dim), dim: x.dim,
            scale: x.scales.subarray(from, to), length: apart ? 1 : to - from,
            ...(weighted && x.weights ? { weights: x.weights.subarray(from, to) } : {}),
        };
    }

    const make = (tag, text, more = {}) =>
        Object.assign(document.createElement(tag), { textContent: text }, more);
    const digits = (x) => String(Number(x.toPrecision(9)));
    const median = (times) => [...times].sort((a, b) => a - b)[times.length >> 1];
    /* A word piece as it is read: those that go on a word have no space before them. */
    const piece = (token) => (token.startsWith("##") ? token.slice(2) : ` ${token}`);

    let library, documents, resident, queries, match;

    /* What waits is done in its order, after the library is there. */
    let turn = Promise.resolve();
    function inTurn(body) {
        const done = turn.then(body);
        turn = done.catch(() => {});
        return done;
    }

    /* Until another level is loaded, what there is goes on. */
    async function choose(level) {
        const next = await lik.load({ level });
        resident = next.tokens({
            data: documents.embeddings, dim: documents.dim, lengths: documents.lengths,
            scale: documents.scales,
        });
        library = next;
    }

    function rank() {
        const i = at("query").selectedIndex, weighted = at("weighted").checked;
        const query = library.tokens(sequence(queries, i, false, weighted)), times = [];
        const begin = performance.now();
        let best;
        while (!times.length || (times.length < REPEATS && performance.now() - begin < PATIENCE_MS)) {
            const start = performance.now();
            best = library.topk(query, resident, TOP);
            times.push(performance.now() - start);
        }
        query.free();
        const total = documents.begins.at(-1).toLocaleString("en");
        report(at("status"),
            `${queries.lengths[i]} query tokens and ${total} document tokens of ${documents.dim} elements: ` +
            `${median(times).toFixed(1)} ms by ${library.level} ` +
            `(median of ${times.length}; fastest ${Math.min(...times).toFixed(1)} ms).`);
        const relevant = demo.relevant[queries.texts[i].id];
        const list = [...best.ids].map((id, place) => {
            const document_ = documents.texts[id], name = make("span", document_.id);
            const item = make("li", ""), button = make("button", "", { type: "button" });
            if (document_.id === relevant)
                name.append(make("span", " ✓ relevant", { className: "relevant" }));
            button.append(make("span", `${place + 1}.`), name,
                make("span", best.values[place].toFixed(3), { className: "score" }),
                make("span", document_.text, { className: "snippet" }));
            Object.assign(item.dataset, { id: document_.id, score: digits(best.values[place]) });
            button.addEventListener("click", () => show(i, id, place));
            item.append(button);
            return item;
        });
        at("results").replaceChildren(...list);
        history.replaceState(null, "", `#${queries.texts[i].id}`);
        show(i, best.ids[0], 0);
    }

    /* The match of query i and document j, which stands at `place` of the list. */
    function show(i, j, place) {
        const q = queries.texts[i].tokens, d = documents.texts[j].tokens;
        const { scores } = library.score(sequence(queries, i, true), sequence(documents, j, true));
        const { argmax } = library.score(sequence(queries, i), sequence(documents, j), { argmax: true });
        match = { i, j, q, d, products: scores, argmax, chosen: -1 };
        at("results").querySelectorAll("button").forEach((button, n) => {
            button.setAttribute("aria-current", n === place ? "true" : "false");
        });
        const name = make("code", documents.texts[j].id);
        at("about").replaceChildren(`“${queries.texts[i].text}” and `, name);
        at("rows").replaceChildren(...q.map((token, s) => {
            const button = make("button", token, { type: "button" });
            button.setAttribute("aria-pressed", "false");
            button.addEventListener("click", () => {
                match.chosen = match.chosen === s ? -1 : s;
                draw();
            });
            return button;
        }));
        at("text").replaceChildren(...d.flatMap((token) => {
            const text = piece(token), span = make("span", text.trimStart());
            return text.startsWith(" ") ? [" ", span] : [span];
        }));
        const weights = queries.weights.subarray(queries.begins[i], queries.begins[i + 1]);
        const weighted = at("weighted").checked;
        at("maxima").replaceChildren(...q.map((token, s) => {
            const product = scores[s * d.length + argmax[s]], weight = weighted ? weights[s] : 1;
            const row = make("tr", "");
            const numbers = [product.toFixed(4), weight.toFixed(3), (product * weight).toFixed(3)];
            row.append(...[token, d[argmax[s]], ...numbers].map((text) => make("td", text)));
            return row;
        }));
        at("detail").hidden = false;
        draw();
    }

    /* Colors: of the text by the chosen query token, or the best one; of all cells. */
    function draw() {
        const { q, d, products, argmax, chosen } = match, columns = d.length;
        const most = Math.max(...products), alpha = (x) => 0.8 * Math.max(0, x / most) ** 2;
        const shown = chosen < 0 ? q.map((_, s) => s) : [chosen];
        const winners = new Set(shown.map((s) => argmax[s]));
        at("text").querySelectorAll("span").forEach((span, t) => {
            const value = Math.max(...shown.map((s) => products[s * columns + t]));
            span.style.setProperty("--a", alpha(value).toFixed(3));
            span.className = winners.has(t) ? "winner" : "";
            span.title = value.toFixed(3);
        });
        at("rows").querySelectorAll("button").forEach((button, s) => {
            button.setAttribute("aria-pressed", s === chosen ? "true" : "false");
        });
        const canvas = at("heat"), cell = 8, style = getComputedStyle(document.documentElement);
        const heat = style.getPropertyValue("--heat"), ink = style.getPropertyValue("--text");
        canvas.width = columns * cell;
        canvas.height = q.length * cell * 2;
        canvas.style.height = `${q.length * 1.5}rem`;
        const pen = canvas.getContext("2d");
        for (let s = 0; s < q.length; s++) {
            const dim = chosen >= 0 && s !== chosen ? 0.35 : 1;
            for (let t = 0; t < columns; t++) {
                pen.fillStyle = `rgb(${heat} / ${alpha(products[s * columns + t]) * dim})`;
                pen.fillRect(t * cell, s * cell * 2, cell, cell * 2);
            }
            pen.globalAlpha = dim;
            pen.fillStyle = ink;
            pen.fillRect(argmax[s] * cell + 2, s * cell * 2 + 6, 4, 4);
            pen.globalAlpha = 1;
        }
        canvas.setAttribute("aria-label",
            `Similarity of ${q.length} query and ${columns} document tokens; the maxima are in the table`);
    }

    /* ---- files of the visitor's ---- */

    const own = { queries: null, documents: null };

    function report(element, error) {
        element.textContent = error instanceof Error ? error.message : error;
        element.classList.toggle("error", error instanceof Error);
    }

    async function take(side, file) {
        const array = lik.readNpy(await file.arrayBuffer(), file.name), { shape } = array;
        const found = `${file.name}: shape (${shape.join(", ")})`;
        if (shape.length !== 2 && shape.length !== 3)
            throw new lik.LikError(`${found}, must be [sequences, tokens, dim] or [tokens, dim]`);
        if (shape.includes(0)) throw new lik.LikError(`${found} holds no token`);
        own[side] = { name: file.name, shape, converted: array.converted,
            tokens: { data: array.data, dtype: array.dtype, dim: shape.at(-1), length: shape.at(-2) } };
    }

    const operands = () => [own.queries, own.documents].map(({ tokens }) =>
        ({ ...tokens, normalize: at("normalize").checked }));

    function scoreOwn() {
        const { queries: q, documents: d } = own;
        const what = (x) => `${x.name} [${x.shape.join(", ")}]${x.converted ? ", float64 as float32" : ""}`;
        const said = `Queries: ${q ? what(q) : "none yet"}; documents: ${d ? what(d) : "none yet"}.`;
        if (!q || !d) return report(at("own-status"), said);
        const start = performance.now(), best = library.topk(...operands(), 5);
        const time = performance.now() - start;
        const shown = Math.min(best.shape[0], 50), count = best.shape[0];
        at("own-results").replaceChildren(...Array.from({ length: shown }, (_, i) => {
            const row = make("tr", ""), found = [...best.ids.subarray(i * 5, i * 5 + 5)].flatMap((id, n) =>
                id < 0 ? [] : [`${id} (${digits(best.values[i * 5 + n])})`]);
            row.append(make("td", String(i)), make("td", found.join(", ")));
            return row;
        }));
        at("own-scroll").hidden = false;
        at("download").disabled = false;
        report(at("own-status"), `${said} Ranked in ${time.toFixed(1)} ms, copying included` +
            `${shown < count ? `; the first ${shown} of ${count} queries` : ""}.`);
    }

    const takeFiles = (pairs) => inTurn(async () => {
        at("download").disabled = true;
        at("own-scroll").hidden = true;
        try {
            if (!library) throw new lik.LikError("the library is not loaded");
            for (const [side, file] of pairs) {
                own[side] = null;
                await take(side, file);
            }
            scoreOwn();
        } catch (error) {
            report(at("own-status"), error);
        }
    });

    /* Of two files that are dropped together queries are the one that is called so, or the
     * smaller one; of one, what is missing. */
    function sides(files) {
        if (files.length === 1) return [[own.queries && !own.documents ? "documents" : "queries", files[0]]];
        const [a, b] = files, named = (file) => /quer|^q/i.test(file.name);
        const first = named(a) !== named(b) ? named(a) : a.size <= b.size;
        return first ? [["queries", a], ["documents", b]] : [["queries", b], ["documents", a]];
    }

    /* All scores as a file: few look at more than the best, so that they are made when asked for. */
    function scores() {
        const { scores: values, shape } = library.score(...operands());
        let header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
        header = `${header.padEnd(117)}\n`;
        const begin = new Uint8Array([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, header.length, 0]);
        return new Blob([begin, header, values], { type: "application/octet-stream" });
    }

    at("download").addEventListener("click", () => {
        try {
            const link = make("a", "", { href: URL.createObjectURL(scores()), download: "scores.npy" });
            link.click();
            setTimeout(() => URL.revokeObjectURL(link.href), 60_000); /* some browsers begin later */
        } catch (error) {
            report(at("own-status"), error);
        }
    });
    for (const side of ["queries", "documents"])
        at(`file-${side}`).addEventListener("change", ({ target: { files } }) => {
            if (files.length) takeFiles([[side, files[0]]]);
        });
    at("normalize").addEventListener("change", () => takeFiles([]));
    at("swap").addEventListener("click", () => {
        inTurn(() => {
            [own.queries, own.documents] = [own.documents, own.queries];
        });
        takeFiles([]);
    });
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
        document.addEventListener(kind, (event) => {
            event.preventDefault();
            at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
            const files = kind === "drop" ? [...event.dataTransfer.files] : [];
            if (files.length > 2)
                report(at("own-status"), new lik.LikError(`${files.length} files, must be one or two`));
            else if (files.length) takeFiles(sides(files));
        });

    /* ---- the demo ---- */

    try {
        documents = collection(demo.documents);
        queries = collection(demo.queries);
        await inTurn(() => choose());
        at("level").replaceChildren(...library.levels.map((level) =>
            make("option", level, { value: level, selected: level === library.level })));
        at("query").replaceChildren(...queries.texts.map(({ id, text }) => make("option", `${id}: ${text}`)));
        const named = () => queries.texts.findIndex(({ id }) => `#${id}` === location.hash);
        at("query").selectedIndex = Math.max(named(), 0);
        at("query").disabled = false;
        const step = (by) => {
            const { length } = queries.texts;
            at("query").selectedIndex = (at("query").selectedIndex + by + length) % length;
            rank();
        };
        at("before").addEventListener("click", () => step(-1));
        at("after").addEventListener("click", () => step(1));
        at("query").addEventListener("change", rank);
        at("weighted").addEventListener("change", rank);
        at("level").addEventListener("change", () => {
            const level = at("level").value;
            inTurn(() => choose(level)).then(rank).catch((error) => {
                at("level").value = library.level;
                report(at("status"), error);
            });
        });
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => match && draw());
        addEventListener("hashchange", () => {
            const found = named();
            if (found >= 0 && found !== at("query").selectedIndex) {
                at("query").selectedIndex = found;
                rank();
            }
        });
        rank();
    } catch (error) {
        report(at("status"), error);
    }
})();
