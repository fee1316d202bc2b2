/* lik_check for WASI in Node: check.mjs PROGRAM [ARGUMENT ...]. It sees the folder of the golden
 * plans. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { WASI } from "node:wasi";

const [program, ...rest] = process.argv.slice(2);
const plans = fileURLToPath(new URL("../check", import.meta.url));
const wasi = new WASI({
    version: "preview1", args: ["lik_check", ...rest], env: process.env, preopens: { [plans]: plans },
    returnOnExit: true,
});
const module = await WebAssembly.compile(await readFile(program));
/* Node 18, Debian 12's, has no getImportObject. */
const imports = { wasi_snapshot_preview1: wasi.wasiImport };
process.exitCode = wasi.start(await WebAssembly.instantiate(module, imports));
