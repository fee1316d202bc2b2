"""Top-k by documents in two copies: the bits of the full copy, whatever the documents are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from late_interaction_kernels import MaxSimScorer, exact, maxsim, pack, retrieve, save
from late_interaction_kernels._engine import numpy_arrays, torch_arrays
from late_interaction_kernels.exact import TwoCopies, two_copies
from late_interaction_kernels.fp8 import dequantize_fp8_per_token, quantize_fp8_per_token
from late_interaction_kernels.int8 import dequantize_int8_per_token
from late_interaction_kernels.topk import maxsim_topk

STORAGES = ("int8", "fp8")


def clustered(count, tokens, dim, seed=0, dtype=torch.float32):
    """Tokens around a few directions, unit vectors: scores lie close together."""
    g = torch.Generator().manual_seed(seed)
    centers = torch.nn.functional.normalize(torch.randn(max(count // 8, 1), dim, generator=g), dim=-1)
    which = torch.randint(len(centers), (count, 1), generator=g).expand(count, tokens)
    x = centers[which] + 0.6 * dim**-0.5 * torch.randn(count, tokens, dim, generator=g)
    return torch.nn.functional.normalize(x, dim=-1).to(dtype)


def same(Q, D, k, storage, *, normalize=True, offsets=None, **about):
    """retrieve of the two copies has the bits of retrieve of the full one; the share of pairs
    that was scored in full."""
    copies = two_copies(D, storage, normalize=normalize, cu_seqlens_d=offsets)
    looked = []

    def watched(*arguments):
        found = candidates(*arguments)
        looked.append((len(found[0]), arguments[1]))
        return found

    candidates, exact.candidates = exact.candidates, watched
    try:
        got = retrieve(Q, copies, k, normalize=normalize, exact=True, **about)
    finally:
        exact.candidates = candidates
    want = retrieve(Q, D, k, normalize=normalize, cu_seqlens_d=offsets, **about)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        a, b = (np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x) for x in (a, b))
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    return sum(n for n, _ in looked)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalize", [True, False])
def test_bits_of_the_full_copy(storage, dtype, normalize):
    D = clustered(1500, 12, 64, dtype=dtype)
    Q = clustered(4, 9, 64, 1, dtype)
    for k in (1, 10, 100):
        same(Q, D, k, storage, normalize=normalize)
        same(Q, D, k, storage, normalize=normalize, largest=False)
    assert same(Q[0], D, 10, storage, normalize=normalize) < 750


def test_few_are_scored_in_full():
    """The bound of int8 rules out nearly all of 4,000 clustered documents."""
    D, Q = clustered(4000, 16, 128), clustered(3, 32, 128, 1)
    assert same(Q, D, 10, "int8") < 0.05 * 3 * 4000


@pytest.mark.parametrize("storage", STORAGES)
def test_layouts_masks_weights(storage):
    g = torch.Generator().manual_seed(3)
    D, Q = clustered(300, 20, 32), clustered(5, 8, 32, 1)
    d_mask = torch.rand(300, 20, generator=g) < 0.7
    q_mask = torch.rand(5, 8, generator=g) < 0.8
    d_mask[7], q_mask[2] = False, False
    weights = torch.rand(5, 8, generator=g) * 2 - 0.5
    about = {"q_mask": q_mask, "d_mask": d_mask, "q_weights": weights, "return_argmax": True}
    same(Q, D, 20, storage, **about)
    same(
        Q.numpy(),
        D.numpy(),
        20,
        storage,
        **{k: getattr(v, "numpy", lambda v=v: v)() for k, v in about.items()},
    )
    same(Q, D.repeat(1, 1, 2)[..., ::2], 20, storage, chunk=64)
    lengths = torch.randint(0, 20, (300,), generator=g).tolist()
    tokens, offsets = pack([D[i, :n] for i, n in enumerate(lengths)])
    same(Q, tokens, 20, storage, offsets=offsets, q_weights=weights)
    same(Q, tokens, 20, storage, offsets=offsets, d_mask=torch.rand(len(tokens), generator=g) < 0.7)
    queries, rows = pack([Q[i, : 1 + i] for i in range(5)])
    same(queries, tokens, 20, storage, offsets=offsets, cu_seqlens_q=rows)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("normalize", [True, False])
def test_adversaries(storage, normalize):
    """Ties, near-ties, one document many times, norms from 1e-25 to 1e25, single outlier
    elements, NaN and infinities, of documents and of queries."""
    g = torch.Generator().manual_seed(5)
    base = clustered(64, 6, 32)
    ties = base[:1].expand(200, 6, 32)
    near = base[:1] * (1 + torch.randint(-2, 3, (200, 1, 1), generator=g) * 2.0**-23)
    nudged = base[:1] + 2.0**-12 * torch.randn(200, 6, 32, generator=g)
    norms = base * 10.0 ** torch.randint(-25, 26, (64, 6, 1), generator=g)
    outliers = base.clone()
    outliers[:, 2, 5] = 1e4
    zeros = torch.zeros(20, 6, 32)
    broken = base.clone()
    broken[3, 1, 1], broken[9, 5, 0], broken[11, 0, 31] = torch.nan, torch.inf, -torch.inf
    negative = -base
    Q = torch.cat([base[:2], negative[:1], 1e-20 * base[:1], 1e20 * base[:1], zeros[:1], broken[3:4]])
    for D in (ties, near, nudged, norms, outliers, zeros, broken):
        D = torch.cat([D, base])
        for k in (1, 7, 63, len(D), len(D) + 5):
            same(Q, D, k, storage, normalize=normalize)
        same(Q, D, 9, storage, normalize=normalize, largest=False)
    mixed = torch.cat([ties, near, nudged, norms, outliers, zeros, broken])
    mixed = mixed[torch.randperm(len(mixed), generator=g)]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        same(Q.to(dtype), mixed.to(dtype), 50, storage, normalize=normalize)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_the_bound_promises(storage):
    """|score in 8 bits - score in full| <= bound, of documents of every kind."""
    g = torch.Generator().manual_seed(7)
    dequantize = dequantize_int8_per_token if storage == "int8" else dequantize_fp8_per_token
    for normalize in (True, False):
        D = torch.randn(200, 5, 48, generator=g) * 10.0 ** torch.randint(-6, 7, (200, 5, 1), generator=g)
        D[:50, 1, 3] *= 1e3
        Q = torch.randn(6, 7, 48, generator=g) * 10.0 ** torch.randint(-3, 4, (6, 7, 1), generator=g)
        copies = two_copies(D, storage, normalize=normalize)
        x = torch.nn.functional.normalize(D.double(), dim=-1) if normalize else D.double()
        apart = (x - dequantize(copies.values, copies.scales).double()).norm(dim=-1).amax(-1)
        assert bool((copies.errors.double() >= apart).all())
        assert bool((copies.errors.double() <= apart * 1.01 + 1e-3 * x.norm(dim=-1).amax(-1)).all())
        q = torch.nn.functional.normalize(Q, dim=-1) if normalize else Q
        full = maxsim(q, D, normalize=normalize).double()
        small = maxsim(q, (copies.values, copies.scales), storage=storage).double()
        problem = exact.Problem(exact.Tokens(q), exact.Tokens(D), normalize=3 if normalize else 0)
        off = exact._off(torch_arrays, problem, copies).double()
        assert bool(((small - full).abs() <= off).all())
        reach = 7 if normalize else q.norm(dim=-1).sum(-1)[:, None]
        assert bool((off <= 1.5 * reach * (apart + 1e-2 * copies.norms)).all())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_worst_case_of_the_bound(sign):
    """8 bits that are as far off as they say, to the wrong sides: the best document has the
    lower score there."""
    full, small = torch.tensor([1.0, 1.2, 0.1]), torch.tensor([1.5, 0.75, 0.1])
    D, values = torch.zeros(3, 1, 8), torch.zeros(3, 1, 8, dtype=torch.int8)
    D[:, 0, 2], values[:, 0, 2] = sign * full, sign * (small * 80).to(torch.int8)
    errors = (full - values[:, 0, 2] / 80 * sign).abs() * 1.0001
    copies = TwoCopies(D, values, torch.full((3, 1), 1 / 80), errors, torch.full((3,), 1.6), False, "int8")
    Q = torch.zeros(1, 1, 8)
    Q[..., 2] = 1
    got = retrieve(Q, copies, 1, normalize=False, exact=True, largest=sign == 1)
    assert got[1].tolist() == [[1]] and got[0].tolist() == [[D[1, 0, 2].item()]]
    padded = torch.cat([D] + 20 * [D[2:]]), torch.cat([values] + 20 * [values[2:]])
    more = [torch.cat([x] + 20 * [x[2:]]) for x in (copies.scales, copies.errors, copies.norms)]
    copies = TwoCopies(*padded, *more, False, "int8")
    found = exact.candidates(
        torch_arrays, exact.Problem(exact.Tokens(Q), exact.Tokens(padded[0])), copies, 1, sign < 0
    )
    assert found[1].tolist() == [0, 1]  # the others are out
    got = retrieve(Q, copies, 1, normalize=False, exact=True, largest=sign == 1)
    assert got[1].tolist() == [[1]]


def test_many_queries_in_groups(monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", 1000)
    D, Q = clustered(300, 5, 32), clustered(11, 4, 32, 1)
    same(Q, D, 5, "int8")


def test_without_documents_or_queries():
    D, Q = clustered(4, 5, 32), clustered(2, 4, 32, 1)
    same(Q, D[:0], 3, "int8")
    same(Q[:0], D, 3, "int8")
    same(Q, D[:, :0], 3, "int8")
    same(Q[:, :0], D, 3, "int8")


def test_other_calls():
    D, Q = clustered(200, 5, 32), clustered(2, 4, 32, 1)
    copies = two_copies(D)
    want = retrieve(Q, D, 3)
    for got in (
        MaxSimScorer(normalize=True).retrieve(Q, copies, 3, exact=True),
        maxsim_topk(Q, copies, 3, normalize=True, storage="int8", exact=True),
        torch.compile(lambda q: retrieve(q, copies, 3, exact=True), backend="eager")(Q),
    ):
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert not retrieve(Q.requires_grad_(), copies, 3, exact=True)[0].requires_grad


@pytest.mark.parametrize("storage", STORAGES)
def test_infinities_tie(storage):
    """Scores near overflow: where one of the full copy is infinite, so may others be."""
    D = torch.nn.functional.normalize(torch.randn(400, 1, 16), dim=-1) * 0.1
    D[[3, 5, 7, 9]] = 0
    D[[3, 7, 5, 9], 0, 0] = torch.tensor([1.0002, 1.0002, 1.00003, 1.0001])
    D[[3, 7, 5], 0, 1] = torch.tensor([1.37, 1.23, 1.3])
    Q = torch.zeros(1, 1, 16)
    Q[..., 0] = 1
    for scale in (3.4028e38, -3.4028e38, 1e37, 1e30):
        weights = torch.full((1, 1), scale)
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            same(Q.to(dtype), D.to(dtype), 3, storage, normalize=False, q_weights=weights)


def test_of_no_elements():
    D, Q = torch.zeros(30, 4, 0), torch.zeros(2, 3, 0)
    same(Q, D, 3, "int8")


def test_medium_products_widen_the_bound():
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch_arrays.precision(-1) == 2 and numpy_arrays.precision(-1) == 0
        same(clustered(2, 4, 32, 1), clustered(200, 5, 32), 5, "int8")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_refused():
    D, Q = clustered(6, 5, 32), clustered(2, 4, 32, 1)
    copies = two_copies(D)
    with pytest.raises(ValueError, match='storage must be "int8" or "fp8", got \'int4\''):
        two_copies(D, "int4")
    with pytest.raises(ValueError, match="storage must be"):
        two_copies(D, ["int8"])
    with pytest.raises(ValueError, match=r"D must have shape \[Nd, Ld, d\].* got \(5, 32\)"):
        two_copies(D[0])
    with pytest.raises(ValueError, match="max_seqlen_d is 3, must be None without"):
        two_copies(D, max_seqlen_d=3)
    with pytest.raises(TypeError, match="D has dtype int64"):
        two_copies(D.long())
    with pytest.raises(ValueError, match=r"exact needs D as exact\.two_copies makes it, got Tensor"):
        retrieve(Q, D, 2, exact=True)
    with pytest.raises(ValueError, match="exact=True takes"):
        retrieve(Q, copies, 2)
    with pytest.raises(TypeError, match="TwoCopies, which retrieve and maxsim_topk alone take"):
        maxsim(Q, copies)
    with pytest.raises(ValueError, match="normalize is False, but D was made with normalize=True"):
        retrieve(Q, copies, 2, normalize=False, exact=True)
    with pytest.raises(ValueError, match="storage is 'fp8', but D was made with storage='int8'"):
        retrieve(Q, copies, 2, storage="fp8", exact=True)
    with pytest.raises(ValueError, match="cu_seqlens_d must be None where D is TwoCopies"):
        retrieve(Q, copies, 2, cu_seqlens_d=torch.tensor([0, 5]), exact=True)
    for wrong, error, text in (
        ({"values": D}, TypeError, "D.values has dtype float32, must be int8"),
        (
            {"values": copies.values[:2]},
            ValueError,
            r"D.values must have shape \(6, 5, 32\), got \(2, 5, 32\)",
        ),
        ({"errors": copies.errors[:2]}, ValueError, r"D.errors must have shape \(6,\), got \(2,\)"),
        ({"norms": copies.norms.double()}, TypeError, "D.norms has dtype float64, must be float32"),
        ({"storage": "x"}, ValueError, "D.storage must be"),
        ({"cu_seqlens_d": [0, 5]}, TypeError, "D.cu_seqlens_d must be a torch.Tensor"),
        ({"errors": copies.errors.numpy()}, TypeError, "D.errors"),
    ):
        with pytest.raises(error, match=text):
            retrieve(Q, copies._replace(**wrong), 2, exact=True)


def test_fp8_is_a_storage():
    """maxsim of documents in fp8, made on the way or given as a pair: the scores of what they
    stand for; gradients of Q."""
    D, Q = clustered(6, 5, 32), clustered(2, 4, 32, 1)
    pair = quantize_fp8_per_token(D)
    want = maxsim(Q, dequantize_fp8_per_token(*pair))
    for storage_of in (pair, D, quantize_fp8_per_token(D, "float8_e4m3fn")):
        torch.testing.assert_close(maxsim(Q, storage_of, storage="fp8"), want, rtol=1e-6, atol=1e-5)
    coarse = quantize_fp8_per_token(D, "float8_e5m2")
    torch.testing.assert_close(maxsim(Q, coarse, storage="fp8"), maxsim(Q, dequantize_fp8_per_token(*coarse)))
    a, b = Q.clone().requires_grad_(), Q.clone().requires_grad_()
    maxsim(a, pair, storage="fp8").sum().backward()
    maxsim(b, dequantize_fp8_per_token(*pair)).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    with pytest.raises(TypeError, match=r"D\[0\] has dtype int8, must be float8_e4m3fn or float8_e5m2"):
        maxsim(Q, (pair[0].view(torch.int8), pair[1]), storage="fp8")
    with pytest.raises(ValueError, match='storage must be None, "int8" or "fp8", got \'fp4\''):
        maxsim(Q, D, storage="fp4")


def test_two_copies_keeps_the_documents():
    D = np.asarray(clustered(6, 5, 32))
    copies = two_copies(D)
    assert isinstance(copies, TwoCopies) and copies.documents is D
    assert copies.values.dtype == np.int8 and copies.errors.shape == (6,)


def test_a_file_takes_one_copy(tmp_path):
    with pytest.raises(ValueError, match="documents is TwoCopies: save its documents, or the pair"):
        save(tmp_path / "x.safetensors", two_copies(clustered(4, 5, 32)))
