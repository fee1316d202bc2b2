"""The code of the documentation runs as it is pasted: the Python, C and shell blocks of each
page, in their order, in one folder beside the demo. What a block prints is compared with the
lines that begin with #>, if it has any.

LIK_PREFIX is where `make install` put the command and the C library.
"""

import contextlib
import io
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["getting-started", "faq", *sorted(f"guides/{p.stem}" for p in (ROOT / "docs/guides").glob("*.md"))]
PREFIX = Path(os.environ.get("LIK_PREFIX", "/usr/local"))
BLOCK = re.compile(r"^```(python|c|sh)\n(.*?)^```$", re.M | re.S)


def run_shell(code):
    environment = {
        **os.environ,
        "PATH": f"{PREFIX}/bin:{os.environ['PATH']}",
        "PKG_CONFIG_PATH": f"{PREFIX}/lib/pkgconfig",
        "LD_LIBRARY_PATH": f"{PREFIX}/lib",
    }
    done = subprocess.run(["bash", "-ec", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_python(code, names):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<page>", "exec"), names)
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_page(page, tmp_path, monkeypatch):
    blocks = BLOCK.findall((ROOT / f"docs/{page}.md").read_text())
    assert blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    for file in (ROOT / "demo").iterdir():
        (tmp_path / "demo" / file.name).symlink_to(file)
    names = {"__name__": page}
    for language, code in blocks:
        if language == "c":
            (tmp_path / re.match(r"/\* (\w+\.c):", code)[1]).write_text(code)
            continue
        printed = run_python(code, names) if language == "python" else run_shell(code)
        expected = re.findall(r"^#> (.*)$", code, re.M)
        if expected:
            assert printed.splitlines() == expected, code
