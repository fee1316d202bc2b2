"""Broken, truncated and unsuitable files: the right exit code, a message that names file and
values, no output.
"""

import json
import struct

import numpy as np
import pytest
from conftest import LIK, environment, fails, run, unit
from safetensors.numpy import save

OK_SHAPE = "(2, 3, 4)"
DATA = np.arange(24, dtype=np.float32).tobytes()


def npy(header, data=DATA, version=(1, 0), length=None):
    text = header.encode() if isinstance(header, str) else header
    text += b" " * (-(len(text) + 11) % 16) + b"\n"
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + size.to_bytes(2 if version[0] < 2 else 4, "little") + text + data


def head(descr="'<f4'", order="False", shape=OK_SHAPE):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def tensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype="F32", shape=(2, 3, 4), offsets=(0, 96)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


# name -> (bytes, exit code, parts of the message)
BAD = {
    # .npy
    "empty.npy": (b"", 3, ["is empty"]),
    "magic.npy": (b"\x93NUMPX\x01\x00" + bytes(100), 3, ["is not a .npy file"]),
    "version0.npy": (npy(head(), version=(0, 0)), 4, ["version 0.0"]),
    "version4.npy": (npy(head(), version=(4, 0)), 4, ["version 4.0"]),
    "version1.1.npy": (npy(head(), version=(1, 1)), 4, ["version 1.1"]),
    "header-long.npy": (npy(head(), length=60000), 3, ["the header ends at byte 60010", "cut short"]),
    "header-zero.npy": (npy(head(), length=0), 3, ["cannot be understood"]),
    "header-v2-long.npy": (
        npy(head(), version=(2, 0), length=2**32 - 1),
        3,
        ["the header ends at byte 4294967307"],
    ),
    "garbage.npy": (npy("hello"), 3, ["cannot be understood"]),
    "no-shape.npy": (npy("{'descr': '<f4', 'fortran_order': False}"), 3, ["cannot be understood"]),
    "twice.npy": (
        npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,3,4)}"),
        3,
        ["cannot be understood"],
    ),
    "unknown-key.npy": (
        npy("{'descr': '<f4', 'order': False, 'shape': (2,3,4)}"),
        3,
        ["cannot be understood"],
    ),
    "negative.npy": (npy(head(shape="(2, -3, 4)")), 3, ["cannot be understood"]),
    "not-closed.npy": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4)"),
        3,
        ["cannot be understood"],
    ),
    "behind-brace.npy": (npy(head() + "x"), 3, ["cannot be understood"]),
    "rank9.npy": (npy(head(shape="(1,1,1,1,1,1,1,1,24)")), 3, ["cannot be understood"]),
    "dim-2^63.npy": (npy(head(shape="(9223372036854775808, 3, 4)")), 3, ["cannot be understood"]),
    "product-2^64.npy": (npy(head(shape="(4294967296, 4294967296, 4)")), 3, ["does not fit into 2^63"]),
    "product-zero.npy": (npy(head(shape="(4611686018427387904, 4, 0)"), b""), 3, ["does not fit into 2^63"]),
    "count-forged.npy": (npy(head(shape="(4611686018427387904, 0, 1)"), b""), 3, ["does not fit into 2^63"]),
    "count-large.npy": (
        npy(head(shape="(100000000, 0, 4)"), b""),
        3,
        ["announces 100000000 sequences", "at most 16777216"],
    ),
    "short.npy": (npy(head(), DATA[:-1]), 3, ["2 x 3 x 4 float32 are 96 bytes", "holds 95", "cut short"]),
    "long.npy": (npy(head(), DATA + b"\0"), 3, ["96 bytes", "holds 97", "behind"]),
    "fortran.npy": (npy(head(order="True")), 4, ["Fortran", "ascontiguousarray"]),
    "objects.npy": (npy(head(descr="'|O'")), 4, ["Python objects"]),
    "records.npy": (npy(head(descr="[('a', '<f4')]")), 4, ["records"]),
    "big-endian.npy": (npy(head(descr="'>f4'")), 4, ["big-endian"]),
    "bf16-as-void.npy": (npy(head(descr="'<V2'"), DATA[:48]), 4, ["without a type", ".safetensors"]),
    "complex.npy": (npy(head(descr="'<c8'"), DATA * 2), 4, ["complex"]),
    "text.npy": (npy(head(descr="'<U1'")), 4, ["text"]),
    "uint8.npy": (npy(head(descr="'|u1'"), DATA[:24]), 4, ["cannot be uint8"]),
    "int32.npy": (npy(head(descr="'<i4'")), 4, ["cannot be int32"]),
    "bool.npy": (npy(head(descr="'|b1'"), DATA[:24]), 4, ["cannot be bool"]),
    "one-dim.npy": (npy(head(shape="(24,)")), 4, ["has shape 24"]),
    "four-dim.npy": (npy(head(shape="(1, 2, 3, 4)")), 4, ["has shape 1 x 2 x 3 x 4"]),
    "scalar.npy": (npy(head(shape="()"), DATA[:4]), 4, ["has shape a single number"]),
    "no-lengths.npy": (npy(head(shape="(6, 4)")), 4, ["has shape 6 x 4 and no lengths", "--lens"]),
    "dim0.npy": (npy(head(shape="(2, 3, 0)"), b""), 4, ["0 dimensions"]),
    # .safetensors
    "tiny.safetensors": (b"\x01\0\0", 3, ["has 3 bytes"]),
    "header-2^63.safetensors": (tensors({"embeddings": tensor()}, DATA, 2**63), 3, ["bytes is announced"]),
    "header-2^64.safetensors": (
        tensors({"embeddings": tensor()}, DATA, 2**64 - 1),
        3,
        ["bytes is announced"],
    ),
    "header-long.safetensors": (
        tensors({"embeddings": tensor()}, DATA, 5000),
        3,
        ["5000 bytes is announced", "cut short"],
    ),
    "not-json.safetensors": (tensors(b"{embeddings}"), 3, ["damaged at byte 9"]),
    "not-object.safetensors": (tensors(b"[1, 2, 3]"), 3, ["begins with byte 0x5b"]),
    "comma.safetensors": (tensors(b'{"embeddings": {"dtype": "F32",}}'), 3, ["nothing follows the ','"]),
    "deep.safetensors": (
        tensors(b'{"__metadata__": ' + b'{"a": ' * 100 + b"1" + b"}" * 101),
        3,
        ["nested deeper than 64"],
    ),
    "not-utf8.safetensors": (tensors(b'{"\xff": {}}'), 3, ["not UTF-8"]),
    "two-names.safetensors": (
        tensors(
            b'{"a": {"dtype":"F32","shape":[0,4],"data_offsets":[0,0]}, '
            b'"a": {"dtype":"F32","shape":[0,4],"data_offsets":[0,0]}}'
        ),
        3,
        ["two tensors are called 'a'"],
    ),
    "dtype.safetensors": (tensors({"embeddings": tensor("F4")}, DATA), 4, ["unknown dtype 'F4'"]),
    "member.safetensors": (
        tensors({"embeddings": tensor() | {"strides": []}}, DATA),
        3,
        ["unknown member 'strides'"],
    ),
    "lacks.safetensors": (tensors({"embeddings": {"dtype": "F32", "shape": [1]}}), 3, ["lacks data_offsets"]),
    "negative.safetensors": (tensors({"embeddings": tensor(shape=(-2, 3, 4))}, DATA), 3, ["whole number"]),
    "fraction.safetensors": (tensors({"embeddings": tensor(shape=(2.0, 3, 4))}, DATA), 3, ["whole number"]),
    "shape-2^64.safetensors": (
        tensors({"embeddings": tensor(shape=(2**33, 2**33, 4))}, DATA),
        3,
        ["does not fit into 2^63"],
    ),
    "shape-over.safetensors": (
        tensors({"embeddings": tensor(shape=(2**64, 3, 4))}, DATA),
        3,
        ["whole number from 0 to 2^63"],
    ),
    "range.safetensors": (
        tensors({"embeddings": tensor(offsets=(0, 95))}, DATA),
        3,
        ["96 bytes", "bytes 0 to 95"],
    ),
    "reversed.safetensors": (tensors({"embeddings": tensor(offsets=(96, 0))}, DATA), 3, ["bytes 96 to 0"]),
    "gap.safetensors": (
        tensors({"embeddings": tensor(offsets=(4, 100))}, DATA + b"1234"),
        3,
        ["begins at byte 4", "ends at 0"],
    ),
    "overlap.safetensors": (
        tensors({"embeddings": tensor(), "x": tensor(offsets=(48, 144))}, DATA * 2),
        3,
        ["begins at byte 48", "ends at 96"],
    ),
    "tail.safetensors": (tensors({"embeddings": tensor()}, DATA + b"1"), 3, ["fill 96 bytes", "holds 97"]),
    "short.safetensors": (tensors({"embeddings": tensor()}, DATA[:-1]), 3, ["ends at byte 96", "holds 95"]),
    "none.safetensors": (tensors({}), 4, ["holds no tensor"]),
    "rank9.safetensors": (tensors({"embeddings": tensor(shape=[1] * 9)}), 4, ["more than 8 dimensions"]),
    "mixed.safetensors": (
        save({"a": np.zeros((2, 4), np.float32), "b": np.zeros((2, 5), np.float32)}),
        4,
        ["tensor 'b' is 2 x 5", "tensor 'a' is 2 x 4"],
    ),
    "lens-sum.safetensors": (
        save({"embeddings": np.zeros((6, 4), np.float32), "lengths": np.array([3, 4])}),
        3,
        ["add up to 7", "6 token rows"],
    ),
    "lens-negative.safetensors": (
        save({"embeddings": np.zeros((6, 4), np.float32), "lengths": np.array([7, -1])}),
        3,
        ["entry 1 is negative"],
    ),
    "lens-overflow.safetensors": (
        save({"embeddings": np.zeros((6, 4), np.float32), "lengths": np.array([2**63 - 1] * 3)}),
        3,
        ["exceed 2^63"],
    ),
    "lens-u64.safetensors": (
        save({"embeddings": np.zeros((6, 4), np.float32), "lengths": np.array([2**64 - 1], np.uint64)}),
        3,
        ["beyond 2^63"],
    ),
    "lens-float.safetensors": (
        save({"embeddings": np.zeros((6, 4), np.float32), "lengths": np.array([6.0])}),
        4,
        ["array of integers"],
    ),
    "lens-room.safetensors": (
        save({"embeddings": np.zeros((2, 3, 4), np.float32), "lengths": np.array([1, 4])}),
        3,
        ["document 1 has length 4", "room for 3"],
    ),
    "lens-count.safetensors": (
        save({"embeddings": np.zeros((2, 3, 4), np.float32), "lengths": np.array([1])}),
        3,
        ["has 1 lengths", "2 sequences"],
    ),
    "offsets-down.safetensors": (
        save({"embeddings": np.zeros((6, 4), np.float32), "offsets": np.array([0, 4, 3, 6])}),
        3,
        ["decrease from 4 to 3"],
    ),
    "offsets-start.safetensors": (
        save({"embeddings": np.zeros((6, 4), np.float32), "offsets": np.array([1, 6])}),
        3,
        ["must begin with 0"],
    ),
    "offsets-short.safetensors": (
        save({"embeddings": np.zeros((6, 4), np.float32), "offsets": np.array([0, 5])}),
        3,
        ["add up to 5", "6 token rows"],
    ),
    "both.safetensors": (
        save(
            {
                "embeddings": np.zeros((6, 4), np.float32),
                "offsets": np.array([0, 6]),
                "lengths": np.array([6]),
            }
        ),
        4,
        ["both 'lengths' and 'offsets'"],
    ),
    "scale-nan.safetensors": (
        save({"embeddings": np.zeros((1, 2, 4), np.int8), "scales": np.array([1, np.nan], np.float32)}),
        3,
        ["'scales' holds nan at position 1"],
    ),
    "scale-count.safetensors": (
        save({"embeddings": np.zeros((1, 2, 4), np.int8), "scales": np.ones(3, np.float32)}),
        4,
        ["'scales' is 3 float32", "2 token vectors"],
    ),
    "mask-count.safetensors": (
        save({"embeddings": np.zeros((1, 2, 4), np.float32), "mask": np.ones(3, np.bool_)}),
        4,
        ["'mask' is 3 bool"],
    ),
    # JSON lines
    "cut.jsonl": (b'{"embedding": [[1, 2], [3, 4', 3, ["line 1, column"]),
    "bare-nan.jsonl": (b'{"embedding": [[1, NaN]]}', 3, ["line 1, column 20: a number is expected"]),
    "ragged.jsonl": (
        b'{"embedding": [[1, 2]]}\n{"embedding": [[1, 2], [3]]}',
        4,
        ["entry 2: token 1 has 1 numbers", "has 2"],
    ),
    "flat.jsonl": (b'{"embedding": [1, 2]}', 3, ["an array [ ] is expected"]),
    "no-embedding.jsonl": (b'{"id": "a", "text": "b"}', 4, ['entry 1 has no member "embedding"']),
    "no-token.jsonl": (b'{"embedding": []}', 4, ["none of its 1 entries has a token"]),
    "same-id.jsonl": (
        b'{"id": "a", "embedding": [[1]]}\n{"id": "a", "embedding": [[1]]}',
        3,
        ["entries 1 and 2 both have the id 'a'"],
    ),
    "some-ids.jsonl": (b'{"id": "a", "embedding": [[1]]}\n{"embedding": [[1]]}', 3, ["line 2 has no id"]),
    "tab-id.jsonl": (b'{"id": "a\\tb", "embedding": [[1]]}', 3, ["the id holds a control character"]),
    "twice.jsonl": (b'{"embedding": [[1]], "embedding": [[1]]}', 3, ["is there twice"]),
    "large.jsonl": (b'{"embedding": [[1e39]]}', 3, ["does not fit float32"]),
    "surrogate.jsonl": (b'{"id": "\\ud800", "embedding": [[1]]}', 3, ["half of a surrogate pair"]),
    "nul.jsonl": (b'{"text": "\\u0000", "embedding": [[1]]}', 3, ["NUL"]),
    "zero.jsonl": (b'{"embedding": [[01]]}', 3, ["leading zero"]),
    "array.jsonl": (b'[{"embedding": [[1]]}]', 3, ["neither .npy, .npz, .safetensors nor JSON lines"]),
    "behind.jsonl": (b'{"embedding": [[1]]} x', 3, ["something follows"]),
    # others
    "arrays.npz": (b"PK\x03\x04" + bytes(50), 4, ["a zip file"]),
    "table.parquet": (b"PAR1" + bytes(50), 4, ["a Parquet file"]),
    "pickle.pkl": (b"\x80\x04N.", 4, ["pickle"]),
    "noise.bin": (b"\x07\x06\x05", 3, ["begins with byte 0x07"]),
}


