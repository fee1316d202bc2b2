"""The package from outside: names, signatures, NumPy alone, what goes wrong at import."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import late_interaction_kernels as package
import numpy as np
import pytest

NAMES = {
    "__version__",
    "MaxSimScorer",
    "retrieve",
    "maxsim_padded",
    "patch_pylate",
    "unpatch_pylate",
    "patch_colpali_engine",
    "unpatch_colpali_engine",
    "maxsim",
    "maxsim_pairs",
    "maxsim_varlen",
    "reference",
}
MODULES = {
    "autograd": ["maxsim", "maxsim_pairs"],
    "forward": ["maxsim_forward"],
    "varlen": ["maxsim_varlen"],
    "score_pairs": ["score_pairs_packed"],
    "topk": ["maxsim_topk"],
    "fused_head": ["maxsim_from_hidden"],
    "plaid": [
        "plaid_approx_score",
        "maxsim_residual",
        "maxsim_residual_varlen",
        "plaid_approx_score_reference",
        "maxsim_residual_reference",
    ],
    "padded": ["PackedBatch", "pack_padded", "maxsim_padded"],
    "fp8": [
        "maxsim_inference_fp8",
        "quantize_fp8_per_tensor",
        "quantize_fp8_per_token",
        "dequantize_fp8_per_tensor",
        "dequantize_fp8_per_token",
    ],
    "int8": ["quantize_int8_per_token"],
    "retrieve": ["MaxSimScorer", "retrieve"],
    "reference": [
        "NEG_INF",
        "maxsim_reference",
        "maxsim_reference_varlen",
        "maxsim_reference_scatter",
        "maxsim_padded_reference",
        "plaid_approx_score_reference",
        "unpack_residuals_reference",
        "maxsim_residual_reference",
        "maxsim_from_hidden_reference",
    ],
    "backward": ["maxsim_backward_unified", "maxsim_backward_unified_reference", "maxsim_backward_lowmem"],
    "mps": ["maxsim_mps", "maxsim_inference_mps", "metal", "compile_dispatch"],
    "pylate_compat": ["patch_pylate", "unpatch_pylate"],
    "colpali_compat": ["patch_colpali_engine", "unpatch_colpali_engine"],
}


def module(name):
    return importlib.import_module(f"late_interaction_kernels.{name}")


def test_names():
    assert set(package.__all__) >= NAMES
    assert {*package.__all__, *MODULES} <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    for name, members in MODULES.items():
        for member in members:
            assert hasattr(module(name), member), f"{name}.{member}"
    assert callable(package.retrieve) and package.reference is module("reference")
    for owner in (package, module("retrieve")):
        with pytest.raises(AttributeError):
            owner.no_such_name  # noqa: B018


def test_one_version():
    cmake = (Path(__file__).parents[2] / "CMakeLists.txt").read_text()
    assert package.__version__ == re.search(r"project\(lik VERSION ([0-9.]+)", cmake)[1]
    assert [int(part) for part in package.__version__.split(".")] >= [0, 4, 100]


def run(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )


NO_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is blocked")
sys.meta_path.insert(0, Block())
"""


def test_numpy_without_torch():
    done = run(
        NO_TORCH
        + """
import numpy as np, ml_dtypes
import late_interaction_kernels as lik
from late_interaction_kernels import fp8, int8, plaid, fused_head, topk, score_pairs, forward, padded
Q, D = np.random.rand(2, 3, 16).astype("f4"), np.random.rand(4, 5, 16).astype("f4")
cu_q, cu_d = np.array([0, 3, 6]), np.array([0, 5, 10, 15, 20])
want = lik.maxsim(Q, D)
same = lambda x: np.testing.assert_allclose(x, want, rtol=1e-5)
same(lik.maxsim_varlen(Q.reshape(-1, 16), D.reshape(-1, 16), cu_q, cu_d))
same(np.stack([lik.maxsim_pairs(Q, D[[j, j]]) for j in range(4)], 1))
same(forward.maxsim_forward(Q, D)[0])
same(lik.maxsim_padded(Q, np.stack([D, D]), np.array([3, 3]), np.full((2, 4), 5)))
same(lik.MaxSimScorer(normalize=False)(Q, D))
assert repr(lik.MaxSimScorer()).startswith("MaxSimScorer(normalize=True")
assert (lik.retrieve(Q, D, 2, normalize=False)[0][:, 0] == want.max(1)).all()
for dtype in (np.float16, ml_dtypes.bfloat16):
    np.testing.assert_allclose(lik.maxsim(Q.astype(dtype), D.astype(dtype)), want, rtol=2e-2)
lik.maxsim(Q, D, storage="int8")
q8, s = fp8.quantize_fp8_per_token(Q); d8, t = fp8.quantize_fp8_per_tensor(D)
np.testing.assert_allclose(fp8.maxsim_inference_fp8(q8, d8, scale_Q=s, scale_D=t), want, rtol=0.1)
fused_head.maxsim_from_hidden(Q, np.random.rand(4, 5, 6).astype("f4"), np.random.rand(16, 6).astype("f4"))
codes, residuals = np.zeros((2, 3), int), np.zeros((2, 3, 4), "u1")
plaid.maxsim_residual(Q, codes, residuals, np.array([3, 1]), Q[0], np.zeros(4, "f4"), 2)
assert "torch" not in sys.modules
print("done")
""",
        LIK_SUPPRESS_NORM_WARN="1",
    )
    assert done.stdout.strip() == "done", done.stderr


