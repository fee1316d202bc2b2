"""Compressed tokens: scores, the k best, the codec."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from late_interaction_kernels import maxsim, plaid, reference, retrieve
from late_interaction_kernels._engine import torch_arrays, torch_ops
from late_interaction_kernels.topk import maxsim_topk

ORDERS = ["low-first", "colbert"]
BITS = [1, 2, 4, 8]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def numpied(*arrays):
    return [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in arrays]


def compressed(nbits, dim=24):
    codes, lengths = torch.randint(0, 10, (5, 7)), torch.tensor([7, 3, 0, 5, 1])
    residuals = torch.randint(0, 256, (5, 7, (dim * nbits + 7) // 8), dtype=torch.uint8)
    return codes, residuals, lengths, torch.randn(10, dim), torch.randn(2**nbits) * 0.3


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("normalize", [True, False])
def test_residual(nbits, order, normalize):
    codes, residuals, lengths, centroids, weights = compressed(nbits)
    q = torch.randn(3, 4, 24, requires_grad=True)
    w = torch.rand(3, 4, requires_grad=True)
    args = (codes, residuals, lengths, centroids, weights, nbits)
    kwargs = {"normalize": normalize, "bit_order": order}
    got = plaid.maxsim_residual(q, *args, q_weights=w, **kwargs)
    want = reference.maxsim_residual_reference(q, *args, q_weights=w, **kwargs)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    g = torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, [q, w], g), torch.autograd.grad(want, [q, w], g), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    plain = plaid.maxsim_residual(q.detach(), *args, q_weights=w.detach(), **kwargs)
    assert torch.equal(plain, got)
    assert np.array_equal(
        plaid.maxsim_residual(*numpied(q, *args), q_weights=w.detach().numpy(), **kwargs), plain.numpy()
    )
    assert plaid.maxsim_residual(q[0].detach(), *args, **kwargs).shape == (5,)

    kept = torch.arange(7) < lengths[:, None]
    cu = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    flat = plaid.maxsim_residual_varlen(
        q, codes[kept], residuals[kept], cu, centroids, weights, nbits, q_weights=w, **kwargs
    )
    assert torch.equal(flat, got)
    assert torch.autograd.grad(flat.sum(), q)[0].shape == q.shape  # the existing package dropped it silently
    argmax = plaid.maxsim_residual(q.detach(), *args, return_argmax=True, **kwargs)[1]
    assert (
        argmax.shape == (3, 5, 4)
        and bool((argmax[:, 2] == -1).all())
        and bool((argmax < lengths[:, None]).all())
    )


def test_bytes_of_real_indexes():
    """ColBERT's golden bytes: buckets 0, 1, 2, ... mod 2^nbits."""
    golden = {
        1: [85] * 8,
        2: [39] * 8,
        4: [8, 76, 42, 110, 25, 93, 59, 127],
        8: [0, 128, 64, 192, 32, 160, 96, 224],
    }
    for nbits, first in golden.items():
        dim = 8 * 8 // nbits
        buckets = torch.arange(dim) % 2**nbits
        packed = torch.tensor([first], dtype=torch.uint8)
        assert torch.equal(
            reference.unpack_residuals_reference(packed, nbits, dim, bit_order="colbert")[0].long(), buckets
        )
        bits = (buckets[:, None] >> torch.arange(nbits)) & 1
        assert np.array_equal(
            np.packbits(bits.numpy().astype(np.uint8).reshape(-1)), np.array(first, dtype=np.uint8)
        )
        weights = torch.randn(2**nbits)
        got = plaid.maxsim_residual(
            torch.eye(dim),
            torch.zeros(1, 1, dtype=torch.long),
            packed[None],
            torch.tensor([1]),
            torch.zeros(1, dim),
            weights,
            nbits,
            normalize=False,
            bit_order="colbert",
            return_argmax=False,
        )
        torch.testing.assert_close(got[0], weights[buckets].sum())


