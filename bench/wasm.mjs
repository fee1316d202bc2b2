/* Time to rank the demo collection by WebAssembly in Node, after `make wasm`:
 *
 *     node bench/wasm.mjs [ROUNDS]
 *
 * For each level and dtype of the 36,441 document tokens: milliseconds of a query, the median over
 * the first 50 queries of the fastest of ROUNDS (20), which go by turns. */
import { readFile } from "node:fs/promises";
import { load } from "../build/wasm/lik.js";

const TYPES = { I8: Int8Array, F32: Float32Array, I64: BigInt64Array };
const QUERIES = 50, rounds = Number(process.argv[2] ?? 20);

async function tensors(name) {
    const file = await readFile(new URL(`../demo/${name}.safetensors`, import.meta.url));
    const { buffer } = new Uint8Array(file);
    const size = Number(new DataView(buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    return Object.fromEntries(Object.entries(header).map(([key, { dtype, data_offsets: [from, to] }]) =>
        [key, new TYPES[dtype](buffer.slice(8 + size + from, 8 + size + to))]));
}

/* Tokens as they are stored, or each element times its token's scale. */
function as(dtype, x, lengths, from, to) {
    const data = x.embeddings.subarray(from * 128, to * 128), scale = x.scales.subarray(from, to);
    if (dtype === "i8") return { data, scale, dim: 128, lengths };
    return { data: Float32Array.from(data, (value, i) => value * scale[i >> 7]), dim: 128, lengths };
}

const q = await tensors("queries"), d = await tensors("documents"), ways = [];
const total = d.scales.length;
for (const level of ["generic", "simd128"])
    for (const dtype of ["i8", "f32"]) {
        const lik = await load({ level });
        const documents = lik.tokens(as(dtype, d, d.lengths, 0, total)), queries = [];
        for (let i = 0, from = 0; i < QUERIES; i++) {
            const tokens = Number(q.lengths[i]);
            queries.push(lik.tokens(as(dtype, q, [tokens], from, (from += tokens))));
        }
        ways.push({ level, dtype, lik, documents, queries, best: Array(QUERIES).fill(Infinity) });
    }
for (let round = 0; round < rounds; round++)
    for (const { lik, documents, queries, best } of ways)
        queries.forEach((query, i) => {
            const start = performance.now();
            lik.topk(query, documents, 10);
            best[i] = Math.min(best[i], performance.now() - start);
        });
const tokens = q.lengths.slice(0, QUERIES).reduce((sum, n) => sum + Number(n), 0) / QUERIES;
console.log(`${QUERIES} queries of ${tokens.toFixed(1)} tokens on average, ${d.lengths.length} documents`);
for (const { level, dtype, best } of ways) {
    const median = best.sort((a, b) => a - b)[QUERIES >> 1];
    console.log(`${level.padEnd(8)} ${dtype.padEnd(4)} ${median.toFixed(2)} ms`);
}