def test_there_are_enough():
    assert len(BAD) >= 80


@pytest.mark.parametrize("name", BAD)
def test_bad_file(tmp_path, name):
    data, code, parts = BAD[name]
    (tmp_path / name).write_bytes(data)
    np.save(tmp_path / "good.npy", np.ones((2, 3, 4), np.float32))
    output = tmp_path / "out.npy"
    err = fails(code, name, *parts, args=("score", tmp_path / "good.npy", tmp_path / name, "-o", output))
    assert len(err) < 2000 and not output.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["good.npy", name])  # nothing was left behind
    run("score", tmp_path / name, tmp_path / "good.npy", code=code)  # as queries alike
    out, _ = run("info", tmp_path / name, code=code)
    assert code == 4 or out == ""


def test_truncated_at_every_byte(tmp_path, rng):
    np.save(tmp_path / "q.npy", unit(rng, 1, 2, 4))
    whole = {
        "a.npy": npy(head()),
        "b.npy": npy(head(), version=(2, 0)),
        "c.safetensors": save(
            {
                "embeddings": np.ones((4, 4), np.float32),
                "lengths": np.array([1, 3]),
                "scales": np.ones(4, np.float32),
            }
        ),
    }
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
        run("info", tmp_path / name)
        for size in range(len(data)):
            (tmp_path / name).write_bytes(data[:size])
            fails(3, name, args=("info", tmp_path / name))
    line = json.dumps(
        {"id": "a", "embedding": [[1.5, -2e3]], "text": "\u00e4", "tokens": ["a\\\u00e4"]}
    ).encode()
    for size in range(1, len(line)):
        (tmp_path / "x.jsonl").write_bytes(line[:size])
        fails(3, "x.jsonl, line 1", args=("info", tmp_path / "x.jsonl"))


