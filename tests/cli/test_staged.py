"""The way that operands take to a GPU, on the CPU: LIK_STAGED=BYTES cuts documents, lists and
queries into pieces of so many bytes and moves them through the context's memory. Not a byte of
the results may differ from the plain way's."""

import json

import numpy as np
import pytest
from conftest import fails, run, store, unit
from safetensors.numpy import save_file

LENGTHS = [3, 0, 9, 1, 17, 17, 4, 0, 0, 12, 5, 8, 2, 2, 30, 1, 6, 0]
Q_LENGTHS = [6, 2, 0, 5, 6]
PIECES = [1, 700, 5000, 1 << 30]  # a document each, a few, many, all at once


def padded(folder, rng):
    np.save(folder / "q.npy", unit(rng, 5, 6, 20))
    np.save(folder / "d.npy", unit(rng, 18, 7, 20).astype(np.float16))


def lens(folder, rng):
    """Lengths in a padded file: a mask; what they leave out is NaN."""
    padded(folder, rng)
    d = np.load(folder / "d.npy")
    for i, n in enumerate(LENGTHS):
        d[i, n:] = np.nan
    np.save(folder / "d.npy", d)
    np.save(folder / "d_len.npy", np.minimum(LENGTHS, 7))
    np.save(folder / "q_len.npy", np.array(Q_LENGTHS))


def packed(folder, rng):
    np.save(folder / "q.npy", unit(rng, sum(Q_LENGTHS), 33))
    np.save(folder / "q.doclens.npy", np.array(Q_LENGTHS))
    np.save(folder / "d.npy", unit(rng, sum(LENGTHS), 33))
    np.save(folder / "d.doclens.npy", np.array(LENGTHS))


def bad(folder, rng):
    """A few tokens with NaN, for --skip-bad: a mask over packed rows."""
    packed(folder, rng)
    for name, rows in (("q", [3]), ("d", [0, 5, 30, 31, 116])):
        x = np.load(folder / f"{name}.npy")
        x[rows, 2] = np.nan
        np.save(folder / f"{name}.npy", x)


def scaled(folder, rng):
    """i8 with a scale a token, a mask, lengths; weights of the queries."""
    stored, scales, _ = store(unit(rng, sum(LENGTHS), 32), "i8")
    mask = (rng.random(len(stored)) < 0.8).astype(np.uint8)
    tensors = {"embeddings": stored, "scales": scales, "mask": mask, "lengths": np.array(LENGTHS)}
    save_file(tensors, folder / "d.safetensors")
    weights = rng.random((5, 6)).astype(np.float32)
    save_file({"embeddings": unit(rng, 5, 6, 32), "weights": weights}, folder / "q.safetensors")


def tensor_scale(folder, rng):
    """One scale for all documents; packed queries with weights."""
    stored = rng.integers(-128, 128, (18, 4, 24), np.int8)
    save_file({"embeddings": stored, "scale": np.array([0.01], np.float32)}, folder / "d.safetensors")
    n = sum(Q_LENGTHS)
    weights = rng.random(n).astype(np.float32)
    q = {"embeddings": unit(rng, n, 24), "weights": weights, "lengths": np.array(Q_LENGTHS)}
    save_file(q, folder / "q.safetensors")


def lists(folder, rng):
    """(lines of pairs, a run), with repeated and empty documents."""
    pairs = [(int(rng.integers(5)), int(rng.integers(18))) for _ in range(60)]
    pairs += [(4, 17), (4, 17), (2, 1), (0, 0)]
    (folder / "pairs").write_text("".join(f"{a}\t{b}\n" for a, b in pairs))
    lines = [f"{a} Q0 {b} 1 1 t\n" for a, b in sorted(set(pairs))]
    (folder / "run").write_text("".join(lines))


