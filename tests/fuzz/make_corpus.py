"""Writes the seed corpus of fuzz_io: one file a format, element type and layout.

python3 make_corpus.py CORPUS_DIR
"""

import io
import json
import pathlib
import struct
import sys

import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "|u1", "F8_E5M2": "|u1", "I8": "|i1"}


def npy(array, version=(1, 0)):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version)
    return out.getvalue()


def safetensors(tensors):
    """{name: (dtype, array)} as a file; written by hand because NumPy lacks some of the types."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
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
            safetensors({"vectors": (name, x.reshape(2, 3, 4)), "mask": ("BOOL", np.array([1, 0] * 3, "|u1"))}),
        )
        add(f"st-each-{name}", safetensors({"a": (name, x[:2]), "b": (name, x[2:])}))
    add(
        "st-offsets",
        safetensors({"tokens": ("F32", np.ones((6, 4), "<f4")), "offsets": ("I32", np.array([0, 1, 6], "<i4"))}),
    )
    add("st-key", safetensors({"a": ("F16", np.ones((1, 2, 4), "<f2")), "b": ("I64", np.array([1]))}), 4)
    add(
        "jsonl",
        b'{"id": "q1", "embedding": [[1, -0.5e-3], [2.25, 1e10]], "weights": [1, 0.5], '
        b'"text": "a\\n\\"b\\"", "tokens": ["a", "b"]}\n'
        b'{"id": 7, "embedding": [], "weights": [], "more": {"x": [true, false, null, 1E+2]}}\n',
    )
    for name, data in seeds.items():
        (folder / name).write_bytes(data)
    print(f"{len(seeds)} seeds in {folder}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
