"""lik as a process: usage errors, exit codes, pipes, interrupts, disks, terminals, explain's
files.
"""

import fcntl
import html.parser
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
import xml.dom.minidom

import numpy as np
import pytest
from conftest import DEMO, DEMO_FILES, LIK, environment, fails, maxsim, run, unit, write_jsonl

COMMANDS = ["score", "rerank", "explain", "compress", "eval", "info", "bench", "demo", "selftest"]


@pytest.mark.parametrize(
    "args,parts",
    [
        (["scor"], ["no command 'scor'", "Did you mean 'score'?"]),
        (["rernak"], ["'rerank'"]),
        (["xyzzy"], ["lik --help"]),
        (["search", "a", "b"], ["no command 'search'"]),
        (["score", "a", "b", "--normalise"], ["Did you mean '--normalize'?"]),
        (["score", "a", "b", "--norm"], ["Did you mean '--normalize'?"]),
        (["score", "a", "b", "-x"], ["no option '-x'"]),
        (["score", "a"], ["needs 2 arguments, 1 given", "usage: lik score QUERIES DOCUMENTS"]),
        (["score", "a", "b", "c"], ["takes at most 2 arguments, 'c' is one more"]),
        (["score", "a", "b", "-k"], ["--top needs a value"]),
        (["score", "a", "b", "-k", "0"], ["at least 1, not '0'"]),
        (["score", "a", "b", "-kx"], ["not 'x'"]),
        (["score", "a", "b", "--top=99999999999999999999"], ["--top needs a whole number"]),
        (["score", "a", "b", "-k", "3", "--all"], ["exclude each other"]),
        (["score", "a", "b", "--all=3"], ["takes no value"]),
        (["score", "a", "b", "--color", "blue"], ["auto, always or never, not 'blue'"]),
        (["score", "-", "-"], ["only one of 2 inputs", "standard input"]),
        (["score", "-", "d.npy", "--pairs", "-"], ["only one of 2 inputs"]),
        (["score", "-", "d.npy", "--ids", "-"], ["only one of 2 inputs"]),
        (["eval", "a", "b", "-m", "bleu"], ["unknown measure 'bleu'"]),
        (["eval", "a", "b", "-m", "ndcg@0"], ["at least 1"]),
        (["explain", "a", "b", "-o", "x.png"], [".html or .svg"]),
        (["explain", "a", "b", "--cmap", "jet"], ["viridis or grey, not 'jet'"]),
        (["info", "a", "--top", "3"], ["no option"]),
        (["bench", "a"], ["only 'a' was given"]),
        (["--frobnicate"], ["no option"]),
    ],
)
def test_usage(args, parts):
    fails(2, *parts, args=args)


def test_usage_without_arguments():
    out, err = run(code=2)
    assert out == "" and "usage: lik COMMAND" in err
    fails(2, "LIK_THREADS is 'many'", args=["bench", "--quick"], env={"LIK_THREADS": "many"})


def test_help_and_version():
    out, _ = run("--help")
    assert all(f"\n  {c} " in out for c in COMMANDS)
    assert not re.search(r"\n  (index|search|add|tune|export) ", out)
    for command in COMMANDS:
        text, _ = run(command, "--help")
        assert f"usage: lik {command}" in text and "examples:" in text and "--help" in text
        assert max(map(len, text.splitlines())) <= 140
        assert text == run("help", command)[0]
    assert re.fullmatch(r"lik \d+\.\d+\.\d+\n", run("--version")[0])
    assert "backends" in run("--version", "--build-info")[0]


def test_device(small):
    _, _, folder = small
    base = ("score", folder / "q.npy", folder / "d.npy", "--device")
    fails(6, "cuda:99", args=(*base, "cuda:99"))
    fails(6, "tpu", args=(*base, "tpu"))
    fails(6, "cpu:mmx", args=(*base, "cpu:mmx"))


def test_closed_pipe(tmp_path, rng):
    np.save(tmp_path / "x.npy", unit(rng, 300, 2, 8))
    command = f"'{LIK}' score '{tmp_path}/x.npy' '{tmp_path}/x.npy' --all; echo code $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | head -n 1"], capture_output=True, env=environment())
    assert done.stdout.count(b"\n") == 1 and done.stderr == b"code 0\n"
    done = subprocess.run(
        ["bash", "-c", f"'{LIK}' score --help | true"], capture_output=True, env=environment()
    )
    assert done.returncode == 0 and done.stderr == b""


