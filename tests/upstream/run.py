#!/usr/bin/env python3
"""Runs the own tests of the existing package, late-interaction-kernels 0.4.5, on this one:
`make test-upstream`.

The source distribution is fetched from the package index (or is what --sdist or
LIK_UPSTREAM_SDIST names, on machines without a network) and its tests are unpacked into
build/upstream. What does not apply to this package is listed with the reason in not_ours.txt.
Those tests are run apart, and an entry that matches nothing, or whose tests all pass, is a
failure as well. Tests that ask for a GPU run on it; where there is none, those on tensors of
"cuda" or "mps" run on the CPU, as a check of contracts, and only those that look at torch.cuda
itself are skipped.

PYTHON: an interpreter with torch, pytest and this package (also through PYTHONPATH) to run them
with. By default the test environment of tests/run.py, with a wheel of this tree. Where PyLate
(up to 1.5.0) or colpali-engine (up to 0.3.16) is installed, the tests of the patches run as
well. With LIK_MOCK_METAL (the suite `metal` of tests/run.py sets it, for the tests of MPS
alone: --only test_mps*) Metal's kernels are emulated. Closes with
`N passed, N failed, N skipped`.
"""

import argparse
import ast
import fnmatch
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from not_ours import Entry

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build/upstream"
NAME, VERSION = "late-interaction-kernels", "0.4.5"
SHA256 = "703f8b930c5c2e4c3a8a945dba28a84b895462ebe389fcf015e9cb1cf23ef64c"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/python"), str(HERE)]

# What is changed in the unpacked tests, always: nothing here asks for Triton, and one internal
# name is not there to be replaced.
EDITS = [
    (r'^( *)(triton = )?pytest\.importorskip\("triton"\)', r"\1pass"),
    (r'(setattr\(pc, "package_at_least", lambda name, minimum: False)\)', r"\1, raising=False)"),
]
# On a machine without CUDA, and without MPS, the CPU in its place.
NO_CUDA = [
    (r"pytest\.mark\.cuda", "pytest.mark.on_cpu"),
    (r'"cuda"', '"cpu"'),
    (r"\.cuda\(\)", ".cpu()"),
    (r"torch\.cuda\.is_available\(\)", "True"),
]
NO_MPS = [
    (r'"mps"', '"cpu"'),
    (r"torch\.backends\.mps\.is_available\(\)", "True"),
    (r"if not _metal\.is_available\(\):", "if False:"),
]


def fetch(python: str) -> Path:
    found = list(BUILD.glob(f"late_interaction_kernels-{VERSION}.tar.gz"))
    if not found:
        pip = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--no-binary", ":all:", "--dest", str(BUILD), f"{NAME}=={VERSION}"], check=True)
        found = list(BUILD.glob(f"late_interaction_kernels-{VERSION}.tar.gz"))
    return found[0]


def unpack(sdist: Path, edits: list[tuple[str, str]]) -> Path:
    """Its tests, edited, in build/upstream/tests."""
    content = sdist.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"{sdist} is not the source distribution of {NAME} {VERSION}: its SHA-256 is not {SHA256}")
    tests = BUILD / "tests"
    shutil.rmtree(tests, ignore_errors=True)
    tests.mkdir(parents=True)
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            path = Path(member.name)
            if path.parts[1:2] != ("tests",) or path.suffix != ".py":
                continue
            file = archive.extractfile(member)
            assert file is not None
            text = file.read().decode()
            for old, new in edits if path.name != "conftest.py" else []:
                text = re.sub(old, new, text, flags=re.MULTILINE)
            (tests / path.name).write_text(text)
    markers = "cuda: needs a GPU\n    on_cpu: runs on the CPU in its place\n    slow: takes long"
    (BUILD / "pytest.ini").write_text(f"[pytest]\nmarkers =\n    {markers}\n")
    return tests


