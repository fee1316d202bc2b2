"""A pytest plugin for run.py: leaves out the tests of not_ours.txt (with --not-ours everything
else), skips those that ask for torch.cuda where there is none, and lends the tests the private
functions of the existing package that they use to look at public ones.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from pathlib import Path

import not_ours
import pytest
import torch

EMULATED = "LIK_MOCK_METAL" in os.environ  # Metal's kernels, by tests/metal
MPS = ("test_mps.py", "test_mps_metal.py", "test_pylate_compat_mps.py")


def _a_mac(name):
    """Where it is emulated, tests of MPS tensors run on one."""
    if not EMULATED or name not in MPS:
        return contextlib.nullcontext()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "metal"))
    import fake_torch

    return fake_torch.a_mac()


@pytest.fixture(autouse=True)
def a_mac(request, monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiler(f, **{**options, "backend": "eager"}))
    with _a_mac(request.path.name):
        yield


def pytest_addoption(parser):
    parser.addoption("--not-ours", action="store_true", help="run the tests of not_ours.txt, and no others")


def _run_forward(Q, D, q_mask, d_mask, save_argmax, normalize=False, *, kd_layout=False):
    from late_interaction_kernels import maxsim
    from late_interaction_kernels.forward import maxsim_forward

    if not kd_layout:
        return maxsim_forward(Q, D, q_mask, d_mask, save_argmax=save_argmax, normalize=normalize)
    grouped = D.reshape(Q.shape[0], -1, *D.shape[1:])
    scores, argmax = maxsim(Q, grouped, q_mask, d_mask, normalize=normalize, return_argmax=True)
    return scores, argmax.reshape(-1, Q.shape[1])


def _maxsim_cross(Q, D, q_mask, d_mask, normalize, method):
    from late_interaction_kernels import maxsim

    return maxsim(Q, D, q_mask, d_mask, normalize=normalize, backward=method)


def _scores_defining_module():
    try:
        import pylate.scores.scores as defining

        return defining, False
    except ImportError:
        import pylate.scores.colbert as defining

        return defining, True


def pytest_configure(config):
    from late_interaction_kernels import autograd, forward, pylate_compat

    for module, function in (
        (forward, _run_forward),
        (autograd, _maxsim_cross),
        (pylate_compat, _scores_defining_module),
    ):
        if not hasattr(module, function.__name__):
            setattr(module, function.__name__, function)
    here = not_ours.where(torch.cuda.is_available(), EMULATED)
    config.lik_entries = [entry for entry in not_ours.read() if entry.where in here]


def pytest_ignore_collect(collection_path, config):
    """A file that does not apply as a whole is not even imported; with --not-ours only files
    with entries are.
    """
    if collection_path.suffix != ".py" or config.getoption("--not-ours"):
        return None
    return True if any(entry.pattern == collection_path.name for entry in config.lik_entries) else None


def pytest_collection_modifyitems(config, items):
    kept, dropped = [], []
    for item in items:
        listed = any(entry.matches(f"{item.path.name}::{item.name}") for entry in config.lik_entries)
        (kept if listed == config.getoption("--not-ours") else dropped).append(item)
        if not torch.cuda.is_available() and "torch.cuda." in inspect.getsource(item.function):
            item.add_marker(pytest.mark.skip(reason="needs a GPU: asks torch.cuda"))
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)
