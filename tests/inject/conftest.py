"""Fault injection: each call of a kind fails in turn, under the command, the C API and the
Python extension.

LIK_BUILD names the build folder with lik, tests/lik_inject and tests/liblik_faults.so,
LIK_EXTENSION the extension module, without which it is not tested. Where a command makes more
calls of a kind than LIMIT, some are taken at a fixed stride; --full takes all of them.
"""

import os
import pathlib

import pytest

BUILD = pathlib.Path(
    os.environ.get("LIK_BUILD") or pytest.exit("LIK_BUILD must name a build", returncode=4)
).resolve()
FAULTS = BUILD / "tests/liblik_faults.so"
DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo"
LIMIT = 40  # calls of a kind that fail one by one, unless --full

totals = {"runs": 0, "kills": 0}


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="fail every call, not a sample")


def pytest_collection_modifyitems(config, items):
    """What takes a second a run is for --full."""
    if not config.getoption("--full"):
        items[:] = [item for item in items if "bench-quick" not in item.name]


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{totals['runs']} runs with a fault, {totals['kills']} of them killed")


@pytest.fixture(scope="session")
def turns(request):
    """turns(count, salt): which of `count` calls fail, counted from 1: the first and last, and
    a sample between.
    """
    full = request.config.getoption("--full")

    def choose(count, salt=0):
        if full or count <= LIMIT:
            return list(range(1, count + 1))
        stride = -(-(count - 6) // (LIMIT - 6))
        return sorted({1, 2, 3, 4, count - 1, count, *range(5 + salt % stride, count - 1, stride)})

    return choose
