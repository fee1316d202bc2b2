"""The codec of compressed tokens: trained, encoding, decoding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from late_interaction_kernels import maxsim, plaid, reference
from test_compressed import BITS, ORDERS, numpied


def sample(n=3000, dim=24):
    return torch.nn.functional.normalize(
        torch.randn(n, dim) + 3 * torch.randn(40, dim)[torch.arange(n) % 40], dim=-1
    )


@pytest.mark.parametrize("nbits", [0, *BITS])
def test_a_codec(nbits):
    tokens = sample()
    codec = plaid.train_codec(tokens, nbits, n_centroids=64)
    assert codec.centroids.shape == (64, 24) and codec.nbits == nbits
    torch.testing.assert_close(codec.centroids.norm(dim=-1), torch.ones(64))
    again = plaid.train_codec(tokens.numpy(), nbits, n_centroids=64)
    assert np.array_equal(again.centroids, codec.centroids.numpy())
    other = plaid.train_codec(tokens, nbits, n_centroids=64, seed=1)
    assert not torch.equal(other.centroids, codec.centroids)
    shaped = plaid.train_codec(tokens.view(30, 100, 24), nbits, n_centroids=64)
    assert torch.equal(shaped.centroids, codec.centroids)
    if nbits == 0:
        assert codec.weights is None and codec.cutoffs is None
        return
    assert codec.weights.shape == (2**nbits,) and codec.cutoffs.shape == (2**nbits - 1,)
    both = torch.cat([codec.weights, codec.cutoffs]).sort().values
    assert torch.equal(both[::2], codec.weights) and torch.equal(both[1::2], codec.cutoffs)
    assert np.array_equal(again.weights, codec.weights.numpy())


def test_how_many_centroids():
    tokens = sample(2000, 8)
    assert plaid.train_codec(tokens, 2).centroids.shape == (512, 8)  # 16 sqrt(2000) = 715.5
    assert plaid.train_codec(tokens[:20], 2).centroids.shape == (10, 8)
    mask = torch.arange(2000) < 10
    assert plaid.train_codec(tokens, 2, mask=mask).centroids.shape == (5, 8)
    few = plaid.train_codec(tokens[:10], 2)
    assert torch.equal(plaid.train_codec(tokens, 2, mask=mask.int()).centroids, few.centroids)


def test_a_codec_of_any_number_of_threads(run):
    code = """