def test_residual_with_nothing():
    q = torch.randn(2, 3, 8, requires_grad=True)
    none = (
        torch.zeros(0, dtype=torch.long),
        torch.zeros(0, 2, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.int32),
    )
    scores = plaid.maxsim_residual_varlen(q, *none, torch.randn(4, 8), torch.randn(4), 2)
    assert scores.shape == (2, 0)
    assert plaid.maxsim_residual_varlen(q[0], *none, torch.randn(4, 8), torch.randn(4), 2).shape == (0,)
    empty = plaid.maxsim_residual(
        q,
        torch.zeros(2, 0, dtype=torch.long),
        torch.zeros(2, 0, 2, dtype=torch.uint8),
        torch.tensor([0, 0]),
        torch.randn(4, 8),
        torch.randn(4),
        2,
    )
    assert empty.shape == (2, 2) and not empty.any()
    empty.sum().backward()  # an empty document raised when Q required a gradient
    assert not q.grad.any()
    # numpy's empty arrays have strides of 0 as tensors, which no copy changes
    q, codes, residuals, no_centroids = map(
        torch.from_numpy,
        (np.ones((2, 3, 8), "f4"), np.zeros((2, 0), int), np.zeros((2, 0, 2), "u1"), np.zeros((0, 8), "f4")),
    )
    for centroids in (torch.randn(4, 8), no_centroids):
        scores = plaid.maxsim_residual(
            q, codes, residuals, torch.tensor([0, 0]), centroids, torch.randn(4), 2
        )
        assert scores.shape == (2, 2) and not scores.any()


def test_approx():
    scores, codes, lengths = (
        torch.randn(10, 5),
        torch.randint(0, 10, (6, 7)),
        torch.tensor([7, 0, 3, 1, 2, 7]),
    )
    want = reference.plaid_approx_score_reference(scores, codes, lengths)
    torch.testing.assert_close(plaid.plaid_approx_score(scores, codes, lengths), want)
    assert np.allclose(plaid.plaid_approx_score(*numpied(scores, codes, lengths)), want.numpy(), atol=1e-5)
    both = plaid.plaid_approx_score(torch.stack([scores, 2 * scores]), codes, lengths)
    torch.testing.assert_close(both, torch.stack([want, 2 * want]))
    mask, w = torch.rand(5) > 0.5, torch.rand(5)
    masked = plaid.plaid_approx_score(scores, codes, lengths, q_mask=mask, q_weights=w)
    torch.testing.assert_close(
        masked, plaid.plaid_approx_score(scores * w * mask, codes, lengths), rtol=1e-5, atol=1e-5
    )
    assert plaid.plaid_approx_score(scores, codes[:0], lengths[:0]).shape == (0,)
    assert not plaid.plaid_approx_score(torch.zeros(10, 0), codes, lengths).any()
    # what lies behind a document's end may be anything
    codes[1:, 6] = torch.where(lengths[1:] < 7, 99, codes[1:, 6])
    torch.testing.assert_close(plaid.plaid_approx_score(scores, codes, lengths), want)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"nbits": 5}, "nbits must be 0, 1, 2, 4 or 8, got 5"),
        ({"nbits": 0}, "bucket_weights must be None with nbits = 0"),
        ({"nbits": 3}, "nbits must be"),
        ({"bit_order": "big"}, "bit_order must be"),
        ({"doc_lengths": torch.tensor([8, 3, 0, 5, 1])}, r"doc_lengths\[0(, 0)?\] is 8"),
        ({"doc_lengths": torch.tensor([-1, 3, 0, 5, 1])}, r"doc_lengths\[0(, 0)?\] is -1"),
        ({"doc_lengths": torch.tensor([1, 3])}, "doc_lengths must have shape"),
        ({"codes": torch.full((5, 7), 10)}, r"codes\[0, 0\] is 10, must be 0 to 9"),
        ({"codes": torch.full((5, 7), -1)}, r"codes\[0, 0\] is -1"),
        ({"codes": torch.zeros(5, 7)}, "codes has dtype float32"),
        ({"residuals": torch.zeros(5, 7, 5, dtype=torch.uint8)}, "residuals must have 6 bytes"),
        ({"residuals": torch.zeros(5, 6, 6, dtype=torch.uint8)}, "residuals must have shape"),
        ({"residuals": torch.zeros(5, 7, 6)}, "residuals has dtype float32"),
        ({"centroids": torch.zeros(10, 8)}, "Q and centroids must have the same dim"),
        ({"centroids": torch.zeros(10, 24, dtype=torch.int32)}, "centroids has dtype int32"),
        ({"bucket_weights": torch.zeros(16)}, "bucket_weights must have shape"),
        ({"bucket_weights": torch.zeros(4, dtype=torch.int32)}, "bucket_weights has dtype int32"),
        ({"nbits": 2.0}, "nbits must be an integer, got float"),
        ({"q_mask": np.ones((2, 3), bool)}, "q_mask is of numpy, but Q is of torch"),
        ({"q_weights": [1.0]}, "q_weights must be a torch.Tensor"),
    ],
)
def test_residual_refuses(change, match):
    names = ("codes", "residuals", "doc_lengths", "centroids", "bucket_weights")
    arguments = {
        "Q": torch.randn(2, 3, 24),
        **dict(zip(names, compressed(2), strict=True)),
        "nbits": 2,
        **change,
    }
    with pytest.raises((ValueError, TypeError), match=match):
        plaid.maxsim_residual(**arguments)


