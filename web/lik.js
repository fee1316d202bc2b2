/* late-interaction-kernels in JavaScript: typed arrays in, scores out. docs/web.md is the guide.
 *
 *     import { load } from "./lik.js";
 *     const lik = await load();
 *     const { scores } = lik.score({ data: queries, dim: 128, length: 32 },
 *                                  { data: documents, dim: 128, lengths: [180, 97] });
 *
 * `make wasm` makes two files of this one: lik.js, an ES module beside lik.wasm, and
 * lik.classic.js, a script with the WebAssembly in it for pages that are opened as files, where
 * modules cannot be loaded; it sets the global `lik`. */

const DTYPES = { f32: 1, f16: 2, bf16: 3, e4m3: 4, e5m2: 5, i8: 6 };
const ARRAYS = {
    f32: ["Float32Array"],
    f16: ["Uint16Array", "Float16Array"],
    bf16: ["Uint16Array"],
    e4m3: ["Uint8Array"],
    e5m2: ["Uint8Array"],
    i8: ["Int8Array"],
};
const DEFAULT_DTYPES = { Float32Array: "f32", Uint16Array: "f16", Float16Array: "f16", Int8Array: "i8" };
const PAIRINGS = { all: 0, candidates: 1, pairs: 2 };
const PRECISIONS = { highest: 0, high: 1, medium: 2 };
const STATUSES = {
    "-1": "LIK_EINVAL",
    "-2": "LIK_EUNSUPPORTED",
    "-3": "LIK_EWORKSPACE",
    "-4": "LIK_ENOMEM",
    "-5": "LIK_EDEVICE",
};
const MOST = 2 ** 31 - 1;

/* What every function here throws; `status` is the library's word for it. */
export class LikError extends Error {
    constructor(message, status = "LIK_EINVAL") {
        super(message);
        this.name = "LikError";
        this.status = status;
    }
}

function need(holds, message) {
    if (!holds) throw new LikError(message);
}

function whole(name, value, least = 0) {
    need(Number.isInteger(value) && value >= least && value <= MOST,
        `${name} is ${value}, must be a whole number from ${least} to ${MOST}`);
    return value;
}

function choice(name, value, choices) {
    need(Object.hasOwn(choices, value), `${name} is "${value}", must be ${Object.keys(choices).join(", ")}`);
    return choices[value];
}

/* Which typed array it is, of a subclass or of another frame, too; undefined: none. */
function typeOf(array) {
    const type = ArrayBuffer.isView(array) ? array[Symbol.toStringTag] : undefined;
    return type === "DataView" ? undefined : type;
}

/* Memory that went elsewhere, to a worker perhaps, reads as no elements at all. */
function needContent(name, array) {
    try {
        Uint8Array.prototype.keys.call(array);
    } catch {
        throw new LikError(`${name} is detached: its memory was transferred or has another size now`);
    }
}

/* An array beside the tokens: as many entries, of one type. */
function beside(name, array, type, counts) {
    if (array === undefined || array === null) return null;
    need(typeOf(array) === type, `${name} must be a ${type}`);
    needContent(name, array);
    need(counts.includes(array.length),
        `${name} has ${array.length} entries, must have ${[...new Set(counts)].join(" or ")}`);
    return array;
}

