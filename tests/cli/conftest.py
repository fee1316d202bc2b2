"""End-to-end tests of the `lik` command. LIK_BIN names the program; scores are compared with
NumPy in float64.
"""

import json
import os
import pathlib
import subprocess

import ml_dtypes
import numpy as np
import pytest

LIK = os.environ.get("LIK_BIN") or pytest.exit("LIK_BIN must name the lik program", returncode=4)
DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo"
DEMO_FILES = [
    DEMO / "queries.safetensors",
    DEMO / "documents.safetensors",
    "--text",
    DEMO / "documents.jsonl",
    "--query-text",
    DEMO / "queries.jsonl",
]

# What rounding the stored values may do is in the expectation already; what is left is f32
# accumulation, and for i8 documents the rounding of float queries to 16 bits.
TOLERANCE = 2e-5
TOLERANCE_I8 = 2e-4


def environment(**more):
    kept = {
        k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLORTERM", "COLUMNS", "LIK_THREADS")
    }
    return kept | {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color"} | more


def run(*args, code=0, stdin=None, env=None, cwd=None):
    """Runs lik and returns (stdout, stderr) as text; the exit code must be `code`."""
    done = subprocess.run(
        [LIK, *map(str, args)],
        input=stdin,
        capture_output=True,
        env=environment(**(env or {})),
        cwd=cwd,
        timeout=300,  # the demo under a sanitizer, on a busy machine
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, (
        f"exit {done.returncode}, expected {code}\n{args}\n{out[:2000]}\n{err[:4000]}"
    )
    return out, err


def fails(code, *parts, args, **more):
    """lik must fail with `code`, print nothing, and say each of `parts`."""
    out, err = run(*args, code=code, **more)
    assert out == "", out
    assert err.startswith("lik: error: "), err
    for part in parts:
        assert part in err, f"{part!r} is not in {err!r}"
    return err


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def maxsim(queries, documents, weights=None):
    """[queries, documents] in float64, from lists of [tokens, dim] arrays."""
    scores = np.zeros((len(queries), len(documents)))
    for i, q in enumerate(queries):
        w = np.ones(len(q)) if weights is None else np.asarray(weights[i], np.float64)
        for j, d in enumerate(documents):
            if len(q) and len(d):
                scores[i, j] = (w * (q.astype(np.float64) @ d.astype(np.float64).T).max(axis=1)).sum()
    return scores


def parse_tsv(text):
    """{query: [(document, score), ..]} in the order of the ranks, which must count from 1."""
    result = {}
    for line in text.splitlines():
        query, document, rank, score = line.split("\t")
        hits = result.setdefault(query, [])
        assert int(rank) == len(hits) + 1
        hits.append((document, float(score)))
    return result


def check_ranking(hits, expected, k, tolerance=TOLERANCE):
    """`hits` are (document number, score); `expected` the f64 scores of all documents."""
    assert len(hits) == min(k, len(expected))
    scale = max(1.0, np.abs(expected).max()) if len(expected) else 1.0
    for document, score in hits:
        assert abs(score - expected[int(document)]) <= tolerance * scale, (
            document,
            score,
            expected[int(document)],
        )
    best = np.sort(expected)[::-1][: len(hits)]
    assert np.all(np.abs(best - [s for _, s in hits]) <= tolerance * scale)
    assert all(a[1] >= b[1] for a, b in zip(hits, hits[1:]))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def small(tmp_path, rng):
    """Three queries of 5 tokens and twenty documents of 9, 16 dimensions, as .npy."""
    q, d = unit(rng, 3, 5, 16), unit(rng, 20, 9, 16)
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    return q, d, tmp_path


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


STORED = {
    "f32": (np.float32, 0),
    "f16": (np.float16, 0),
    "bf16": (ml_dtypes.bfloat16, 0),
    "e4m3": (ml_dtypes.float8_e4m3fn, 0),
    "e5m2": (ml_dtypes.float8_e5m2, 0),
    "i8": (np.int8, 1),
}


def store(x, dtype):
    """x as (stored array, scales or None, the values the file then stands for)."""
    kind, scaled = STORED[dtype]
    if not scaled:
        stored = x.astype(kind)
        return stored, None, stored.astype(np.float64)
    scales = (np.abs(x).max(axis=-1) / 127).astype(np.float32)
    stored = np.rint(x / scales[..., None]).astype(np.int8)
    return stored, scales, stored.astype(np.float64) * scales[..., None].astype(np.float64)