def test_codes_behind_a_documents_end_may_be_anything():
    codes, residuals, lengths, *rest = compressed(2)
    q = torch.randn(2, 3, 24)
    want = plaid.maxsim_residual(q, codes, residuals, lengths, *rest, 2)
    padding = torch.arange(7) >= lengths[:, None]
    for filler in (-1, 99):
        padded = torch.where(padding, filler, codes)
        assert torch.equal(plaid.maxsim_residual(q, padded, residuals, lengths, *rest, 2), want)
        traced = torch.func.vmap(plaid.maxsim_residual, (0, *(None,) * 6))
        torch.testing.assert_close(traced(q[None], padded, residuals, lengths, *rest, 2)[0], want)


@pytest.mark.parametrize(
    "offsets, match",
    [
        ([0, 9], "cu_seqlens_d ends at 9"),
        ([3, 2], "ascending"),
        ([-1, 2], "ascending and not negative"),
        ([], "at least one"),
    ],
)
def test_residual_varlen_refuses(offsets, match):
    with pytest.raises(ValueError, match=match):
        plaid.maxsim_residual_varlen(
            torch.randn(2, 3, 8),
            torch.zeros(5, dtype=torch.long),
            torch.zeros(5, 2, dtype=torch.uint8),
            torch.tensor(offsets, dtype=torch.int64),
            torch.randn(4, 8),
            torch.randn(4),
            2,
        )


# ---- what a decoded token is ----


