"""The Python extension without memory and threads, NumPy arrays in, no torch: extension.py has
the scenarios.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import FAULTS, totals

HERE = pathlib.Path(__file__).resolve().parent
SCENARIOS = re.findall(r'^    "([\w-]+)": \(', (HERE / "extension.py").read_text(), re.M)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package of this tree with the extension of this build."""
    module = os.environ.get("LIK_EXTENSION") or pytest.skip("LIK_EXTENSION names no extension module")
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(HERE.parents[1] / "python/late_interaction_kernels", folder / "late_interaction_kernels")
    shutil.copy(module, folder / "late_interaction_kernels")
    return folder


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("mode", ["own", "all"])
def test_extension(package, request, scenario, mode):
    most = 10**6 if request.config.getoption("--full") else 12
    environment = {
        "PYTHONPATH": str(package),
        "PYTHONMALLOC": "malloc",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LIK_SUPPRESS_NORM_WARN": "1",
        "LD_PRELOAD": str(FAULTS),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, HERE / "extension.py", scenario, mode, str(most)],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", (done.returncode, done.stderr[-3000:])
    result = json.loads(done.stdout)
    totals["runs"] += result["runs"]
    assert not result["wrong"], result["wrong"][:20]
    # What asks for nothing cannot be refused anything.
    assert result["runs"] > 0 or (mode == "own" and scenario in ("merge_topk", "extremes", "info"))
