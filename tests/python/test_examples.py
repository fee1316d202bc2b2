"""Every Python example runs and keeps its own promises."""

from __future__ import annotations

import os
import runpy
import sys
import types
from pathlib import Path

import late_interaction_kernels as lik
import pytest
import torch
from late_interaction_kernels import _command

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "name", ["rerank.py", "rerank_bm25.py", "train.py", "retrieve_compressed.py", "explain.py"]
)
def test_example(name, monkeypatch, capsys):
    monkeypatch.setitem(os.environ, "LIK_SUPPRESS_NORM_WARN", "1")
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.skipif(not os.path.exists(_command.PATH), reason="built without the command")
def test_an_explanation_draws_itself_in_a_notebook():
    found = runpy.run_path(str(EXAMPLES / "explain.py"))["explained"]()
    page = found._repr_html_()
    assert page.startswith("<iframe srcdoc=") and "lap" in page and "##cian" not in page
    assert sum(match.adds for match in found.matches) == pytest.approx(found.score, rel=1e-5)


class Model(torch.nn.Module):
    """Of PyLate's ColBERT what the example calls: words index an embedding table."""

    device = torch.device("cpu")

    def __init__(self, model_name_or_path):
        super().__init__()
        assert model_name_or_path == "small"
        self.table = torch.nn.Embedding(500, 16)

    def tokenize(self, texts, is_query=True):
        words = [[hash_of(word) for word in text.split()[: 8 if is_query else 40]] for text in texts]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(x) for x in words], batch_first=True)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(x) for x in words])[:, None]
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, features):
        return {"token_embeddings": torch.nn.functional.normalize(self.table(features["input_ids"]), dim=-1)}


def hash_of(word):
    return sum(ord(c) * 31**i for i, c in enumerate(word)) % 500


class Contrastive(torch.nn.Module):
    """PyLate's loss, in its own terms."""

    def __init__(self, model, temperature):
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, features):
        queries, documents = (self.model(side)["token_embeddings"] for side in features)
        masks = [side["attention_mask"] for side in features]
        scores = lik.maxsim(queries, documents, *masks) / self.temperature
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(scores)))


def test_training_with_pylate(monkeypatch, capsys):
    """By a stand-in; tests/hosts runs it on PyLate's own loss."""
    parts = {"models": types.ModuleType("pylate.models"), "losses": types.ModuleType("pylate.losses")}
    parts["models"].ColBERT, parts["losses"].Contrastive = Model, Contrastive
    host = types.ModuleType("pylate")
    host.models, host.losses = parts["models"], parts["losses"]
    for name, module in {"pylate": host, **{f"pylate.{k}": v for k, v in parts.items()}}.items():
        monkeypatch.setitem(sys.modules, name, module)
    patched = []
    monkeypatch.setattr("late_interaction_kernels.pylate_compat.patch_pylate", lambda: patched.append(1))
    torch.manual_seed(0)
    example = runpy.run_path(str(EXAMPLES / "train_pylate.py"))
    pairs = example["pairs"]()
    assert len(pairs) == 200 and all(query and document for query, document in pairs)
    losses = example["train"](Model("small"), [pairs[:16]] * 12, rate=0.02)
    assert losses[-1] < losses[0] / 2
    example["main"]("small", "2")
    assert patched and "in 2 steps" in capsys.readouterr().out