def written_out(codes, residuals, codec, dtype=torch.float32):
    """Tokens by the formula: centroid and weight rounded to the dtype, and their sum."""
    x = codec.centroids.to(dtype)[codes.long()]
    if codec.nbits:
        dim = codec.centroids.shape[1]
        buckets = reference.unpack_residuals_reference(residuals, codec.nbits, dim, bit_order=codec.bit_order)
        x = x + codec.weights.to(dtype)[buckets.long()]
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("table", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("nbits", [0, *BITS])
def test_a_compressed_token_is_its_decoded_one(nbits, order, table, dtype):
    """The same bits as of dense tokens of the query's dtype, which are those of the formula; in
    bf16 some processors multiply dense ones in pairs, in another order.
    """
    codes, residuals, lengths, centroids, weights = compressed(nbits or 1, 20)
    tables = centroids.to(DTYPES[table]), weights.to(DTYPES[table])
    codec = plaid.Codec(tables[0], tables[1] if nbits else None, nbits, order)
    residuals = residuals if nbits else None
    dense = plaid.decode(codes, residuals, codec, dtype=dtype)
    assert dense.dtype == DTYPES[dtype]
    assert torch.equal(dense, written_out(codes, residuals, codec, DTYPES[dtype]))
    q, mask = torch.randn(3, 4, 20).to(DTYPES[dtype]), torch.arange(7) < lengths[:, None]
    for normalize in (False, True):
        args = q, codes, residuals, lengths, *codec[:3]
        got, argmax = plaid.maxsim_residual(*args, normalize=normalize, bit_order=order, return_argmax=True)
        want, winners = maxsim(q, dense, d_mask=mask, normalize=normalize, return_argmax=True)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5 if dtype == "bfloat16" else 0)
        assert dtype == "bfloat16" or torch.equal(argmax, winners)


def test_arrays_of_numpy_and_ml_dtypes():
    codes, residuals, lengths, centroids, weights = numpied(*compressed(4))
    q = np.random.default_rng(0).standard_normal((3, 4, 24), "f4")
    for dtype in ("float32", "float16", "bfloat16"):
        kind = getattr(ml_dtypes, dtype, dtype)
        for table in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
            codec = plaid.Codec(centroids.astype(table), weights.astype(table), 4)
            got = plaid.maxsim_residual(q.astype(kind), codes, residuals, lengths, *codec[:3])
            want = plaid.maxsim_residual(
                torch.tensor(q).to(DTYPES[dtype]),
                *map(torch.tensor, (codes, residuals, lengths)),
                torch.tensor(codec.centroids.astype("f4")),
                torch.tensor(codec.weights.astype("f4")),
                4,
            )
            assert np.array_equal(got, want.numpy())
            decoded = plaid.decode(codes, residuals, codec, dtype=dtype)
            assert decoded.dtype == np.dtype(kind) and decoded.shape == (5, 7, 24)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("nbits", [0, *BITS])
