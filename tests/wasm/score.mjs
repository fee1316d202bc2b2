/* Scores what a JSON file lists by the wrapper: score.mjs JOBS. Operands are files of raw numbers
 * beside it; the results of each level go to NAME.LEVEL, scores, argmax and top-k behind one
 * another. */
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { load } from "../../build/wasm/lik.js";

const TYPES = { f32: Float32Array, f16: Uint16Array, bf16: Uint16Array, i8: Int8Array, u8: Uint8Array,
    e4m3: Uint8Array, e5m2: Uint8Array };
const folder = dirname(process.argv[2]);

async function array({ file, type }) {
    const bytes = await readFile(join(folder, file));
    return new TYPES[type](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

async function operand(x) {
    const options = { ...x };
    for (const name of ["data", "mask", "scale", "weights"])
        if (x[name]) options[name] = await array(x[name]);
    return options;
}

const bytes = (x) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);

for (const job of JSON.parse(await readFile(process.argv[2], "utf8"))) {
    const queries = await operand(job.queries), documents = await operand(job.documents);
    for (const level of ["generic", "simd128"]) {
        const lik = await load({ level });
        const precision = job.precision;
        const plain = lik.score(queries, documents, { precision });
        const { scores, argmax } = lik.score(queries, lik.tokens(documents), { precision, argmax: true });
        if (Buffer.compare(bytes(scores), bytes(plain.scores)))
            throw new Error(`${job.name}: argmax changes scores`);
        const { values, ids } = lik.topk(lik.tokens(queries), documents, 3, { precision });
        const all = Buffer.concat([scores, argmax, values, ids].map(bytes));
        await writeFile(join(folder, `${job.name}.${level}`), all);
    }
}
