"""Every kind of input file, layout and element type, against NumPy in float64."""

import json
import subprocess
import zlib

import numpy as np
import pytest
from conftest import (
    LIK,
    STORED,
    TOLERANCE,
    TOLERANCE_I8,
    check_ranking,
    fails,
    maxsim,
    parse_tsv,
    run,
    store,
    unit,
    write_jsonl,
)
from safetensors.numpy import save_file


def scores_of(*args, k, expected, tolerance=TOLERANCE, names=None, **more):
    out, err = run("score", *args, "-k", k, **more)
    result = parse_tsv(out)
    assert len(result) == len(expected)
    for i, hits in enumerate(result.values()):
        if names:
            hits = [(names.index(d), s) for d, s in hits]
        check_ranking(hits, expected[i], k, tolerance)
    return err


@pytest.mark.parametrize("dim", [1, 3, 16, 48, 127, 128, 129, 768])
def test_three_dimensional_npy(tmp_path, rng, dim):
    q, d = unit(rng, 3, 7, dim), unit(rng, 31, 12, dim)
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    scores_of(tmp_path / "q.npy", tmp_path / "d.npy", k=5, expected=maxsim(q, d))


@pytest.mark.parametrize("q_type", ["f32", "f16"])
@pytest.mark.parametrize("d_type", ["f32", "f16", "f64"])
def test_npy_types(tmp_path, rng, q_type, d_type):
    kinds = {"f32": "<f4", "f16": "<f2", "f64": "<f8"}
    q, d = unit(rng, 2, 6, 24).astype(kinds[q_type]), unit(rng, 11, 8, 24).astype(kinds[d_type])
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    err = scores_of(tmp_path / "q.npy", tmp_path / "d.npy", k=11, expected=maxsim(q, d.astype(np.float32)))
    assert ("float64" in err) == (d_type == "f64")


def test_npy_int8(tmp_path, rng):
    q, d = rng.integers(-128, 128, (2, 4, 16), np.int8), rng.integers(-128, 128, (9, 5, 16), np.int8)
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    expected = maxsim(q, d)
    out, err = run("score", tmp_path / "q.npy", tmp_path / "d.npy", "-k", 9)
    for i, hits in parse_tsv(out).items():
        for document, score in hits:
            assert score == expected[int(i), int(document)]  # integers: exact
    assert "not unit length" in err


LENGTHS = [3, 0, 9, 1, 17]


@pytest.mark.parametrize("where", ["doclens", "len", "option-npy", "option-text", "option-json", "i4"])
def test_packed_npy(tmp_path, rng, where):
    q, rows = unit(rng, 2, 5, 32), unit(rng, sum(LENGTHS), 32)
    documents = np.split(rows, np.cumsum(LENGTHS)[:-1])
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", rows)
    more = []
    if where == "doclens":
        np.save(tmp_path / "d.doclens.npy", np.array(LENGTHS))
    elif where == "len":
        np.save(tmp_path / "d_len.npy", np.array(LENGTHS, np.uint8))
    elif where == "i4":
        np.save(tmp_path / "d_len.npy", np.array(LENGTHS, np.int32))
    else:
        name = tmp_path / ("lens.npy" if where == "option-npy" else "lens.txt")
        if where == "option-npy":
            np.save(name, np.array(LENGTHS))
        else:
            name.write_text(
                json.dumps(LENGTHS) if where == "option-json" else "\n".join(map(str, LENGTHS)) + "\n"
            )
        more = ["--lens", name]
    scores_of(tmp_path / "q.npy", tmp_path / "d.npy", *more, k=5, expected=maxsim(q, documents))


def test_padded_npy_with_lengths(tmp_path, rng):
    q, d = unit(rng, 3, 6, 20), unit(rng, 5, 17, 20)
    for i, n in enumerate(LENGTHS):
        d[i, n:] = np.nan  # padding is never read
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    np.save(tmp_path / "d_len.npy", np.array(LENGTHS))
    np.save(tmp_path / "q_len.npy", np.array([6, 2, 0]))
    expected = maxsim([q[0], q[1, :2], q[2, :0]], [x[:n] for x, n in zip(d, LENGTHS)])
    scores_of(tmp_path / "q.npy", tmp_path / "d.npy", k=5, expected=expected)


