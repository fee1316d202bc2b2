"""Compressed tokens on CUDA: by the library, or by torch operations where it does not take
them.
"""

from __future__ import annotations

import pytest
import torch
from late_interaction_kernels import plaid, reference, retrieve
from late_interaction_kernels.topk import maxsim_topk
from test_compressed import BITS, DTYPES, ORDERS, best_of, compressed, written_out
from test_cuda import needs_backend, served_by  # noqa: F401

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def moved(*arrays):
    return [x.cuda() if isinstance(x, torch.Tensor) else x for x in arrays]


def documents(nbits, order, dim=128, count=40, length=70):
    """(codes, residuals, lengths, Codec) of unit centroids, on CUDA."""
    codes, lengths = torch.randint(0, 500, (count, length)), torch.randint(0, length + 1, (count,))
    lengths[1], lengths[2] = 0, length
    residuals = torch.randint(0, 256, (count, length, (dim * nbits + 7) // 8), dtype=torch.uint8)
    centroids = torch.nn.functional.normalize(torch.randn(500, dim), dim=-1)
    weights = torch.randn(2**nbits).sort().values * 0.03
    found = moved(codes, residuals if nbits else None, lengths, centroids, weights if nbits else None)
    return (*found[:3], plaid.Codec(*found[3:], nbits, order))


def clear_winners(q, dense, kept, normalize):
    """The query tokens whose best token in each document leads by more than rounding moves, or
    has its equal.
    """
    if normalize:
        dense = torch.nn.functional.normalize(dense, dim=-1)
    products = torch.einsum("qsd,ntd->qsnt", q, dense).masked_fill(~kept, -torch.inf)
    best = products.topk(2, dim=-1).values
    lead = (best[..., 0] - best[..., 1]).nan_to_num(1.0)
    return ((lead > 1e-5) | (lead == 0)).all(-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("nbits", [0, *BITS])
@pytest.mark.parametrize("dim", [96, 128])
def test_scores_and_gradients(served_by, dim, nbits, order, dtype):  # noqa: F811
    codes, residuals, lengths, codec = documents(nbits, order, dim)
    kept = torch.arange(70, device="cuda") < lengths[:, None]
    q = torch.nn.functional.normalize(torch.randn(3, 32, dim, device="cuda"), dim=-1).to(DTYPES[dtype])
    dense = written_out(codes, residuals, codec, DTYPES[dtype]).float()
    for normalize in (False, True):
        leaf, other = q.clone().requires_grad_(), q.clone().requires_grad_()
        about = {"normalize": normalize, "bit_order": order}
        got = plaid.maxsim_residual(leaf, codes, residuals, lengths, *codec[:3], **about)
        want = reference.maxsim_reference(other.float(), dense, d_mask=kept, normalize=normalize)
        tolerance = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}[dtype]
        torch.testing.assert_close(got, want, rtol=1e-3, atol=tolerance)
        plain = plaid.maxsim_residual(q, codes, residuals, lengths, *codec[:3], **about)
        assert torch.equal(plain, got) and not got[:, 1].any()
        cu = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        flat = codes[kept], None if residuals is None else residuals[kept], cu
        packed = plaid.maxsim_residual_varlen(q, *flat, *codec[:3], **about)
        torch.testing.assert_close(packed, got, rtol=0, atol=0 if served_by == "library" else 1e-4)
        (a,), (b,) = (torch.autograd.grad(x.sum(), leaf_) for x, leaf_ in ((got, leaf), (want, other)))
        clear = clear_winners(q.float(), dense, kept, normalize)
        assert clear.float().mean() > 0.5
        torch.testing.assert_close(a.float()[clear], b.float()[clear], rtol=2e-2, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16, torch.int32, torch.int64])
def test_every_dtype_of_codes(served_by, dtype):  # noqa: F811
    codes, residuals, lengths, codec = documents(4, "colbert")
    q = torch.randn(3, 32, 128, device="cuda")
    want, got = (
        plaid.maxsim_residual(q, x, residuals, lengths, *codec[:3]) for x in (codes, codes.to(dtype))
    )
    assert torch.equal(got, want)


@pytest.mark.parametrize("norms_dtype", [torch.float32, torch.float16])
def test_inverse_norms(served_by, norms_dtype):  # noqa: F811
    codes, residuals, lengths, codec = documents(4, "low-first")
    norms = 1 / written_out(codes, residuals, codec).norm(dim=-1)
    q = torch.randn(3, 32, 128, device="cuda")
    args = q, codes, residuals, lengths, *codec[:3]
    got = plaid.maxsim_residual(*args, inv_norms=norms.to(norms_dtype))
    torch.testing.assert_close(got, plaid.maxsim_residual(*args), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("nbits", [0, 2, 4])
def test_the_best(served_by, nbits):  # noqa: F811
    codes, residuals, lengths, codec = documents(nbits, "colbert")
    q = torch.randn(3, 32, 128, device="cuda")
    scores = plaid.maxsim_residual(q, codes, residuals, lengths, *codec[:3], bit_order="colbert")
    want, order = best_of(scores, 7)
    kept = torch.arange(70, device="cuda") < lengths[:, None]
    cu = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    flat = codes[kept], None if residuals is None else residuals[kept]
    for D in (
        plaid.CompressedTokens(codes, residuals, codec, lengths),
        plaid.CompressedTokens(*flat, codec, cu_seqlens_d=cu),
    ):
        for values, ids in (retrieve(q, D, 7), retrieve(q, D, 7, chunk=3)):
            assert torch.equal(values, want) and torch.equal(ids, order)
    wrong = lengths.clone()
    wrong[0], wrong[3] = 71, -1
    values, ids = maxsim_topk(q, plaid.CompressedTokens(codes, residuals, codec, wrong), 40)
    assert values[:, -2:].isnan().all() and ids[:, -2:].tolist() == [[0, 3]] * 3
    assert not values[:, :-2].isnan().any()


def test_the_approximate_score(served_by):  # noqa: F811
    codes, _, lengths, _ = documents(0, "low-first")
    table, w = torch.randn(2, 500, 32, device="cuda"), torch.rand(2, 32, device="cuda", requires_grad=True)
    got = plaid.plaid_approx_score(table, codes, lengths, q_weights=w)
    for i in range(2):
        want = reference.plaid_approx_score_reference(table[i], codes, lengths, q_weights=w[i])
        torch.testing.assert_close(got[i], want)
    (a,) = torch.autograd.grad(got.sum(), w)
    want = sum(
        reference.plaid_approx_score_reference(t, codes, lengths, q_weights=x).sum() for t, x in zip(table, w)
    )
    torch.testing.assert_close(a, torch.autograd.grad(want, w)[0])
    host = plaid.plaid_approx_score(table.cpu(), codes.cpu(), lengths.cpu(), q_weights=w.detach().cpu())
    torch.testing.assert_close(got.detach().cpu(), host)


@needs_backend
def test_in_a_graph_and_compiled():
    codes, residuals, lengths, codec = documents(4, "colbert")
    kept = torch.arange(70, device="cuda") < lengths[:, None]
    cu = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    flat, q = (codes[kept], residuals[kept], cu), torch.randn(3, 32, 128, device="cuda")

    def run(q):
        packed = plaid.maxsim_residual_varlen(
            q, *flat, *codec[:3], bit_order="colbert", max_seqlen_d=70, normalize=False
        )
        return packed, plaid.maxsim_residual(q, codes, residuals, lengths, *codec[:3])

    want = run(q)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(q), want, strict=True):
        torch.testing.assert_close(a, b)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run(q)
    for x in got:
        x.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_errors_name_the_device(served_by):  # noqa: F811
    codes, residuals, lengths, centroids, weights = compressed(2)
    with pytest.raises(ValueError, match="codes is on cpu, Q is on cuda:0"):
        plaid.maxsim_residual(
            torch.randn(2, 3, 24, device="cuda"),
            codes,
            residuals,
            lengths,
            centroids.cuda(),
            weights.cuda(),
            2,
        )
