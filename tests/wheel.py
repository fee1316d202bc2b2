#!/usr/bin/env python3
"""Does the installed wheel work here? What a release asks of every platform, with NumPy alone:
`python tests/wheel.py`, with the interpreter that has it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import late_interaction_kernels as lik
import numpy as np

DEMO = Path(__file__).resolve().parent.parent / "demo"


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.standard_normal(shape, dtype=np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def check_scores() -> None:
    """Scores and the best of them are those of the definition."""
    rng = np.random.default_rng(7)
    queries, documents = unit(rng, 3, 32, 128), unit(rng, 200, 180, 128)
    wanted = np.einsum("qsd,ntd->qnst", queries, documents, optimize=True).max(-1).sum(-1)
    found = lik.maxsim(queries, documents)
    assert found.shape == (3, 200), found.shape
    assert np.abs(found - wanted).max() < 1e-4, np.abs(found - wanted).max()
    values, ids = lik.retrieve(queries, documents, 5, normalize=False)
    assert (ids == np.argsort(-wanted, axis=1, kind="stable")[:, :5]).all()
    assert (values == np.take_along_axis(found, ids, 1)).all()


def check_command() -> None:
    """The command comes with the wheel, and its script finds it."""
    script = [sys.executable, "-c", "from late_interaction_kernels._command import main; main()"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "scores.npy")
        files = [str(DEMO / "queries.safetensors"), str(DEMO / "documents.safetensors")]
        subprocess.run([*script, "score", *files, "--all", "-o", str(out)], check=True)
        assert np.load(out).shape == (200, 400)


def main() -> None:
    check_scores()
    check_command()
    print(f"wheel: {lik.__version__} works on {sys.platform}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
