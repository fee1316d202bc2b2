#!/usr/bin/env python3
"""How much of the C code the tests run: `make coverage`.

Builds with gcc's counters, runs the check suite (quick) and the command's tests, and prints
lines and branches of two parts: the library (src/base, src/core, src/shared, src/ref, src/cpu)
and the files' readers and writers (src/io). The status is 1 if less of the library runs than
LEAST says. gcovr comes from tests/requirements.txt.
"""

import os
import subprocess
import sys

import run

BUILD = run.BUILD / "coverage"
LIBRARY = ["--filter", r"src/(base|core|shared|ref|cpu)/", str(BUILD / "CMakeFiles/lik_objects.dir")]
IO = ["--filter", r"src/io/", str(BUILD / "CMakeFiles/lik_io.dir")]
LEAST = {"line": 98, "branch": 92}

# What is left out, and why.
EXCLUDED = {
    # The kernels of a level are one text written out for each of its seven shapes and five
    # storages: each condition is counted once a copy, where it is a constant in most. Their
    # lines count.
    "branch": ["--exclude", r"src/cpu/((score|int8)_\w+\.c|tile_avx512\.h)"],
    "line": [],
}
COMMON = [
    # No memory: tests/inject, where it is run, has every allocation fail; here none does.
    "--exclude-lines-by-pattern",
    r".*(LIK_ENOMEM|lik_io_no_memory|LIK_IO_EXHAUSTED).*",
    # Device memory and streams are the backend's of a GPU, which this build has not.
    "--exclude-lines-by-pattern",
    r".*(backend->(memory|stream)_|paint|guards).*",
    "--gcov-suspicious-hits-threshold",
    "0",  # the loops do run billions of times
]


def report(name: str, arguments: list[str], least: dict[str, int]) -> bool:
    ok = True
    for metric in ("line", "branch"):
        print(f"--- {name}, by {metric}", flush=True)
        command = [run.python(), "-m", "gcovr", "--root", str(run.ROOT), "--txt-metric", metric]
        command += [*COMMON, *EXCLUDED[metric]]
        if metric in least:
            command += [f"--fail-under-{metric}", str(least[metric])]
        ok = subprocess.run([*command, *arguments], cwd=run.ROOT).returncode == 0 and ok
    return ok


def main() -> int:
    tally = run.Tally()
    if not run.build(tally, "coverage"):
        return 1
    for counters in BUILD.rglob("*.gcda"):
        counters.unlink()
    run.REPORTS.mkdir(parents=True, exist_ok=True)
    run.call(tally, "lik_check", [str(BUILD / "tests/lik_check"), "--quick"])
    if os.environ.get("LIK_COVERAGE_CLI", "1") != "0":
        run.pytest(tally, "cli-coverage", "tests/cli", LIK_BIN=str(BUILD / "lik"), LIK_CLI_QUICK="1")
    ok = report("the library", LIBRARY, LEAST)
    ok = report("files", IO, {}) and ok
    for failure in tally.failures:
        print(f"FAILED {failure}")
    return 0 if ok and not tally.failed else 1


if __name__ == "__main__":
    sys.exit(main())
