"""What `make wasm` made, in Node: lik_check, the JavaScript's errors, and its bits beside those
of the native command at the same level.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess

import ml_dtypes
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/wasm"
LIK = os.environ.get("LIK_BIN") or pytest.exit("LIK_BIN must name the lik program", returncode=4)
TYPES = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "i8": np.int8,
}
TENSORS = {
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "e4m3": "F8_E4M3",
    "e5m2": "F8_E5M2",
    "i8": "I8",
    "i64": "I64",
    "bool": "BOOL",
}


def node(*arguments, may_crash=False):
    done = subprocess.run(
        ["node", "--single-threaded", "--no-warnings", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    # Node 20 may crash as it ends, after all has been said, where much was compiled.
    assert done.returncode == 0 or (may_crash and done.returncode < 0), done.stdout[-4000:] + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["dtypes", "special", "topk", "arguments", "views", "plans"],
        ["quantize", "codec"],
        ["--device", "cpu:simd128", "score", "grad"],
        *(["--case", n, "invariance"] for n in (0, 29, 58, 2000, 2029, 2058)),
    ],
    ids=lambda x: "-".join(map(str, x)),
)
def test_check_suite(arguments):
    program = ROOT / "build/wasm/cmake/tests/lik_check"
    said = node(HERE / "check.mjs", program, "--quick", *arguments, may_crash=True)
    assert re.match(r"lik_check: [1-9]\d* checks, 0 failures", said.splitlines()[-1]), said


def write_tensors(path, tensors):
    """A .safetensors file: name -> (dtype, array)."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        size = array.nbytes
        header[name] = {
            "dtype": TENSORS[dtype],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + size],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def tokens(random, dtype, total, dim):
    values = random.standard_normal((total, dim))
    if dtype == "i8":
        return random.integers(-128, 128, (total, dim)).astype(np.int8)
    values[random.random((total, dim)) < 0.02] *= 1e-5  # f16: denormals
    return values.astype(TYPES[dtype])


class Side:
    """Queries or documents: a file for the command, files of numbers and their description for
    JavaScript.
    """

    def __init__(self, random, folder, name, dtype, dim, lengths, *, extras=(), padded=0):
        total = sum(lengths) if not padded else padded * len(lengths)
        data = tokens(random, dtype, total, dim)
        tensors = {"embeddings": (dtype, data.reshape(len(lengths), padded, dim) if padded else data)}
        self.options = {"dtype": dtype, "dim": dim, "data": self.save(folder, name, "data", data, dtype)}
        if padded:
            self.options["length"] = padded
        else:
            tensors["lengths"] = ("i64", np.array(lengths, np.int64))
            self.options["lengths"] = list(lengths)
        shape = (len(lengths), padded) if padded else (total,)
        if "scale" in extras:
            scale = (random.random(total) + 0.5).astype(np.float32)
            tensors["scales"] = ("f32", scale.reshape(shape))
            self.options["scale"] = self.save(folder, name, "scale", scale, "f32")
        if "mask" in extras:
            mask = random.random(total) < 0.8
            tensors["mask"] = ("bool", mask.reshape(shape))
            self.options["mask"] = self.save(folder, name, "mask", mask.astype(np.uint8), "u8")
        if "weights" in extras:
            weights = random.standard_normal(total).astype(np.float32)
            tensors["weights"] = ("f32", weights.reshape(shape))
            self.options["weights"] = self.save(folder, name, "weights", weights, "f32")
        self.count, self.longest = len(lengths), padded or max(lengths)
        self.path = folder / f"{name}.safetensors"
        write_tensors(self.path, tensors)

    @staticmethod
    def save(folder, name, kind, array, dtype):
        (folder / f"{name}.{kind}").write_bytes(array.tobytes())
        return {"file": f"{name}.{kind}", "type": dtype}


def test_the_bits_of_the_native_library(tmp_path):
    """Every dtype of documents with every shape of panels, dims with and without rests of steps
    and slices, packed and padded, masks, scales, weights and norms.
    """
    random, jobs, cases = np.random.default_rng(28), [], []
    dims = (1, 3, 7, 8, 16, 17, 31, 64, 96, 128, 225, 300, 460)
    for number in range(90):
        documents = list(TYPES)[number % 6]
        queries = documents if number % 3 else "f32"
        dim, length = int(random.choice(dims)), int(random.integers(1, 38))
        extras = [x for x in ("scale", "mask") if random.random() < 0.4]
        normalize = bool(random.random() < 0.3)
        name = f"case{number}"
        lengths = [int(n) for n in random.integers(0, length + 1, 3)] + [length]
        weights = ["weights"] * int(random.integers(2))
        q = Side(random, tmp_path, f"{name}-q", queries, dim, lengths, extras=weights)
        counts = [int(n) for n in random.integers(0, 45, int(random.integers(1, 30)))] + [1]
        padded = int(random.integers(1, 30)) * int(random.integers(2))
        d = Side(random, tmp_path, f"{name}-d", documents, dim, counts, extras=extras, padded=padded)
        both = {"normalize": normalize}
        jobs.append({"name": name, "queries": q.options | both, "documents": d.options | both})
        cases.append((name, q, d, normalize))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    node(HERE / "score.mjs", tmp_path / "jobs.json")
    for name, q, d, normalize in cases:
        out = tmp_path / f"{name}.npy"
        command = [LIK, "score", q.path, d.path, "--all", "--device", "cpu:generic", "-o", out]
        subprocess.run([*map(str, command), *(["--normalize"] if normalize else [])], check=True)
        native, count = np.load(out), q.count * d.count
        assert native.shape == (q.count, d.count)
        generic = (tmp_path / f"{name}.generic").read_bytes()
        assert generic[: 4 * count] == native.tobytes(), f"{name}: {q.options} {d.options} {normalize}"
        assert (tmp_path / f"{name}.simd128").read_bytes() == generic, f"{name}: the levels differ"
        best = np.frombuffer(generic[4 * count * (1 + q.longest) :], np.int32).reshape(2, q.count, 3)[1]
        order = np.argsort(-native, axis=1, kind="stable")[:, :3]
        assert (best[:, : order.shape[1]] == order).all(), name


