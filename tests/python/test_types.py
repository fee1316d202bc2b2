"""What mypy says of calls, right ones and wrong ones, and what an editor offers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import late_interaction_kernels as lik
import pytest

CALLS = """
from typing import Any, assert_type
import numpy as np, torch
from numpy.typing import NDArray
import late_interaction_kernels as lik
from late_interaction_kernels.fp8 import quantize_fp8_per_token
from late_interaction_kernels.int8 import quantize_int8_per_token
from late_interaction_kernels.plaid import CompressedTokens
from late_interaction_kernels.score_pairs import score_pairs_packed
from late_interaction_kernels.topk import maxsim_topk
t = torch.ones(2, 3, 4)
a: NDArray[Any] = np.ones((2, 3, 4), "f4")
compressed: CompressedTokens
flag: bool
four = (a, a, a, a)
six = (a, a, a, a, a, a)
assert_type(lik.maxsim(t, t), torch.Tensor)
assert_type(lik.maxsim(a, a, a, normalize=True), NDArray[Any])
assert_type(lik.maxsim(t, t, return_argmax=True), tuple[torch.Tensor, torch.Tensor])
assert_type(lik.maxsim(t, quantize_int8_per_token(t), storage="int8"), torch.Tensor)
assert_type(lik.maxsim_pairs(a, a), NDArray[Any])
assert_type(lik.maxsim(t, t, return_argmax=flag), torch.Tensor | tuple[torch.Tensor, torch.Tensor])
assert_type(lik.maxsim_pairs(a, a, return_argmax=flag), NDArray[Any] | tuple[NDArray[Any], NDArray[Any]])
assert_type(lik.maxsim_varlen(*four, return_argmax=flag), NDArray[Any] | tuple[NDArray[Any], NDArray[Any]])
assert_type(lik.maxsim_padded(*four, return_argmax=flag), NDArray[Any] | tuple[NDArray[Any], NDArray[Any]])
assert_type(score_pairs_packed(*six, return_argmax=flag), NDArray[Any] | tuple[NDArray[Any], NDArray[Any]])
assert_type(
    lik.retrieve(t, t, 3, return_argmax=flag),
    tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, torch.Tensor, torch.Tensor],
)
assert_type(
    maxsim_topk(a, a, 3, return_argmax=flag),
    tuple[NDArray[Any], NDArray[Any]] | tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
)
assert_type(lik.maxsim_varlen(t, t, t, t, 5, 6), torch.Tensor)
assert_type(lik.maxsim_padded(a, a, a, a), NDArray[Any])
assert_type(lik.retrieve(t, t, 3), tuple[torch.Tensor, torch.Tensor])
assert_type(lik.retrieve(t, t, 3, return_argmax=True), tuple[torch.Tensor, torch.Tensor, torch.Tensor])
assert_type(lik.retrieve(t, compressed, 3), tuple[torch.Tensor, torch.Tensor])
assert_type(lik.retrieve(a, a, 3, cu_seqlens_d=a), tuple[NDArray[Any], NDArray[Any]])
assert_type(maxsim_topk(a, a, 3), tuple[NDArray[Any], NDArray[Any]])
assert_type(score_pairs_packed(t, t, t, t, t, t), torch.Tensor)
assert_type(lik.pack([t, t]), tuple[torch.Tensor, torch.Tensor])
assert_type(lik.unpack(a, a), list[NDArray[Any]])
assert_type(quantize_fp8_per_token(t), tuple[torch.Tensor, torch.Tensor])
assert_type(lik.MaxSimScorer().score(t, t, cu_seqlens_d=t), torch.Tensor)
assert_type(lik.MaxSimScorer()(t, t, storage="int8"), torch.Tensor)
assert_type(lik.MaxSimScorer()(a, a, a, a, cu_seqlens_d=a), NDArray[Any])
assert_type(lik.MaxSimScorer().retrieve(t, t, 3), tuple[torch.Tensor, torch.Tensor])
assert_type(lik.explain(t, t, ["a"], ["b"]).score, float)
lik.save("x", [t], ids=["a"])
lik.retrieve(t, top_k=3, **lik.load("x", "torch").documents())
lik.maxsim("hello", 3)  # wrong
lik.maxsim(t, a)  # wrong
lik.maxsim(t, t, a)  # wrong
lik.maxsim(t, [t])  # wrong
lik.maxsim(t, t, storage="int4")  # wrong
lik.maxsim(t, t, normalise=True)  # wrong
lik.maxsim_pairs(t)  # wrong
lik.maxsim_varlen(t, t, [0, 3], [0, 3])  # wrong
lik.retrieve(t, t)  # wrong
lik.retrieve(t, t, "3")  # wrong
lik.retrieve(a, t, 3)  # wrong
lik.retrieve(t, t, 3, cu_seqlens_d=[0, 3])  # wrong
lik.pack(3)  # wrong
lik.pack([t, a]) + 1  # wrong
lik.MaxSimScorer(backward="fast")  # wrong
lik.MaxSimScorer().score(t, a)  # wrong
lik.MaxSimScorer()(t, a)  # wrong
lik.MaxSimScorer()(t)  # wrong
lik.MaxSimScorer()(t, t, normalise=True)  # wrong
lik.MaxSimScorer().retrieve(t, t)  # wrong
lik.maxsim(t, t, return_argmax=flag) + 1  # wrong
lik.maxsim(t, t, return_argmax="yes")  # wrong
lik.show_config(1)  # wrong
lik.nothing  # wrong
"""


def test_mypy_knows_right_calls_from_wrong_ones(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "calls.py").write_text(CALLS)
    path = str(Path(lik.__file__).resolve().parents[1])
    call = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--hide-error-context",
        "calls.py",
    ]
    done = subprocess.run(
        [*call, "--cache-dir", str(tmp_path / "cache")],
        cwd=tmp_path,
        env={**os.environ, **({} if "site-packages" in path else {"MYPYPATH": path})},
        capture_output=True,
        text=True,
    )
    said = {
        int(line.split(":")[1])
        for line in done.stdout.splitlines()
        if line.startswith("calls.py:") and ": error:" in line
    }
    lines = CALLS.splitlines()
    wanted = {i + 1 for i, line in enumerate(lines) if line.endswith("# wrong")}
    assert said == wanted, (done.stdout + done.stderr, [lines[i - 1] for i in wanted ^ said])


def test_dir_has_what_is_meant_for_users():
    offered = dir(lik)
    assert {*lik.__all__, "int8", "plaid", "fp8", "reference", "topk", "varlen", "__version__"} <= {*offered}
    assert not {"Any", "TYPE_CHECKING", "annotations"} & {*offered}
    for name in offered:
        assert hasattr(lik, name), name


def test_show_config(capsys, run):
    lik.show_config()
    text = capsys.readouterr().out
    assert text.startswith(f"late-interaction-kernels {lik.__version__}\n")
    for part in ("cpu", "threads", "torch", "command", str(Path(lik.__file__).parent)):
        assert part in text
    alone = run(
        "import late_interaction_kernels as lik, sys; lik.show_config(); assert 'numpy' not in sys.modules"
    )
    assert alone.returncode == 0 and "processor" in alone.stdout, alone.stderr


def test_docstrings_have_no_stray_backslashes():
    for name in dir(lik):
        assert "\\" not in (getattr(lik, name).__doc__ or ""), name