@pytest.mark.parametrize(
    "header", ["spaces-none", "trailing-comma", "padded-192", "no-newline", "v2", "v3", "python2", "u-lens"]
)
def test_npy_dialects(tmp_path, rng, header):
    q, d = unit(rng, 2, 3, 8), unit(rng, 4, 5, 8)
    np.save(tmp_path / "q.npy", q)
    text = {
        "spaces-none": "{'descr':'<f4','fortran_order':False,'shape':(4,5,8)}",
        "trailing-comma": "{'descr':'<f4','fortran_order':False,'shape':(4,5,8,),}",
        "python2": "{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 5L, 8L), }",
    }.get(header, "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 5, 8), }").encode()
    version = {"v2": 2, "v3": 3}.get(header, 1)
    head = 10 if version == 1 else 12
    total = 192 if header == "padded-192" else -(-(head + len(text) + 1) // 16) * 16
    text = text.ljust(total - head - 1) + (b" " if header == "no-newline" else b"\n")
    (tmp_path / "d.npy").write_bytes(
        b"\x93NUMPY"
        + bytes([version, 0])
        + len(text).to_bytes(2 if version == 1 else 4, "little")
        + text
        + d.tobytes()
    )
    if header == "u-lens":  # '<u1' as some writers have it, for '|u1'
        text = b"{'descr':'<u1','fortran_order':False,'shape':(4,)}\n"
        (tmp_path / "d_len.npy").write_bytes(
            b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes([5, 5, 5, 5])
        )
    scores_of(tmp_path / "q.npy", tmp_path / "d.npy", k=4, expected=maxsim(q, d))


def test_misaligned_data(tmp_path, rng):
    q, d = unit(rng, 2, 3, 8), unit(rng, 4, 5, 8)
    text = b"{'descr':'<f4','fortran_order':False,'shape':(4,5,8)}"
    text += b" " * ((3 - (10 + len(text))) % 4)  # the data begin at 3 modulo 4
    np.save(tmp_path / "q.npy", q)
    (tmp_path / "d.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + d.tobytes()
    )
    scores_of(tmp_path / "q.npy", tmp_path / "d.npy", k=4, expected=maxsim(q, d))


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("layout", ["lengths", "doclens", "offsets", "padded", "padded-lengths", "mask"])
def test_safetensors(tmp_path, rng, dtype, layout):
    q = unit(rng, 3, 6, 40)
    np.save(tmp_path / "q.npy", q)
    tolerance = TOLERANCE_I8 if dtype == "i8" else TOLERANCE
    lens = np.array(LENGTHS)
    tensors = {}
    if layout in ("lengths", "doclens", "offsets", "mask"):
        x, scales, values = store(unit(rng, lens.sum(), 40), dtype)
        documents = np.split(values, np.cumsum(lens)[:-1])
        if layout == "mask":
            keep = rng.random(lens.sum()) < 0.7
            tensors |= {"lengths": lens, "mask": keep}
            documents = [x[k] for x, k in zip(documents, np.split(keep, np.cumsum(lens)[:-1]))]
        else:
            tensors[layout] = (
                np.concatenate([[0], np.cumsum(lens)]) if layout == "offsets" else lens.astype(np.int32)
            )
    else:
        x, scales, values = store(unit(rng, 5, 17, 40), dtype)
        documents = list(values)
        if layout == "padded-lengths":
            tensors["lengths"] = lens
            documents = [x[:n] for x, n in zip(values, lens)]
    tensors["vectors" if layout == "doclens" else "embeddings"] = x
    if scales is not None:
        tensors["scales"] = scales
    save_file(tensors, tmp_path / "d.safetensors")
    scores_of(
        tmp_path / "q.npy",
        tmp_path / "d.safetensors",
        k=5,
        expected=maxsim(q, documents),
        tolerance=tolerance,
    )


def test_safetensors_one_scale(tmp_path, rng):
    q, x = unit(rng, 2, 3, 16), rng.integers(-100, 100, (4, 5, 16), np.int8)
    np.save(tmp_path / "q.npy", q)
    save_file({"embeddings": x, "scale": np.array([0.01], np.float32)}, tmp_path / "d.safetensors")
    scores_of(
        tmp_path / "q.npy",
        tmp_path / "d.safetensors",
        k=4,
        tolerance=TOLERANCE_I8,
        expected=maxsim(q, x * np.float64(np.float32(0.01))),
    )


@pytest.mark.parametrize("dtype", ["f32", "bf16", "i8"])
def test_safetensors_a_tensor_each(tmp_path, rng, dtype):
    q = unit(rng, 2, 6, 16)
    np.save(tmp_path / "q.npy", q)
    tensors = {
        f"doc {i}": unit(rng, n, 16).astype(STORED[dtype][0])
        if dtype != "i8"
        else rng.integers(-99, 99, (n, 16), np.int8)
        for i, n in enumerate([4, 0, 7])
    }
    save_file(tensors, tmp_path / "d.safetensors")
    scores_of(
        tmp_path / "q.npy",
        tmp_path / "d.safetensors",
        k=3,
        names=list(tensors),
        expected=maxsim(q, [x.astype(np.float64) for x in tensors.values()]),
        tolerance=TOLERANCE_I8,
    )


def test_safetensors_with_names_and_texts(tmp_path, rng):
    """`documents` of a dense file: ids, texts and tokens without a file of their own."""
    x, q = rng.standard_normal((2, 2, 8)).astype("f4"), rng.standard_normal((1, 3, 8)).astype("f4")
    lines = [{"id": "a", "text": "one two", "tokens": ["one", "two"]}, {"id": "b", "text": "three four"}]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    tensors = {"embeddings": x, "documents": np.frombuffer(text, np.uint8)}
    save_file(tensors, tmp_path / "d.safetensors")
    np.save(tmp_path / "q.npy", q)
    found = {
        line.split("\t")[1]
        for line in run("score", tmp_path / "q.npy", tmp_path / "d.safetensors")[0].splitlines()
    }
    assert found == {"a", "b"}
    assert "one" in run("explain", tmp_path / "q.npy", tmp_path / "d.safetensors", "-d", "a")[0]
    save_file({**tensors, "documents": np.frombuffer(text[: len(text) // 2], np.uint8)}, tmp_path / "bad")
    fails(3, "'documents'", args=["score", tmp_path / "q.npy", tmp_path / "bad"])
    save_file({**tensors, "embeddings": x[:1]}, tmp_path / "few")
    fails(3, "'documents' has 2 entries, there are 1", args=["score", tmp_path / "q.npy", tmp_path / "few"])


@pytest.mark.parametrize("layout", ["padded", "lengths", "alone", "offsets"])
def test_npz(tmp_path, rng, layout):
    q, d = unit(rng, 2, 6, 16), unit(rng, 5, 7, 16)
    lengths = np.array([7, 3, 0, 5, 1])
    expected = maxsim(q, [x[:n] for x, n in zip(d, lengths)] if layout in ("lengths", "offsets") else d)
    flat = np.concatenate([x[:n] for x, n in zip(d, lengths)])
    if layout == "alone":
        np.savez(tmp_path / "d.npz", d)
    elif layout == "padded":
        np.savez(tmp_path / "d.npz", embeddings=d, other=np.arange(3))
    elif layout == "lengths":
        np.savez(tmp_path / "d.npz", tokens=d, lengths=lengths)
    else:
        np.savez(tmp_path / "d.npz", vectors=flat, offsets=np.concatenate([[0], lengths.cumsum()]))
    np.savez(tmp_path / "q.npz", embeddings=q)
    scores_of(tmp_path / "q.npz", tmp_path / "d.npz", k=5, expected=expected)
    assert "npz" in run("info", tmp_path / "d.npz")[0]


def test_npz_refused(tmp_path, rng):
    x = unit(rng, 2, 3, 8)
    np.save(tmp_path / "q.npy", x)
    ask = lambda name: ["score", tmp_path / "q.npy", tmp_path / name]
    np.savez_compressed(tmp_path / "c.npz", embeddings=x)
    fails(4, "'embeddings.npy' is compressed", "numpy.savez,", args=ask("c.npz"))
    np.savez(tmp_path / "n.npz", a=x, b=x)
    fails(4, "no array 'embeddings'", "'a'", "--key", args=ask("n.npz"))
    assert run(*ask("n.npz"), "--key", "b")[0]
    np.savez(tmp_path / "o.npz", embeddings=np.array([{}], object))
    fails(4, "object", args=ask("o.npz"))
    np.savez(tmp_path / "d.npz", embeddings=x, lengths=np.array([1, 2]))
    whole = (tmp_path / "d.npz").read_bytes()
    rng = np.random.default_rng(3)
    for cut in (len(whole) - 1, len(whole) - 30, len(whole) // 2, 60):
        (tmp_path / "x.npz").write_bytes(whole[:cut])
        run(*ask("x.npz"), code=3)
    for _ in range(300):  # any byte may be wrong: an error or scores, never a crash
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        (tmp_path / "x.npz").write_bytes(damaged)
        done = subprocess.run([LIK, *map(str, ask("x.npz"))], capture_output=True)
        assert done.returncode in (0, 3, 4), done


def test_npz_checksums_and_sizes(tmp_path, rng):
    """Scoring does not read checksums, `lik info --check` does; sizes are always looked at."""
    x = unit(rng, 2, 3, 8)
    np.savez(tmp_path / "d.npz", embeddings=x, other=np.arange(5))
    whole = (tmp_path / "d.npz").read_bytes()
    assert "norm" in run("info", "--check", tmp_path / "d.npz")[0]
    for name, text in (("embeddings", x.tobytes()), ("other", np.arange(5).tobytes())):
        damaged = bytearray(whole)
        at = whole.index(text)
        damaged[at] ^= 1
        (tmp_path / "x.npz").write_bytes(damaged)
        assert run("info", tmp_path / "x.npz")[0]
        crc = zlib.crc32(damaged[whole.rindex(b"\x93NUMPY", 0, at) : at + len(text)])
        fails(
            3, f"'{name}.npy' has the checksum {crc:08x}", "directory says", "it is damaged",
            args=["info", "--check", tmp_path / "x.npz"],
        )  # fmt: skip
    entry = whole.index(b"PK\x01\x02")
    for size, said in ((len(x.tobytes()), "bytes"), (1 << 30, "more than there are before the directory")):
        damaged = bytearray(whole)
        damaged[entry + 20 : entry + 28] = size.to_bytes(4, "little") * 2
        (tmp_path / "x.npz").write_bytes(damaged)
        fails(3, "embeddings", said, args=["info", tmp_path / "x.npz"])


def test_safetensors_key(tmp_path, rng):
    q, a, b = unit(rng, 2, 6, 16), unit(rng, 4, 5, 16), unit(rng, 3, 5, 16)
    save_file({"embeddings": a, "other": b}, tmp_path / "d.safetensors")
    save_file({"embeddings": a, "mine": q}, tmp_path / "q.safetensors")
    scores_of(
        tmp_path / "q.safetensors",
        tmp_path / "d.safetensors",
        "--key",
        "other",
        "--query-key",
        "mine",
        k=3,
        expected=maxsim(q, b),
    )


@pytest.mark.parametrize("form", ["safetensors", "jsonl", "safetensors-padded"])
def test_query_weights(tmp_path, rng, form):
    lens, d = [4, 6], unit(rng, 9, 5, 16)
    rows, weights = unit(rng, sum(lens), 16), rng.random(sum(lens)).astype(np.float32)
    q, w = np.split(rows, [4]), np.split(weights, [4])
    np.save(tmp_path / "d.npy", d)
    name = tmp_path / "q"
    if form == "safetensors":
        save_file({"embeddings": rows, "lengths": np.array(lens), "weights": weights}, name)
    elif form == "jsonl":
        write_jsonl(name, [{"embedding": x.tolist(), "weights": v.tolist()} for x, v in zip(q, w)])
    else:
        q, w = unit(rng, 2, 5, 16), rng.random((2, 5)).astype(np.float32)
        save_file({"embeddings": q, "weights": w}, name)
    scores_of(name, tmp_path / "d.npy", k=9, expected=maxsim(q, d, w))
    scores_of(name, tmp_path / "d.npy", "--no-weights", k=9, expected=maxsim(q, d))


def test_json_lines(tmp_path, rng):
    q, lens = unit(rng, 2, 5, 12), [3, 0, 8]
    documents = [unit(rng, n, 12) for n in lens]
    write_jsonl(
        tmp_path / "q.jsonl",
        [
            {"id": f"q{i}", "embedding": x.tolist(), "text": "a \u00e4 \u2603 \U0001f600"}
            for i, x in enumerate(q)
        ],
    )
    rows = [
        json.dumps(
            {"tokens": ["x"] * len(x), "id": 100 + i, "more": {"a": [1, None, True]}, "embedding": x.tolist()}
        )
        for i, x in enumerate(documents)
    ]
    (tmp_path / "d.jsonl").write_text("\n\r\n".join(rows))  # blank lines, CRLF, no newline at the end
    out, _ = run("score", tmp_path / "q.jsonl", tmp_path / "d.jsonl")
    result = parse_tsv(out)
    assert list(result) == ["q0", "q1"]
    for hits, expected in zip(result.values(), maxsim(q, documents)):
        check_ranking([(int(d) - 100, s) for d, s in hits], expected, 3)


def test_json_numbers(tmp_path):
    """Numbers of every form mean what Python says they mean."""
    texts = [
        "0",
        "-0",
        "1e2",
        "1E-3",
        "0.1",
        "-12.5e+1",
        "3.4028234e38",
        "1e-45",
        "0.30000000000000004",
        "123456789012345678901234567890",
        "0." + "3" * 60,
        "1e-400",
        "9007199254740993",
        "0.000000000000000000000000000000000000011754944",
    ]
    (tmp_path / "d.jsonl").write_text("\n".join('{"embedding": [[%s]]}' % t for t in texts))
    (tmp_path / "q.jsonl").write_text('{"embedding": [[1]]}')
    run("score", tmp_path / "q.jsonl", tmp_path / "d.jsonl", "--all", "-o", tmp_path / "s.npy")
    expected = np.array([float(t) for t in texts], np.float64).astype(np.float32)
    assert np.array_equal(np.load(tmp_path / "s.npy")[0], expected)


@pytest.mark.parametrize("form", ["npy", "jsonl"])
def test_standard_input(small, form):
    q, d, folder = small
    data = (
        (folder / "q.npy").read_bytes()
        if form == "npy"
        else "".join(json.dumps({"embedding": x.tolist()}) + "\n" for x in q).encode()
    )
    scores_of("-", folder / "d.npy", k=4, expected=maxsim(q, d), stdin=data)


def test_ids_and_texts(small):
    q, d, folder = small
    ids = [f"id-{i}" for i in range(20)]
    (folder / "ids.txt").write_text("\r\n".join(ids))
    np.save(folder / "qids.npy", np.array([7, 5, 1000]))
    write_jsonl(folder / "texts.jsonl", [{"id": i, "text": f"text of {i}"} for i in reversed(ids)])
    args = (
        "score",
        folder / "q.npy",
        folder / "d.npy",
        "--ids",
        folder / "ids.txt",
        "--query-ids",
        folder / "qids.npy",
    )
    result = parse_tsv(run(*args)[0])
    assert list(result) == ["7", "5", "1000"]
    for hits, expected in zip(result.values(), maxsim(q, d)):
        check_ranking([(ids.index(x), s) for x, s in hits], expected, 10)
    table, _ = run(*args, "--text", folder / "texts.jsonl", "--table", "-k", 2)
    for document, _ in [h for hits in result.values() for h in hits[:2]]:
        assert f"text of {document}" in table
    assert list(
        parse_tsv(run("score", folder / "q.npy", folder / "d.npy", "--ids", folder / "texts.jsonl")[0])["0"]
    )


def test_normalize(tmp_path, rng):
    q, d = (
        3 * rng.standard_normal((2, 5, 16)).astype(np.float32),
        rng.standard_normal((8, 6, 16)).astype(np.float32),
    )
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    _, err = run("score", tmp_path / "q.npy", tmp_path / "d.npy")
    assert "queries are not unit length (norms" in err and "--normalize" in err
    one = lambda x: x / np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)
    err = scores_of(
        tmp_path / "q.npy", tmp_path / "d.npy", "--normalize", k=8, expected=maxsim(one(q), one(d))
    )
    assert err == ""


def test_no_documents_no_queries(tmp_path, rng):
    np.save(tmp_path / "q.npy", unit(rng, 2, 5, 16))
    np.save(tmp_path / "none.npy", np.zeros((0, 5, 16), np.float32))
    np.save(tmp_path / "empty.npy", np.zeros((3, 0, 16), np.float32))
    assert run("score", tmp_path / "q.npy", tmp_path / "none.npy")[0] == ""
    assert run("score", tmp_path / "q.npy", tmp_path / "none.npy", "--fail-empty", code=1)[0] == ""
    assert run("score", tmp_path / "none.npy", tmp_path / "q.npy")[0] == ""
    assert parse_tsv(run("score", tmp_path / "q.npy", tmp_path / "empty.npy")[0])["0"] == [
        ("0", 0.0),
        ("1", 0.0),
        ("2", 0.0),
    ]
    run("score", tmp_path / "q.npy", tmp_path / "none.npy", "--all", "-o", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").shape == (2, 0)


def test_large_sparse_file(tmp_path, rng):
    """A mapped file far beyond what is touched: only the pairs' documents are read."""
    n, tokens, dim = 40_000, 1000, 128
    q = unit(rng, 1, 4, dim)
    np.save(tmp_path / "q.npy", q)
    with open(tmp_path / "d.npy", "wb") as f:
        np.lib.format.write_array_header_1_0(
            f, {"descr": "<f4", "fortran_order": False, "shape": (n, tokens, dim)}
        )
        start = f.tell()
        d = unit(rng, tokens, dim)
        f.seek(start + (n - 1) * tokens * dim * 4)
        f.write(d.tobytes())
        f.truncate(start + n * tokens * dim * 4)  # 20 GB, most of it holes
    (tmp_path / "pairs").write_text(f"0 {n - 1}\n0 5\n")
    result = parse_tsv(run("score", tmp_path / "q.npy", tmp_path / "d.npy", "--pairs", tmp_path / "pairs")[0])
    check = maxsim(q, [d])[0, 0]
    assert abs(result["0"][0][1] - check) < 1e-4 and result["0"][1][1] == 0