def test_scores_against_float64(expected, nbits, order, normalize):
    codes, residuals, lengths, centroids, weights = compressed(nbits or 1, 33)
    codec = plaid.Codec(centroids, weights if nbits else None, nbits, order)
    residuals = residuals if nbits else None
    wide = codec._replace(centroids=centroids.double(), weights=weights.double())
    dense = written_out(codes, residuals, wide, torch.float64)
    q, w, q_mask = torch.randn(3, 6, 33), torch.randn(3, 6), torch.rand(3, 6) > 0.3
    kept = torch.arange(7) < lengths[:, None]
    want = expected(q, dense, q_mask, kept, w, normalize)
    about = {"normalize": normalize, "bit_order": order, "q_mask": q_mask, "q_weights": w}
    want.check(*plaid.maxsim_residual(q, codes, residuals, lengths, *codec[:3], **about, return_argmax=True))
    flat = codes[kept], None if residuals is None else residuals[kept]
    cu = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    args = q, *flat, cu, *codec[:3]
    want.check(*plaid.maxsim_residual_varlen(*args, **about, return_argmax=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(dtype):
    """Autograd through decoded tokens says the same, and finite differences do."""
    codes, residuals, lengths, centroids, weights = compressed(2)
    codec = plaid.Codec(centroids, weights, 2, "colbert")
    kept = torch.arange(7) < lengths[:, None]
    dense = plaid.decode(codes, residuals, codec, dtype=dtype).float()
    q, w = torch.randn(3, 4, 24).to(DTYPES[dtype]), torch.rand(3, 4)
    leaves, others = ([x.clone().requires_grad_() for x in (q, w)] for _ in range(2))
    about = {"bit_order": "colbert"}
    got = plaid.maxsim_residual(
        leaves[0], codes, residuals, lengths, *codec[:3], **about, q_weights=leaves[1]
    )
    want = reference.maxsim_reference(
        others[0].float(), dense, d_mask=kept, normalize=True, q_weights=others[1]
    )
    g = torch.randn_like(got)
    tolerance = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for a, b in zip(torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, others, g)):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    if dtype == "float32":
        (gradient,) = torch.autograd.grad(
            plaid.maxsim_residual(leaves[0], codes, residuals, lengths, *codec[:3], **about).sum(), leaves[0]
        )
        step = torch.randn_like(q) * 1e-3
        ends = [
            plaid.maxsim_residual(q + s, codes, residuals, lengths, *codec[:3], **about).double().sum()
            for s in (step, -step)
        ]
        assert abs((ends[0] - ends[1]) / 2 - (gradient * step).sum()) < 2e-4


def test_no_gradient_reaches_the_documents():
    codes, residuals, lengths, centroids, weights = compressed(2)
    tables = centroids.requires_grad_(), weights.requires_grad_()
    q = torch.randn(3, 4, 24)
    assert not plaid.maxsim_residual(q, codes, residuals, lengths, *tables, 2).requires_grad


def test_the_gradient_of_weights_of_the_approximate_score():
    table, codes, lengths = (
        torch.randn(2, 10, 5),
        torch.randint(0, 10, (6, 7)),
        torch.tensor([7, 0, 3, 1, 2, 7]),
    )
    codes[1] = 99
    mask = torch.tensor([True, False, True, True, True]).expand(2, 5)
    w = torch.rand(2, 5, requires_grad=True)
    got = plaid.plaid_approx_score(table, codes, lengths, q_mask=mask, q_weights=w)
    g = torch.randn_like(got)
    (gradient,) = torch.autograd.grad(got, w, g)
    kept = torch.arange(7) < lengths[:, None]
    best = table[:, codes.clamp(0, 9)].masked_fill(~kept[None, ..., None], -torch.inf).amax(2)
    best = torch.where(kept.any(1)[None, :, None], best, 0)
    want = torch.einsum("qb,qbs->qs", g, best) * mask
    torch.testing.assert_close(gradient, want)


# ---- how arrays lie ----


def test_codes_and_bytes_are_read_where_they_lie(monkeypatch):
    codes, residuals, lengths, centroids, weights = compressed(4)
    q, seen = torch.randn(3, 4, 24), []
    want = plaid.maxsim_residual(q, codes, residuals, lengths, centroids, weights, 4)
    run = torch_ops.run_score
    monkeypatch.setattr(torch_ops, "run_score", lambda p, a: (seen.append(p), run(p, a))[1])
    for dtype in (torch.int16, torch.uint16, torch.int32, torch.int64):
        typed = codes.to(dtype)
        assert torch.equal(plaid.maxsim_residual(q, typed, residuals, lengths, centroids, weights, 4), want)
        d = seen.pop().d
        assert (
            d.codes is typed and d.data is residuals and d.codec.centroids.data_ptr() == centroids.data_ptr()
        )


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("nbits", [1, 4])
def test_odd_strides(kind, nbits):
    codes, residuals, lengths, centroids, weights = compressed(nbits)
    q, norms = torch.randn(3, 4, 24), torch.rand(5, 7)
    arrays = [q, codes, residuals, lengths, centroids, weights, norms]
    wide = [torch.stack([x, x + 1], -1)[..., 0] for x in arrays]  # every other element
    back = [x.flip(0).numpy()[::-1] if kind == "numpy" else x.mT.contiguous().mT for x in arrays[1:3]]
    across = [codes, residuals.transpose(0, 1).contiguous().transpose(0, 1)]
    if kind == "numpy":
        arrays, wide, across = numpied(*arrays), numpied(*wide), numpied(*across)

    def call(q, codes, residuals, lengths, centroids, weights, norms):
        return np.asarray(
            plaid.maxsim_residual(q, codes, residuals, lengths, centroids, weights, nbits, inv_norms=norms)
        )

    want = call(*arrays)
    for i, x in enumerate(wide):
        assert np.array_equal(call(*arrays[:i], x, *arrays[i + 1 :]), want)
    assert np.array_equal(call(*wide), want)
    assert np.array_equal(call(arrays[0], *back, *arrays[3:]), want)
    assert np.array_equal(call(arrays[0], *across, *arrays[3:]), want)
    if kind == "numpy":
        swapped = [x.astype(x.dtype.newbyteorder(">")) for x in arrays]
        assert np.array_equal(call(*swapped), want)
    else:
        alike = arrays[1][:1].expand(5, 7), arrays[2][:1].expand(5, 7, -1)
        assert np.array_equal(
            call(q, *alike, *arrays[3:]), call(q, *(x.contiguous() for x in alike), *arrays[3:])
        )


def test_codes_beyond_the_sign_bit():
    """int16 holds numbers to 32767, uint16 to 65535."""
    centroids, q = torch.randn(40000, 8), torch.randn(2, 3, 8)
    codes = torch.tensor([[0, 32767, 39999]])
    about = None, torch.tensor([3]), centroids, None, 0
    want = plaid.maxsim_residual(q, codes, *about)
    assert torch.equal(plaid.maxsim_residual(q, codes.to(torch.uint16), *about), want)
    with pytest.raises(ValueError, match=r"codes\[0, 2\] is -25537, must be 0 to 39999"):
        plaid.maxsim_residual(q, codes.to(torch.int16), *about)
    with pytest.raises(ValueError, match=r"codes\[0, 1\] is -1, must be 0 to 9"):
        plaid.maxsim_residual(
            q, torch.tensor([[1, -1]], dtype=torch.int16), None, torch.tensor([2]), centroids[:10], None, 0
        )


def test_rows_between_documents_may_hold_anything():
    codes, residuals = torch.tensor([9, 0, 1, 2, -5]), torch.zeros(5, 2, dtype=torch.uint8)
    codec, q = (torch.randn(3, 8), torch.randn(4), 2), torch.randn(2, 3, 8)
    got = plaid.maxsim_residual_varlen(q, codes, residuals, torch.tensor([1, 2, 4]), *codec)
    want = plaid.maxsim_residual_varlen(q, codes[1:4], residuals[1:4], torch.tensor([0, 1, 3]), *codec)
    assert torch.equal(got, want)
    with pytest.raises(ValueError, match=r"codes_flat\[4\] is -5, must be 0 to 2"):
        plaid.maxsim_residual_varlen(q, codes, residuals, torch.tensor([1, 2, 5]), *codec)


# ---- norms that are known ----


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_inverse_norms(kind):
    codes, residuals, lengths, centroids, weights = compressed(4)
    codec = plaid.Codec(centroids, weights, 4)
    norms = 1 / plaid.decode(codes, residuals, codec).norm(dim=-1).clamp_min(1e-12)
    q = torch.randn(3, 4, 24, requires_grad=True)
    args = q, codes, residuals, lengths, *codec[:3]
    taken = plaid.maxsim_residual(*args)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)):
        given = norms.to(dtype)
        got = plaid.maxsim_residual(*args, inv_norms=given)
        torch.testing.assert_close(got, taken, rtol=tolerance, atol=tolerance)
        exact = plaid.decode(codes, residuals, codec) * given.float()[..., None]
        kept = torch.arange(7) < lengths[:, None]
        want = reference.maxsim_reference(torch.nn.functional.normalize(q, dim=-1), exact, d_mask=kept)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        (a,), (b,) = (torch.autograd.grad(x.sum(), q) for x in (got, want))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        if kind == "numpy" and dtype != torch.bfloat16:
            assert np.array_equal(
                plaid.maxsim_residual(*numpied(*args), inv_norms=given.numpy()), got.detach().numpy()
            )
    plain = plaid.maxsim_residual(*args, normalize=False)
    assert torch.equal(plaid.maxsim_residual(*args, normalize=False, inv_norms=norms * torch.nan), plain)
    with pytest.raises(ValueError, match=r"inv_norms must have shape \(5, 7\), got \(5, 6\)"):
        plaid.maxsim_residual(*args, inv_norms=norms[:, :6])
    with pytest.raises(TypeError, match="inv_norms has dtype int64"):
        plaid.maxsim_residual(*args, inv_norms=codes)