/* What `options` says of a batch of sequences, checked and completed. */
function described(name, options) {
    need(options && typeof options === "object", `${name} must be an object with data and dim`);
    const { data, normalize = false } = options;
    const type = typeOf(data), dtype = options.dtype ?? DEFAULT_DTYPES[type];
    need(type !== undefined, `${name}.data must be a typed array`);
    need(dtype !== undefined, `${name}.data is a ${type}: ${name}.dtype must say what it holds`);
    choice(`${name}.dtype`, dtype, DTYPES);
    need(ARRAYS[dtype].includes(type),
        `${name}.data is a ${type}, of ${dtype} it must be a ${ARRAYS[dtype].join(" or ")}`);
    needContent(`${name}.data`, data);
    const dim = whole(`${name}.dim`, options.dim, 1);
    need(data.length % dim === 0, `${name}.data has ${data.length} elements, no multiple of dim ${dim}`);
    const total = whole(`tokens of ${name}.data`, data.length / dim);
    let { length, lengths } = options;
    let offsets = null, count, longest;
    need((length === undefined) !== (lengths === undefined),
        `${name} needs either length, of padded sequences, or lengths, one a sequence`);
    if (lengths !== undefined) {
        need(Array.isArray(lengths) || typeOf(lengths), `${name}.lengths must be an array`);
        count = lengths.length;
        longest = 1; /* at least: how long an argmax is must be said */
        offsets = new Int32Array(count + 1);
        for (let i = 0; i < count; i++) {
            const tokens = whole(`${name}.lengths[${i}]`, Number(lengths[i]));
            longest = Math.max(longest, tokens);
            need(offsets[i] + tokens <= total,
                `${name}.lengths add up to more than the ${total} tokens of data`);
            offsets[i + 1] = offsets[i] + tokens;
        }
        need(offsets[count] === total,
            `${name}.lengths add up to ${offsets[count]}, data has ${total} tokens`);
    } else {
        longest = whole(`${name}.length`, length, 1);
        count = total / longest;
        need(Number.isInteger(count), `${name}.data has ${total} tokens, no multiple of length ${longest}`);
    }
    return {
        data, dtype, dim, total, count, longest, offsets, normalize: Boolean(normalize),
        mask: beside(`${name}.mask`, options.mask, "Uint8Array", [total]),
        scale: beside(`${name}.scale`, options.scale, "Float32Array", [total, 1]),
        weights: beside(`${name}.weights`, options.weights, "Float32Array", [total]),
    };
}

/* A batch of sequences in the library's memory, from Lik.tokens: for what is scored again and
 * again. */
export class Tokens {
    constructor(lik, name, options) {
        const x = described(name, options);
        this.lik = lik;
        this.count = x.count;
        this.longest = x.longest;
        this.memory = [];
        try {
            const put = (array) => (array ? this.#copy(array) : 0);
            const made = lik.wasm.web_tokens(
                put(x.data), DTYPES[x.dtype], x.count, x.longest, x.total, x.dim, put(x.offsets),
                x.normalize ? 1 : 0, put(x.mask), put(x.scale),
                x.scale && x.scale.length === 1 && x.total !== 1 ? 1 : 0, put(x.weights));
            this.address = lik.needMemory(made, "an operand");
            this.memory.push(this.address);
        } catch (error) {
            this.free();
            throw error;
        }
    }

    #copy(array) {
        const address = this.lik.alloc(array.byteLength);
        this.memory.push(address);
        const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
        new Uint8Array(this.lik.wasm.memory.buffer, address, array.byteLength).set(bytes);
        return address;
    }

    /* Gives the memory back; the object cannot be used any more. */
    free() {
        for (const address of this.memory) this.lik.wasm.web_free(address);
        this.memory = [];
        this.address = 0;
    }
}

/* One instance of the library, from load. */
export class Lik {
    constructor(wasm, level) {
        this.wasm = wasm;
        wasm._initialize();
        const device = new TextEncoder().encode(level ? `cpu:${level}\0` : "cpu\0");
        const name = this.alloc(device.length);
        new Uint8Array(wasm.memory.buffer, name, device.length).set(device);
        this.context = wasm.web_open(name);
        wasm.web_free(name);
        if (!this.context) throw new LikError(this.#text(wasm.web_message()));
        this.level = this.#text(wasm.web_name(this.context)).replace("cpu:", "");
        this.version = this.#text(wasm.web_version());
        this.levels = [];
        for (let n = 0, at; (at = wasm.web_level(n)); n++) this.levels.push(this.#text(at));
    }

    #text(address) {
        const bytes = new Uint8Array(this.wasm.memory.buffer, address >>> 0);
        return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
    }

    /* An address as a number: what lies past 2^31 comes as a negative one. */
    needMemory(address, what) {
        if (!address) throw new LikError(`no memory for ${what}`, "LIK_ENOMEM");
        return address >>> 0;
    }

    /* More than 32 bits would arrive there as what is left of them. */
    alloc(bytes) {
        return this.needMemory(bytes < 2 ** 32 ? this.wasm.web_alloc(bytes) : 0, `${bytes} bytes`);
    }

    /* Copies a batch of sequences into the library's memory, until its free(). */
    tokens(options) {
        return new Tokens(this, "tokens", options);
    }

    /* body(query, document) with both in the library's memory; those that were made for it are
     * freed. */
    #with(queries, documents, body) {
        const made = [];
        const operand = (name, x) => {
            if (x instanceof Tokens) {
                need(x.lik === this, `${name} are of another instance`);
                need(x.address, `${name} were freed`);
                return x;
            }
            made.push(new Tokens(this, name, x));
            return made.at(-1);
        };
        try {
            return body(operand("queries", queries), operand("documents", documents));
        } finally {
            made.forEach((x) => x.free());
        }
    }

