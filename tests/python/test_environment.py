"""What a process says once: about norms that are visibly not 1, and about variables that say
nothing.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from late_interaction_kernels import _hosts, autograd, maxsim
from late_interaction_kernels._engine import environment, torch_arrays

THREADS = """
print(_native.info()[3])
q, d = np.ones((4, 64, 128), "f4"), np.ones((400, 64, 128), "f4")
maxsim(q, d), maxsim(q, d)
"""


@pytest.fixture
def unchecked(monkeypatch):
    monkeypatch.delenv("LIK_SUPPRESS_NORM_WARN", raising=False)
    monkeypatch.setattr(autograd, "_NORM_CHECKED", False)
    monkeypatch.setattr(autograd, "_WARNED_UNNORMALIZED", False)


@pytest.mark.parametrize(
    "value, torch_too",
    [
        ("abc", False),
        ("abc", True),
        *((x, False) for x in ("-1", "2x", "0", "4097", "99999999999999999999", "1.5", " ")),
    ],
)
def test_threads_that_are_no_number_are_said_once(run, value, torch_too):
    code = "import numpy as np\nfrom late_interaction_kernels import _native, maxsim\n" + THREADS
    done = run(("import torch\n" if torch_too else "") + code, LIK_THREADS=value, PYTHONWARNINGS="always")
    assert done.returncode == 0 and done.stderr.count("RuntimeWarning") == 1, done.stderr
    assert f"LIK_THREADS is '{value}', must be a whole number from 1 to 4096; it is ignored" in done.stderr
    assert int(done.stdout) >= 1


@pytest.mark.parametrize("value", ["1", "4096", ""])
def test_threads_that_are_one(run, value):
    code = (
        "import numpy as np\nfrom late_interaction_kernels import _native, maxsim\nprint(_native.info()[3])"
    )
    done = run(code, LIK_THREADS=value, PYTHONWARNINGS="error")
    assert done.returncode == 0 and (not value or int(done.stdout) == int(value)), done.stderr


def test_threads_that_change_to_nonsense_are_said_at_the_next_call(run):
    """The warning is not lost on the short way, nor where warnings are errors."""
    done = run(
        "import os, warnings, numpy as np\nfrom late_interaction_kernels import maxsim\n"
        "os.environ['LIK_THREADS'] = 'many'\nwarnings.simplefilter('error')\n"
        "q, d = np.ones((4, 64, 128), 'f4'), np.ones((400, 64, 128), 'f4')\n"
        "for normalize in (True, False):\n    try:\n        maxsim(q, d, normalize=normalize)\n"
        "    except RuntimeWarning as error:\n        print(error)\n"
    )
    assert done.stdout.count("LIK_THREADS is 'many'") == 2, done.stderr


@pytest.mark.parametrize("name", ["LIK_DISABLE", "LIK_SUPPRESS_NORM_WARN"])
def test_flags_that_are_neither_0_nor_1_are_said_once(monkeypatch, unchecked, name):
    def everything():
        monkeypatch.setattr(autograd, "_NORM_CHECKED", False)
        maxsim(np.eye(8, dtype="f4")[None], np.eye(8, dtype="f4")[None])
        return _hosts.disabled()

    for value in ("true", "2", "no"):
        monkeypatch.setattr(environment, "_warned", set())
        monkeypatch.setenv(name, value)
        with pytest.warns(
            RuntimeWarning, match=f"{name} is '{value}', must be 0 or 1; it is ignored"
        ) as said:
            assert not everything()
            everything()
        assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in ("0", "", "1"):
            monkeypatch.setenv(name, value)
            assert everything() is (value == "1" and name == "LIK_DISABLE")


@pytest.mark.parametrize("flag", ["_NORM_CHECKED", "_WARNED_UNNORMALIZED"])
def test_either_name_of_the_flag_asks_for_another_look(monkeypatch, unchecked, flag):
    q, d = 10 * torch.randn(2, 3, 64), torch.randn(2, 3, 64)
    with pytest.warns(UserWarning, match=r"late-interaction-kernels.*normalize=True"):
        maxsim(q, d)
    assert autograd._NORM_CHECKED and autograd._WARNED_UNNORMALIZED
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maxsim(q, d)
    monkeypatch.setattr(autograd, flag, False)
    with pytest.warns(UserWarning, match="late-interaction-kernels"):
        maxsim(q, d)


def test_one_query_against_one_document_uses_up_the_look(unchecked):
    """It was never looked at, and such a process never took the short way."""
    with pytest.warns(UserWarning, match="late-interaction-kernels"):
        maxsim(10 * torch.randn(3, 64), torch.randn(2, 64))
    assert autograd._NORM_CHECKED


@pytest.mark.parametrize("made", [torch.tensor, np.array])
def test_calls_after_unit_vectors_are_looked_at(unchecked, made):
    """The second, the fourth, the eighth: a few of all, and none after the warning."""
    unit = made([[[0.6, 0.8], [1.0, 0.0]]])
    looked = []
    for call in range(1, 2100):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            maxsim(unit, unit)
        assert not said
        if autograd._calls == call:  # counted from the first on
            looked += [call] if autograd._next_look == 2 * call or not autograd._next_look else []
    assert looked[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512] and 1024 in looked
    autograd._NORM_CHECKED = False
    maxsim(unit, unit)
    with pytest.warns(UserWarning, match="query tokens have a median L2 norm of 5;"):
        maxsim(5 * unit, unit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            maxsim(5 * unit, unit)


@pytest.mark.parametrize("shape", [(1, 1, 8), (5, 3, 8), (70, 2, 8), (2, 200, 8), (3, 64, 8), (700, 9, 8)])
def test_tokens_all_over_are_looked_at(unchecked, shape):
    q = torch.nn.functional.normalize(torch.randn(shape), dim=-1)
    some = q.clone()
    some[: (shape[0] + 2) // 3] *= 100  # not the first alone; most are unit vectors
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if shape[0] > 3:
            maxsim(some.expand(shape), q[:1])
    for name, far, near in (("query", 3 * q, q[:1]), ("document", q[:1], 3 * q)):
        autograd._NORM_CHECKED = False
        with pytest.warns(UserWarning, match=f"{name} tokens have a median L2 norm of 3;"):
            maxsim(far.mT.contiguous().mT, near)
        autograd._NORM_CHECKED = False
        with pytest.warns(UserWarning, match=f"{name} tokens have a median L2 norm of 3;"):
            maxsim(far.numpy()[:, ::-1][:, ::-1], near.numpy())


def test_padding_is_no_token_of_length_0(unchecked):
    d = torch.nn.functional.normalize(torch.randn(4, 100, 8), dim=-1)
    d[:, 20:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maxsim(d[:, :20], d, d_mask=d.any(-1))
        autograd._NORM_CHECKED = False
        maxsim(torch.zeros(2, 3, 8), d)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_the_look_copies_nothing_large(run, kind):
    """An expanded tensor of 1 GB was copied whole."""
    q = {
        "torch": "torch.ones(1, 32, 8).expand(1_000_000, 32, 8)",
        "numpy": "np.broadcast_to(np.ones((32, 8), 'f4'), (1_000_000, 32, 8))",
    }
    d = {"torch": "torch.ones(1, 1, 8)", "numpy": "np.ones((1, 1, 8), 'f4')"}
    done = run(
        f"""
