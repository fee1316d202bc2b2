"""What the host checks share: which host is installed, and a counter of the calls that reach
our kernels.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from late_interaction_kernels import _native
from late_interaction_kernels._engine import native, short, torch_ops

os.environ.setdefault("LIK_SUPPRESS_NORM_WARN", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
collect_ignore = []
for test, host in (
    ("test_pylate.py", "pylate"),
    ("test_colpali.py", "colpali_engine"),
    ("test_sentence_transformers.py", "sentence_transformers.multi_vector_encoder"),
):
    try:
        found = importlib.util.find_spec(host) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        collect_ignore.append(test)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def calls(monkeypatch):
    """Scorings that reached the C library: a list that grows by the pairing of each."""
    seen = []

    def counted(function):
        def call(*args):
            result = function(*args)
            if (result is not False and result is not None) or function.__name__ == "score":
                seen.append(function.__name__)
            return result

        return call

    class Counting:
        def __getattr__(self, name):
            function = getattr(_native, name)
            return counted(function) if name in ("maxsim", "score", "forward") else function

    counting = Counting()
    for module in (native, short, torch_ops):
        monkeypatch.setattr(module, "_native", counting)
    return seen


def unit(*shape, dtype=torch.float32):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1).to(dtype)


def loss_and_gradients(function, *leaves):
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    loss = function(*leaves)
    return loss.detach(), torch.autograd.grad(loss, leaves)
