"""Every fenced Python block and every `lik` line of README and docs, run as it stands there.

A block runs after what makes its names: the first entry of NAMES whose text is in it, or the
last. Blocks of C are run by tests/install. A page that says something new either runs as it is
or gets an entry here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest
from late_interaction_kernels import _command

ROOT = Path(__file__).parents[2]
WHOLE = ("getting-started", "faq")  # tests/site runs these page by page, and docs/guides
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.stem not in WHOLE),
    ROOT / "examples/README.md",
]

COMMON = """
import numpy as np, torch
import late_interaction_kernels as lik
from late_interaction_kernels import maxsim
unit = lambda *shape: torch.nn.functional.normalize(torch.randn(*shape), dim=-1)
"""
PADDED = "queries, documents = unit(3, 5, 32), unit(12, 9, 32)\nmask = torch.rand(12, 9) > 0.2\n"
LIST = "queries, documents = unit(3, 5, 32), [unit(n, 32) for n in (4, 9, 1, 30, 6, 7, 3, 5, 8, 2, 11)]\n"
NAMES = [
    ("lik.pack(documents)", LIST + "names = [f'd{i}' for i in range(len(documents))]\n"),
    (
        "lik.explain(",
        "query, document = unit(3, 32), unit(5, 32)\nq_tokens, d_tokens = list('abc'), list('vwxyz')\n",
    ),
    (
        "train_codec(",
        "sample, tokens, Q = unit(2000, 32), unit(40, 32), unit(2, 4, 32)\n"
        "offsets = torch.arange(0, 41, 2)\n",
    ),
    (
        "loss.backward()",
        "queries, documents = unit(4, 5, 32).requires_grad_(), unit(4, 9, 32)\n"
        "mask, temperature = torch.rand(4, 9) > 0.2, 0.05\n",
    ),
    ("masked_fill(~d_mask", "Q, D = unit(3, 5, 32), unit(12, 9, 32)\nd_mask = torch.rand(12, 9) > 0.2\n"),
    ("", PADDED),
]
# Blocks and lines that need what this machine may not have, and who runs them.
NEEDS = {
    "patch_pylate()": "pylate",
    "patch_colpali_engine()": "colpali_engine",
    "patch_sentence_transformers()": "sentence_transformers",
}
ELSEWHERE = {
    "lik bench": "tests/cli, with --quick: the whole takes minutes",
    "pip wheel": "a wheel with CUDA: many minutes",
    "--device cuda": "tests/gpu",
    "--device metal": "tests/metal, on a Mac that is none",
}


def blocks():
    for page in PAGES:
        if page.exists():
            for i, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)):
                yield pytest.param(block, id=f"{page.name}-{i}")


@pytest.mark.parametrize("block", blocks())
def test_python(block, tmp_path, monkeypatch):
    if ">>>" in block:
        pytest.skip("a session: its docstring runs it")
    for call, host in NEEDS.items():
        if call in block and importlib.util.find_spec(host) is None:
            pytest.skip(f"{host} is not installed: tests/hosts runs it")
    monkeypatch.chdir(tmp_path)
    if '.save("match.html")' in block and not os.path.exists(_command.PATH):
        pytest.skip("built without the command")
    names = next(code for text, code in NAMES if text in block)
    exec(compile(COMMON + names + block, "block", "exec"), {})


def shell_lines(page):
    """Indented lines that start the command, or prepare for it, in the order of the page."""
    lines = re.findall(r"^    ((?:lik |cd |\w+=).*)$", page.read_text(), re.M)
    code = [line for line in lines if not re.match(r"lik\s+\w+\s+(\[?[A-Z]{3,}|  )", line)]  # a synopsis
    return [line for line in code if not any(part in line for part in ELSEWHERE)]


@pytest.mark.skipif(not os.path.exists(_command.PATH), reason="built without the command")
@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.name)
def test_shell(page, tmp_path):
    lines = shell_lines(page)
    if not lines:
        pytest.skip("no lines of the command")
    rng = np.random.default_rng(0)
    for name, count in (("queries", 3), ("documents", 40), ("docs", 40)):
        x = rng.standard_normal((count, 9, 32)).astype("f4")
        np.save(tmp_path / f"{name}.npy", x / np.linalg.norm(x, axis=-1, keepdims=True))
    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    folder = Path(_command.PATH).resolve().parent
    script = "\n".join(["set -e", *lines])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "LIK_DEMO_DATA": str(ROOT / "demo")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (script, done.stdout[-2000:], done.stderr[-2000:])
    if page.name == "README.md":
        assert "no texts of tokens" not in done.stderr, "the README's picture has words"


def test_the_front_page_says_what_the_result_files_say():
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/front_page.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_pictures_are_what_the_script_draws():
    draw = runpy.run_path(str(ROOT / "docs/draw.py"))
    results = sorted((ROOT / "bench/results").glob("exact-*.json"))
    drawn = {"rooms": draw["rooms"](), "call": draw["call"](), "hopper": draw["hopper"]()}
    drawn["eight-bits"] = draw["eight_bits"](results)
    for name, picture in drawn.items():
        text = (ROOT / f"docs/{name}.svg").read_text(encoding="utf-8")
        assert text == picture.text(), f"docs/{name}.svg: run docs/draw.py"
        xml.dom.minidom.parseString(text)


def test_tables_of_figures_are_narrow():
    """Figures in six columns at most; prose stands beside tables, not in them."""
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    assert rows and max(map(len, rows)) <= 6 and max(len(cell) for row in rows for cell in row) < 120


def test_one_version():
    (number,) = re.findall(r"^project\(lik VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text(), re.M)
    assert f"\nversion: {number}\n" in (ROOT / "CITATION.cff").read_text()
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def links():
    for page in [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"))]:
        if page.exists():
            text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
            for target in re.findall(r"\]\(([^)\s]+)\)", text):
                if not re.match(r"[a-z]+:", target):
                    yield page, target


def anchors(page):
    """Of a page's headings, as they are made of their text."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_lead_somewhere():
    for page, target in links():
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), (page.name, target)
        assert not anchor or there.suffix != ".md" or anchor in anchors(there), (page.name, target)