def test_submodules_are_attributes():
    done = run(
        f"import late_interaction_kernels as lik\nfor name in {sorted(MODULES)}:\n    assert getattr(lik, "
        "name).__name__.startswith(('late', name)), name\n"
    )
    assert done.returncode == 0, done.stderr


def test_importing_imports_neither_torch_nor_numpy():
    done = run("import sys, late_interaction_kernels; print('torch' in sys.modules, 'numpy' in sys.modules)")
    assert done.stdout.strip() == "False False", done.stderr


def test_a_library_that_cannot_load_is_an_import_error():
    done = run(
        """
try:
    import late_interaction_kernels
except ImportError as error:
    print("ImportError", error)
""",
        LIK_CPU="no-such-level",
    )
    assert done.stdout.startswith("ImportError late_interaction_kernels cannot run here: LIK_CPU"), (
        done.stdout + done.stderr
    )


def test_cpu_level_from_the_environment():
    code = "from late_interaction_kernels import _native; print(_native.info()[2])"
    assert run(code, LIK_CPU="generic").stdout.strip() == "cpu:generic"


def test_threads_from_the_environment():
    code = "from late_interaction_kernels import _native; print(_native.info()[3])"
    assert run(code, LIK_THREADS="3").stdout.strip() == "3"
    with_torch = "import torch; torch.set_num_threads(4); torch.zeros(1); "
    with_torch += "from late_interaction_kernels import maxsim, _native; "
    with_torch += "maxsim(torch.ones(1, 1, 8), torch.ones(1, 1, 8)); print(_native.info()[3])"
    assert run(with_torch).stdout.strip() == "4"
    assert run(with_torch, LIK_THREADS="2").stdout.strip() == "2"


@pytest.mark.parametrize(
    "name", sorted(m.name for m in pkgutil.walk_packages(package.__path__, "late_interaction_kernels."))
)
def test_docstrings_and_their_examples(name):
    if name.endswith("_native"):
        return
    found = importlib.import_module(name)
    assert found.__doc__
    for member in getattr(found, "__all__", ()):
        value = getattr(found, member)
        text = inspect.getdoc(value) or ""
        assert text or inspect.ismodule(value), f"{name}.{member} has no docstring"
        named = member.startswith(("unpatch", "patched")) or ":func:" in text  # says whose twin it is
        assert not inspect.isfunction(value) or named or ">>>" in text, f"{name}.{member} has no example"
    result = doctest.testmod(found, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_typed():
    assert (Path(package.__file__).parent / "py.typed").exists()
    assert (Path(package.__file__).parent / "_native.pyi").exists()


def test_overhead():
    """A tiny call costs a few microseconds. The limits leave room for a busy machine;
    overhead.py measures properly.
    """
    import timeit

    import torch

    q, d = torch.randn(1, 2, 8), torch.randn(1, 2, 8)
    package.maxsim(q, d)
    call = min(timeit.repeat(lambda: package.maxsim(q, d), number=2000, repeat=9)) / 2000
    add = min(timeit.repeat(lambda: torch.add(q, q), number=2000, repeat=9)) / 2000
    assert call < 20 * add + 2e-5
    a, b = q.numpy(), d.numpy()
    assert np.array_equal(package.maxsim(a, b), package.maxsim(q, d).numpy())