# ---- the library and torch operations ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nbits", [0, *BITS])
def test_torch_operations_say_the_same(monkeypatch, nbits, dtype):
    codes, residuals, lengths, centroids, weights = compressed(nbits or 1, 20)
    codec = centroids, weights if nbits else None, nbits
    residuals = residuals if nbits else None
    q = torch.randn(3, 4, 20).to(DTYPES[dtype]).requires_grad_()
    norms, table = torch.rand(5, 7).half(), torch.randn(2, 10, 6)

    def calls():
        scores = plaid.maxsim_residual(q, codes, residuals, lengths, *codec)
        D = plaid.CompressedTokens(codes, residuals, plaid.Codec(*codec), lengths, inv_norms=norms)
        values, ids = retrieve(q, D, 3)
        approx = plaid.plaid_approx_score(table, codes, lengths, q_weights=table[:, 0])
        return scores, *torch.autograd.grad(scores.sum(), q), values, ids, approx

    want = calls()
    monkeypatch.setattr(torch_ops, "served", lambda x: False)
    for a, b in zip(calls(), want):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


# ---- the k best ----


def best_of(scores, k, largest=True):
    order = (-scores if largest else scores).argsort(dim=-1, stable=True)[..., :k]
    return scores.gather(-1, order), order


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("layout", ["padded", "packed", "whole"])
@pytest.mark.parametrize("nbits", [0, 2, 4])
def test_the_best_of_compressed_documents(nbits, layout, kind):
    """The order and the bits are those of the scores."""
    codes, residuals, lengths, centroids, weights = compressed(nbits or 1)
    codec = plaid.Codec(centroids, weights if nbits else None, nbits, "colbert")
    residuals = residuals if nbits else None
    if layout == "packed":
        lengths = torch.tensor([0, 7, 10, 10, 30, 35])
        codes, residuals = codes.flatten(), None if residuals is None else residuals.flatten(0, 1)
        about = {"cu_seqlens_d": lengths}
    else:
        lengths = torch.full((5,), 7) if layout == "whole" else lengths
        about = {} if layout == "whole" else {"doc_lengths": lengths}
    q, w, mask = torch.randn(3, 4, 24), torch.rand(3, 4), torch.rand(3, 4) > 0.2
    function = plaid.maxsim_residual_varlen if layout == "packed" else plaid.maxsim_residual
    for normalize in (False, True):
        scores, winners = function(
            q, codes, residuals, lengths, *codec[:3], bit_order="colbert",
            normalize=normalize, q_weights=w, q_mask=mask, return_argmax=True,
        )  # fmt: skip
        D = plaid.CompressedTokens(codes, residuals, codec, **about)
        arguments = q, D, 3, mask
        weights_ = w
        if kind == "numpy":
            arrays = {k: numpied(x)[0] for k, x in D._asdict().items() if k != "codec"}
            D = plaid.CompressedTokens(codec=plaid.Codec(*numpied(*codec)), **arrays)
            arguments, weights_ = (q.numpy(), D, 3, mask.numpy()), w.numpy()
        for largest in (True, False):
            got = maxsim_topk(
                *arguments, normalize=normalize, q_weights=weights_, largest=largest, return_argmax=True
            )
            values, ids, argmax = map(torch.as_tensor, got)
            want, order = best_of(scores, 3, largest)
            assert torch.equal(values, want) and torch.equal(ids, order)
            assert torch.equal(argmax, winners.gather(1, order[..., None].expand(-1, -1, 4)))
        one = retrieve(arguments[0][0], D, 9, normalize=normalize)
        assert one[0].shape == (5,)


