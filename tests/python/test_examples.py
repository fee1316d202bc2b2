"""Every Python example runs and keeps its own promises."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["rerank.py", "train.py", "retrieve_compressed.py"])
def test_example(name, monkeypatch, capsys):
    monkeypatch.setitem(os.environ, "LIK_SUPPRESS_NORM_WARN", "1")
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert capsys.readouterr().out.strip()
