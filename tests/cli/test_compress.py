"""lik compress and the files that it writes: bytes, scores against NumPy's decoding, every
command that reads them, and files that are wrong.
"""

import json
import re

import numpy as np
import pytest
from conftest import STORED, check_ranking, fails, maxsim, parse_tsv, run, store, unit, write_jsonl
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

# The first 8 bytes of buckets 0, 1, 2, ... in ColBERT's order; in the other one they count up.
GOLDEN = {
    1: [85] * 8,
    2: [39] * 8,
    4: [8, 76, 42, 110, 25, 93, 59, 127],
    8: [0, 128, 64, 192, 32, 160, 96, 224],
}


def metadata_of(path):
    with safe_open(path, "np") as file:
        return file.metadata()


def buckets_of(residuals, bits, order, dim):
    """Buckets [tokens, dim] of residual bytes, by NumPy's own unpacking."""
    stream = np.unpackbits(residuals, axis=1, bitorder="big" if order == "colbert" else "little")
    groups = stream.reshape(len(residuals), -1, bits)[:, :dim]
    return groups @ (1 << np.arange(bits))  # either way the lowest bit comes first


def decode(path):
    """(documents in float64, ids) of a compressed file."""
    x, meta = load_file(path), metadata_of(path)
    buckets = buckets_of(x["residuals"], int(meta["nbits"]), meta["bit_order"], int(meta["dim"]))
    rows = x["centroids"].astype(np.float32)[x["codes"]] + x["bucket_weights"][buckets]
    rows = rows.astype(np.float64)
    if "inv_norms" in x:
        rows *= x["inv_norms"].astype(np.float64)[:, None]
    elif meta["normalize"] == "true":
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    keep = x["mask"].astype(bool) if "mask" in x else np.ones(len(rows), bool)
    ends = np.cumsum(x["lengths"])
    return [rows[end - n : end][keep[end - n : end]] for n, end in zip(x["lengths"], ends)]


def check_encoding(x, bits, vectors):
    """Codes and buckets are those of the nearest centroids and of what then remains."""
    centroids = x["centroids"].astype(np.float64)
    products = vectors @ centroids.T
    best = products.max(axis=1)
    assert np.abs(best - products[np.arange(len(vectors)), x["codes"]]).max() < 1e-6
    remains = vectors - centroids[x["codes"]]
    buckets = (remains[..., None] > x["bucket_cutoffs"]).sum(axis=-1)
    written = buckets_of(x["residuals"], bits, "colbert", vectors.shape[1])
    assert (buckets != written).mean() < 1e-3


