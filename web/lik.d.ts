/* The types of lik.js; docs/web.md is the guide. */

/** A LikError's `status` is the library's word for it, LIK_EINVAL and so on. */
export class LikError extends Error {
    constructor(message: string, status?: string);
    status: string;
}

/** All tokens, one behind another; e4m3 and e5m2 are bytes, f16 and bf16 their 16 bits. */
export type Data = Float32Array | Uint16Array | Int8Array | Uint8Array | Halves;

/** Float16Array, which older compilers do not know. */
type Halves = ArrayBufferView & { readonly [Symbol.toStringTag]: "Float16Array" };

/** A batch of sequences: padded to `length` tokens, or one behind another, of `lengths` tokens. */
export type TokensOptions = {
    data: Data;
    dim: number;
    /** Needed where the array does not say it: "bf16", "e4m3", "e5m2". */
    dtype?: "f32" | "f16" | "bf16" | "e4m3" | "e5m2" | "i8";
    normalize?: boolean;
    /** An entry a token, 0 drops it. */
    mask?: Uint8Array | null;
    /** A factor a token, or a single one. */
    scale?: Float32Array | null;
    /** Of queries: a factor of each token's maximum. */
    weights?: Float32Array | null;
} & ({ length: number; lengths?: undefined } | { lengths: ArrayLike<number | bigint>; length?: undefined });

/** A copy in the library's memory, from Lik.tokens. */
export class Tokens {
    private constructor();
    readonly count: number;
    readonly longest: number;
    /** Gives the memory back; the object cannot be used any more. */
    free(): void;
}

export interface Options {
    /** Default "all"; "candidates" needs `perQuery`. */
    pairing?: "all" | "candidates" | "pairs";
    perQuery?: number;
    precision?: "highest" | "high" | "medium";
}

export interface Scores {
    scores: Float32Array;
    shape: number[];
}

export interface ScoresAndArgmax extends Scores {
    /** [scores, longest]: the document token that a query token met, or -1. */
    argmax: Int32Array;
    longest: number;
}

/** [queries, k], best first; where there are fewer documents id -1, value NaN. */
export interface Best {
    values: Float32Array;
    ids: Int32Array;
    shape: number[];
}

type Operand = Tokens | TokensOptions;

/** One instance of the library, from load. */
export class Lik {
    private constructor();
    readonly level: string;
    readonly levels: string[];
    readonly version: string;
    tokens(options: TokensOptions): Tokens;
    score(queries: Operand, documents: Operand, options: Options & { argmax: true }): ScoresAndArgmax;
    score(queries: Operand, documents: Operand, options?: Options & { argmax?: false }): Scores;
    topk(queries: Operand, documents: Operand, k: number, options?: Options & { smallest?: boolean }): Best;
}

/** `wasm`: instead of lik.wasm beside lik.js. */
export function load(options?: {
    wasm?: string | URL | ArrayBuffer | ArrayBufferView | WebAssembly.Module;
    level?: "generic" | "simd128";
}): Promise<Lik>;

/** An array of NumPy's format; float64 becomes float32, and `converted` says so. */
export function readNpy(buffer: ArrayBuffer | ArrayBufferView, name?: string): {
    data: Float32Array | Uint16Array | Int8Array;
    dtype: "f32" | "f16" | "i8";
    shape: number[];
    converted: boolean;
};