    /* call(address of so many bytes each ...) must succeed; copies of these bytes. */
    #outputs(sizes, call) {
        const at = [];
        try {
            for (const bytes of sizes) at.push(bytes === null ? 0 : this.alloc(bytes));
            const status = call(...at);
            if (status) throw new LikError(this.#text(this.wasm.web_message()), STATUSES[status]);
            return at.map((address, i) =>
                sizes[i] === null ? null : this.wasm.memory.buffer.slice(address, address + sizes[i]));
        } finally {
            at.forEach((address) => this.wasm.web_free(address));
        }
    }

    #columns(q, d, pairing, perQuery) {
        choice("pairing", pairing, PAIRINGS);
        if (pairing === "candidates") return whole("perQuery", perQuery, 1);
        return pairing === "all" ? d.count : 1;
    }

    /* Scores: {scores, shape}, and with `argmax` for each score and query token the document
     * token that gave the maximum, -1 where there is none: [scores, longest query].
     * pairing "all": every query with every document, [queries, documents]; "candidates":
     * query i with documents i * perQuery and on, [queries, perQuery]; "pairs": query i with
     * document i, [queries]. */
    score(queries, documents, options = {}) {
        const { pairing = "all", perQuery = 0, precision = "highest", argmax = false } = options;
        return this.#with(queries, documents, (q, d) => {
            const columns = this.#columns(q, d, pairing, perQuery), count = q.count * columns;
            const rounding = choice("precision", precision, PRECISIONS);
            const sizes = [count * 4, argmax ? count * q.longest * 4 : null];
            need(Math.max(...sizes) <= MOST,
                `${count} scores of ${q.longest} query tokens pass ${MOST} bytes`);
            const [scores, winners] = this.#outputs(sizes, (scores, winners) =>
                this.wasm.web_score(this.context, q.address, d.address, PAIRINGS[pairing], perQuery, rounding,
                    scores, winners));
            const shape = pairing === "pairs" ? [q.count] : [q.count, columns];
            const result = { scores: new Float32Array(scores), shape };
            return argmax ? { ...result, argmax: new Int32Array(winners), longest: q.longest } : result;
        });
    }

    /* The k best documents of each query: {values, ids}, both [queries, k], best first; where
     * there are fewer documents the rest is id -1, value NaN. */
    topk(queries, documents, k, options = {}) {
        const { pairing = "all", perQuery = 0, precision = "highest", smallest = false } = options;
        return this.#with(queries, documents, (q, d) => {
            this.#columns(q, d, pairing, perQuery);
            const rounding = choice("precision", precision, PRECISIONS), count = q.count * whole("k", k, 1);
            need(count * 8 <= MOST, `${q.count} queries of k ${k} pass ${MOST} bytes`);
            const [values, ids] = this.#outputs([count * 4, count * 8], (values, ids) =>
                this.wasm.web_topk(this.context, q.address, d.address, PAIRINGS[pairing], perQuery, rounding,
                    k, smallest ? 1 : 0, values, ids));
            /* i64, of which the low words say all */
            const words = new Int32Array(ids);
            return {
                values: new Float32Array(values),
                ids: Int32Array.from({ length: count }, (_, i) => words[2 * i]),
                shape: [q.count, k],
            };
        });
    }
}