import numpy as np
from late_interaction_kernels import plaid
x = np.random.default_rng(0).standard_normal((20000, 32), "f4")
codec = plaid.train_codec(x, 4, n_centroids=256, normalize=True)
codes, residuals = plaid.encode(x, codec, normalize=True)
print(hash((codec.centroids.tobytes(), codec.weights.tobytes(), codes.tobytes(), residuals.tobytes())))
"""
    done = [run(code, LIK_THREADS=n, PYTHONHASHSEED="0") for n in ("1", "2", "7")]
    assert not done[0].returncode, done[0].stderr
    assert len({d.stdout for d in done}) == 1


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("nbits", BITS)
def test_encoding_against_float64(nbits, order, kind):
    tokens = sample(500)
    codec = plaid.train_codec(tokens, nbits, n_centroids=32, bit_order=order)
    given = (tokens, codec)
    if kind == "numpy":
        given = tokens.numpy(), plaid.Codec(*numpied(*codec))
    codes, residuals, norms = map(torch.as_tensor, plaid.encode(*given, inv_norms_dtype="float32"))
    products = tokens.double() @ codec.centroids.double().T
    assert codes.dtype == torch.int32 and residuals.dtype == torch.uint8
    assert ((products.amax(1) - products.gather(1, codes.long()[:, None])[:, 0]) < 1e-6).all()
    left = tokens - codec.centroids[codes.long()]
    buckets = torch.bucketize(left, codec.cutoffs)  # one that is equal to a cutoff goes below it
    found = reference.unpack_residuals_reference(residuals, nbits, 24, bit_order=order)
    assert torch.equal(found.long(), buckets)
    if order == "colbert":
        bits = (buckets[..., None] >> torch.arange(nbits) & 1).to(torch.uint8).numpy()
        assert np.array_equal(np.packbits(bits.reshape(500, -1), axis=1), residuals.numpy())
    decoded = plaid.decode(codes, residuals, codec)
    torch.testing.assert_close(norms, 1 / decoded.norm(dim=-1))
    unit = plaid.decode(codes, residuals, codec, normalize=True)
    torch.testing.assert_close(unit, torch.nn.functional.normalize(decoded, dim=-1))
    scores = plaid.maxsim_residual_varlen(
        tokens[None, :32],
        codes,
        residuals,
        torch.tensor([0, 500]),
        *codec[:3],
        bit_order=order,
        inv_norms=norms,
    )
    torch.testing.assert_close(scores, maxsim(tokens[None, :32], unit[None]), rtol=1e-5, atol=1e-5)


def test_more_bits_are_nearer():
    tokens, errors = sample(), []
    for nbits in (0, *BITS):
        codec = plaid.train_codec(tokens, nbits, n_centroids=64)
        errors.append(float((plaid.decode(*plaid.encode(tokens, codec), codec) - tokens).norm(dim=-1).mean()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 20


def test_forms_of_tokens():
    tokens = sample(600)
    codec = plaid.train_codec(tokens, 2, n_centroids=32)
    codes, residuals = plaid.encode(tokens, codec)
    shaped = plaid.encode(tokens.view(2, 3, 100, 24), codec)
    assert shaped[0].shape == (2, 3, 100) and shaped[1].shape == (2, 3, 100, 6)
    assert torch.equal(shaped[0].flatten(), codes) and torch.equal(shaped[1].flatten(0, 2), residuals)
    assert plaid.decode(*shaped, codec).shape == (2, 3, 100, 24)
    one = plaid.encode(tokens[0], codec)
    assert one[0].shape == () and one[1].shape == (6,) and plaid.decode(*one, codec).shape == (24,)
    none = plaid.encode(tokens[:0], codec)
    assert none[0].shape == (0,) and none[1].shape == (0, 6)
    assert torch.equal(plaid.encode(tokens.double(), codec)[1], residuals)
    assert torch.equal(plaid.encode(3 * tokens, codec, normalize=True)[0], codes)
    apart = torch.stack([tokens, tokens], -1)[..., 0]
    assert torch.equal(plaid.encode(apart, codec)[1], residuals)
    mask = torch.arange(600) % 3 > 0
    masked = plaid.encode(torch.where(mask[:, None], tokens, torch.nan), codec, mask=mask)
    assert torch.equal(masked[0], codes * mask) and torch.equal(masked[1], residuals * mask[:, None])
    for dtype in ("uint16", "int64"):
        typed = plaid.encode(tokens, codec, codes_dtype=dtype)[0]
        assert typed.dtype == getattr(torch, dtype) and torch.equal(typed.int(), codes)
        assert torch.equal(plaid.decode(typed, residuals, codec), plaid.decode(codes, residuals, codec))
    half = plaid.encode(tokens, codec, inv_norms_dtype="float16")[2]
    assert half.dtype == torch.float16
    grown = tokens.clone().requires_grad_()
    assert torch.equal(plaid.encode(grown, codec)[1], residuals)


def test_the_codec_refuses():
    tokens = sample(100)
    codec = plaid.train_codec(tokens, 2, n_centroids=8)
    codes, residuals = plaid.encode(tokens, codec)
    for call, match in [
        (lambda: plaid.train_codec(tokens, 3), "nbits must be 0, 1, 2, 4 or 8, got 3"),
        (lambda: plaid.train_codec(tokens, n_centroids=101), "n_centroids is 101, there are 100 tokens"),
        (lambda: plaid.train_codec(tokens, n_centroids=0), "n_centroids must be at least 1, got 0"),
        (lambda: plaid.train_codec(tokens[:0]), "tokens are none that count"),
        (lambda: plaid.train_codec(tokens, bit_order="big"), "bit_order must be"),
        (lambda: plaid.train_codec(tokens, precision="low"), r"precision must be .* got 'low'"),
        (lambda: plaid.train_codec(tokens, mask=torch.ones(99)), r"mask must have shape \(100,\)"),
        (lambda: plaid.train_codec(tokens, precision=["low"]), r"precision must be .* got \['low'\]"),
        (lambda: plaid.train_codec(tokens, seed=1 << 64), f"seed must be at most {(1 << 64) - 1}"),
        (lambda: plaid.train_codec(tokens, iterations=1 << 31), "iterations must be at most 2147483647"),
        (lambda: plaid.train_codec(tokens, points_per_centroid=1 << 63), "points_per_centroid must be at"),
        (lambda: plaid.train_codec(tokens[:, :0]), r"x.dim is 0, must be 1 to 65536"),
        (lambda: plaid.train_codec(tokens.long()), "tokens has dtype int64"),
        (lambda: plaid.train_codec([1.0]), "tokens must be a torch.Tensor"),
        (lambda: plaid.encode(tokens, codec._replace(cutoffs=None)), "codec.cutoffs is None"),
        (lambda: plaid.encode(tokens, codec._replace(cutoffs=codec.cutoffs[:2])), "codec.cutoffs must"),
        (lambda: plaid.encode(tokens, tuple(codec)), "codec must be a Codec, got tuple"),
        (lambda: plaid.encode(tokens[:, :20], codec), "tokens and codec.centroids must have the same dim"),
        (lambda: plaid.encode(tokens.numpy(), codec), "codec.centroids is of torch, but tokens is of numpy"),
        (lambda: plaid.encode(tokens, codec, codes_dtype="int8"), "codes_dtype must be"),
        (lambda: plaid.encode(tokens, codec, inv_norms_dtype="f4"), "inv_norms_dtype must be"),
        (lambda: plaid.encode(tokens, codec._replace(nbits=4)), "codec.weights must have shape"),
        (lambda: plaid.decode(codes + 8, residuals, codec), r"codes\[\d+\] is \d+, must be 0 to 7"),
        (lambda: plaid.decode(codes, residuals[:, :5], codec), "residuals must have 6 bytes a token"),
        (lambda: plaid.decode(codes, residuals[:99], codec), "residuals must have shape"),
        (lambda: plaid.decode(codes.float(), residuals, codec), "codes has dtype float32"),
        (lambda: plaid.decode(codes, residuals, None), "codec must be a Codec, got NoneType"),
        (
            lambda: plaid.decode(codes, residuals[:, :0], codec._replace(centroids=codec.centroids[:, :0])),
            "x.dim is 0",
        ),
        (lambda: plaid.decode(codes, residuals, codec, dtype="int8"), "dtype must be one of"),
    ]:  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=match):
            call()
    many = plaid.Codec(torch.zeros(1 << 17, 2), None, 0)
    with pytest.raises(ValueError, match=r'codes_dtype is "uint16", codec.centroids are 131072'):
        plaid.encode(torch.zeros(1, 2), many, codes_dtype="uint16")
    with pytest.raises(ValueError, match=r"tokens are traced, fake, wrapped by torch\.func or of a subclass"):
        torch.func.vmap(lambda x: plaid.encode(x, codec))(tokens.view(2, 50, 24))
    with pytest.raises(TypeError, match=r"tokens is a MaskedArray.*, and the tokens that count as mask$"):
        plaid.encode(np.ma.array(tokens.numpy()), codec)
    with pytest.raises(TypeError, match=r"codes is a MaskedArray.*: pass codes\.data$"):
        plaid.decode(np.ma.array(codes.numpy()), residuals.numpy(), codec)


def test_what_a_backend_does_not_do_is_said(monkeypatch):
    """The library's own words."""
    from late_interaction_kernels import _native

    def refuse(*arguments):
        raise NotImplementedError("cuda:0 does not train")

    monkeypatch.setattr(_native, "train", refuse)
    with pytest.raises(NotImplementedError, match="cuda:0 does not train"):
        plaid.train_codec(sample(100), 2)


