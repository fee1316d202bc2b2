"""The heat map from Python: matches as data, and what the command of the package draws."""

from __future__ import annotations

import html
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from late_interaction_kernels import _command, explain, maxsim
from late_interaction_kernels.int8 import quantize_int8_per_token

drawing = pytest.mark.skipif(not os.path.exists(_command.PATH), reason="built without the command")
WORDS = ["the", "red", "ship", "sails", "##ing", "<b>"]
NAMES = ["blue", "ships", "are", "sailing"]


def given(framework="torch", dtype=torch.float32):
    Q, D = (torch.nn.functional.normalize(torch.randn(n, 24), dim=-1).to(dtype) for n in (6, 4))
    return (Q, D) if framework == "torch" else (Q.numpy(), D.numpy())


@pytest.mark.parametrize("framework", ["torch", "numpy"])
@pytest.mark.parametrize("normalize", [False, True])
def test_matches_are_the_score(framework, normalize):
    Q, D = given(framework)
    weights, q_mask, d_mask = torch.rand(6), torch.arange(6) != 2, torch.arange(4) != 1
    if framework == "numpy":
        weights, q_mask, d_mask = (x.numpy() for x in (weights, q_mask, d_mask))
    about = {"q_weights": weights, "q_mask": q_mask, "d_mask": d_mask, "normalize": normalize}
    found = explain(Q * 3, D, WORDS, NAMES, **about)
    assert found.score == float(maxsim(Q * 3, D, **about))
    assert sum(m.adds for m in found.matches) == pytest.approx(found.score, rel=1e-5)
    assert [m.query_token for m in found.matches] == [0, 1, 3, 4, 5]
    for m in found.matches:
        kept = [float(x) for t, x in enumerate(found.similarities[m.query_token]) if t != 1]
        assert m.similarity == max(kept) and m.weight == float(weights[m.query_token])
        assert (m.query_text, m.document_text) == (WORDS[m.query_token], NAMES[m.document_token])


def test_without_names_and_of_other_storages():
    Q, D = given()
    assert [m.query_text for m in explain(Q, D).matches] == [f"#{i}" for i in range(6)]
    exact = explain(Q, D, WORDS, NAMES)
    for other in (quantize_int8_per_token(D), D.double()):
        assert explain(Q, other).score == pytest.approx(exact.score, abs=0.05)
    assert explain(Q.requires_grad_(), D[:0]).matches == []


@drawing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drawn(tmp_path, dtype):
    Q, D = given(dtype=dtype)
    found = explain(Q, D, WORDS, NAMES, q_weights=torch.rand(6), d_text="Blue ships, are sailing!")
    text = str(found)
    assert f"{found.score:.4f}" in text and "[[" in text and "sailing" in text
    for m in found.matches:
        assert f"{m.similarity:.3f}" in text and f"{m.adds:.4f}" in text
    found.save(tmp_path / "x.html")
    found.save(tmp_path / "x.svg", cmap="grey")
    page, picture = ((tmp_path / f"x.{kind}").read_text() for kind in ("html", "svg"))
    assert page.startswith("<!doctype html>") and "&lt;b&gt;" in page and picture.startswith("<svg")
    frame = found._repr_html_()
    assert html.unescape(frame.split('srcdoc="')[1].split('" style')[0]) == page
    assert repr(found) == f"Explanation(score={found.score:.4f}, 6 query tokens, 4 document tokens)"
    assert sorted(os.listdir(tmp_path)) == ["x.html", "x.svg"]


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda Q, D: explain(Q[None], D), r"Q must have shape \[Lq, d\], got \(1, 6, 24\)"),
        (lambda Q, D: explain(Q, D, WORDS[:2]), "q_tokens must be 6 texts, one a token, got 2"),
        (lambda Q, D: explain(Q, D, "blue"), "q_tokens must be 6 texts, one a token, got one str"),
        (lambda Q, D: explain(Q, D, None, 3), "d_tokens must be 4 texts, one a token, got one int"),
        (lambda Q, D: explain(Q, (D, D, D)), r"D must be an array or \(values, scales\), got 3 items"),
        (lambda Q, D: explain(Q, (D, D[:, 0])), r"D\[0\] has dtype float32, must be int8"),
        (lambda Q, D: explain(Q, D, q_text=3), "q_text must be a str, got int"),
        (lambda Q, D: explain(Q, D).save("x.svg", cmap="jet"), "cmap must be .* got 'jet'"),
        (lambda Q, D: explain(Q, D).save(3), "path must be a str, bytes or os.PathLike, got int"),
        (lambda Q, D: explain(Q, D[:, :3]), "same dim"),
        (lambda Q, D: explain(Q, D, q_mask=torch.ones(2, dtype=torch.bool)), "q_mask must have shape"),
        (lambda Q, D: explain(Q, D).save("x.png"), "must end in .html or .svg"),
    ],
)
def test_refuses(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call(*given())


@drawing
def test_texts_that_no_file_holds(tmp_path):
    Q, D = given()
    found = explain(Q, D, ["a\0b", "\ud83d", *"cdef"], d_text="x\0")
    found.save(tmp_path / "x.html")
    assert "\0" not in (tmp_path / "x.html").read_text() and "a\ufffdb" in str(found)
    assert found.matches[0].query_text == "a\0b"


def test_a_build_without_the_command_says_so(monkeypatch):
    monkeypatch.setattr(_command, "PATH", "/nowhere/lik")
    found = explain(*given())
    with pytest.raises(RuntimeError, match="LIK_BUILD_CLI=ON"):
        print(found)
    with pytest.raises(SystemExit, match="no command"):
        _command.main()


@drawing
def test_the_console_script_is_the_command():
    code = (
        "import sys; sys.argv[1:] = ['--version']; from late_interaction_kernels._command import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lik ")
    with pytest.raises(RuntimeError, match=r"x\.npy"):
        _command.run("info", "/nowhere/x.npy")


def test_numpy_alone():
    assert np.asarray(explain(*given("numpy")).similarities).shape == (6, 4)