def test_full_disk(small):
    _, _, folder = small
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [LIK, "score", folder / "q.npy", folder / "d.npy"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
        )
    assert done.returncode == 5 and b"No space left" in done.stderr
    fails(
        5, "/dev/full", "No space left", args=("score", folder / "q.npy", folder / "d.npy", "-o", "/dev/full")
    )
    fails(
        3, "cannot write", args=("score", folder / "q.npy", folder / "d.npy", "-o", folder / "no" / "x.npy")
    )


def start_scoring(folder, rng, **how):
    """Scores folder/q.npy and d.npy into s.npy, which takes a while."""
    np.save(folder / "q.npy", unit(rng, 64, 32, 128))
    np.save(folder / "d.npy", unit(rng, 400, 300, 128))
    args = [folder / "q.npy", folder / "d.npy", "--all", "--device", "ref", "-j1", "-o", folder / "s.npy"]
    return subprocess.Popen(
        [LIK, "score", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), **how
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(tmp_path, rng, number):
    (tmp_path / "s.npy").write_bytes(b"before")
    process = start_scoring(
        tmp_path,
        rng,
        preexec_fn=lambda: signal.signal(
            number, signal.SIG_DFL
        ),  # lik honors it if its parent ignores the signal
    )
    for _ in range(500):  # until the temporary file shows that the work has begun
        if len(list(tmp_path.iterdir())) == 4:
            break
        time.sleep(0.02)
    else:
        pytest.fail("no temporary file appeared")
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and out == b"" and b"interrupted" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npy", "q.npy", "s.npy"]
    assert (tmp_path / "s.npy").read_bytes() == b"before"


def test_output_is_atomic(small):
    _, _, folder = small
    target = folder / "out.tsv"
    target.write_text("old")
    (folder / "link").symlink_to(target)
    os.chmod(target, 0o600)
    fails(3, "missing", args=("score", folder / "missing", folder / "d.npy", "-o", target))
    assert target.read_text() == "old"
    assert run("score", folder / "q.npy", folder / "d.npy", "-o", folder / "link")[0] == ""
    assert target.read_text() == run("score", folder / "q.npy", folder / "d.npy")[0]
    assert (folder / "link").is_symlink()
    assert sorted(p.name for p in folder.iterdir()) == ["d.npy", "link", "out.tsv", "q.npy"]


def test_file_cut_while_read(tmp_path, rng):
    """A mapped file that shrinks ends the program with a message, not with a crash."""
    process = start_scoring(tmp_path, rng)
    while len(list(tmp_path.iterdir())) < 3 and process.poll() is None:
        time.sleep(0.02)
    os.truncate(tmp_path / "d.npy", 4096)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3 and b"cut short" in err, (process.returncode, err)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npy", "q.npy"]


def test_verbose_and_quiet(small):
    _, _, folder = small
    _, err = run("score", folder / "q.npy", folder / "d.npy", "-v")
    assert re.search(
        r"open [\d.]+ ms, check [\d.]+ ms, score [\d.]+ ms "
        r"\(topk_f32\S*, \d+ threads?, [\d.]+ GFLOP/s\), write",
        err,
    )
    assert "there are only 20 documents" in run("score", folder / "q.npy", folder / "d.npy", "-k", 50)[1]
    assert run("score", folder / "q.npy", folder / "d.npy", "-k", 50, "--quiet")[1] == ""


def test_bench(small):
    _, _, folder = small
    rows = [json.loads(line) for line in run("bench", "--quick", "--rounds", 2, "--json")[0].splitlines()]
    assert len(rows) == 4 and all(
        r["median_ms"] >= r["best_ms"] > 0 and r["gflops"] > 0 and r["variant"] for r in rows
    )
    for r in rows:
        flops = 2 * r["queries"] * r["query_tokens"] * r["documents"] * r["document_tokens"] * r["dim"]
        assert r["gflops"] == pytest.approx(flops / r["median_ms"] * 1e-6, rel=1e-4)
    (row,) = [
        json.loads(line)
        for line in run("bench", folder / "q.npy", folder / "d.npy", "--json", "--rounds", 1)[0].splitlines()
    ]
    assert (row["queries"], row["documents"], row["dim"]) == (3, 20, 16)
    assert "| files " in run("bench", folder / "q.npy", folder / "d.npy")[0]


def test_info(small):
    _, _, folder = small
    info = json.loads(run("info", folder / "d.npy", "--json", "--check")[0])
    assert (info["sequences"], info["tokens"], info["dim"], info["dtype"], info["layout"]) == (
        20,
        180,
        16,
        "f32",
        "padded",
    )
    assert (
        info["lengths"] == {"min": 9, "median": 9, "max": 9, "empty": 0}
        and abs(info["check"]["norm_mean"] - 1) < 1e-5
    )
    demo = run("info", DEMO / "documents.safetensors")[0]
    assert (
        "sequences  400" in demo and "36441, 128 dimensions, i8" in demo and "a scale for each token" in demo
    )
    np.save(folder / "one.npy", np.arange(5))
    out, err = run("info", folder / "one.npy", code=4)
    assert "array            5 int64" in out and "not a collection" in err


# ---- terminals ----


def on_terminal(*args, columns=80, **env):
    """Runs lik with standard output and error on a pseudo-terminal of that width; returns what
    it wrote.
    """
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [LIK, *map(str, args)], stdin=subprocess.DEVNULL, stdout=side, stderr=side, env=environment(**env)
    )
    os.close(side)
    text = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        text += part
    os.close(main)
    assert process.wait(timeout=60) == 0, text
    return text.decode().replace("\r\n", "\n")