/* What the WebAssembly asks of its system: it has no environment, and ends nothing. */
function imports(memory) {
    return {
        wasi_snapshot_preview1: {
            environ_sizes_get(count, bytes) {
                const view = new DataView(memory().buffer);
                view.setUint32(count, 0, true);
                view.setUint32(bytes, 0, true);
                return 0;
            },
            environ_get: () => 0,
            proc_exit(code) {
                throw new LikError(`the library ended with ${code}`, "LIK_EDEVICE");
            },
        },
    };
}

const defaultWasm = () => new URL("lik.wasm", import.meta.url); /* replaced in lik.classic.js */

async function bytesOf(source) {
    const url = new URL(source, globalThis.location?.href);
    if (url.protocol === "file:" && globalThis.process?.versions?.node) {
        const { readFile } = await import(/* webpackIgnore: true */ "node:fs/promises");
        return readFile(url);
    }
    const response = await fetch(url);
    need(response.ok, `${response.status} ${response.statusText}`);
    return response.arrayBuffer();
}

async function moduleOf(source) {
    if (source instanceof WebAssembly.Module) return source;
    const given = source instanceof ArrayBuffer || ArrayBuffer.isView(source);
    try {
        return await WebAssembly.compile(given ? source : await bytesOf(source));
    } catch (error) {
        throw new LikError(`${given ? "the WebAssembly" : source} cannot be loaded: ${error.message}`);
    }
}

/* Loads the library. `wasm`: a URL, bytes or a WebAssembly.Module instead of lik.wasm beside
 * this file; `level`: "generic" or "simd128", the default, which is faster and has the same
 * bits. */
export async function load({ wasm = defaultWasm(), level } = {}) {
    let instance = null;
    instance = await WebAssembly.instantiate(await moduleOf(wasm), imports(() => instance.exports.memory));
    return new Lik(instance.exports, level);
}

/* An array of NumPy's format: {data, dtype, shape}, what data, dtype and dim of tokens take.
 * float64 becomes float32, and `converted` says so. */
export function readNpy(buffer, name = "the file") {
    const types = { "<f4": [Float32Array, "f32"], "<f2": [Uint16Array, "f16"], "|i1": [Int8Array, "i8"],
        "<f8": [Float64Array, "f32"] };
    let bytes;
    try {
        bytes = ArrayBuffer.isView(buffer)
            ? new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength) : new Uint8Array(buffer);
    } catch (error) {
        throw new LikError(`${name}: its bytes cannot be read: ${error.message}`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const magic = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
    need(bytes.length >= 10 && magic.every((byte, i) => bytes[i] === byte),
        `${name}: no .npy file, which begins with \\x93NUMPY`);
    const major = bytes[6];
    need(major >= 1 && major <= 3, `${name}: version ${major}.${bytes[7]} of .npy, must be 1.0 to 3.0`);
    const begin = major === 1 ? 10 : 12;
    need(bytes.length >= begin, `${name}: ends within its header`);
    const size = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
    need(bytes.length >= begin + size, `${name}: ends within its header`);
    const header = new TextDecoder().decode(bytes.slice(begin, begin + size));
    const descr = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
    const order = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
    const listed = /'shape'\s*:\s*\(([\d,\s]*)\)/.exec(header)?.[1];
    need(order !== undefined && listed !== undefined, `${name}: its header is not NumPy's: ${header.trim()}`);
    need(descr !== undefined && Object.hasOwn(types, descr),
        `${name}: elements are ${descr ?? "records"}, must be one of ${Object.keys(types).join(", ")}`);
    need(order === "False", `${name}: it is column-major, must be row-major`);
    const shape = listed.split(",").map((part) => part.trim()).filter(Boolean).map(Number);
    const [type, dtype] = types[descr], count = shape.reduce((product, n) => product * n, 1);
    const wanted = count * type.BYTES_PER_ELEMENT, found = bytes.length - begin - size;
    need(found === wanted,
        `${name}: ${found} bytes of data, shape (${shape.join(", ")}) of ${descr} has ${wanted}`);
    const stored = new type(bytes.slice(begin + size).buffer);
    const converted = descr === "<f8";
    return { data: converted ? Float32Array.from(stored) : stored, dtype, shape, converted };
}
