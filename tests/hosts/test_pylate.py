"""PyLate: patched where it is old, its gate opened where it is new, both on the CPU."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import warnings
from pathlib import Path

import pylate.evaluation
import pylate.losses
import pylate.rank
import pylate.scores
import pytest
import torch
from conftest import loss_and_gradients, unit
from late_interaction_kernels import patch_pylate, unpatch_pylate
from pylate.losses import Contrastive, Distillation

NATIVE = importlib.util.find_spec("pylate.scores._lik_backend") is not None
NAMES = ("colbert_scores", "colbert_kd_scores", "colbert_scores_pairwise")


def state():
    """Everything of PyLate that a patch could touch."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name == "pylate" or name.startswith("pylate."):
            for key, value in list(vars(module).items()):
                if callable(value):
                    found[name, key] = value
                for member, function in list(vars(value).items()) if isinstance(value, type) else ():
                    defaults = getattr(function, "__defaults__", None)
                    if defaults:
                        found[name, key, member] = defaults
    return found


@pytest.fixture
def patched():
    before = state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patch_pylate()
    yield
    unpatch_pylate()
    assert state() == before, "unpatch restores everything"


def inputs():
    q, d = unit(3, 6, 16), unit(4, 9, 16)
    q_mask, d_mask = torch.rand(3, 6) > 0.2, torch.rand(4, 9) > 0.3
    d_mask[:, 0] = True
    return q, d, q_mask, d_mask


def exact(q, d, q_mask=None, d_mask=None):
    from late_interaction_kernels.reference import maxsim_reference

    return maxsim_reference(q, d, q_mask, d_mask)


def test_importing_changes_nothing():
    calls_before = state()
    import late_interaction_kernels  # noqa: F401

    assert state() == calls_before
    if NATIVE:
        with pytest.raises(RuntimeError, match="CUDA or MPS"):
            pylate.scores.colbert_scores(unit(1, 2, 8), unit(1, 2, 8), backend="lik")


@pytest.mark.skipif(NATIVE, reason="nothing is replaced")
def test_what_is_not_where_it_was_is_told(monkeypatch):
    lost = ["distillation.colbert_kd_scores"]
    if "pylate.scores.scores" in sys.modules:  # later versions look it up
        lost += ["contrastive.colbert_scores", "cached_contrastive.colbert_scores"]
    for path in lost:
        module, _, name = f"pylate.losses.{path}".rpartition(".")
        monkeypatch.delattr(sys.modules[module], name)
    monkeypatch.delattr(pylate.scores, "colbert_scores_pairwise")  # old versions have none: nothing to tell
    try:
        with pytest.warns(RuntimeWarning, match="it was refactored") as told:
            patch_pylate()
    finally:
        unpatch_pylate()
    assert len(told) == 1 and all(f"pylate.losses.{path}" in str(told[0].message) for path in lost)
    assert "pairwise" not in str(told[0].message)


def test_scores(patched, calls):
    q, d, q_mask, d_mask = inputs()
    for mask in (d_mask, d_mask.float(), d_mask.long()):
        got = pylate.scores.colbert_scores(q, d, queries_mask=q_mask, documents_mask=mask)
        torch.testing.assert_close(got, exact(q, d, q_mask, d_mask))
    torch.testing.assert_close(pylate.scores.colbert_scores(q.numpy(), d.numpy()), exact(q, d))
    d4, mask4 = unit(3, 2, 9, 16), torch.ones(3, 2, 9, dtype=torch.bool)
    got = pylate.scores.colbert_kd_scores(q, d4, documents_mask=mask4)
    torch.testing.assert_close(got, exact(q, d4))
    torch.testing.assert_close(pylate.scores.colbert_scores_pairwise(q, d[:3]), exact(q, d[:3]).diagonal())
    assert len(calls) == 6
    lists = pylate.scores.colbert_scores_pairwise(list(q), [d[0], d[1, :4], d[2, :2]])
    assert lists.shape == (3,)


@pytest.mark.skipif(NATIVE, reason="an older name of the argument")
def test_the_older_name_of_the_mask(patched, monkeypatch):
    q, d, _, d_mask = inputs()
    got = pylate.scores.colbert_scores(q, d, mask=d_mask)
    torch.testing.assert_close(got, exact(q, d, None, d_mask))
    monkeypatch.setenv("LIK_DISABLE", "1")
    fallen = pylate.scores.colbert_scores(q, d, mask=d_mask)
    torch.testing.assert_close(fallen, pylate.scores.colbert_scores(q, d, documents_mask=d_mask))


def test_switched_off_call_by_call(patched, calls, monkeypatch):
    q, d, *_ = inputs()
    monkeypatch.setenv("LIK_DISABLE", "1")
    torch.testing.assert_close(pylate.scores.colbert_scores(q, d), exact(q, d))
    torch.testing.assert_close(pylate.scores.colbert_scores_pairwise(q, d[:3]), exact(q, d[:3]).diagonal())
    assert not calls