def visible(text):
    text = re.sub(r"\r\x1b\[K[^\n\r]*?(?=\r|\n|$)", "", text)
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", text)


@pytest.mark.parametrize("columns", [24, 40, 60, 80, 100, 133, 200])
def test_table_fits(columns):
    text = on_terminal("score", *DEMO_FILES, "-k", 3, columns=columns)
    lines = [line for line in visible(text).splitlines() if not line.startswith("lik: ")]  # notes
    assert max(map(len, lines)) <= columns
    assert sum(line.startswith("  1  ") for line in lines) == 200
    explained = on_terminal("explain", *DEMO_FILES, "-q", "q26", columns=columns)
    if columns >= 60:
        lines = [line for line in visible(explained).splitlines() if not line.startswith("lik: ")]
        assert max(map(len, lines)) <= columns


def test_wide_characters_fit(tmp_path, rng):
    d = unit(rng, 3, 2, 8)
    write_jsonl(
        tmp_path / "d.jsonl",
        [
            {
                "id": "\u6587\u4ef6" * 9 + str(i),
                "text": "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0 \U0001f600 " * 30,
                "embedding": x.tolist(),
            }
            for i, x in enumerate(d)
        ],
    )
    text = visible(on_terminal("score", tmp_path / "d.jsonl", tmp_path / "d.jsonl", columns=70))
    import unicodedata

    for line in text.splitlines():
        assert sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) <= 70


def test_control_characters_stay_out(tmp_path, rng):
    write_jsonl(
        tmp_path / "d.jsonl",
        [
            {
                "id": "a",
                "text": "evil \x1b[31m\x07 \u009b31m \u202e text",
                "embedding": unit(rng, 2, 8).tolist(),
            }
        ],
    )
    text = on_terminal("score", tmp_path / "d.jsonl", tmp_path / "d.jsonl", "--color", "never")
    assert "evil" in text and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text.replace("\r", ""))


def test_color(tmp_path):
    args = ("score", *DEMO_FILES, "-k", 1)
    assert "\x1b[1m" in on_terminal(*args)
    for quiet in (
        on_terminal(*args, NO_COLOR="1"),
        on_terminal(*args, "--color", "never"),
        on_terminal(*args, TERM="dumb"),
    ):
        assert "\x1b[1m" not in quiet
    assert "\x1b" not in run(*args)[0]
    assert "\x1b[48;2;" in on_terminal("explain", *DEMO_FILES, COLORTERM="truecolor")
    assert "\x1b[48;5;" in on_terminal("explain", *DEMO_FILES)
    plain = on_terminal("explain", *DEMO_FILES, "--color", "never")
    assert "[[" in plain and "\x1b" not in plain
    assert "\x1b[48;5;" in run("explain", *DEMO_FILES, "--color", "always")[0]


def test_no_utf8():
    text, _ = run("score", *DEMO_FILES, "--table", "-k", 2, env={"LC_ALL": "C"})
    assert text.isascii() and "##" in text and "..." in text