COLLECTIONS = [padded, lens, packed, bad, scaled, tensor_scale]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_same_bytes(tmp_path, rng, collection):
    collection(tmp_path, rng)
    lists(tmp_path, rng)
    q, d = (next(path for path in tmp_path.glob(f"{name}.*") if path.stem == name) for name in "qd")
    output = tmp_path / "out.npy"
    more = ["--skip-bad"] if collection is bad else []
    commands = [
        ("score", q, d, "-k", 4),
        ("score", q, d, "-k", 18, "--trec", "--normalize"),
        ("score", q, d, "--all"),
        ("score", q, d, "--all", "-o", output),
        ("score", q, d, "--pairs", tmp_path / "pairs"),
        ("score", q, d, "--pairs", tmp_path / "pairs", "-o", output),
        ("rerank", q, d, tmp_path / "run", "-k", 5),
        ("rerank", q, d, tmp_path / "run", "--all", "--trec"),
        ("explain", q, d, "-q", 3, "-d", 4, "--compare", 9, "--json"),
        ("explain", q, d, "-q", 0),
    ]

    def results(**environment):
        for command in commands:
            output.unlink(missing_ok=True)
            printed, _ = run(*command, *more, "--quiet", env=environment)
            yield command, printed, output.read_bytes() if output.exists() else b""

    plain = list(results())
    assert all(printed or written for _, printed, written in plain)
    for piece in PIECES:
        for expected, got in zip(plain, results(LIK_STAGED=str(piece)), strict=True):
            assert got == expected, piece


@pytest.mark.parametrize("device", ["ref", "cpu:generic"])
def test_other_devices(tmp_path, rng, device):
    packed(tmp_path, rng)
    command = ("score", tmp_path / "q.npy", tmp_path / "d.npy", "--all", "--device", device)
    assert run(*command, env={"LIK_STAGED": "900"})[0] == run(*command)[0]


def test_slices_of_pieces(tmp_path, rng):
    """More than one call of the library's, pieces in each, equal scores across them; snippets
    and matches on top.
    """
    d = unit(rng, 1500, 40, 64).astype(np.float16)
    np.save(tmp_path / "q.npy", unit(rng, 6, 32, 64))
    np.save(tmp_path / "d.npy", np.concatenate([d, d]))
    command = ("score", tmp_path / "q.npy", tmp_path / "d.npy", "-k", 37)
    assert run(*command, env={"LIK_STAGED": "300000"})[0] == run(*command)[0]
    hits = [
        [json.loads(line)["hits"] for line in run(*command, "--json", env=way)[0].splitlines()]
        for way in ({}, {"LIK_STAGED": "2000000"})
    ]
    assert hits[0] == hits[1]


def test_bench():
    out, _ = run("bench", "--quick", "--rounds", 1, env={"LIK_STAGED": "10000000"})
    assert out.count("score_") >= 4


def test_nothing_to_do(tmp_path, rng):
    np.save(tmp_path / "q.npy", unit(rng, 2, 3, 8))
    np.save(tmp_path / "none.npy", np.zeros((0, 3, 8), np.float32))
    for q, d in (("q", "none"), ("none", "q")):
        for how in ("-k2", "--all"):
            command = ("score", tmp_path / f"{q}.npy", tmp_path / f"{d}.npy", how, "--quiet")
            assert run(*command, env={"LIK_STAGED": "64"})[0] == run(*command)[0]


def test_errors(small):
    _, _, folder = small
    command = ("score", folder / "q.npy", folder / "d.npy")
    for text in ("0", "-5", "many", "1k"):
        fails(2, f"LIK_STAGED is '{text}'", args=command, env={"LIK_STAGED": text})
    d = np.load(folder / "d.npy")
    d[11, 4, 3] = np.nan
    np.save(folder / "d.npy", d)
    fails(3, "document 11, token 4", args=command, env={"LIK_STAGED": "500"})
    (folder / "pairs").write_text("1 11\n")
    fails(3, "document 11, token 4", args=(*command, "--pairs", folder / "pairs"), env={"LIK_STAGED": "500"})