class Tokens(torch.nn.Module):
    """Enough of a ColBERT model for the losses: ids index an embedding table."""

    def __init__(self, tokens=50, dim=16):
        super().__init__()
        self.table = torch.nn.Embedding(tokens, dim)
        self.skiplist = []
        self.do_query_expansion = False
        self.module = self

    def forward(self, features):
        out = torch.nn.functional.normalize(self.table(features["input_ids"]), dim=-1)
        return {"token_embeddings": out, "attention_mask": features["attention_mask"]}

    def tokenize(self, *args, **kwargs):
        raise AssertionError("not needed")


def batch(n, length, groups):
    shapes = [(n, length // 2)] + [(n, length)] * groups
    return [
        {"input_ids": torch.randint(0, 50, s), "attention_mask": torch.ones(s, dtype=torch.bool)}
        for s in shapes
    ]


def run_loss(make, features, labels=None):
    torch.manual_seed(3)
    model = Tokens()
    loss = make(model)(iter(features) if False else features, labels)
    loss.backward()
    return loss.detach(), model.table.weight.grad


@pytest.mark.parametrize("name", ["Contrastive", "CachedContrastive", "Distillation"])
def test_losses(name, calls):
    """Losses bind the scorer as a default argument: built before and after the patch, both must
    reach it.
    """
    makers = {
        "Contrastive": lambda model: Contrastive(model=model),
        "CachedContrastive": lambda model: pylate.losses.CachedContrastive(model=model, mini_batch_size=2),
        "Distillation": lambda model: Distillation(model=model),
    }
    make = makers[name]
    if name == "Distillation":
        features = batch(3, 8, 1)
        documents = {k: v.repeat(4, *[1] * (v.dim() - 1)) for k, v in features[1].items()}
        features, labels = [features[0], documents], torch.rand(3, 4)
    else:
        features, labels = batch(4, 8, 2), None
    want = run_loss(make, features, labels)
    assert not calls
    early = {}

    def built_early(model):
        return early.setdefault("loss", make(model))

    torch.manual_seed(3)
    model = Tokens()
    early["loss"] = make(model)
    patch_pylate()
    try:
        got = run_loss(make, features, labels)
        assert calls, "the kernels did not do the work"
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        before = len(calls)
        early["loss"](features, labels).backward()
        assert len(calls) > before, "a loss built before the patch was not reached"
    finally:
        unpatch_pylate()
    reached = len(calls)
    run_loss(make, features, labels)
    early["loss"](features, labels)
    assert len(calls) == reached, "unpatch left something behind"


def test_the_training_example(patched, calls):
    """examples/train_pylate.py on PyLate's own loss, over a model that needs no download."""

    class Words(Tokens):
        device = torch.device("cpu")

        def tokenize(self, texts, is_query=True):
            words = [[len(word) for word in text.split()[: 8 if is_query else 40]] for text in texts]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(x) for x in words], batch_first=True)
            mask = torch.arange(ids.shape[1]) < torch.tensor([len(x) for x in words])[:, None]
            return {"input_ids": ids.clamp(max=49), "attention_mask": mask}

    example = runpy.run_path(str(Path(__file__).parents[2] / "examples/train_pylate.py"))
    losses = example["train"](Words(), [example["pairs"]()[:16]] * 12, rate=0.05)
    assert calls and losses[-1] < losses[0]


def test_rerank(patched, calls):
    queries = [unit(5, 16).numpy()]
    documents = [[unit(n, 16).numpy() for n in (7, 3, 9)]]
    ranked = pylate.rank.rerank(
        documents_ids=[["a", "b", "c"]], queries_embeddings=queries, documents_embeddings=documents
    )
    assert calls, "rerank kept PyLate's own function"
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(x) for x in documents[0]], batch_first=True)
    want = exact(torch.from_numpy(queries[0])[None], padded)[0]
    got = {r["id"]: float(r["score"]) for r in ranked[0]}
    for name, score in zip("abc", want.tolist(), strict=True):
        assert got[name] == pytest.approx(score, rel=1e-5)


def test_similarity_functions_and_evaluators_are_reached(patched, calls):
    from pylate.scores.similarity_functions import SimilarityFunction

    function = SimilarityFunction.to_similarity_fn("MaxSim")
    q, d, *_ = inputs()
    torch.testing.assert_close(function(q, d), exact(q, d))
    assert calls


def test_gradients(patched, calls):
    q, d, q_mask, d_mask = inputs()
    g = torch.randn(3, 4)
    ours = loss_and_gradients(
        lambda a, b: (pylate.scores.colbert_scores(a, b, q_mask, d_mask) * g).sum(), q, d
    )
    assert calls
    torch.testing.assert_close(
        ours, loss_and_gradients(lambda a, b: (exact(a, b, q_mask, d_mask) * g).sum(), q, d)
    )


def test_patching_twice_and_quietly():
    before = state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patch_pylate()
        patch_pylate()
        unpatch_pylate()
        unpatch_pylate()
    assert state() == before