def test_every_byte_changed(tmp_path):
    """A file with one byte changed is read or refused, never more than that."""
    import subprocess

    data = save(
        {
            "embeddings": np.ones((4, 4), np.float32),
            "lengths": np.array([1, 3]),
            "scales": np.ones(4, np.float32),
        }
    )
    for at in range(0, len(data) - 96, 3):
        changed = bytearray(data)
        changed[at] ^= 0x11
        (tmp_path / "x").write_bytes(changed)
        done = subprocess.run(
            [LIK, "info", "--check", str(tmp_path / "x")], capture_output=True, env=environment()
        )
        assert done.returncode in (0, 3, 4), (at, done)


def test_dimensions_differ(tmp_path, rng):
    np.save(tmp_path / "q.npy", unit(rng, 1, 2, 96))
    np.save(tmp_path / "d.npy", unit(rng, 1, 2, 128))
    fails(
        4,
        "queries have 96 dimensions",
        "q.npy",
        "documents have 128",
        "d.npy",
        args=("score", tmp_path / "q.npy", tmp_path / "d.npy"),
    )


def test_companion_files(small):
    q, d, folder = small
    base = ("score", folder / "q.npy", folder / "d.npy")
    (folder / "ids").write_text("a\nb\n")
    fails(4, "has 2 ids", "20 sequences", args=(*base, "--ids", folder / "ids"))
    (folder / "ids").write_text("a\n" * 20)
    fails(3, "ids 0 and 1 are both 'a'", args=(*base, "--ids", folder / "ids"))
    (folder / "ids").write_text("a\n\nb\n")
    fails(3, "id 1 is empty", args=(*base, "--ids", folder / "ids"))
    (folder / "ids").write_bytes(b"\x1b[31m\n")
    fails(3, "control character", args=(*base, "--ids", folder / "ids"))
    (folder / "t.jsonl").write_text('{"text": "x"}\n')
    fails(4, "has 1 entries", "20 sequences", args=(*base, "--text", folder / "t.jsonl"))
    (folder / "t.jsonl").write_text('{"text": 5}\n')
    fails(3, "line 1, column 10: a string is expected", args=(*base, "--text", folder / "t.jsonl"))
    (folder / "l").write_text("5 x")
    fails(3, "byte 2", args=(*base, "--lens", folder / "l"))
    (folder / "l").write_text("[5, 5")
    fails(3, "ends in the middle", args=(*base, "--lens", folder / "l"))
    np.save(folder / "d_len.npy", np.full(20, 9))
    np.save(folder / "d.doclens.npy", np.full(20, 9))
    fails(3, "both", "--lens", args=base)
    (folder / "d_len.npy").unlink()
    np.save(folder / "d.doclens.npy", np.full(20, 10))
    fails(3, "d.doclens.npy", "length 10", "room for 9", args=base)
    fails(
        3,
        "missing.npy",
        "cannot open",
        "No such file",
        args=("score", folder / "q.npy", folder / "missing.npy"),
    )
    fails(3, "is a directory", args=("score", folder / "q.npy", folder))
    fails(4, "no tensor 'x'", args=("score", folder / "q.npy", folder / "q.npy", "--key", "x"))


