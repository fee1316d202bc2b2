"""Top-k and the scorer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from late_interaction_kernels import MaxSimScorer, maxsim, retrieve, topk
from late_interaction_kernels._engine import verbs
from late_interaction_kernels.int8 import quantize_int8_per_token
from late_interaction_kernels.topk import maxsim_topk


@pytest.fixture(params=["whole", "chunks"])
def scratch(request, monkeypatch):
    """Calls that take their documents whole though a chunk is given, and calls that do not."""
    if request.param == "chunks":
        monkeypatch.setattr(verbs, "topk_scratch", lambda problem, k: topk.SCRATCH + 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 10**6),
    st.integers(0, 4),
    st.integers(0, 40),
    st.integers(1, 50),
    st.sampled_from([None, 1, 3, 7, 40]),
    st.booleans(),
)
def test_topk_is_the_sorted_scores(scratch, seed, queries, documents, k, chunk, largest):
    torch.manual_seed(seed)
    q = torch.randn(queries, 5, 16)
    d = torch.randn(documents // 3 + 1, 6, 16).repeat(3, 1, 1)[:documents]  # ties across chunks
    mask = torch.rand(documents, 6) > 0.4
    values, ids = maxsim_topk(q, d, k, None, mask, chunk_size=chunk, largest=largest)
    scores = maxsim(q, d, None, mask).numpy()
    order = np.argsort(-scores if largest else scores, axis=1, kind="stable")[:, :k]
    assert ids.dtype == torch.int64 and ids.shape == (queries, min(k, documents))
    assert np.array_equal(ids.numpy(), order) and np.array_equal(
        values.numpy(), np.take_along_axis(scores, order, 1)
    )
    got = maxsim_topk(q.numpy(), d.numpy(), k, None, mask.numpy(), chunk_size=chunk, largest=largest)
    assert np.array_equal(got[0], values.numpy()) and np.array_equal(got[1], ids.numpy())


def test_k_larger_than_a_chunk(scratch):
    q, d = torch.randn(2, 3, 8), torch.randn(9, 4, 8)
    assert torch.equal(retrieve(q, d, 8, chunk=2)[1], retrieve(q, d, 8)[1])
    for largest in (True, False):
        whole = maxsim_topk(q.numpy(), d.numpy(), 5, largest=largest)
        parts = maxsim_topk(q.numpy(), d.numpy(), 5, largest=largest, chunk_size=2)
        assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_a_chunk_that_bounds_nothing_is_not_taken(monkeypatch):
    """Scoring 4,096 documents at a time took 1.8 times as long as scoring 100,000 at once, and
    more memory.
    """
    monkeypatch.setattr(topk, "by_chunks", None)
    q, d = torch.randn(2, 3, 8), torch.randn(9, 4, 8)
    assert torch.equal(retrieve(q, d, 4, chunk=2)[0], retrieve(q, d, 4)[0])
    assert np.array_equal(*(retrieve(q.numpy(), d.numpy(), 4, chunk=c)[0] for c in (2, None)))


def test_nan_comes_last(scratch):
    q, d = torch.randn(1, 3, 8), torch.randn(5, 4, 8)
    d[2, 1] = torch.nan
    for chunk in (None, 2):
        assert maxsim_topk(q, d, 5, chunk_size=chunk)[1][0, -1] == 2


def test_retrieve_normalizes_and_drops_the_query_axis():
    q, d = torch.randn(3, 8) * 5, torch.randn(6, 4, 8)
    values, ids = retrieve(q, d, 2)
    assert values.shape == ids.shape == (2,)
    best = maxsim(q, d, normalize=True).topk(2)
    assert torch.equal(ids, best.indices) and torch.equal(values, best.values)


def test_never_differentiable():
    q = torch.randn(2, 3, 8, requires_grad=True)
    assert not retrieve(q, torch.randn(4, 5, 8), 2)[0].requires_grad


def test_matched_tokens():
    q, d = torch.randn(2, 3, 8), torch.randn(6, 4, 8)
    _, ids, argmax = maxsim_topk(q, d, 3, return_argmax=True)
    full = maxsim(q, d, return_argmax=True)[1]
    assert torch.equal(argmax, full.gather(1, ids[..., None].expand(-1, -1, 3)))


def test_int8_storage(scratch):
    q, d = torch.randn(2, 3, 64), torch.randn(50, 4, 64)
    pair = quantize_int8_per_token(d)
    a, b = maxsim_topk(q, d, 5, storage="int8"), maxsim_topk(q, pair, 5, storage="int8", chunk_size=7)
    assert torch.equal(a[1], b[1]) and torch.equal(a[0], b[0])


@pytest.mark.parametrize("bad", [0, -1, -7])
def test_bad_k_and_chunk(bad):
    """A negative chunk returned (None, None)."""
    q, d = torch.randn(2, 3, 8), torch.randn(4, 5, 8)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        retrieve(q, d, bad)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        retrieve(q, d, 2, chunk=bad)
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        maxsim_topk(q, d, 2, chunk_size=bad)
    with pytest.raises(ValueError, match="k must be at least 1"):
        maxsim_topk(q, d, bad)
    with pytest.raises(ValueError, match=r"D must have shape \[Nd, Ld, d\]"):
        retrieve(q, d[None], 2)


@pytest.mark.parametrize("bad", [2.5, "2", True, [2]])
def test_k_and_chunk_are_integers(bad):
    q, d = torch.randn(2, 3, 8), torch.randn(4, 5, 8)
    for name, call in {
        "top_k": lambda: retrieve(q, d, bad),
        "chunk": lambda: retrieve(q, d, 2, chunk=bad),
        "k": lambda: maxsim_topk(q, d, bad),
        "chunk_size": lambda: maxsim_topk(q, d, 2, chunk_size=bad),
    }.items():
        with pytest.raises(TypeError, match=f"^{name} must be an integer, got {type(bad).__name__}"):
            call()
    with pytest.raises(TypeError, match="top_k must be an integer, got NoneType"):
        retrieve(q, d, None)
    assert torch.equal(retrieve(q, d, np.int64(2), chunk=torch.tensor(3))[1], retrieve(q, d, 2)[1])


def test_scorer():
    scorer = MaxSimScorer(mask_pad_token=0)
    assert repr(scorer) == "MaxSimScorer(normalize=True, backward='auto', mask_pad_token=0)"
    assert not list(scorer.parameters())
    q, d = torch.randn(2, 3, 8, requires_grad=True), torch.randn(4, 5, 8)
    assert torch.equal(scorer(q, d), maxsim(q, d, normalize=True)) and scorer(q, d).requires_grad
    with torch.no_grad():
        assert not scorer(q, d).requires_grad
    assert not scorer.score(q, d).requires_grad and torch.equal(scorer.score(q, d), scorer(q, d))
    assert scorer(q, torch.randn(2, 6, 5, 8)).shape == (2, 6)  # 4-D documents raised on the CPU
    ids_q, ids_d = torch.randint(0, 3, (2, 3)), torch.randint(0, 3, (4, 5))
    assert torch.equal(scorer.forward_with_ids(q, d, ids_q, ids_d), scorer(q, d, ids_q != 0, ids_d != 0))
    assert torch.equal(scorer.retrieve(q, d, 2)[1], retrieve(q, d, 2)[1])
    w = torch.rand(2, 3)
    weighted = scorer.retrieve(q, d, 2, q_weights=w), retrieve(q, d, 2, q_weights=w)
    assert torch.equal(weighted[0][0], weighted[1][0])
    with_ids = scorer.forward_with_ids(q, d, ids_q, ids_d, q_weights=w)
    assert torch.equal(with_ids, scorer(q, d, ids_q != 0, ids_d != 0, q_weights=w))
    with pytest.raises(ValueError, match=r"d_ids must have shape \(4, 5\)"):
        scorer.forward_with_ids(q, d, ids_q, ids_d[:, :4])
    with pytest.raises(TypeError, match=r"q_ids must be a torch.Tensor"):
        scorer.forward_with_ids(q, d, ids_q.tolist(), ids_d)
    with pytest.raises(ValueError, match="mask_pad_token"):
        MaxSimScorer().forward_with_ids(q, d, ids_q, ids_d)
    with pytest.raises(ValueError, match="backward must be"):
        MaxSimScorer(backward="magic")
    assert isinstance(MaxSimScorer().score(q.detach().numpy(), d.numpy()), np.ndarray)


def test_scorer_keeps_float64():
    q, d = (torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scorer = MaxSimScorer()
    assert scorer(q, d).dtype == torch.float64
    assert torch.autograd.gradcheck(scorer, (q, d))