def run(
    python: str, report: Path, files: str, *arguments: str, silent: bool = False
) -> list[ElementTree.Element]:
    """One pytest process; the cases of its report, none if it did not come to write one."""
    report.unlink(missing_ok=True)
    paths = [str(HERE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in paths)}
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "plugin",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--no-header",
    ]
    command += ["--continue-on-collection-errors", "--junitxml", str(report), *arguments]
    command += sorted(str(path.relative_to(BUILD)) for path in BUILD.glob(f"tests/{files}"))
    subprocess.run(command, cwd=BUILD, env=environment, stdout=subprocess.DEVNULL if silent else None)
    return list(ElementTree.parse(report).getroot().iter("testcase")) if report.exists() else []


def outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def name_of(case: ElementTree.Element) -> str:
    """FILE::NAME[PARAMETERS] of a case; a file that was skipped or failed as a whole is
    FILE::.
    """
    module, name = case.get("classname") or "", case.get("name") or ""
    return f"{module.split('.')[-1]}.py::{name}" if module else f"{name.split('.')[-1]}.py::"


def entries_of(files: str, cuda: bool) -> "list[Entry]":
    """What not_ours.txt says of these files, here."""
    from not_ours import read, where

    here = where(cuda, "LIK_MOCK_METAL" in os.environ)
    return [x for x in read() if x.where in here and fnmatch.fnmatch(x.pattern.split("::")[0], files)]


def main() -> int:
    import surface
    from not_ours import Entry

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sdist", type=Path, default=os.environ.get("LIK_UPSTREAM_SDIST"))
    parser.add_argument(
        "--only", default="test_*.py", metavar="FILE", help="these files, with * for anything"
    )
    options = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    python = os.environ.get("PYTHON", "")
    if python:
        python = os.path.abspath(shutil.which(python) or python)
    else:
        import run as suites

        suites.REPORTS.mkdir(parents=True, exist_ok=True)
        if not suites.install_package(suites.Tally()):
            return 1
        python = suites.python()
    look = "import torch; print(torch.cuda.is_available(), torch.backends.mps.is_available())"
    cuda, mps = subprocess.run(
        [python, "-c", look], check=True, capture_output=True, text=True
    ).stdout.split()
    edits = EDITS + (NO_CUDA if cuda == "False" else []) + (NO_MPS if mps == "False" else [])
    sdist = Path(options.sdist) if options.sdist else fetch(python)
    tests = unpack(sdist, edits)

    entries = entries_of(options.only, cuda == "True")
    known = [
        f"{path.name}::{node.name}"
        for path in sorted(tests.glob("test_*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]

    cases = run(python, BUILD / "ours.xml", options.only)
    results = {name_of(case): outcome(case) for case in cases}
    failures = [name for name, result in results.items() if result == "failed"]
    print("--- what does not apply, to see that it still does not", flush=True)
    apart = run(python, BUILD / "not_ours.xml", options.only, "--not-ours", silent=True)
    others = {name_of(case): outcome(case) for case in apart}

    def passes(entry: Entry) -> bool:
        own = [result for name, result in others.items() if entry.matches(name)]
        return bool(own) and all(result == "passed" for result in own)

    # Functions are found in the source: a file may be skipped as a whole. Parameters are known
    # when it was collected.
    names = [*known, *others]
    failures += [
        f"matches nothing: {entry.pattern}" for entry in entries if not any(map(entry.matches, names))
    ]
    failures += [f"passes now: {entry.pattern}" for entry in entries if passes(entry)]
    counts = {kind: list(results.values()).count(kind) for kind in ("passed", "skipped")}
    if surface.make(sdist) != json.loads(surface.FACTS.read_text()):
        failures.append("tests/python/surface.json is not what the source distribution says")
    if not counts["passed"]:
        failures.append("nothing passed")
    reasons: dict[str, int] = {}
    for case in cases:
        skipped = case.find("skipped")
        if skipped is not None:
            told = re.search(r'Skipped: ([^"]*)', skipped.text or "")
            reason = told[1] if told else skipped.get("message") or ""
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in sorted(reasons.items()):
        print(f"skipped {count}: {reason}")
    tally = ", ".join(f"{list(others.values()).count(k)} {k}" for k in ("passed", "failed", "skipped"))
    print(f"do not apply: {len(others)} tests and files of {len(entries)} entries ({tally} when run)")
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{counts['passed']} passed, {len(failures)} failed, {counts['skipped']} skipped")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