@pytest.mark.parametrize(
    "line,parts",
    [
        ("q Q0 d 1 2.0", ["line 2 has 5 fields, 6 are needed"]),
        ("q Q0 d 1 x t", ["'x' is not a number"]),
        ("q Q0 d 1 nan t", ["'nan' is not a number"]),
        ("q Q0 d 1 2 t more", ["more than 6 fields"]),
        ("a Q0 b 1 2 t", ["lines 1 and 2 both name document 'b' for query 'a'"]),
    ],
)
def test_bad_runs(tmp_path, line, parts):
    (tmp_path / "run").write_text("a Q0 b 1 1.0 t\n" + line + "\n")
    (tmp_path / "qrels").write_text("a 0 b 1\n")
    fails(3, "run", *parts, args=("eval", tmp_path / "run", tmp_path / "qrels"))


def test_bad_judgments(tmp_path):
    (tmp_path / "run").write_text("a Q0 b 1 1.0 t\n")
    (tmp_path / "qrels").write_text("a 0 b x\n")
    fails(3, "qrels, line 1: the grade 'x'", args=("eval", tmp_path / "run", tmp_path / "qrels"))
    (tmp_path / "qrels").write_text("other 0 b 1\n")
    fails(4, "no query of", args=("eval", tmp_path / "run", tmp_path / "qrels"))


