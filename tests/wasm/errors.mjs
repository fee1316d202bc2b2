/* What the wrapper refuses, and with which words: prints one JSON list of them. */
import { LikError, load, readNpy } from "../../build/wasm/lik.js";

const lik = await load();
const f32 = (n) => new Float32Array(n);
const q = { data: f32(8), dim: 4, length: 2 };
const freed = lik.tokens(q);
freed.free();
freed.free();
const other = (await load()).tokens(q);
const moved = f32(8);
structuredClone(moved, { transfer: [moved.buffer] });
const npy = (header, data = 0, head = "\x93NUMPY\x01\x00") => {
    const text = Buffer.from(head + String.fromCharCode(header.length, 0) + header, "latin1");
    return new Uint8Array([...text, ...new Array(data).fill(0)]).buffer;
};
const header = (descr, shape, order = "False") =>
    `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': (${shape}), }\n`;
const calls = [
    () => lik.score({ ...q, data: moved }, q),
    () => lik.score({ ...q, lengths: new DataView(new ArrayBuffer(8)), length: undefined }, q),
    () => lik.alloc(2 ** 32 + 64),
    () => load({ wasm: "file:///nowhere/lik.wasm" }),
    () => load({ wasm: "lik.wasm" }),
    () => load({ wasm: new Uint8Array(8) }),
    () => readNpy(moved.buffer, "moved.npy"),
    () => readNpy(new DataView(npy(header("<f4", "2, 2"))), "view.npy"),
    () => lik.score({ data: [1, 2], dim: 2, length: 1 }, q),
    () => lik.score({ data: new Uint8Array(8), dim: 4, length: 2 }, q),
    () => lik.score({ ...q, dtype: "f64" }, q),
    () => lik.score({ ...q, dtype: "i8" }, q),
    () => lik.score({ ...q, dim: 3 }, q),
    () => lik.score({ ...q, dim: 0 }, q),
    () => lik.score({ ...q, length: 3 }, q),
    () => lik.score({ ...q, lengths: [2] }, q),
    () => lik.score({ data: f32(8), dim: 4, lengths: [1, 2] }, q),
    () => lik.score({ data: f32(8), dim: 4, lengths: [1] }, q),
    () => lik.score({ ...q, mask: new Uint8Array(3) }, q),
    () => lik.score({ ...q, weights: [1, 2] }, q),
    () => lik.score(q, { ...q, weights: f32(2) }),
    () => lik.score(q, { data: f32(10), dim: 5, length: 2 }),
    () => lik.score(q, q, { pairing: "some" }),
    () => lik.score(q, { data: f32(24), dim: 4, length: 2 }, { pairing: "pairs" }),
    () => lik.score(q, q, { pairing: "candidates" }),
    () => lik.score(q, q, { precision: "low" }),
    () => lik.topk(q, q, 0),
    () => lik.score(freed, q),
    () => lik.score(other, q),
    () => load({ level: "avx2" }),
    () => readNpy(new ArrayBuffer(4), "a.npy"),
    () => readNpy(npy(header("<f4", "2, 2")), "b.npy"),
    () => readNpy(npy(header("<f4", "2, 2", "True"), 16), "c.npy"),
    () => readNpy(npy(header(">f4", "2, 2"), 16), "d.npy"),
    () => readNpy(npy(header("<f4", "2, 2"), 16, "\x93NUMPY\x07\x00"), "e.npy"),
    () => readNpy(npy("nonsense"), "f.npy"),
];
const said = [];
for (const call of calls) {
    try {
        await call();
        said.push("nothing");
    } catch (error) {
        said.push(error instanceof LikError ? `${error.status}: ${error.message}` : `${error.stack}`);
    }
}
/* Nothing of it leaks: as often as one likes. */
const before = lik.wasm.memory.buffer.byteLength;
for (let i = 0; i < 300; i++) {
    try {
        lik.score({ data: f32(1e5), dim: 4, length: 25000 }, { data: f32(1e5), dim: 5, length: 2 });
    } catch {
        continue;
    }
}
said.push(String(lik.wasm.memory.buffer.byteLength - before < 4e6));
const array = readNpy(Buffer.from(npy(header("<f8", "3,"), 24)), "g.npy");
/* Nothing at all, and a subclass. */
const none = { data: f32(0), dim: 4, lengths: [0] }, nobody = { data: f32(0), dim: 4, lengths: [] };
const { scores, argmax, longest } = lik.score(none, q, { argmax: true });
const shapes = `${lik.score(nobody, q).shape} ${lik.score(q, nobody).shape}`;
said.push(`${[...scores]} ${[...argmax]} ${longest} ${shapes}`);
class Mine extends Float32Array {}
said.push(String(lik.score({ ...q, data: new Mine(8).fill(1) }, { ...q, data: new Mine(8).fill(1) }).scores));
said.push(`${array.dtype} ${array.shape} ${array.converted} ${array.data.length}`);
/* Beyond 2^31 bytes, which are only asked for, and past the end. */
for (let i = 0; i < 5; i++) lik.alloc(5e8);
const far = lik.tokens({ data: f32(1e6).fill(1), dim: 4, length: 250000 });
const ones = { ...q, data: f32(8).fill(1) };
said.push(`${far.memory[0] > 2 ** 31} ${lik.score(ones, far).scores} ${lik.topk(ones, far, 1).ids}`);
try {
    for (;;) lik.alloc(5e8);
} catch (error) {
    said.push(`${error.status}: ${error.message}`);
}
console.log(JSON.stringify(said));
