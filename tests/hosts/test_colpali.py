"""colpali-engine: every loss and score_multi_vector, on the CPU, old and new versions."""

from __future__ import annotations

import importlib.util
import inspect
import warnings

import pytest
import torch
from colpali_engine.loss import late_interaction_losses as losses
from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor
from conftest import loss_and_gradients, unit
from late_interaction_kernels import colpali_compat, patch_colpali_engine, unpatch_colpali_engine

NATIVE = importlib.util.find_spec("colpali_engine.utils._lik_backend") is not None
LOSSES = [
    name
    for name in (
        "ColbertLoss",
        "ColbertPairwiseCELoss",
        "ColbertSigmoidLoss",
        "ColbertNegativeCELoss",
        "ColbertPairwiseNegativeCELoss",
    )
    if hasattr(losses, name)
]


def state():
    owners = [BaseVisualRetrieverProcessor, *(getattr(losses, name) for name in LOSSES)]
    found = {owner: dict(vars(owner)) for owner in owners}
    if NATIVE:
        from colpali_engine.utils import _lik_backend

        found["backend"] = dict(vars(_lik_backend))
    return found


@pytest.fixture
def patched():
    before = state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patch_colpali_engine()
        patch_colpali_engine()
    yield
    unpatch_colpali_engine()
    unpatch_colpali_engine()
    assert state() == before


def positive(*shape, dtype=torch.float32):
    """Unit vectors with similarities between 0 and 1, as the oldest losses demand."""
    return torch.nn.functional.normalize(torch.rand(*shape) + 0.01, dim=-1).to(dtype)


def four_dimensional_negatives():
    source = inspect.getsource(losses.ColbertNegativeCELoss)
    return "num_negs" in source or "maxsim_kd" in source or "blsd" in source


def arguments(name, dtype=torch.float32):
    q, d = positive(4, 5, 16, dtype=dtype), positive(4, 9, 16, dtype=dtype)
    q[1, 3:] = 0  # padding
    if "Negative" not in name:
        return [q, d]
    return [
        q,
        d,
        positive(4, 3, 7, 16, dtype=dtype)
        if four_dimensional_negatives()
        else positive(4, 7, 16, dtype=dtype),
    ]