@pytest.mark.skipif(not NATIVE, reason="PyLate from 1.5.1 on")
def test_the_gate_lets_in_only_cpu_tensors_and_keeps_strictness(patched):
    q = unit(2, 3, 8)
    torch.testing.assert_close(pylate.scores.colbert_scores(q, q, backend="lik"), exact(q, q))
    with pytest.raises(Exception, match="empty"):
        pylate.scores.colbert_scores(q[:0], q, backend="lik")
    assert pylate.scores.colbert_scores(q, q, backend="torch").shape == (2, 2)


def said(function):
    """What a call raises: its type and words."""
    try:
        function()
    except Exception as error:
        return type(error), str(error)
    return None


def test_what_pylate_refuses_stays_refused(calls):
    """maxsim takes documents of other ranks, PyLate's functions do not: the patch adds no
    meaning to them.
    """
    q, d, d4 = unit(3, 5, 16), unit(4, 7, 16), unit(3, 2, 7, 16)
    scores, pairwise, kd = (getattr(pylate.scores, name) for name in NAMES[:1] + NAMES[2:] + NAMES[1:2])
    wrong = {
        "documents not nested per query": lambda: pylate.rank.rerank(
            documents_ids=[[1, 2]], queries_embeddings=[q[0].numpy()], documents_embeddings=[d[0].numpy()]
        ),
        "one document": lambda: scores(q, d[0]),
        "one query": lambda: scores(q[0], d),
        "candidates": lambda: scores(q, d4),
        "a number": lambda: scores(q, d[0, 0, 0]),
        "candidates of a pair": lambda: pairwise(q, d4),
        "documents of the wrong dim": lambda: scores(q, d[..., :8]),
    }
    before = {name: said(call) for name, call in wrong.items()}
    more = pairwise(q, d)  # PyLate's loop ends with the shorter side
    patch_pylate()
    try:
        scores, pairwise, kd = (getattr(pylate.scores, name) for name in NAMES[:1] + NAMES[2:] + NAMES[1:2])
        for name, call in wrong.items():
            if before[name] is not None:
                assert said(call) is not None, name
            if name != "documents of the wrong dim":  # ours says more
                assert said(call) == before[name], name
        torch.testing.assert_close(pairwise(q, d), more)
        assert said(lambda: kd(q, d)) is not None
    finally:
        unpatch_pylate()


@pytest.mark.parametrize("kind", ["numpy", "torch", "half"])
def test_rerank_packs_and_keeps_the_bits(patched, kind, monkeypatch):
    """What PyLate pads with zeros, and lets win over negative similarities, is packed."""
    monkeypatch.setattr(torch.nn.utils.rnn, "pad_sequence", None)  # nobody pads
    queries = [unit(5, 16), -unit(1, 16)]
    documents = [[unit(n, 16) for n in (7, 3, 9, 1)], [queries[1].abs() + 1, unit(0, 16)]]
    documents[1][0] = -queries[1].repeat(2, 1)  # every similarity is negative, beside an empty document
    documents[1].append(-queries[1])
    if kind == "half":
        queries, documents = [q.half() for q in queries], [[d.half() for d in ds] for ds in documents]
    lent = (lambda x: x.numpy()) if kind == "numpy" else (lambda x: x)
    ids = [["a", "b", "c", "d"], ["e", "f", "g"]]
    ranked = pylate.rank.rerank(
        documents_ids=ids,
        queries_embeddings=[lent(q) for q in queries],
        documents_embeddings=[[lent(d) for d in ds] for ds in documents],
    )
    monkeypatch.undo()
    for q, ds, names, found in zip(queries, documents, ids, ranked, strict=True):
        padded = torch.nn.utils.rnn.pad_sequence(ds, batch_first=True)
        scores = pylate.scores.colbert_scores(q[None], padded)[0]
        best, order = scores.sort(descending=True)
        assert [r["id"] for r in found] == [names[i] for i in order.tolist()]
        assert [r["score"] for r in found] == best.tolist()
    assert {r["id"]: r["score"] for r in ranked[1]}["g"] == 0


def test_rerank_leaves_the_rest_to_pylate(patched, calls, monkeypatch):
    queries, documents = [unit(5, 16)], [[unit(n, 16) for n in (7, 3)]]
    ask = lambda **more: pylate.rank.rerank([["a", "b"]], queries, documents, **more)
    ours = ask()
    reached = len(calls)
    assert reached and ask(device="cpu") == ours
    reached = len(calls)
    monkeypatch.setenv("LIK_DISABLE", "1")
    theirs = ask()
    assert len(calls) == reached and [r["id"] for r in theirs[0]] == [r["id"] for r in ours[0]]
    if NATIVE:
        monkeypatch.delenv("LIK_DISABLE")
        monkeypatch.setenv("PYLATE_SCORES_BACKEND", "torch")
        ask()
        assert len(calls) == reached
