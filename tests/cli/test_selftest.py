"""lik selftest: on this processor; on a Metal that is none where LIK_MOCK_METAL names one
(tests/metal).
"""

import os
import re
from pathlib import Path

import pytest
from conftest import fails, run

MOCK = os.environ.get("LIK_MOCK_METAL")
KERNELS = Path(__file__).resolve().parents[2] / "src/metal"


def test_a_device_that_is_right(tmp_path):
    where = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    out, err = run("selftest", "--quick", "--device", "cpu:generic", env=where)
    assert out.startswith("lik 0.") and err == ""
    assert re.search(r"\n\d\d+ operations are right, 0 wrong, 0 this device does not do;", out)
    assert out.endswith("\nselftest passed\n")
    kept = tmp_path / "cache/late-interaction-kernels/selftest-cpu-generic.txt"
    key, verdict, *rest = kept.read_text().splitlines(keepends=True)
    assert key.startswith("lik 0.") and verdict == "passed\n" and "".join(rest) == out
    again, err = run("selftest", "--device", "cpu:generic", env=where)
    assert again == out and "this was found before; --fresh looks again" in err
    timed, _ = run("selftest", "--device", "cpu", "--fresh", env=where)
    assert "| text " in timed and "score_f32_d128" in timed


def test_what_is_kept_is_of_one_version_and_device(tmp_path):
    where = {"XDG_CACHE_HOME": str(tmp_path)}
    run("selftest", "--quick", "--device", "ref", env=where)
    kept = tmp_path / "late-interaction-kernels/selftest-ref.txt"
    text = kept.read_text()
    kept.write_text(text.replace("\npassed\n", "\nfailed\n", 1))
    out, _ = run("selftest", "--device", "ref", env=where, code=6)
    assert out == text.split("\npassed\n", 1)[1]
    for other in ("", "passed\n", text.replace("lik 0.", "lik 9.", 1), text[:40]):
        kept.write_text(other)
        _, err = run("selftest", "--quick", "--device", "ref", env=where)
        assert err == "" and kept.read_text().startswith(text.split("\n")[0])


def test_a_result_that_cannot_be_kept(tmp_path):
    (tmp_path / "file").write_text("")
    for where in ({"XDG_CACHE_HOME": str(tmp_path / "file")}, {"XDG_CACHE_HOME": "", "HOME": "here"}):
        out, err = run("selftest", "--quick", "--device", "cpu", env=where)
        assert out.endswith("selftest passed\n") and "lik: warning: the result is not kept: " in err


def test_where_there_is_no_metal(tmp_path):
    if os.uname().sysname == "Darwin":
        pytest.skip("there is")
    where = {"XDG_CACHE_HOME": str(tmp_path)}
    words = "there is no Metal here: " if MOCK else "this library was built without Metal"
    fails(6, words, args=("selftest", "--device", "metal"), env=where)
    fails(6, words, args=("bench", "--device", "metal:0"), env=where)
    assert not list(tmp_path.rglob("*.txt"))


@pytest.mark.skipif(not MOCK, reason="LIK_MOCK_METAL names no Metal")
def test_metal(tmp_path):
    where = {"XDG_CACHE_HOME": str(tmp_path), "LD_PRELOAD": MOCK}
    ran = tmp_path / "ran"
    out, _ = run("selftest", "--quick", "--device", "metal", env=where | {"MOCK_METAL_RUNS": str(ran)})
    source = "".join(path.read_text() for path in KERNELS.glob("*.metal"))
    kernels = re.findall(r"^(?:LIK_KERNEL |SCORE_KERNEL\()(lik_\w+)", source, re.MULTILINE)
    assert len(kernels) > 10 and set(ran.read_text().split()) == set(kernels)
    assert ", metal:0, Mock M1, " in out and out.endswith("\nselftest passed\n")
    assert (tmp_path / "late-interaction-kernels/selftest-metal-0.txt").exists()
    broken = where | {"MOCK_METAL": "compile"}
    out, _ = run("selftest", "--fresh", "--device", "metal", env=broken, code=6)
    assert (
        "first wrong: " in out
        and "does not compile the kernels: program_source:12:5: error" in out  # not the warnings before
        and out.endswith("selftest FAILED\n")
    )
    fails(6, "does not compile the kernels", args=("bench", "--quick", "--device", "metal"), env=broken)
    for fault, words in (("no-device", "lists no GPU"), ("old-device", "has no simdgroup matrices")):
        fails(6, words, args=("selftest", "--device", "metal"), env=where | {"MOCK_METAL": fault})


@pytest.mark.skipif(not MOCK, reason="LIK_MOCK_METAL names no Metal")
def test_scores_on_metal(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    np.save(tmp_path / "q.npy", rng.standard_normal((3, 5, 24)).astype(np.float32))
    np.save(tmp_path / "d.npy", rng.standard_normal((30, 9, 24)).astype(np.float16))
    args = "score", tmp_path / "q.npy", tmp_path / "d.npy", "--all"
    want = [line.split("\t") for line in run(*args, "--device", "ref")[0].splitlines()]
    out = run(*args, "--device", "metal", "-v", env={"LD_PRELOAD": MOCK})
    got = [line.split("\t") for line in out[0].splitlines()]
    assert [x[:3] for x in got] == [x[:3] for x in want]
    assert np.allclose([float(x[3]) for x in got], [float(x[3]) for x in want], atol=1e-4)
    assert "metal" in out[1]
