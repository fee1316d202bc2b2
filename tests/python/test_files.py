"""Documents in files: every storage written and mapped again, and what the command makes of
them.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from late_interaction_kernels import _command, load, pack, retrieve, save
from late_interaction_kernels.files import Saved
from late_interaction_kernels.fp8 import maxsim_inference_fp8, quantize_fp8_per_tensor, quantize_fp8_per_token
from late_interaction_kernels.int8 import quantize_int8_per_token
from late_interaction_kernels.plaid import Codec, CompressedTokens, encode, train_codec

DOCUMENTS = [torch.nn.functional.normalize(torch.randn(n, 32), dim=-1) for n in (7, 0, 12, 3)]
Q = torch.nn.functional.normalize(torch.randn(2, 4, 32), dim=-1)
TOKENS, OFFSETS = pack(DOCUMENTS)
MADE = {"torch": lambda x: x, "numpy": lambda x: x.numpy()}


def trained():
    return train_codec(torch.nn.functional.normalize(torch.randn(400, 32), dim=-1), n_centroids=16)


def best(saved, k=3, **about):
    q = Q if isinstance(getattr(saved.tokens, "codes", saved.tokens), torch.Tensor) else Q.numpy()
    return [np.asarray(x) for x in retrieve(q, top_k=k, **{**saved.documents(), **about})]


def same(a, b):
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("framework", ["torch", "numpy"])
@pytest.mark.parametrize("kind", ["list", "packed", "padded", "float16", "float64"])
def test_dense(tmp_path, framework, kind):
    made, path = MADE[framework], tmp_path / "x.safetensors"
    want = retrieve(Q, TOKENS, 3, cu_seqlens_d=OFFSETS)
    if kind == "list":
        save(
            path,
            [made(x) for x in DOCUMENTS],
            ids=["a", "b", "c", "d"],
            texts=["one", "two", "three", "vier\n"],
        )
    elif kind == "padded":
        padded = torch.nn.utils.rnn.pad_sequence(DOCUMENTS, batch_first=True)
        mask = torch.arange(12) < (OFFSETS[1:] - OFFSETS[:-1])[:, None]
        save(path, made(padded), mask=made(mask))
    else:
        tokens = TOKENS if kind == "packed" else TOKENS.to(getattr(torch, kind))
        save(path, made(tokens), offsets=made(OFFSETS))
        want = retrieve(Q, tokens, 3, cu_seqlens_d=OFFSETS)
    for other in ("torch", "numpy"):
        saved = load(path, other)
        assert isinstance(saved, Saved) and same(best(saved), want)
        if kind == "list":
            assert saved.ids == ["a", "b", "c", "d"] and saved.texts[3]["text"] == "vier\n"
    assert not [x for x in os.listdir(tmp_path) if x != "x.safetensors"]


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_int8_and_bfloat16(tmp_path, framework):
    path, made = tmp_path / "x.safetensors", MADE[framework]
    pair = quantize_int8_per_token(made(TOKENS))
    save(path, pair, offsets=made(OFFSETS))
    want = retrieve(Q, quantize_int8_per_token(TOKENS), 3, storage="int8", cu_seqlens_d=OFFSETS)
    assert same(best(load(path)), want) and same(best(load(path, "torch")), want)
    half = TOKENS.bfloat16()
    save(
        path,
        half if framework == "torch" else half.view(torch.int16).numpy().view(ml_dtypes.bfloat16),
        offsets=made(OFFSETS),
    )
    want = retrieve(Q, half, 3, cu_seqlens_d=OFFSETS)
    assert same(best(load(path)), want) and same(best(load(path, "torch")), want)


@pytest.mark.parametrize("quantize", [quantize_fp8_per_token, quantize_fp8_per_tensor])
def test_fp8(tmp_path, quantize):
    path = tmp_path / "x.safetensors"
    D = torch.randn(3, 5, 32)
    values, scale = quantize(D)
    save(path, (values, scale))
    q8, sq = quantize_fp8_per_token(Q)
    want = maxsim_inference_fp8(q8, values, scale_Q=sq, scale_D=scale)
    assert torch.equal(maxsim_inference_fp8(q8, scale_Q=sq, **load(path, "torch").documents()), want)
    found = load(path)
    assert found.tokens.dtype == ml_dtypes.float8_e4m3fn and found.tokens.shape == (3, 5, 32)


def test_arguments_of_what_is_saved_otherwise(tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, quantize_fp8_per_token(TOKENS), offsets=OFFSETS)
    with pytest.raises(ValueError, match="packed fp8"):  # they are no one document
        load(path).documents()
    save(path, TOKENS, offsets=OFFSETS, scale=torch.tensor([2.0]))
    with pytest.raises(ValueError, match="scale is of float32 tokens"):
        load(path).documents()
    values = (TOKENS * 127).round().to(torch.int8)
    save(path, values, offsets=OFFSETS, scale=torch.tensor(0.5))
    want = retrieve(Q, (values, torch.full((22,), 0.5)), 3, storage="int8", cu_seqlens_d=OFFSETS)
    assert same(best(load(path)), want) and same(best(load(path, "torch")), want)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("norms", [None, "float16"])
def test_compressed(tmp_path, packed, norms):
    path = tmp_path / "x.safetensors"
    codec = trained()
    tokens = TOKENS if packed else torch.nn.utils.rnn.pad_sequence(DOCUMENTS, batch_first=True)
    found = encode(tokens, codec, **({"inv_norms_dtype": norms} if norms else {}))
    codes, residuals, inv_norms = found if norms else (*found, None) if len(found) == 2 else found
    lengths = OFFSETS[1:] - OFFSETS[:-1]
    about = {"cu_seqlens_d": OFFSETS} if packed else {"doc_lengths": lengths}
    D = CompressedTokens(codes, residuals, codec, inv_norms=inv_norms, **about)
    save(path, D, ids=list("wxyz"))
    want = retrieve(Q, D, 3)
    for framework in ("torch", "numpy"):
        saved = load(path, framework)
        assert saved.normalize and saved.ids == list("wxyz") and same(best(saved), want)


def test_what_is_loaded_is_mapped(tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, [torch.ones(3, 4)])
    saved = load(path)
    with pytest.raises(ValueError, match="read-only"):
        saved.tokens[0, 0] = 2
    tensor = load(path, "torch").tokens
    tensor[0, 0] = 2  # in memory alone
    assert saved.tokens[0, 0] == 1 and load(path, "torch").tokens[0, 0] == 1


def test_files_of_the_demo_and_of_others(tmp_path):
    demo = Path(__file__).parents[2] / "demo"
    saved = load(demo / "documents.safetensors")
    queries = load(demo / "queries.safetensors")
    assert len(saved.offsets) == 401 and queries.weights is not None
    path = tmp_path / "x.safetensors"
    header = json.dumps({"embeddings": {"dtype": "F32", "shape": [1, 1, 2], "data_offsets": [0, 8]}}).encode()
    odd = header + b" " * (3 - len(header) % 4)  # the data begin where no float may lie
    path.write_bytes(len(odd).to_bytes(8, "little") + odd + np.array([1, 2], "<f4").tobytes())
    for framework in ("numpy", "torch"):
        assert load(path, framework).tokens.tolist() == [[[1, 2]]]


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda p: save(p, TOKENS), r"documents must have shape \[N, L, d\], got \(22, 32\)"),
        (lambda p: save(p, TOKENS, offsets=OFFSETS[:-1]), "offsets must go from 0 to 22, .* got 0 to 19"),
        (lambda p: save(p, DOCUMENTS, ids=["a"]), "ids has 1 entries, there are 4 sequences"),
        (lambda p: save(p, DOCUMENTS, ids=["a", "x", "b", "x"]), r"ids\[1\] and ids\[3\] are both 'x'"),
        (lambda p: save(p, DOCUMENTS, ids="abcd"), "ids must be a list .* 4 sequences, got one str"),
        (lambda p: save(p, DOCUMENTS, texts=5), "texts must be a list .* 4 sequences, got one int"),
        (
            lambda p: save(p, DOCUMENTS, token_texts=["abc"] * 4),
            r"token_texts\[0\] must be a list of 7 texts, one a token, got one str",
        ),
        (lambda p: save(p, None), "documents must be a list, an array, a pair .*, got None"),
        (lambda p: save(3, DOCUMENTS), "path must be a str, bytes or os.PathLike, got int"),
        (lambda p: save(p, DOCUMENTS, token_texts=[["a"]] * 4), r"token_texts\[0\] has 1 tokens, .* has 7"),
        (lambda p: save(p, torch.ones(1, 2, 3, dtype=torch.int8)), "scale is needed"),
        (lambda p: save(p, torch.ones(1, 2, 3, dtype=torch.int64)), "documents has dtype int64"),
        (lambda p: save(p, DOCUMENTS, scale=torch.ones(3)), r"scale must have shape \(22,\)"),
        (
            lambda p: save(p, DOCUMENTS, ids=["a", "b\n", "c", "d"]),
            r"ids\[1\] is 'b\\n', must be 1 to 1000 bytes",
        ),
        (lambda p: save(p, DOCUMENTS, ids=["a", "b", "", "d"]), r"ids\[2\] is '', must be"),
        (
            lambda p: save(p, DOCUMENTS, texts=["a", "b", "c\0", "d"]),
            "must not hold NUL, those of sequence 2",
        ),
        (lambda p: save(p, CompressedTokens(OFFSETS, None, Codec(TOKENS, None, 0))), "cutoffs"),
    ],
)
def test_save_refuses_and_writes_nothing(tmp_path, call, match):
    with pytest.raises((ValueError, TypeError, AttributeError), match=match):
        call(tmp_path / "x.safetensors")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "is no .safetensors file"),
        (b"\x10\0\0\0\0\0\0\0not json, at all", "not JSON"),
        (b"\x02\0\0\0\0\0\0\0{}", "has no tensor embeddings"),
    ],
)
def test_load_refuses(tmp_path, content, match):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        load(path)
    with pytest.raises(ValueError, match='"numpy" or "torch"'):
        load(path, "jax")
    save(path, [torch.ones(3, 4)])
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="cut short"):
        load(path)


def file_of(path, tensors, metadata=None):
    """A .safetensors file of (dtype, shape, bytes), written by hand."""
    header, at = {"__metadata__": metadata}, 0
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(content for *_, content in tensors.values())
    )


VECTORS = ("F32", [3, 4, 2], bytes(96))
PACKED = ("F32", [12, 2], bytes(96))


def numbers(*values):
    return "I64", [len(values)], np.array(values).tobytes()


@pytest.mark.parametrize(
    "tensors, match",
    [
        ({"embeddings": ("F32", [24], bytes(96))}, r"has vectors \(24,\)"),
        ({"embeddings": ("F32", [1, 3, 4, 2], bytes(96))}, r"has vectors \(1, 3, 4, 2\)"),
        ({"embeddings": ("F32", [True, 3, 8], bytes(96))}, "no dtype, shape"),
        ({"embeddings": ("F32", [1.0, 3, 8], bytes(96))}, "no dtype, shape"),
        ({"embeddings": (["F32"], [1, 3, 8], bytes(96))}, "no dtype, shape"),
        (
            {"embeddings": VECTORS, "mask": ("BOOL", [4, 3], bytes(12))},
            r"'mask' is \(4, 3\), must be \(3, 4\)",
        ),
        ({"embeddings": VECTORS, "lengths": numbers(4, 5, 0)}, "3 lengths of 0 to 4"),
        ({"embeddings": VECTORS, "lengths": numbers(4, 4)}, "3 lengths of 0 to 4"),
        ({"embeddings": PACKED, "lengths": numbers(6, 7)}, "do not fit its 12 tokens"),
        ({"embeddings": PACKED, "lengths": numbers(9, -1)}, "do not fit its 12 tokens"),
        ({"embeddings": PACKED, "offsets": numbers(0, 13)}, "do not fit its 12 tokens"),
        ({"embeddings": PACKED, "lengths": numbers(12), "scales": ("F32", [11], bytes(44))}, "'scales' is"),
        ({"embeddings": VECTORS, "documents": ("U8", [3], b"[1]")}, "'documents' must hold JSON lines"),
        ({"embeddings": VECTORS, "documents": ("U8", [3], b"{a}")}, "'documents' must hold JSON lines"),
        ({"embeddings": VECTORS, "documents": ("U8", [1], b"\xff")}, "'documents' must hold JSON lines"),
    ],
)
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_load_refuses_what_does_not_fit(tmp_path, tensors, match, framework):
    path = tmp_path / "x.safetensors"
    file_of(path, tensors, {})
    with pytest.raises(ValueError, match=match):
        load(path, framework)


def test_load_refuses_metadata_that_is_none(tmp_path):
    path = tmp_path / "x.safetensors"
    file_of(path, {"embeddings": VECTORS})
    with pytest.raises(ValueError, match="not JSON"):
        load(path)
    tensors = {
        name: VECTORS for name in ("centroids", "bucket_weights", "bucket_cutoffs", "residuals", "codes")
    }
    file_of(path, tensors, {"format": "lik-compressed", "version": "1"})
    with pytest.raises(ValueError, match="compressed tokens of None bits"):
        load(path)
    path.write_bytes((100000).to_bytes(8, "little") + b"[" * 100000)
    with pytest.raises(ValueError, match="not JSON"):
        load(path)


def test_save_replaces_files_alone(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(ValueError, match="path must be a file's"):
            save(path, DOCUMENTS)
    assert os.listdir(tmp_path) == ["pipe"] and not pipe.is_file()
    save(os.fsencode(tmp_path / "x"), DOCUMENTS)
    assert len(load(os.fsencode(tmp_path / "x")).offsets) == 5


@pytest.mark.skipif(not os.path.exists(_command.PATH), reason="built without the command")
@pytest.mark.parametrize("storage", ["dense", "int8", "compressed"])
def test_the_command_reads_them(tmp_path, storage):
    path, queries = tmp_path / "d.safetensors", tmp_path / "q.safetensors"
    names = {"ids": list("abcd"), "texts": ["w x", "", "y", "z"]}
    if storage == "dense":
        save(path, DOCUMENTS, **names)
    elif storage == "int8":
        save(path, quantize_int8_per_token(TOKENS), offsets=OFFSETS, **names)
    else:
        codec = trained()
        save(path, CompressedTokens(*encode(TOKENS, codec)[:2], codec, cu_seqlens_d=OFFSETS), **names)
    save(queries, Q, ids=["p", "q"])
    said = subprocess.run(
        [_command.PATH, "score", queries, path, "-k", "3"], capture_output=True, text=True, check=True
    ).stdout
    scores, ids = best(load(path), normalize=storage == "compressed")
    want = [("pq"[i], "abcd"[ids[i, k]], k + 1, float(scores[i, k])) for i in range(2) for k in range(3)]
    for line, (q, d, rank, score) in zip(said.splitlines(), want, strict=True):
        fields = line.split("\t")
        assert fields[:3] == [q, d, str(rank)] and float(fields[3]) == pytest.approx(score, abs=2e-5)


def test_paths_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path is in a folder .*x\.safetensors"):
        save(tmp_path / "no" / "x.safetensors", DOCUMENTS)
    with pytest.raises(TypeError, match=r"path must be a str, .* got NoneType"):
        load(None)
