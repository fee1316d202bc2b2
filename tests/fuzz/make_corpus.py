"""Writes the seed corpus of each fuzz target into a folder of its name.

python3 make_corpus.py CORPUS_DIR
"""

import io
import json
import pathlib
import struct
import sys

import numpy as np

TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F8_E4M3": "|u1",
    "F8_E5M2": "|u1",
    "I8": "|i1",
}


def npy(array, version=(1, 0)):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version)
    return out.getvalue()


def safetensors(tensors, metadata=None):
    """{name: (dtype, array)} as a file; written by hand because NumPy lacks some of the
    types.
    """
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, array) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def compressed(bits, codes, order):
    """A file of compressed documents, with all that it may have."""
    documents = np.frombuffer(b'{"id":"a","text":"b c","tokens":["b","c"]}\n{"id":"d"}\n', "|u1")
    weights = np.linspace(-1, 1, 1 << bits, dtype="<f4")
    numbers = np.array([0, 1, 1]).astype({"U16": "<u2", "I32": "<i4", "I64": "<i8"}[codes])
    tensors = {
        "lengths": ("I64", np.array([2, 1])),
        "centroids": ("F16", np.ones((2, 9), "<f2")),
        "bucket_weights": ("F32", weights),
        "bucket_cutoffs": ("F32", weights[:-1]),
        "residuals": ("U8", np.arange(3 * ((9 * bits + 7) // 8), dtype="|u1").reshape(3, -1)),
        "codes": (codes, numbers),
        "inv_norms": ("F16", np.ones(3, "<f2")),
        "mask": ("BOOL", np.array([1, 0, 1], "|u1")),
        "documents": ("U8", documents),
    }
    told = {"format": "lik-compressed", "version": "1", "nbits": str(bits), "bit_order": order}
    return safetensors(tensors, told | {"dim": "9", "normalize": "true"})


def seeds_io():
    """One file a format, element type and layout."""
    rng = np.random.default_rng(0)
    seeds = {}

    def add(name, data, kind=0, beside=b""):
        beside += b" " * (-len(beside) % 8)
        seeds[name] = bytes([2 | kind << 2, len(beside) // 8]) + data + beside

    for descr in ("<f8", "<f4", "<f2", "|i1"):
        x = (rng.standard_normal((2, 3, 4)) * 20).astype(descr)
        add(f"npy-3d-{descr[1:]}", npy(x))
        add(f"npy-2d-{descr[1:]}", npy(x.reshape(6, 4)), 1, b"[1, 5]")
    add("npy-v2", npy(np.zeros((1, 2, 4), "<f4"), (2, 0)))
    add("npy-v3", npy(np.zeros((1, 2, 4), "<f4"), (3, 0)))
    for descr in ("|u1", "<i2", "<i4", "<i8", "<u8"):
        add(f"npy-lens-{descr[1:]}", npy(np.zeros((6, 2), "<f2")), 1, npy(np.array([2, 4]).astype(descr)))
    add("npy-ids", npy(np.zeros((2, 1, 2), "<f4")), 2, b"first\nsecond")
    add(
        "npy-texts",
        npy(np.zeros((2, 1, 2), "<f4")),
        3,
        b'{"id": "x", "text": "a b", "tokens": ["a"]}\n{"id": "y", "text": "\\u00e4\\ud83d\\ude00"}',
    )
    lengths, ones = ("I64", np.array([2, 0, 4])), ("F32", np.ones(6, "<f4"))
    for name, descr in TYPES.items():
        x = (rng.standard_normal((6, 4)) * 9).astype(descr)
        add(
            f"st-packed-{name}",
            safetensors({"embeddings": (name, x), "lengths": lengths, "scales": ones, "weights": ones}),
        )
        add(
            f"st-padded-{name}",
            safetensors(
                {"vectors": (name, x.reshape(2, 3, 4)), "mask": ("BOOL", np.array([1, 0] * 3, "|u1"))}
            ),
        )
        add(f"st-each-{name}", safetensors({"a": (name, x[:2]), "b": (name, x[2:])}))
    add(
        "st-offsets",
        safetensors(
            {"tokens": ("F32", np.ones((6, 4), "<f4")), "offsets": ("I32", np.array([0, 1, 6], "<i4"))}
        ),
    )
    x3 = np.ones((1, 3, 4), "<f4")
    for name, arrays in {
        "npz": {"embeddings": x3},
        "npz-lens": {"tokens": x3, "lengths": np.array([2])},
    }.items():
        archive = io.BytesIO()
        np.savez(archive, **arrays)
        add(name, archive.getvalue())
    add("st-key", safetensors({"a": ("F16", np.ones((1, 2, 4), "<f2")), "b": ("I64", np.array([1]))}), 4)
    for bits, codes, order in (
        (1, "U16", "colbert"),
        (2, "I32", "low-first"),
        (4, "I64", "colbert"),
        (8, "U16", "colbert"),
    ):
        add(f"st-compressed-{bits}", compressed(bits, codes, order))
        add(f"st-compressed-{bits}-ids", compressed(bits, codes, order), 2, b"a\nb")
    add(
        "jsonl",
        b'{"id": "q1", "embedding": [[1, -0.5e-3], [2.25, 1e10]], "weights": [1, 0.5], '
        b'"text": "a\\n\\"b\\"", "tokens": ["a", "b"]}\n'
        b'{"id": 7, "embedding": [], "weights": [], "more": {"x": [true, false, null, 1E+2]}}\n',
    )
    return seeds


RUN = b"q1 Q0 d1 1 2.5 t\nq1 Q0 d2 2 1e-3 t\nq2 Q0 #17 1 -.5 t\r\n"
JUDGMENTS = b"q1 0 d1 2\nq1 0 d3 -1\nq2 0 #17 1\n"


def seeds_trec():
    """Runs with judgments, pairs, ids, lengths; see the target for the two bytes in front."""
    seeds = {}

    def add(name, how, first, second=b""):
        second += b"\n" * (-len(second) % 4)
        seeds[name] = bytes([how, len(second) // 4]) + first + second

    add("run", 0, RUN, JUDGMENTS)
    add("run-complete", 8, b"\xef\xbb\xbf" + RUN, b"\xef\xbb\xbf" + JUDGMENTS)
    for i, score in enumerate(("inf", "-Infinity", "0x1p3", "1e400", "nan", "+1.", "0" * 70 + "1")):
        add(f"run-score-{i}", 0, f"q1 Q0 d1 1 {score} t\n".encode(), JUDGMENTS)
    add("run-texts", 0, "q\u00e4 Q0 \u202ed\u200b 1 1 t\n".encode(), "q\u00e4 0 \u202ed\u200b 1\n".encode())
    for i, kind in enumerate(
        (b"\x1f\x8b\x08", b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\3\4", b"\xff\xfe")
    ):
        add(f"kind-{i}", i, kind + RUN)
    add("pairs", 2, b"q1 d1\nq1\td1\n\n#2 d4\n")
    add("ids", 3, b"a\r\nb\n#0\n\xef\xbb\xbfc")
    add(
        "ids-json",
        3,
        b'{"id": "a", "_id": {}}\n{"_id": 12}\n{"id": -340282366920938463463374607431768211456}',
    )
    add("ids-npy", 3, npy(np.arange(3)) + b"\n\n")
    add("lengths", 4 | 5 << 3, b"3 0\n2")
    add("lengths-json", 4 | 5 << 3, b"\xef\xbb\xbf[3, 0, 2]")
    add("lengths-npy", 4 | 5 << 3, npy(np.array([3, 2])))
    return seeds


def seeds_options():
    """Every option once, in both forms, and what may go wrong."""
    flags = (
        "all normalize no-weights complete per-query check quick skip-bad skip-missing json trec table "
        "fail-empty inv-norms"
    )
    values = (
        "top pairs query document compare cmap measures rounds data output ids text lens key device threads "
        "color nbits centroids iterations seed"
    )
    commands = "score rerank explain compress eval info bench demo help frob".split()
    seeds = {}
    for i, option in enumerate([*flags.split(), "quiet", "verbose", "help", "version", "build-info"]):
        seeds[f"flag-{option}"] = f"{commands[i % 8]}\n--{option}\na\nb\nc".encode()
    for i, option in enumerate(values.split()):
        for j, value in enumerate(("=7", "\n7", "=0x7", "= 7", "=99999999999999999999")):
            seeds[f"value-{option}-{j}"] = f"{commands[(i + j) % 8]}\na\n--{option}{value}\nb\nc".encode()
    for command in commands:
        seeds[f"command-{command}"] = f"{command}\na\n-k3\n-q\n#1\n--\n-o".encode()
    seeds["measures"] = b"eval\nrun\nqrels\n-m\nndcg@10,mrr@10,recall,map@3\n-v"
    seeds["numbers"] = b"score\n007\n+5\n-0\n1e400\n.5\n-inf\nInfinity\n9223372036854775808"
    return seeds


def main(folder):
    for target, seeds in (("io", seeds_io()), ("trec", seeds_trec()), ("options", seeds_options())):
        place = folder / f"fuzz_{target}"
        place.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (place / name).write_bytes(data)
        print(f"{len(seeds)} seeds in {place}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