def test_the_guide_runs_as_it_stands(tmp_path):
    blocks = re.findall(r"^```js\n(.*?)^```", (ROOT / "docs/web.md").read_text(), re.M | re.S)
    assert len(blocks) == 2
    for name in ("lik.js", "lik.wasm", "package.json"):
        shutil.copy(ROOT / "build/wasm" / name, tmp_path)
    said = []
    for block in blocks:
        (tmp_path / "guide.mjs").write_text(block)
        said.append(node(tmp_path / "guide.mjs"))
    assert said[0].startswith("[ 2, 2 ] Float32Array(4)"), said[0]
    assert said[1] == "true LIK_EINVAL d.dim is 5, q.dim is 4\n"


def test_the_package_from_commonjs(tmp_path):
    package = tmp_path / "node_modules/late-interaction-kernels"
    package.mkdir(parents=True)
    files = json.loads((ROOT / "build/wasm/package.json").read_text())["files"]
    for name in (*files, "package.json", "LICENSE"):
        shutil.copy(ROOT / "build/wasm" / name, package)
    (tmp_path / "main.cjs").write_text("""
        const wasm = require("fs").readFileSync(require.resolve("late-interaction-kernels/lik.wasm"));
        import("late-interaction-kernels").then(async ({ load }) =>
            console.log((await load()).level, (await load({ wasm, level: "generic" })).level));
    """)
    assert node(tmp_path / "main.cjs") == "simd128 generic\n"


def test_the_types_name_what_there_is(tmp_path):
    """lik.d.ts and lik.js: the same exports; what a class declares an object of it has."""
    (tmp_path / "names.mjs").write_text(f"""
        import * as all from "{(ROOT / "build/wasm/lik.js").as_uri()}";
        const lik = await all.load(), tokens = lik.tokens({{ data: new Int8Array(1), dim: 1, length: 1 }});
        const names = (x) => [x, Object.getPrototypeOf(x)].flatMap((y) => Object.getOwnPropertyNames(y));
        const classes = {{ Lik: names(lik), Tokens: names(tokens), LikError: names(new all.LikError("")) }};
        console.log(JSON.stringify({{ exports: Object.keys(all), ...classes }}));
    """)
    there, types = json.loads(node(tmp_path / "names.mjs")), (ROOT / "web/lik.d.ts").read_text()
    assert sorted(re.findall(r"^export (?:class|function) (\w+)", types, re.M)) == sorted(there["exports"])
    for name, body in re.findall(r"^export class (\w+).*?\{\n(.*?)^\}", types, re.M | re.S):
        declared = re.findall(r"^    (?:readonly )?(\w+)[(:]", body, re.M)
        assert declared and set(declared) <= set(there[name]), name


def test_what_is_refused():
    said = json.loads(node(HERE / "errors.mjs"))
    expected = [
        "queries.data is detached",
        "queries.lengths must be an array",
        "no memory for 4294967360 bytes",
        "file:///nowhere/lik.wasm cannot be loaded: ENOENT",
        "lik.wasm cannot be loaded: Invalid URL",
        "the WebAssembly cannot be loaded: WebAssembly.compile(): expected magic word",
        "moved.npy: its bytes cannot be read",
        "view.npy: 0 bytes of data",
        "queries.data must be a typed array",
        "queries.data is a Uint8Array: queries.dtype must say",
        'queries.dtype is "f64", must be f32, f16, bf16, e4m3, e5m2, i8',
        "queries.data is a Float32Array, of i8 it must be a Int8Array",
        "queries.data has 8 elements, no multiple of dim 3",
        "queries.dim is 0, must be a whole number from 1",
        "queries.data has 2 tokens, no multiple of length 3",
        "queries needs either length",
        "queries.lengths add up to more than the 2 tokens of data",
        "queries.lengths add up to 1, data has 2 tokens",
        "queries.mask has 3 entries, must have 2",
        "queries.weights must be a Float32Array",
        "d.weights",  # the library's own words from here
        "d.dim is 5, q.dim is 4",
        'pairing is "some", must be all, candidates, pairs',
        "q.count is 1",
        "perQuery is 0, must be a whole number from 1",
        'precision is "low"',
        "k is 0, must be a whole number from 1",
        "queries were freed",
        "queries are of another instance",
        'device names the CPU level "avx2", this build has generic, simd128',
        "a.npy: no .npy file",
        "b.npy: 0 bytes of data, shape (2, 2) of <f4 has 16",
        "c.npy: it is column-major",
        "d.npy: elements are >f4",
        "e.npy: version 7.0",
        "f.npy: its header is not NumPy's: nonsense",
    ]
    assert len(said) == len(expected) + 6
    for got, want in zip(said, expected, strict=False):
        status = "LIK_ENOMEM" if want.startswith("no memory") else "LIK_EINVAL"
        assert got.startswith(f"{status}: ") and want in got, f"{got}\n{want}"
    assert said[-6:-2] == ["true", "0 -1 1 0,1 1,0", "8", "f32 3 true 3"]
    assert said[-2:] == ["true 8 0", "LIK_ENOMEM: no memory for 500000000 bytes"]