def test_the_codecs_entries_are_safe_to_misuse():
    from late_interaction_kernels import _native
    from late_interaction_kernels._engine.problem import Problem, Tokens, fields

    rng = np.random.default_rng(0)
    x, centroids, weights = rng.random((5, 8), "f4"), rng.random((3, 8), "f4"), rng.random(4, "f4")
    codec = plaid.Codec(centroids, weights, 2)
    codes, residuals = np.zeros(5, "i4"), np.zeros((5, 2), "u1")

    def flat(**change):
        return fields(Problem(Tokens(None), Tokens(x, codec=codec)._replace(**change)))

    good = np.zeros(3, "f4"), codes, residuals, None
    _native.encode(*flat(), *good)
    coded = {"data": residuals, "codes": codes}
    _native.decode(*flat(**coded), np.zeros((5, 8), "f4"))
    bad = [
        (_native.encode, flat(), (np.zeros(2, "f4"), *good[1:])),
        (_native.encode, flat(), (None, *good[1:])),
        (_native.encode, flat(), (good[0], codes[:4], residuals, None)),
        (_native.encode, flat(), (good[0], codes.astype("f4"), residuals, None)),
        (_native.encode, flat(), (good[0], codes, residuals[:, :1], None)),
        (_native.encode, flat(), (good[0], codes, None, None)),
        (_native.encode, flat(), (*good[:3], np.zeros(5))),
        (_native.encode, flat(codec=None), good),
        (_native.encode, flat(codec=codec._replace(nbits=9)), good),
        (_native.encode, flat(codec=codec._replace(nbits=-1)), good),
        (_native.encode, flat(codec=codec._replace(centroids=centroids[:, ::2])), good),
        (_native.encode, flat(codec=codec._replace(centroids=centroids[::-1])), good),
        (_native.encode, flat(), good[:3]),
        (_native.decode, flat(**coded), (np.zeros((5, 7), "f4"),)),
        (_native.decode, flat(**coded), (np.zeros((5, 8)),)),
        (_native.decode, flat(**coded), (None,)),
        (_native.decode, flat(codes=codes, data=residuals[:4]), (np.zeros((5, 8), "f4"),)),
        (_native.decode, flat(codes=codes, data=residuals[:, :1]), (np.zeros((5, 8), "f4"),)),
        (_native.decode, flat(codes=codes, data=np.zeros((5, 4), "u1")[:, ::2]), (np.zeros((5, 8), "f4"),)),
        (_native.decode, flat(codes=codes, data=x), (np.zeros((5, 8), "f4"),)),
        (_native.decode, flat(codes=codes + 3, data=residuals), (np.zeros((5, 8), "f4"),)),
        (_native.decode, flat(codes=codes.astype("f4"), data=residuals), (np.zeros((5, 8), "f4"),)),
        (_native.decode, flat(codes=codes, data=residuals, codec=None), (np.zeros((5, 8), "f4"),)),
        (_native.train, flat(codec=None), (0, 0, 2, 0, np.zeros((2, 7), "f4"), np.zeros(3, "f4"), weights)),
        (_native.train, flat(codec=None), (0, 0, 2, 0, np.zeros((9, 8), "f4"), np.zeros(3, "f4"), weights)),
        (_native.train, flat(codec=None), (0, 0, 2, 0, np.zeros((2, 8), "f4"), np.zeros(3, "f4"), None)),
        (_native.train, flat(codec=None), (0, 0, 5, 0, centroids, np.zeros(31, "f4"), np.zeros(32, "f4"))),
        (_native.train, flat(codec=None), (0, 0, 2, 0, None, np.zeros(3, "f4"), weights)),
    ]  # fmt: skip
    for entry, problem, rest in bad:
        with pytest.raises((ValueError, TypeError, NotImplementedError)):
            entry(*problem, *rest)


@pytest.mark.parametrize("made", [lambda x: x, lambda x: x.numpy()])
def test_tokens_without_direction_take_no_part(made):
    """As the docstring has it: a few others are all there is, and without any all is 0."""
    some = torch.nn.functional.normalize(torch.randn(10, 8), dim=-1)
    lost = torch.cat([torch.zeros(45, 8), torch.full((45, 8), torch.nan)])
    codec = plaid.train_codec(made(torch.cat([lost, some])), 2, n_centroids=4)
    assert np.isfinite(np.asarray(codec.cutoffs)).all() and np.isfinite(np.asarray(codec.weights)).all()
    np.testing.assert_allclose(np.linalg.norm(np.asarray(codec.centroids), axis=1), 1, rtol=1e-5)
    few = np.asarray(plaid.train_codec(made(torch.cat([lost, some[:2]])), 2, n_centroids=4).centroids)
    assert all(np.abs(few @ some[:2].numpy().T).max(1) > 0.5)
    for nothing in (lost, torch.zeros(9, 8)):
        codec = plaid.train_codec(made(nothing), 2, n_centroids=4)
        assert not any(np.asarray(x).any() for x in (codec.centroids, codec.cutoffs, codec.weights))