def test_packed_compressed_documents_in_chunks():
    from late_interaction_kernels import topk
    from late_interaction_kernels._engine.problem import NORMALIZE, Problem, Tokens

    codes, residuals, _, centroids, weights = compressed(2)
    codec = plaid.Codec(centroids, weights, 2)
    offsets = torch.tensor([0, 7, 10, 10, 30, 35])
    documents = Tokens(residuals.flatten(0, 1), None, None, None, offsets, 20, codes.flatten(), codec)
    problem = Problem(Tokens(torch.randn(3, 4, 24)), documents, normalize=NORMALIZE)
    want = topk.verbs.topk(problem, 4, 0, False)
    for chunk in (1, 2, 3):
        for a, b in zip(topk.by_chunks(torch_arrays, problem, 4, chunk, False), want):
            assert torch.equal(a, b)


def test_what_cannot_be_seen_comes_last(monkeypatch):
    codes, residuals, lengths, centroids, weights = compressed(2)
    codec, q = plaid.Codec(centroids, weights, 2), torch.randn(3, 4, 24)
    want = maxsim_topk(q, plaid.CompressedTokens(codes, residuals, codec, lengths), 5)
    lengths, codes = lengths.clone(), codes.clone()
    lengths[1], lengths[3], codes[0, 2] = 8, -1, 10
    monkeypatch.setattr(torch_arrays, "on_host", lambda x: False)
    values, ids = maxsim_topk(q, plaid.CompressedTokens(codes, residuals, codec, lengths), 5)
    assert values[:, 2:].isnan().all() and (ids[:, 2:] == torch.tensor([0, 1, 3])).all()
    for i in range(3):
        kept = [n for n in want[1][i].tolist() if n in (2, 4)]
        assert ids[i, :2].tolist() == kept