def test_progress(tmp_path, rng):
    np.save(tmp_path / "q.npy", unit(rng, 8, 32, 64))
    np.save(tmp_path / "d.npy", unit(rng, 400, 60, 64))
    args = ("score", tmp_path / "q.npy", tmp_path / "d.npy", "-k", 1, "--device", "ref", "-j", 1)
    text = on_terminal(*args)
    assert re.search(r"score \u00b7 \d+ % \u00b7 [\d.]+ ?k? tokens/s \u00b7 \d+ s left", text)
    assert "left" not in on_terminal(*args, "--quiet")
    assert run(*args)[1] == ""  # not to a file


# ---- explain ----


def test_explain_json():
    out, _ = run("explain", *DEMO_FILES, "-q", "q26", "-d", "scipy.sparse.linalg.LaplacianNd", "--json")
    (document,) = json.loads(out)["documents"]
    assert document["score"] == pytest.approx(sum(m["adds"] for m in document["matches"]), rel=1e-5)
    assert ("cian", "cian") in [(m["query_text"], m["document_text"]) for m in document["matches"]]
    fails(4, "has no query 'q0'", "'q1' to 'q200'", args=("explain", *DEMO_FILES, "-q", "q0"))
    assert json.loads(run("explain", *DEMO_FILES, "-q", "#25", "--json")[0])["query"] == "q26"


def test_explain_finds_the_best(small):
    q, d, folder = small
    for i, row in enumerate(maxsim(q, d)):
        out, _ = run("explain", folder / "q.npy", folder / "d.npy", "-q", i, "--json")
        (document,) = json.loads(out)["documents"]
        assert document["id"] == str(row.argmax()) and document["score"] == pytest.approx(row.max(), rel=1e-5)
        similarity = q[i].astype(np.float64) @ d[row.argmax()].astype(np.float64).T
        assert [m["document_token"] for m in document["matches"]] == list(similarity.argmax(axis=1))


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href", "data", "action")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("more", [[], ["--compare", "scipy.linalg.eigvalsh_tridiagonal"], ["--cmap", "grey"]])
def test_explain_files(tmp_path, more):
    args = ("explain", *DEMO_FILES, "-q", "q26", "-d", "scipy.sparse.linalg.LaplacianNd", *more)
    assert run(*args, "-o", tmp_path / "m.html")[0] == ""
    text = (tmp_path / "m.html").read_text()
    page = Page()
    page.feed(text)
    assert not page.links and "script" not in page.tags and "url(" not in text and "@import" not in text
    assert "Laplacian" in "".join(page.text) and page.tags.count("svg") == (6 if "--compare" in more else 3)
    run(*args, "-o", tmp_path / "m.svg")
    svg = xml.dom.minidom.parse(str(tmp_path / "m.svg")).documentElement
    assert svg.tagName == "svg" and "http" not in (tmp_path / "m.svg").read_text().replace(
        "http://www.w3.org/2000/svg", ""
    )
    cells = [r for r in svg.getElementsByTagName("rect") if r.getElementsByTagName("title")]
    similarities = [
        float(r.getElementsByTagName("title")[0].firstChild.data.rsplit(": ", 1)[1]) for r in cells
    ]
    info = json.loads(run(*args, "--json")[0])
    best = [m["similarity"] for d in info["documents"] for m in d["matches"]]
    tokens = len(info["documents"][0]["matches"])
    assert len(cells) % tokens == 0 and max(similarities) == pytest.approx(max(best), abs=1e-3)
    fills = [r.getAttribute("fill") for r in cells]
    top = fills[similarities.index(max(similarities))]
    assert top == ("#141414" if "grey" in more else "#fde725")
    if "--compare" in more:
        assert "Why one is above the other" in "".join(page.text)
        assert "adds more" in run(*args)[0]


def test_explain_escapes(tmp_path, rng):
    write_jsonl(
        tmp_path / "d.jsonl",
        [
            {
                "id": "<a>&\"'",
                "text": "<script>x</script> & more",
                "tokens": ["<script>", "&"],
                "embedding": unit(rng, 2, 8).tolist(),
            }
        ],
    )
    for name in ("m.html", "m.svg"):
        run("explain", tmp_path / "d.jsonl", tmp_path / "d.jsonl", "-o", tmp_path / name)
        text = (tmp_path / name).read_text()
        assert "<script" not in text and "&lt;script&gt;" in text
    xml.dom.minidom.parse(str(tmp_path / "m.svg"))