def options(name):
    kinds = [{}]
    parameters = inspect.signature(getattr(losses, name)).parameters
    for key, values in {
        "normalize_scores": [False],
        "pos_aware_negative_filtering": [True],
        "in_batch_term_weight": [0.0, 0.5],
        "in_batch_term": [True],
    }.items():
        kinds += [{key: value} for value in values if key in parameters]
    return kinds


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, calls):
    for option in options(name):
        loss = getattr(losses, name)(**option)
        args = arguments(name)
        want = loss_and_gradients(loss, *args)
        assert not calls
        patch_colpali_engine()
        try:
            got = loss_and_gradients(loss, *args)
        finally:
            unpatch_colpali_engine()
        assert calls, "the kernels did not do the work"
        calls.clear()
        torch.testing.assert_close(got[0], want[0], rtol=1e-4, atol=1e-5)
        # amax shares the gradient among equal maxima, a winner takes it all: only zero padding
        # of queries ties
        for x, a, b in zip(args, got[1], want[1], strict=True):
            kept = (x != 0).any(-1)
            torch.testing.assert_close(a[kept], b[kept], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_offset(name, patched, calls):
    """Gathered documents of several processes: positives stand `offset` further."""
    if "offset" not in inspect.signature(getattr(losses, name).forward).parameters:
        pytest.skip("no offset in this version")
    q, d = positive(2, 5, 16), positive(4, 9, 16)
    args = [q, d]
    if "Negative" in name:
        args.append(positive(2, 3, 7, 16) if four_dimensional_negatives() else positive(2, 7, 16))
    if not four_dimensional_negatives() and "Negative" in name:
        args[1] = d[:2]
        offset = 0
    else:
        offset = 2
    if name in ("ColbertSigmoidLoss", "ColbertPairwiseCELoss", "ColbertPairwiseNegativeCELoss"):
        offset, args[1] = 0, d[:2]
    got = getattr(losses, name)()(*args, offset=offset)
    used = len(calls)
    unpatch_colpali_engine()
    torch.testing.assert_close(got, getattr(losses, name)()(*args, offset=offset), rtol=1e-4, atol=1e-5)
    assert used and len(calls) == used


def test_smooth_maximum_stays_the_hosts(patched, calls):
    if "use_smooth_max" not in inspect.signature(losses.ColbertLoss).parameters:
        pytest.skip("no smooth maximum in this version")
    args = arguments("ColbertLoss")
    got = losses.ColbertLoss(use_smooth_max=True)(*args)
    assert not calls
    unpatch_colpali_engine()
    assert torch.equal(got, losses.ColbertLoss(use_smooth_max=True)(*args))


def test_score_multi_vector(patched, calls):
    queries, pages = [unit(n, 16) for n in (5, 3)], [unit(n, 16) for n in (9, 4, 7)]
    got = BaseVisualRetrieverProcessor.score_multi_vector(queries, pages, device="cpu")
    assert calls and got.dtype == torch.float32 and got.shape == (2, 3)
    unpatch_colpali_engine()
    want = BaseVisualRetrieverProcessor.score_multi_vector(queries, pages, device="cpu")
    torch.testing.assert_close(got, want)
    patch_colpali_engine()
    for bad in (([], pages), (queries, [])):
        with pytest.raises(ValueError):
            BaseVisualRetrieverProcessor.score_multi_vector(*bad, device="cpu")
    halves = BaseVisualRetrieverProcessor.score_multi_vector(
        [x.bfloat16() for x in queries], [x.bfloat16() for x in pages], device="cpu", batch_size=2
    )
    torch.testing.assert_close(halves, want, rtol=2e-2, atol=2e-2)


FORWARDS = {
    "ColbertLoss": colpali_compat.patched_colbert_loss_forward,
    "ColbertPairwiseCELoss": colpali_compat.patched_colbert_pairwise_ce_forward,
    "ColbertSigmoidLoss": colpali_compat.patched_colbert_sigmoid_forward,
    "ColbertNegativeCELoss": colpali_compat.patched_colbert_negative_ce_forward,
    "ColbertPairwiseNegativeCELoss": colpali_compat.patched_colbert_pairwise_negative_ce_forward,
}


@pytest.mark.parametrize("name", LOSSES)
def test_patched_functions_by_name(name, calls):
    """They need no patch, and leave none behind; where one is on they leave it on."""
    before, args = state(), arguments(name)
    for option in options(name):
        loss = getattr(losses, name)(**option)
        want = loss(*args)
        assert not calls
        got = FORWARDS[name](loss, *args)
        assert calls and state() == before
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        patch_colpali_engine()
        assert torch.equal(FORWARDS[name](loss, *args), got) and torch.equal(loss(*args), got)
        assert state() != before
        unpatch_colpali_engine()
        calls.clear()
    with pytest.raises(Exception):  # noqa: B017 - whatever the host raises
        FORWARDS[name](loss, *args[:-1], args[-1][..., :8])
    assert state() == before


def test_patched_functions_take_an_offset(calls):
    if "offset" not in inspect.signature(losses.ColbertLoss.forward).parameters:
        pytest.skip("no offset in this version")
    q, d, loss = positive(2, 5, 16), positive(4, 9, 16), losses.ColbertLoss()
    got = FORWARDS["ColbertLoss"](loss, q, d, offset=2)
    assert calls
    torch.testing.assert_close(got, loss(q, d, offset=2), rtol=1e-4, atol=1e-5)
    assert not torch.equal(got, FORWARDS["ColbertLoss"](loss, q, d))


def test_patched_score_multi_vector_by_name(calls):
    before = state()
    queries, pages = [unit(n, 16) for n in (5, 3)], [unit(n, 16) for n in (9, 4, 7)]
    want = BaseVisualRetrieverProcessor.score_multi_vector(queries, pages, device="cpu")
    got = colpali_compat.patched_score_multi_vector(queries, pages, batch_size=2, device="cpu")
    assert calls and got.dtype == torch.float32 and state() == before
    torch.testing.assert_close(got, want)
    with pytest.raises(ValueError):
        colpali_compat.patched_score_multi_vector([], pages, device="cpu")
    assert state() == before


def test_switched_off_call_by_call(patched, calls, monkeypatch):
    monkeypatch.setenv("LIK_DISABLE", "1")
    losses.ColbertLoss()(*arguments("ColbertLoss"))
    assert not calls


def test_importing_changes_nothing():
    if NATIVE:
        from colpali_engine.utils import _lik_backend

        with pytest.raises(_lik_backend.LIKUnsupportedError):
            _lik_backend._lik_device(unit(1, 2, 8), unit(1, 2, 8))


def test_what_the_host_refuses_stays_refused(patched):
    """maxsim takes tensors of other ranks, the host's products do not: the patch adds no
    meaning to them.
    """
    q, d = positive(4, 5, 16), positive(4, 9, 16)
    wrong = [(q, d[0]), (q[0], d), (q, d[None])]
    loss = losses.ColbertLoss()
    calls = [lambda a=a, b=b: loss(a, b) for a, b in wrong]
    if NATIVE:
        from colpali_engine.utils.maxsim import maxsim_inbatch

        calls += [lambda a=a, b=b: maxsim_inbatch(a, b) for a, b in wrong]
    else:
        from late_interaction_kernels._hosts.colpali import _Torch

        calls += [lambda a=a, b=b: _Torch().einsum("bnd,csd->bcns", a, b) for a, b in wrong]
    for call in calls:
        with pytest.raises((RuntimeError, IndexError)) as ours:
            call()
        unpatch_colpali_engine()
        with pytest.raises(type(ours.value)) as theirs:
            call()
        patch_colpali_engine()
        assert str(ours.value) == str(theirs.value)