@pytest.fixture
def texts(tmp_path, rng):
    """Thirty documents of 4 to 11 tokens with ids and texts, four queries."""
    lengths = rng.integers(4, 12, 30)
    rows = []
    for i, n in enumerate(lengths):
        vectors = [[float(v) for v in token] for token in unit(rng, n, 24)]
        words = [f"w{i}", '\u00e4"\\\u202e', *(f"t{t}" for t in range(2, n))]
        line = {"id": f"d\u00f6c {i}", "text": " ".join(words), "tokens": words}
        rows.append(line | {"embedding": vectors})
    write_jsonl(tmp_path / "d.jsonl", rows)
    np.save(tmp_path / "q.npy", unit(rng, 4, 6, 24))
    return rows, tmp_path


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("more", [(), ("--inv-norms",)])
def test_scores(texts, bits, more):
    """The scores of a compressed file are those of its decoded tokens."""
    rows, folder = texts
    out, _ = run("compress", folder / "d.jsonl", "-o", folder / "c", "--nbits", bits, *more)
    assert out == ""
    x, meta = load_file(folder / "c"), metadata_of(folder / "c")
    tokens = sum(len(row["embedding"]) for row in rows)
    assert meta == {
        "format": "lik-compressed",
        "version": "1",
        "nbits": str(bits),
        "bit_order": "colbert",
        "dim": "24",
        "normalize": "true",
    }
    assert x["lengths"].tolist() == [len(row["embedding"]) for row in rows]
    assert x["residuals"].shape == (tokens, 3 * bits) and x["codes"].dtype == np.uint16
    assert x["centroids"].shape == (tokens // 2, 24) and x["centroids"].dtype == np.float16
    assert ("inv_norms" in x) == bool(more) and "mask" not in x
    assert [json.loads(line) for line in x["documents"].tobytes().decode().splitlines()] == [
        {key: row[key] for key in ("id", "text", "tokens")} for row in rows
    ]
    check_encoding(x, bits, np.concatenate([row["embedding"] for row in rows]))
    expected = maxsim(np.load(folder / "q.npy"), decode(folder / "c"))
    found = parse_tsv(run("score", folder / "q.npy", folder / "c", "-k", 5)[0])
    names = {row["id"]: i for i, row in enumerate(rows)}
    for i, hits in enumerate(found.values()):
        check_ranking([(names[name], score) for name, score in hits], expected[i], 5)
    exact = maxsim(np.load(folder / "q.npy"), [np.array(row["embedding"]) for row in rows])
    assert np.abs(expected - exact).mean() < {1: 0.5, 2: 0.25, 4: 0.06, 8: 0.006}[bits]


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("layout", ["padded", "packed", "each"])
def test_inputs(tmp_path, rng, dtype, layout):
    """Every type and layout of vectors; a file as large as was said before."""
    lengths = rng.integers(1, 10, 25)
    stored, scales, values = store(unit(rng, lengths.sum(), 32), dtype)
    ends = np.cumsum(lengths)
    parts = [slice(end - n, end) for n, end in zip(lengths, ends)]
    tensors = {"embeddings": stored, "lengths": lengths}
    if scales is not None:
        tensors["scales"] = scales
    if layout == "each":
        tensors = {f"s{i:02}": stored[part] for i, part in enumerate(parts)}
        values = stored.astype(np.float64)
    if layout == "padded":
        tensors = {"lengths": lengths}
        for name, rows in (("embeddings", stored), ("scales", scales)):
            if rows is not None:
                tensors[name] = np.zeros((25, 10, *rows.shape[1:]), rows.dtype)
                for i, part in enumerate(parts):
                    tensors[name][i, : lengths[i]] = rows[part]
    save_file(tensors, tmp_path / "d.safetensors")
    normalize = ["--normalize"] if layout == "each" and scales is not None else []
    _, err = run(
        "compress",
        tmp_path / "d.safetensors",
        "-o",
        tmp_path / "c",
        "--nbits",
        8,
        "--centroids",
        16,
        *normalize,
    )
    said = float(re.search(r"([\d.e-]+) MB in all", err)[1]) * 1e6
    assert abs(said - (tmp_path / "c").stat().st_size) <= said / 100
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    decoded = decode(tmp_path / "c")
    assert [len(d) for d in decoded] == lengths.tolist()
    cosines = (np.concatenate(decoded) * values).sum(axis=1)
    assert cosines.min() > 0.95 and cosines.mean() > 0.998
    assert ("documents" in load_file(tmp_path / "c")) == (layout == "each")


@pytest.mark.parametrize("bits", GOLDEN)
@pytest.mark.parametrize("order", ["colbert", "low-first"])
def test_golden_bytes(tmp_path, bits, order):
    """Buckets 0, 1, 2, ..: the bytes that real indexes hold, and the other order."""
    dim, count = 64 // bits, 1 << bits
    values = np.arange(dim) % count
    residuals = np.array([GOLDEN[bits]], np.uint8)
    if order == "low-first":
        residuals = np.packbits(
            (values[:, None] >> np.arange(bits) & 1).reshape(1, -1).astype(np.uint8),
            axis=1,
            bitorder="little",
        )
    weights = np.linspace(-1, 1, count, dtype=np.float32)
    write_compressed(tmp_path / "c", residuals, weights, order=order, dim=dim)
    np.save(tmp_path / "q.npy", np.eye(dim, dtype=np.float32)[:, None])
    run("score", tmp_path / "q.npy", tmp_path / "c", "--all", "-o", tmp_path / "s.npy")
    assert np.array_equal(np.load(tmp_path / "s.npy")[:, 0], weights[values])


def write_compressed(path, residuals, weights, order="colbert", dim=None, drop=(), meta=None, **tensors):
    """A file of one document, its centroid 0, with parts left out or replaced."""
    n, bits = len(residuals), int(np.log2(len(weights)))
    dim = dim or residuals.shape[1] * 8 // bits
    x = {
        "lengths": np.array([n], np.int64),
        "centroids": np.zeros((1, dim), np.float16),
        "bucket_weights": weights,
        "bucket_cutoffs": (weights[1:] + weights[:-1]) / 2,
        "residuals": residuals,
        "codes": np.zeros(n, np.uint16),
    } | tensors
    told = {"format": "lik-compressed", "version": "1", "nbits": str(bits), "bit_order": order}
    told |= {"dim": str(dim), "normalize": "false"} | (meta or {})
    x = {key: np.ascontiguousarray(value) for key, value in x.items() if key not in drop}
    save_file(x, path, {key: value for key, value in told.items() if key not in drop})


RESIDUALS = np.arange(24, dtype=np.uint8).reshape(3, 8)  # 3 tokens of 4 bits, 16 dimensions
WEIGHTS = np.linspace(-0.2, 0.2, 16, dtype=np.float32)
NAN = np.where(np.arange(16) == 7, np.nan, WEIGHTS).astype(np.float32)
HALVES = np.ones(3, np.float16)

# name -> (what is changed, exit code, parts of the message)
BAD = {
    "no-format": ({"drop": ["format"]}, 3, ["no metadata 'format'"]),
    "no-version": ({"drop": ["version"]}, 3, ["no metadata 'version'"]),
    "no-nbits": ({"drop": ["nbits"]}, 3, ["no metadata 'nbits'"]),
    "no-order": ({"drop": ["bit_order"]}, 3, ["no metadata 'bit_order'"]),
    "no-dim": ({"drop": ["dim"]}, 3, ["no metadata 'dim'"]),
    "no-normalize": ({"drop": ["normalize"]}, 3, ["no metadata 'normalize'"]),
    "format": ({"meta": {"format": "other"}}, 4, ["'format' are 'other'", "must be lik-compressed"]),
    "version": ({"meta": {"version": "2"}}, 4, ["of version 2, 1 can be read"]),
    "version-text": ({"meta": {"version": "one"}}, 3, ["'version' are 'one'", "whole number"]),
    "nbits": ({"meta": {"nbits": "3"}}, 4, ["'nbits' are 3", "1, 2, 4 or 8"]),
    "nbits-other": ({"meta": {"nbits": "2"}}, 4, ["'bucket_weights' is 16 float32", "must be 4 float32"]),
    "order": ({"meta": {"bit_order": "big"}}, 4, ["'bit_order' are 'big'", "low-first or colbert"]),
    "normalize": ({"meta": {"normalize": "1"}}, 4, ["'normalize' are '1'", "false or true"]),
    "dim": ({"meta": {"dim": "15"}}, 3, ["'centroids' have 16 dimensions", "'dim' are 15"]),
    "no-codes": ({"drop": ["codes"]}, 3, ["no tensor 'codes'"]),
    "no-residuals": ({"drop": ["residuals"]}, 3, ["no tensor 'residuals'"]),
    "no-centroids": ({"drop": ["centroids"]}, 3, ["no tensor 'centroids'"]),
    "no-weights": ({"drop": ["bucket_weights"]}, 3, ["no tensor 'bucket_weights'"]),
    "no-cutoffs": ({"drop": ["bucket_cutoffs"]}, 3, ["no tensor 'bucket_cutoffs'"]),
    "no-lengths": ({"drop": ["lengths"]}, 3, ["no tensor 'lengths'"]),
    "codes-type": ({"codes": np.zeros(3, np.uint8)}, 4, ["'codes' is 3 uint8", "uint16 or int32 or int64"]),
    "codes-rank": ({"codes": np.zeros((3, 1), np.uint16)}, 4, ["'codes' is 3 x 1 uint16", "1 dimension"]),
    "codes-high": ({"codes": np.array([0, 1, 0], np.uint16)}, 3, ["hold 1 at position 1", "1 centroids"]),
    "codes-low": ({"codes": np.array([0, 0, -1], np.int32)}, 3, ["hold -1 at position 2"]),
    "codes-wide": ({"codes": np.array([0, 2**40, 0])}, 3, ["hold 1099511627776 at position 1"]),
    "codes-count": ({"codes": np.zeros(4, np.uint16)}, 4, ["'residuals' is 3 x 8 uint8", "must be 4 x 8"]),
    "residuals-type": ({"residuals": RESIDUALS.astype(np.int8)}, 4, ["3 x 8 int8", "3 x 8 uint8"]),
    "residuals-width": ({"residuals": RESIDUALS[:, :7]}, 4, ["'residuals' is 3 x 7", "must be 3 x 8"]),
    "centroids-type": ({"centroids": np.zeros((1, 16))}, 4, ["'centroids' is 1 x 16 float64"]),
    "centroids-rank": ({"centroids": np.zeros(16, np.float16)}, 4, ["'centroids' is 16 float16"]),
    "centroids-nan": ({"centroids": np.full((1, 16), np.inf, np.float32)}, 3, ["'centroids' holds inf"]),
    "centroids-none": (
        {"centroids": np.zeros((0, 16), np.float16)},
        3,
        ["hold 0 at position 0", "0 centroids"],
    ),
    "weights-nan": ({"bucket_weights": NAN}, 3, ["'bucket_weights' holds nan at position 7"]),
    "weights-type": ({"bucket_weights": np.arange(16)}, 4, ["'bucket_weights' is 16 int64"]),
    "cutoffs-count": ({"bucket_cutoffs": WEIGHTS}, 4, ["'bucket_cutoffs' is 16", "must be 15"]),
    "cutoffs-down": ({"bucket_cutoffs": WEIGHTS[:0:-1]}, 3, ["'bucket_cutoffs' decrease", "position 1"]),
    "norms-without": ({"inv_norms": HALVES}, 3, ["'inv_norms'", "'normalize' are false"]),
    "norms-count": (
        {"inv_norms": np.ones(2, np.float16), "meta": {"normalize": "true"}},
        4,
        ["'inv_norms' is 2 float16", "must be 3"],
    ),
    "norms-nan": (
        {"inv_norms": HALVES * np.float16(np.nan), "meta": {"normalize": "true"}},
        3,
        ["'inv_norms' holds nan at position 0"],
    ),
    "lengths-sum": ({"lengths": np.array([1, 1])}, 3, ["add up to 2", "3 token rows"]),
    "lengths-negative": ({"lengths": np.array([4, -1])}, 3, ["entry 1 is negative"]),
    "mask": ({"mask": np.ones(2, np.uint8)}, 4, ["'mask' is 2 uint8", "3 token vectors"]),
    "documents-type": ({"documents": np.arange(3)}, 4, ["'documents' is 3 int64", "uint8"]),
    "documents-text": (
        {"documents": np.frombuffer(b'{"id": 5', np.uint8)},
        3,
        ["'documents', line 1, column"],
    ),
    "documents-count": ({"documents": np.frombuffer(b"{}\n{}\n", np.uint8)}, 3, ["2 entries", "1 sequences"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file(tmp_path, name):
    changed, code, parts = BAD[name]
    path = tmp_path / f"{name}.safetensors"
    write_compressed(path, **({"residuals": RESIDUALS, "weights": WEIGHTS, "dim": 16} | changed))
    np.save(tmp_path / "q.npy", np.ones((2, 3, 16), np.float32))
    for args in (("score", tmp_path / "q.npy", path, "-o", tmp_path / "out"), ("info", path)):
        if args[0] == "score" or code == 3:
            fails(code, path.name, *parts, args=args)
    assert not (tmp_path / "out").exists()


def test_every_byte_changed(tmp_path):
    """A file with one byte changed, or cut anywhere, is read or refused, not more."""
    path = tmp_path / "c"
    write_compressed(path, RESIDUALS, WEIGHTS, documents=np.frombuffer(b'{"id":"a"}\n', np.uint8))
    data = path.read_bytes()
    np.save(tmp_path / "q.npy", np.ones((1, 1, 16), np.float32))
    for at in range(0, len(data), 5):
        changed = bytearray(data)
        changed[at] ^= 0x11
        path.write_bytes(changed)
        for code in (0, 3, 4):
            try:
                run("score", tmp_path / "q.npy", path, "--quiet", code=code)
                break
            except AssertionError:
                assert code < 4, at
    for size in range(0, len(data), 3):
        path.write_bytes(data[:size])
        fails(3, "c", args=("info", path))


def test_as_queries(texts):
    _, folder = texts
    run("compress", folder / "d.jsonl", "-o", folder / "c")
    parts = ("c holds compressed tokens", "queries may not")
    for args in (("score", folder / "c", folder / "c"), ("explain", folder / "c", folder / "q.npy")):
        fails(4, *parts, args=args)
    fails(4, "is compressed already (4-bit)", args=("compress", folder / "c", "-o", folder / "cc"))
    assert not (folder / "cc").exists()


def test_every_command(texts):
    rows, folder = texts
    run("compress", folder / "d.jsonl", "-o", folder / "c", "--nbits", 2, "--inv-norms")
    q, c = folder / "q.npy", folder / "c"
    out, _ = run("score", q, c, "--table", "-k", 2)
    assert "d\u00f6c " in out and "w" in out  # ids and snippets
    hits = [json.loads(line)["hits"] for line in run("score", q, c, "--json", "-k", 3)[0].splitlines()]
    for query in hits:
        assert all(abs(hit["score"] - sum(s for _, _, s in hit["matches"])) < 1e-5 for hit in query)
    (folder / "run").write_text("".join(f"{i % 4} Q0 #{i} {i} 1 t\n" for i in range(20)))
    ranked = parse_tsv(run("rerank", q, c, folder / "run")[0])
    every = {k: dict(v) for k, v in parse_tsv(run("score", q, c, "--all")[0]).items()}
    assert all(every[k][name] == score for k, v in ranked.items() for name, score in v)
    told = json.loads(run("explain", q, c, "-q", 1, "-d", "d\u00f6c 3", "--json")[0])["documents"][0]
    assert abs(told["score"] - every["1"]["d\u00f6c 3"]) < 1e-5
    assert told["matches"][0]["document_text"] in rows[3]["tokens"]
    tokens = sum(len(row["embedding"]) for row in rows)
    out, _ = run("info", c, "--check")
    assert (
        "24 dimensions, 2-bit, 10 bytes a token" in out
        and f"{tokens // 2} centroids, bit order colbert" in out
    )
    assert "packed, inverse norms" in out and "ids, texts" in out and "norms      0.99" in out
    info = json.loads(run("info", c, "--json")[0])
    assert info["dtype"] == "2-bit" and info["token_bytes"] == 10 and info["normalize"] is True
    assert "2-bit" in run("bench", q, c, "--rounds", 1)[0]
    (folder / "t.jsonl").write_text(
        "".join(json.dumps({"id": r["id"], "text": "other"}) + "\n" for r in rows)
    )
    assert "other" in run("score", q, c, "--table", "--text", folder / "t.jsonl")[0]
    (folder / "ids").write_text("".join(f"x{i}\n" for i in range(30)))
    assert "\tx" in run("score", q, c, "--ids", folder / "ids")[0]


def test_staged(texts):
    """The way that operands take to a GPU: not a byte of the results differs."""
    _, folder = texts
    q, c = folder / "q.npy", folder / "c"
    (folder / "pairs").write_text("".join(f"{i % 4} #{i * 7 % 30}\n" for i in range(40)))
    for more in ((), ("--inv-norms",)):
        run("compress", folder / "d.jsonl", "-o", c, *more)
        plain = c.read_bytes()
        for piece in ("1", "500", "100000"):
            staged = {"LIK_STAGED": piece}
            run("compress", folder / "d.jsonl", "-o", c, *more, env=staged)
            assert c.read_bytes() == plain
            for args in (
                ("score", q, c, "-k", 7),
                ("score", q, c, "--all"),
                ("score", q, c, "--pairs", folder / "pairs"),
                ("explain", q, c, "--json"),
            ):
                assert run(*args, env=staged)[0] == run(*args)[0]


@pytest.mark.parametrize("device", ["cpu", "cpu:generic", "ref"])
def test_same_bytes(texts, device):
    """Any number of threads; another seed is another file."""
    _, folder = texts
    files = []
    for threads in (1, 2, 3, 7):
        run("compress", folder / "d.jsonl", "-o", folder / "c", "-j", threads, "--device", device)
        files.append((folder / "c").read_bytes())
    assert all(file == files[0] for file in files)
    run("compress", folder / "d.jsonl", "-o", folder / "c", "--seed", 43, "--device", device)
    assert (folder / "c").read_bytes() != files[0]
    run(
        "compress",
        folder / "d.jsonl",
        "-o",
        folder / "c",
        "--seed",
        42,
        "--iterations",
        4,
        "--device",
        device,
    )
    assert (folder / "c").read_bytes() == files[0]


def test_blocks(tmp_path, rng):
    """More rows than are encoded at once; padding, lengths and dropped tokens between."""
    lengths = rng.integers(0, 40, 4000)
    x = unit(rng, 4000, 40, 8)
    for i, n in enumerate(lengths):
        x[i, n:] = 0  # padding without a direction
    x[5, 0, 0] = x[17, 2, 3] = np.nan
    lengths[5], lengths[17] = max(lengths[5], 3), max(lengths[17], 3)
    np.save(tmp_path / "d.npy", x)
    args = ("compress", tmp_path / "d.npy", "-o", tmp_path / "c", "--centroids", 64)
    fails(3, "NaN in", "document 5, token 0", args=args)
    assert not (tmp_path / "c").exists()
    _, err = run(*args, "--skip-bad")
    assert "tokens without a direction are dropped" in err and "unit vectors" in err
    told = load_file(tmp_path / "c")
    kept = [~np.isnan(d).any(axis=1) & (np.abs(np.nan_to_num(d)).sum(axis=1) > 0) for d in x]
    assert told["lengths"].tolist() == [max(np.flatnonzero(k), default=-1) + 1 for k in kept]
    assert told["mask"].sum() == sum(k.sum() for k in kept)
    # every token is where its neighbors are: decoded it is near itself
    decoded = decode(tmp_path / "c")
    cosines = [(d * e[k]).sum(axis=1) for d, e, k in zip(decoded, x, kept)]
    assert np.concatenate(cosines).min() > 0.8 and np.concatenate(cosines).mean() > 0.98


def test_dot_products(tmp_path, rng):
    """Tokens of other lengths stay as they are, which is said; --normalize scales them."""
    x = 3 * unit(rng, 40, 6, 16)
    np.save(tmp_path / "d.npy", x)
    np.save(tmp_path / "q.npy", unit(rng, 2, 3, 16))
    args = ("compress", tmp_path / "d.npy", "-o", tmp_path / "c", "--nbits", 8)
    _, err = run(*args)
    assert "not unit length (norms 3 to 3)" in err and metadata_of(tmp_path / "c")["normalize"] == "false"
    assert np.abs(np.concatenate(decode(tmp_path / "c")) - x.reshape(-1, 16)).mean() < 0.02
    fails(2, "--inv-norms belongs to tokens of unit length", args=(*args, "--inv-norms"))
    _, err = run(*args, "--normalize")
    assert "scaled to unit length" in err and metadata_of(tmp_path / "c")["normalize"] == "true"
    expected = maxsim(np.load(tmp_path / "q.npy"), decode(tmp_path / "c"))
    for more in ((), ("--normalize",)):  # of what counts as unit vectors already
        run("score", tmp_path / "q.npy", tmp_path / "c", "--all", "-o", tmp_path / "s.npy", *more)
        assert np.abs(np.load(tmp_path / "s.npy") - expected).max() < 1e-5


def test_options(small):
    _, _, folder = small
    d, c = folder / "d.npy", folder / "c.safetensors"
    fails(2, "needs -o FILE", args=("compress", d))
    fails(2, "--nbits is 3, must be 1, 2, 4 or 8", args=("compress", d, "-o", c, "--nbits", 3))
    fails(2, "written as .safetensors", args=("compress", d, "-o", folder / "c.npy"))
    fails(2, "--seed is '-1'", args=("compress", d, "-o", c, "--seed", "-1"))
    fails(2, "must be a whole number below 2^63", args=("compress", d, "-o", c, "--seed", 1 << 63))
    fails(2, "--centroids is 'many', must be auto or", args=("compress", d, "-o", c, "--centroids", "many"))
    fails(4, "--centroids is 181", "180 tokens", args=("compress", d, "-o", c, "--centroids", 181, "--quiet"))
    fails(2, "is also the input", args=("compress", d, "-o", d))
    fails(3, "cannot write", args=("compress", d, "-o", folder / "no" / "c"))
    np.save(folder / "none.npy", np.zeros((3, 2, 8), np.float32))
    fails(4, "3 documents and no token", args=("compress", folder / "none.npy", "-o", c, "--quiet"))
    assert not c.exists()
    run("compress", d, "-o", c, "--centroids", 180, "--quiet")
    assert load_file(c)["centroids"].shape == (180, 16)
    _, err = run("compress", d, "-o", c)
    assert "180 tokens of 20 documents, 16 dimensions; 180 centroids" not in err
    assert "90 centroids and 4 bits an element: 10 bytes a token (64 now)" in err
    assert load_file(c)["centroids"].shape == (90, 16) and "documents" not in load_file(c)


def test_odd_dimensions(tmp_path, rng):
    """A token's last byte is partly used where 8 does not divide its bits."""
    np.save(tmp_path / "q.npy", unit(rng, 2, 3, 13))
    np.save(tmp_path / "d.npy", unit(rng, 30, 5, 13).astype(np.float16))
    for bits in (1, 2, 4):
        run("compress", tmp_path / "d.npy", "-o", tmp_path / "c", "--nbits", bits)
        expected = maxsim(np.load(tmp_path / "q.npy"), decode(tmp_path / "c"))
        run("score", tmp_path / "q.npy", tmp_path / "c", "--all", "-o", tmp_path / "s.npy")
        assert np.abs(np.load(tmp_path / "s.npy") - expected).max() < 1e-5


def test_in_memory(texts):
    """Standard input, and an output that is a pipe."""
    _, folder = texts
    run("compress", folder / "d.jsonl", "-o", folder / "c")
    run("compress", "-", "-o", folder / "c2", stdin=(folder / "d.jsonl").read_bytes())
    assert (folder / "c").read_bytes() == (folder / "c2").read_bytes()
    assert save(load_file(folder / "c"))  # the format's own library reads it
