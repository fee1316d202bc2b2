"""Packed tokens, pair lists and padded batches with lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from late_interaction_kernels import _native, maxsim_padded, maxsim_varlen, reference
from late_interaction_kernels._engine import numpy_arrays, torch_arrays
from late_interaction_kernels.padded import PackedBatch, pack_padded
from late_interaction_kernels.score_pairs import score_pairs_packed


@st.composite
def packs(draw):
    torch.manual_seed(draw(st.integers(0, 10**6)))
    lengths = st.lists(st.integers(0, 30), max_size=5)
    dim = draw(st.sampled_from([1, 8, 48, 128]))
    dtype = draw(st.sampled_from([torch.float32, torch.float16]))
    sides = []
    for _ in range(2):
        sizes = draw(lengths)
        first, rest = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        ends = torch.tensor([first, *sizes]).cumsum(0).to(draw(st.sampled_from([torch.int32, torch.int64])))
        sides.append((torch.randn(int(ends[-1]) + rest, dim).to(dtype), ends))
    return sides


@given(packs(), st.booleans())
def test_varlen(sides, normalize):
    (q, cu_q), (d, cu_d) = sides
    q, d = q.requires_grad_(), d.requires_grad_()
    scores = maxsim_varlen(q, d, cu_q, cu_d, normalize=normalize)
    want = reference.maxsim_reference_varlen(q, d, cu_q, cu_d, normalize=normalize)
    torch.testing.assert_close(scores, want.float(), rtol=2e-5, atol=2e-4)
    assert torch.equal(scores, maxsim_varlen(q.detach(), d.detach(), cu_q, cu_d, normalize=normalize))
    got = maxsim_varlen(
        q.detach().numpy(), d.detach().numpy(), cu_q.numpy(), cu_d.numpy(), normalize=normalize
    )
    assert np.array_equal(got, scores.detach().numpy())
    g = torch.randn_like(scores)
    if not want.requires_grad or normalize or q.dtype != torch.float32:
        torch.autograd.grad(scores, [q, d], g)
        return
    wanted = torch.autograd.grad(want, [q, d], g, allow_unused=True)
    for x, a, b in zip((q, d), torch.autograd.grad(scores, [q, d], g), wanted, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(x) if b is None else b, rtol=1e-4, atol=1e-4)


def test_rows_outside_every_sequence_get_zero_gradients():
    """They were uninitialized in 0.4.5."""
    q, d = torch.randn(6, 8, requires_grad=True), torch.randn(9, 8, requires_grad=True)
    for _ in range(5):
        junk = torch.full((6, 8), torch.nan)
        del junk
        q.grad = d.grad = None
        maxsim_varlen(q, d, torch.tensor([1, 3]), torch.tensor([2, 4, 7])).sum().backward()
        assert not q.grad[[0, 3, 4, 5]].any() and not d.grad[[0, 1, 7, 8]].any()


def test_gradients_are_the_same_bits_every_time():
    torch.manual_seed(1)
    q, d = torch.randn(300, 64, requires_grad=True), torch.randn(900, 64, requires_grad=True)
    cu_q, cu_d = torch.arange(0, 301, 30), torch.arange(0, 901, 45)
    pairs = torch.randint(0, 10, (500,)), torch.randint(0, 20, (500,))
    seen = set()
    for _ in range(4):
        q.grad = d.grad = None
        score_pairs_packed(q, d, cu_q, cu_d, *pairs).sum().backward()
        seen.add((q.grad.numpy().tobytes(), d.grad.numpy().tobytes()))
    assert len(seen) == 1


@given(packs(), st.integers(0, 12))
def test_pair_lists(sides, n):
    (q, cu_q), (d, cu_d) = sides
    nq, nd = len(cu_q) - 1, len(cu_d) - 1
    n = n if nq and nd else 0
    pairs = torch.randint(0, max(nq, 1), (n,)), torch.randint(0, max(nd, 1), (n,)).to(torch.int32)
    grid = maxsim_varlen(q, d, cu_q, cu_d)
    scores, argmax = score_pairs_packed(q, d, cu_q, cu_d, *pairs, return_argmax=True)
    assert torch.equal(scores, grid[pairs[0], pairs[1].long()]) and scores.shape == (n,)
    assert argmax.dtype == torch.int32 and argmax.shape[0] == n


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_extremes(dtype):
    """What the offsets are checked by: values and steps, or None where the extension does not
    look.
    """
    x = torch.tensor([5, 5, 9, 2], dtype=dtype)
    assert _native.extremes(torch_arrays.lend(x)) == _native.extremes(x.numpy()) == (2, 9, -7, 4)
    assert _native.extremes(x.numpy()[:1]) == (5, 5, 0, 0)
    assert all(_native.extremes(torch_arrays.lend(y)) is None for y in (x[::2], x[:0], x.short(), x.float()))
    ends = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    assert _native.extremes(ends) == (*ends, ends[1], ends[1])
    assert (
        torch_arrays.offset_extremes(x.short())
        == numpy_arrays.offset_extremes(x.short().numpy())
        == (2, 9, -7, 4)
    )


def test_bounds():
    q, d = torch.randn(5, 8), torch.randn(7, 8)
    cu_q, cu_d = torch.tensor([0, 2, 5]), torch.tensor([0, 7])
    assert torch.equal(maxsim_varlen(q, d, cu_q, cu_d, 9, 7), maxsim_varlen(q, d, cu_q, cu_d))
    for kind in (RuntimeError, ValueError):  # the existing package raises a RuntimeError here
        with pytest.raises(kind, match=r"max_seqlen_q is 2, which is smaller than the longest sequence"):
            maxsim_varlen(q, d, cu_q, cu_d, 2)


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_padded_and_pack_padded(framework):
    queries, documents = torch.randn(3, 5, 8), torch.randn(3, 2, 7, 8)
    lengths = torch.tensor([5, 2, 0]), torch.tensor([[7, 1], [0, 3], [2, 2]])
    want = reference.maxsim_padded_reference(queries, documents, *lengths)
    args = [queries, documents, *lengths]
    if framework == "numpy":
        args = [x.numpy() for x in args]
    torch.testing.assert_close(torch.as_tensor(maxsim_padded(*args)), want)
    batch = pack_padded(*args)
    assert (
        isinstance(batch, PackedBatch)
        and [str(x.dtype).split(".")[-1] for x in list(batch)[1:6:2]] == ["int32"] * 3
    )
    Q, cu_q, D, cu_d, pq, pd, mq, md = batch
    assert (mq, md) == (5, 7) and tuple(Q.shape) == (7, 8) and tuple(D.shape) == (15, 8)
    scores = score_pairs_packed(Q, D, cu_q, cu_d, pq, pd, max_seqlen_q=mq, max_seqlen_d=md)
    torch.testing.assert_close(torch.as_tensor(scores).view(3, 2), want)


@pytest.mark.parametrize("batch, candidates", [(0, 2), (2, 0), (0, 0)])
def test_padded_empty_batches(batch, candidates):
    """pack_padded with C = 0 raised RuntimeError in the existing package."""
    args = (
        torch.randn(batch, 3, 8),
        torch.randn(batch, candidates, 4, 8),
        torch.full((batch,), 2),
        torch.full((batch, candidates), 3),
    )
    assert maxsim_padded(*args).shape == (batch, candidates)
    packed = pack_padded(*args)
    assert packed.pair_q_idx.shape == (batch * candidates,) and packed.Q_packed.shape == (2 * batch, 8)


def test_pack_padded_is_differentiable():
    queries, documents = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 2, 4, 8, requires_grad=True)
    lengths = torch.tensor([3, 1]), torch.tensor([[4, 0], [2, 1]])
    Q, cu_q, D, cu_d, pq, pd, *_ = pack_padded(queries, documents, *lengths)
    score_pairs_packed(Q, D, cu_q, cu_d, pq, pd).sum().backward()
    a = queries.grad.clone(), documents.grad.clone()
    queries.grad = documents.grad = None
    maxsim_padded(queries, documents, *lengths).sum().backward()
    torch.testing.assert_close(a, (queries.grad, documents.grad))


@pytest.mark.parametrize(
    "lengths, match",
    [
        ((torch.tensor([4, 1]), torch.tensor([[4], [2]])), r"query_lengths\[0\] is 4"),
        ((torch.tensor([-1, 1]), torch.tensor([[4], [2]])), r"query_lengths\[0\] is -1"),
        ((torch.tensor([3, 1]), torch.tensor([[5], [2]])), r"doc_lengths\[0(, 0)?\] is 5"),
        ((torch.tensor([3, 1]), torch.tensor([[4, 1], [2, 1]])), "doc_lengths must have shape"),
        ((torch.tensor([3.0, 1]), torch.tensor([[4], [2]])), "query_lengths has dtype float32"),
    ],
)
def test_padded_refuses(lengths, match):
    queries, documents = torch.randn(2, 3, 8), torch.randn(2, 1, 4, 8)
    for function in (pack_padded, maxsim_padded):
        with pytest.raises((ValueError, TypeError), match=match):
            function(queries, documents, *lengths)


def test_padded_refuses_integer_embeddings():
    queries, documents = torch.ones(2, 3, 8, dtype=torch.int32), torch.ones(2, 1, 4, 8)
    for function in (pack_padded, maxsim_padded):
        with pytest.raises(TypeError, match="queries has dtype int32"):
            function(queries, documents, torch.tensor([3, 1]), torch.tensor([[4], [2]]))


def test_padded_validate_refuses_empty_sequences():
    queries, documents = torch.randn(1, 3, 8), torch.randn(1, 1, 4, 8)
    for lengths in ((torch.tensor([0]), torch.tensor([[2]])), (torch.tensor([2]), torch.tensor([[0]]))):
        assert maxsim_padded(queries, documents, *lengths).item() == 0
        for function in (pack_padded, maxsim_padded):
            with pytest.raises(ValueError, match="validate=True"):
                function(queries, documents, *lengths, validate=True)