@pytest.mark.parametrize("kind", ["<f4", "<f2"])
def test_nan(tmp_path, rng, kind):
    q, d = unit(rng, 3, 5, 16).astype(kind), unit(rng, 50, 9, 16).astype(kind)
    np.save(tmp_path / "q.npy", q)
    good = run("score", tmp_path / "q.npy", tmp_path / "q.npy")[0]
    d[17, 4, 3] = d[17, 8, 0] = d[40, 0, 15] = np.nan
    np.save(tmp_path / "d.npy", d)
    base = ("score", tmp_path / "q.npy", tmp_path / "d.npy")
    for more in ((), ("--all",), ("-k", 2), ("--all", "-o", tmp_path / "s.npy")):
        fails(
            3,
            "NaN in",
            "d.npy, document 17, token 4 (3 rows in 2 documents)",
            "--skip-bad",
            args=(*base, *more),
        )
    assert not (tmp_path / "s.npy").exists()
    (tmp_path / "pairs").write_text("0 40\n")
    fails(3, "NaN in", "document 17", args=(*base, "--pairs", tmp_path / "pairs"))
    (tmp_path / "pairs").write_text("0 4\n")
    run(*base, "--pairs", tmp_path / "pairs")  # not concerned
    fails(3, "NaN in", "d.npy, query 17", args=("score", tmp_path / "d.npy", tmp_path / "q.npy"))
    _, err = run(*base, "--all", "--skip-bad", "-o", tmp_path / "s.npy")
    assert "3 tokens of 2 documents are dropped" in err
    clean = [x[~np.isnan(x).any(axis=1)].astype(np.float64) for x in d]
    from conftest import maxsim

    assert np.abs(np.load(tmp_path / "s.npy") - maxsim(q, clean)).max() < 1e-4
    out, _ = run("info", tmp_path / "d.npy", "--check", code=3)
    assert "NaN        3 rows, the first in sequence 17, token 4" in out
    assert good


def test_infinities(tmp_path, rng):
    q, d = unit(rng, 1, 2, 8), unit(rng, 4, 3, 8)
    q[0, 0] = np.abs(q[0, 0])
    q[0, 1] = np.abs(q[0, 1])
    d[2, 1, 0] = np.inf
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    out, err = run("score", tmp_path / "q.npy", tmp_path / "d.npy", "--json")
    hit = json.loads(out)["hits"][0]
    assert hit["id"] == "2" and hit["score"] is None  # +inf, which JSON does not have
    assert "1 scores are not finite" in err
    assert "infinite   1 rows" in run("info", tmp_path / "d.npy", "--check")[0]
