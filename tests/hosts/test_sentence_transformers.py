"""sentence-transformers 6: similarity, masks, losses of the multi-vector encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import loss_and_gradients, unit
from late_interaction_kernels import patch_sentence_transformers, unpatch_sentence_transformers
from sentence_transformers.multi_vector_encoder import scoring
from sentence_transformers.util import similarity


@pytest.fixture
def patched():
    before = dict(vars(similarity))
    patch_sentence_transformers()
    patch_sentence_transformers()
    yield
    unpatch_sentence_transformers()
    unpatch_sentence_transformers()
    assert dict(vars(similarity)) == before


def both(function, calls):
    """The result with and without the patch; the first must come from our kernels, the second
    not.
    """
    ours = function()
    assert calls, "the kernels did not do the work"
    seen = len(calls)
    unpatch_sentence_transformers()
    theirs = function()
    assert len(calls) == seen
    patch_sentence_transformers()
    return ours, theirs


@pytest.mark.parametrize(
    "kind", ["plain", "masks", "float query mask", "lists", "numpy", "empty document", "mean", "half"]
)
@pytest.mark.parametrize("pairwise", [False, True])
def test_similarity(kind, pairwise, patched, calls):
    q, d = unit(3, 5, 16), unit(3 if pairwise else 4, 7, 16)
    function = similarity.maxsim_pairwise if pairwise else similarity.maxsim
    args, kwargs = [q, d], {}
    if kind == "masks":
        kwargs = {"a_mask": torch.rand(3, 5) > 0.3, "b_mask": torch.rand(d.shape[:2]) > 0.3}
    if kind == "float query mask":
        kwargs = {"a_mask": torch.rand(3, 5)}
    if kind == "lists":
        args = [[q[0], q[1, :2], q[2]], [x[: 3 + i] for i, x in enumerate(d)]]
    if kind == "numpy":
        args = [q.numpy(), d.numpy()]
    if kind == "empty document":
        mask = torch.ones(d.shape[:2], dtype=torch.bool)
        mask[1] = False
        kwargs = {"b_mask": mask}
    if kind == "mean":
        kwargs = {"length_normalize": True}
    if kind == "half":
        args = [q.bfloat16(), d.bfloat16()]
    ours, theirs = both(lambda: function(*args, **kwargs), calls)
    tolerance = 2e-2 if kind == "half" else 1e-5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["colbert_scores", "colbert_kd_scores", "colbert_scores_pairwise"])
def test_scoring_and_gradients(name, patched, calls):
    q = unit(3, 5, 16)
    d = unit(3, 7, 16) if name.endswith("pairwise") else unit(3, 2, 7, 16)
    q_mask, d_mask = torch.rand(3, 5) > 0.2, torch.rand(d.shape[:-1]) > 0.2
    d_mask[..., 0] = True
    function = getattr(scoring, name)
    ours, theirs = both(
        lambda: loss_and_gradients(lambda a, b: function(a, b, q_mask, d_mask).square().sum(), q, d), calls
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


class Tokens(torch.nn.Module):
    """Enough of a multi-vector encoder for its losses."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 16)

    def forward(self, features, **kwargs):
        out = torch.nn.functional.normalize(self.table(features["input_ids"]), dim=-1)
        mask = features["attention_mask"]
        return {**features, "token_embeddings": out, "scoring_mask": mask, "multi_vector_mask": mask}


def test_losses_reach_the_patched_functions(patched, calls):
    from sentence_transformers.multi_vector_encoder import losses

    torch.manual_seed(1)
    features = [
        {"input_ids": torch.randint(0, 50, (4, n)), "attention_mask": torch.ones(4, n, dtype=torch.long)}
        for n in (5, 9)
    ]

    def step():
        torch.manual_seed(2)
        model = Tokens()
        loss = losses.MultiVectorMultipleNegativesRankingLoss(model)(features, None)
        loss.backward()
        return loss.detach(), model.table.weight.grad

    ours, theirs = both(step, calls)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_xtr_is_left_alone(patched, calls):
    scoring.xtr_scores(unit(3, 5, 16), unit(3, 2, 7, 16))
    assert not calls


def test_switched_off(patched, calls, monkeypatch):
    monkeypatch.setenv("LIK_DISABLE", "1")
    similarity.maxsim(unit(2, 3, 8), unit(2, 3, 8))
    assert not calls
    assert isinstance(similarity.maxsim(np.ones((1, 2, 4), "f4"), np.ones((1, 2, 4), "f4")), torch.Tensor)


def test_what_the_host_refuses_stays_refused(patched):
    """maxsim takes tensors of other ranks, the host's two functions do not: the patch adds no
    meaning to them.
    """
    q, d = unit(3, 5, 16), unit(3, 7, 16)
    for function in (similarity._maxsim_score_documents, similarity._maxsim_score_pairs):
        for a, b in ((q, d[0]), (q[0], d), (q, d[None])):
            with pytest.raises((RuntimeError, ValueError, IndexError)):
                function(a, b, None, None)
