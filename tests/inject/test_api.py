"""The C API without memory and threads: api.c has the scenarios."""

import os
import subprocess

import pytest
from conftest import BUILD, totals

PROGRAM = BUILD / "tests/lik_inject"


@pytest.mark.parametrize("scenario", ["contexts", "pools", "memory", "runs"])
def test_api(scenario):
    done = subprocess.run([PROGRAM, scenario], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0 and done.stderr == "", done
    totals["runs"] += int(done.stdout.split()[0])


def test_every_scenario_is_run():
    listed = subprocess.run([PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    assert listed == ["contexts", "pools", "memory", "runs"]