import warnings
import numpy as np, torch
from late_interaction_kernels import maxsim
warnings.simplefilter("ignore")
d = {d[kind]}
def most():  # ru_maxrss is handed down by the process that starts this one
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
maxsim(d, d, normalize=True)
before = most()
maxsim({q[kind]}, d)
print((most() - before) // 1024)
""",
        LIK_SUPPRESS_NORM_WARN="0",
    )
    assert int(done.stdout) < 200, done.stderr


def test_a_look_waits_for_a_call_with_values(unchecked):
    from torch._subclasses.fake_tensor import FakeTensorMode

    q, d = torch.randn(2, 3, 64), torch.randn(2, 3, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maxsim(q.to("meta"), d.to("meta"))
        with FakeTensorMode() as mode:
            maxsim(mode.from_tensor(q), mode.from_tensor(d))
        torch.func.grad(lambda q: maxsim(q, d).sum())(q)
        torch.compile(maxsim, fullgraph=True, backend="aot_eager")(q, d)
    assert not autograd._NORM_CHECKED
    with pytest.warns(UserWarning, match="late-interaction-kernels"):
        maxsim(q, d)


def test_no_look_while_a_graph_is_captured(monkeypatch):
    class Captured:
        is_cuda = True

    monkeypatch.setattr(torch_arrays, "way", lambda x: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not torch_arrays.may_wait(Captured())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert torch_arrays.may_wait(Captured())


def test_the_helper_that_the_existing_package_has(unchecked):
    q = np.full((2, 3, 8), 10, "f4")
    with pytest.warns(UserWarning, match=r"normalize=True"):
        autograd._maybe_warn_unnormalized(torch.from_numpy(q))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autograd._maybe_warn_unnormalized(q)