@pytest.mark.parametrize(
    "change, about, match",
    [
        ({"cu_seqlens_d": torch.tensor([0, 5])}, {}, "D.doc_lengths and D.cu_seqlens_d are both given"),
        (
            {},
            {"d_mask": torch.ones(5, 7, dtype=torch.bool)},
            "d_mask must be None where D is CompressedTokens",
        ),
        ({}, {"storage": "int8"}, "storage must be None where D is CompressedTokens"),
        ({"codes": torch.full((5, 7), 10)}, {}, r"D.codes\[0, 0\] is 10, must be 0 to 9"),
        ({"codes": torch.zeros(5, 7, 1, dtype=torch.int32)}, {}, "D.codes must have shape"),
        ({"doc_lengths": torch.full((5,), 8)}, {}, r"D.doc_lengths\[0\] is 8, must be 0 to 7"),
        ({"residuals": None}, {}, "D.residuals must be a torch.Tensor or a numpy.ndarray, got None"),
        ({"codec": plaid.Codec(torch.zeros(9, 8), torch.zeros(4), 2)}, {}, "D.codec.centroids"),
        ({"codec": plaid.Codec(torch.zeros(9, 24), torch.zeros(4), 3)}, {}, "D.codec.nbits must be 0, 1"),
        (
            {"codec": plaid.Codec(torch.zeros(9, 24), torch.zeros(4), 2, "big")},
            {},
            "D.codec.bit_order must be",
        ),
        ({"codec": plaid.Codec(np.zeros((9, 24)), torch.zeros(4), 2)}, {}, r"of numpy, but .* of torch"),
    ],
)
def test_best_refuses(change, about, match):
    codes, residuals, lengths, centroids, weights = compressed(2)
    D = plaid.CompressedTokens(codes, residuals, plaid.Codec(centroids, weights, 2), lengths)._replace(
        **change
    )
    with pytest.raises((ValueError, TypeError), match=match):
        retrieve(torch.randn(2, 3, 24), D, 2, **about)
