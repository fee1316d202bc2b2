"""Text inputs by one set of rules: byte order marks, compressed files, numbers, names; what
reaches a terminal; outputs that are inputs."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import unicodedata

import numpy as np
import pytest
from conftest import DEMO, LIK, environment, fails, parse_tsv, run, unit, write_jsonl
from safetensors.numpy import save_file
from test_process import on_terminal, visible

BOM = b"\xef\xbb\xbf"
RUN, QRELS = "q0 Q0 d1 1 2.5 t\nq0 Q0 d0 2 1.5 t\nq1 Q0 d1 1 2 t\n", "q0 0 d1 1\nq1 0 d0 1\n"
EVERY = "ndcg@10,mrr,recall,map"


@pytest.fixture
def files(tmp_path, rng):
    """One file of each text input, which fit each other: `reads` has the commands that read
    them.
    """
    q, d = unit(rng, 2, 3, 8), unit(rng, 3, 4, 8)
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    np.save(tmp_path / "flat.npy", d.reshape(12, 8))
    (tmp_path / "run").write_text(RUN)
    (tmp_path / "qrels").write_text(QRELS)
    (tmp_path / "pairs").write_text("q0 d1\nq1 d0\n")
    (tmp_path / "ids").write_text("d0\nd1\nd2\n")
    (tmp_path / "qids").write_text("q0\nq1\n")
    (tmp_path / "lens").write_text("4 4\n4\n")
    write_jsonl(tmp_path / "texts", [{"id": f"d{i}", "text": f"text {i}"} for i in range(3)])
    write_jsonl(tmp_path / "d.jsonl", [{"id": f"d{i}", "embedding": x.tolist()} for i, x in enumerate(d)])
    return tmp_path


def reads(folder):
    """name of a text input -> a command that reads it"""
    score = (
        "score",
        folder / "q.npy",
        folder / "d.npy",
        "--ids",
        folder / "ids",
        "--query-ids",
        folder / "qids",
    )
    names = ("--ids", folder / "ids", "--query-ids", folder / "qids")
    return {
        "run": ("eval", folder / "run", folder / "qrels", "-m", EVERY),
        "qrels": ("eval", folder / "run", folder / "qrels", "-m", EVERY),
        "pairs": (*score, "--pairs", folder / "pairs"),
        "ids": score,
        "qids": score,
        "lens": (
            "score",
            folder / "q.npy",
            folder / "flat.npy",
            "--lens",
            folder / "lens",
            "--ids",
            folder / "ids",
        ),
        "texts": (*score, "--text", folder / "texts", "--table"),
        "d.jsonl": ("score", folder / "q.npy", folder / "d.jsonl"),
        "rerank": ("rerank", folder / "q.npy", folder / "d.npy", folder / "run", *names),
    }


TEXTS = ["run", "qrels", "pairs", "ids", "qids", "lens", "texts", "d.jsonl"]


def without_times(text):
    return [line for line in text.splitlines() if " ms " not in line]


@pytest.mark.parametrize("name", TEXTS)
def test_how_a_text_may_be_written(files, name):
    """A byte order mark, CR LF and a missing last newline change nothing."""
    command, plain = reads(files)[name], (files / name).read_bytes()
    expected = without_times(run(*command)[0])
    assert expected
    for data in (
        BOM + plain,
        plain.replace(b"\n", b"\r\n"),
        plain.rstrip(b"\n"),
        BOM + plain.replace(b"\n", b"\r\n"),
    ):
        (files / name).write_bytes(data)
        assert without_times(run(*command)[0]) == expected, data
    if name != "lens":
        (files / name).write_bytes(plain + BOM + plain)  # two such files, one after the other
        fails(3, "byte order mark", str(files / name), args=command)
    for codec, word in (
        ("utf-16", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-32-be", "UTF-32"),
    ):
        mark = "\ufeff" if codec.endswith("be") else ""
        (files / name).write_bytes((mark + plain.decode()).encode(codec))
        fails(4, f"{files / name} is {word} text", "UTF-8", args=command)


def test_a_mark_alone(files):
    (files / "run").write_bytes(BOM)
    fails(4, "no query of", args=reads(files)["run"])
    (files / "ids").write_bytes(BOM)
    fails(4, "has 0 ids", args=reads(files)["ids"])


PACKED = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: b"\x28\xb5\x2f\xfd\x04\x58" + data,
    "lz4": lambda data: b"\x04\x22\x4d\x18\x64\x40" + data,
    "zip": lambda data: b"PK\x03\x04\x14\0" + data,
}


@pytest.mark.parametrize(
    "name", [*TEXTS, "d.npy", "q.npy", "d.safetensors", "d_len.npy", "ids.npy", "rerank"]
)
def test_compressed_files_are_named(files, name):
    commands = reads(files) | {
        "d.npy": ("score", files / "q.npy", files / "d.npy"),
        "q.npy": ("score", files / "q.npy", files / "d.npy"),
        "d_len.npy": ("score", files / "q.npy", files / "d.npy"),
        "ids.npy": ("score", files / "q.npy", files / "d.npy", "--ids", files / "ids.npy"),
        "d.safetensors": ("score", files / "q.npy", files / "d.safetensors"),
    }
    path = files / ("run" if name == "rerank" else name)
    plain = path.read_bytes() if path.exists() else b"some bytes"
    for kind, pack in PACKED.items():
        for data in (pack(plain), pack(b"")):
            path.write_bytes(data)
            fails(4, f"{path} is ", kind, args=commands[name])
    if name != "d.npy":
        return
    for kind, pack in PACKED.items():
        path.write_bytes(pack(plain))
        fails(4, f"{path} is ", kind, args=("info", path))
        fails(4, "standard input is ", kind, args=("score", files / "q.npy", "-"), stdin=pack(plain))


def test_names_that_look_like_files(files):
    """Ids may begin as such files do."""
    (files / "run").write_text("PAR1\tQ0\tBZh9\t1\t1\tt\nPK Q0 BZh9 1 1 t\n")
    (files / "qrels").write_text("PAR1 0 BZh9 1\n")
    assert "mrr\tall\t1.0" in run(*reads(files)["run"])[0]
    header = {"embeddings": {"dtype": "F32", "shape": [1, 1, 1], "data_offsets": [0, 4]}}
    for first in (b"\x1f\x8b\x08", b"\x80\x04", b"\xff\xfe"):  # lengths of a header
        text = json.dumps(header).encode().ljust(int.from_bytes(first, "little"))
        (files / "x").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
        assert "sequences  1" in run("info", files / "x")[0]


@pytest.mark.parametrize(
    "score,value",
    [
        ("3", 3), ("+3", 3), ("-3", -3), ("3.", 3), (".5", 0.5), ("3e0", 3), ("3E+0", 3), ("0003", 3),
        ("0" * 100 + "3", 3), ("3." + "0" * 5000, 3), ("0." + "0" * 400 + "3e401", 3), ("1e-400", 0),
        ("inf", 9e9), ("-inf", -9e9), ("Infinity", 9e9), ("3\x000", None), ("3\0", None), ("0x3", None),
        ("0x1p3", None), ("nan", None), ("nan(1)", None), ("3,0", None), ("3e", None), ("e3", None),
        (".", None), ("+", None), ("--3", None), ("3f", None), ("\v3", None), ("\u0663", None),
        ("1e400", "fit"), ("-1e39", "fit"), ("infinit", None), ("3_0", None),
    ],
)  # fmt: skip
def test_scores(tmp_path, score, value):
    (tmp_path / "run").write_text(
        f"q Q0 low 1 -1e9 t\nq Q0 x 1 {score} t\nq Q0 a 1 2.9999 t\nq Q0 b 1 3.0001 t\n"
    )
    (tmp_path / "qrels").write_text("q 0 x 1\n")
    command = ("eval", tmp_path / "run", tmp_path / "qrels", "-m", "mrr")
    if value is None or value == "fit":
        word = "does not fit float32" if value else "is not a number"
        err = fails(3, "run, line 2: the score '", word, args=command)
        assert ("\\0" in err) == ("\0" in score)
        return
    rank = 1 + sum(value < other for other in (-1e9, 2.9999, 3.0001))
    assert float(run(*command)[0].split()[2]) == pytest.approx(1 / rank, abs=1e-6)


@pytest.mark.parametrize(
    "grade,relevant",
    [
        ("1", 1), ("+1", 1), ("01", 1), ("0" * 99 + "1", 1), ("0", 0), ("-1", 0), ("-" + "0" * 99 + "1", 0),
        ("9223372036854775807", 1), ("-9223372036854775808", 0), ("9223372036854775808", None),
        ("1\0.5", None), ("1.0", None), ("1e0", None), ("0x1", None), ("", None), ("-", None), ("1\0", None),
        ("1" * 99, None),
    ],
)  # fmt: skip
def test_grades(tmp_path, grade, relevant):
    (tmp_path / "run").write_text("q Q0 x 1 1 t\n")
    (tmp_path / "qrels").write_text(f"q 0 x {grade}\n")
    command = ("eval", tmp_path / "run", tmp_path / "qrels", "-m", "mrr")
    if relevant is None:
        fails(
            3, "qrels, line 1", "not a whole number" if grade else "has 3 fields, 4 are needed", args=command
        )
    else:
        assert float(run(*command)[0].split()[2]) == relevant


def test_nul_anywhere(files):
    """In whichever field of a line, and in every other text."""
    for name, fields in (("run", 6), ("qrels", 4), ("pairs", 2)):
        plain = (files / name).read_text()
        first, rest = plain.split("\n", 1)
        for i in range(fields):
            words = first.split(" ")
            words[i] += "\0x"
            (files / name).write_text(" ".join(words) + "\n" + rest)
            fails(3, f"{name}, line 1", args=reads(files)[name])
        (files / name).write_text(plain)
    for name, part in (("ids", "control character"), ("lens", "NUL"), ("texts", "NUL"), ("d.jsonl", "NUL")):
        plain = (files / name).read_text()
        for data in (
            plain.replace("4", "4\0", 1).replace("d1", "d1\0").replace("}", "\0}", 1),
            plain[:-1] + "\0\n",
        ):
            (files / name).write_text(data)
            fails(3, str(files / name), part if "}" not in data else "", args=reads(files)[name])
        (files / name).write_text(plain)
    data = np.zeros((2, 3, 4), "<f4").tobytes()
    for text in (
        "{'descr': '<f4\0x', 'fortran_order': False, 'shape': (2, 3, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape\0x': (2, 3, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }\0{",
    ):
        (files / "x.npy").write_bytes(
            b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + data
        )
        fails(3, "cannot be understood", args=("info", files / "x.npy"))


@pytest.mark.parametrize(
    "text", ["+5", " 5", "5 ", "05", "0x5", "5.0", "5e0", "", "-5", "0", "9223372036854775808"]
)
def test_numbers_of_options(small, text):
    _, _, folder = small
    command = ("score", folder / "q.npy", folder / "d.npy")
    for option in ("--top", "--threads"):
        fails(2, f"{option} needs a whole number", f"'{text}'", args=(*command, f"{option}={text}"))
    fails(2, "--rounds needs a whole number", args=("bench", f"--rounds={text}"))
    fails(2, "a number of at least 1 must follow", args=("eval", "a", "b", "-m", f"ndcg@{text}"))
    if text:
        for name in ("LIK_THREADS", "LIK_STAGED"):
            fails(2, f"{name} is '{text}'", args=command, env={name: text})
    table = run(*command, "--table", env={"COLUMNS": text})[0]  # of the shell, and no number: 80
    assert without_times(table) == without_times(run(*command, "--table")[0])


def test_a_locale_with_a_comma(files):
    """Numbers have a point, whatever the language."""
    for locale in ("de_DE.UTF-8", "fr_FR.UTF-8"):
        assert run(*reads(files)["run"], env={"LC_ALL": locale})[0] == run(*reads(files)["run"])[0]


def test_numbers_of_any_length_in_json(tmp_path):
    digits = "0." + "0" * 30 + "7" * 100_000
    (tmp_path / "d.jsonl").write_text('{"embedding": [[%s, 1%s, 1e-%s]]}' % (digits, "0" * 30, "9" * 1000))
    (tmp_path / "q.jsonl").write_text(
        '{"embedding": [[1, 0, 0]]}\n{"embedding": [[0, 1, 0]]}\n{"embedding": [[0, 0, 1]]}'
    )
    run("score", tmp_path / "q.jsonl", tmp_path / "d.jsonl", "--all", "-o", tmp_path / "s.npy")
    expected = np.array([[float(digits)], [1e30], [0]], np.float32)
    assert np.array_equal(np.load(tmp_path / "s.npy"), expected)


# ---- names ----


def test_one_way_to_write_a_number(small):
    """Without ids a sequence is called by its number, written in one way."""
    q, d, folder = small
    (folder / "run").write_text("0 Q0 5 1 3 t\n")
    command = ("rerank", folder / "q.npy", folder / "d.npy", folder / "run")
    assert parse_tsv(run(*command)[0])["0"][0][0] == "5"
    for name in ("005", "00", "+5", "5.0", "0x5", "#005", "-0", "#", "5#", "20", "99999999999999999999"):
        (folder / "run").write_text(f"0 Q0 {name} 1 3 t\n")
        fails(4, f"run, line 1: document '{name}' is not in", args=command)
        (folder / "run").write_text(f"{name} Q0 5 1 3 t\n")
        fails(4, f"run, line 1: query '{name}' is not in", args=command)
        (folder / "pairs").write_text(f"0 {name}\n")
        fails(
            4,
            f"document '{name}' is not in",
            args=("score", folder / "q.npy", folder / "d.npy", "--pairs", folder / "pairs"),
        )
        fails(4, f"no document '{name}'", args=("explain", folder / "q.npy", folder / "d.npy", "-d", name))
    (folder / "run").write_text("0 Q0 #5 1 3 t\n")
    assert parse_tsv(run(*command)[0])["0"][0][0] == "5"


@pytest.mark.parametrize("skip", [[], ["--skip-missing"]])
def test_a_document_twice_by_two_names(small, skip):
    q, d, folder = small
    command = ("rerank", folder / "q.npy", folder / "d.npy", folder / "run", *skip)
    (folder / "run").write_text("0 Q0 5 1 3 t\n0 Q0 6 1 3 t\n\n0 Q0 #5 1 3 t\n")
    fails(3, "run, lines 1 and 4 name one document", "'5' for '0', and '#5' for '0'", args=command)
    (folder / "run").write_text("#0 Q0 5 1 3 t\n0 Q0 5 1 3 t\n")
    fails(3, "run, lines 1 and 2", "'5' for '#0', and '5' for '0'", args=command)
    (folder / "run").write_text("#0 Q0 5 1 3 t\n0 Q0 6 1 3 t\n")
    assert {x for x, _ in parse_tsv(run(*command)[0])["0"]} == {"5", "6"}
    (folder / "pairs").write_text("0 5\n0 #5\n")  # pairs may
    assert run("score", folder / "q.npy", folder / "d.npy", "--pairs", folder / "pairs")[0].count("\n") == 2


def test_a_number_sign_in_an_id(tmp_path, rng):
    """An id is looked up before a number: `#2` is the sequence of that id, else number 2."""
    d = unit(rng, 4, 3, 8)
    ids = ["#2", "b", "#9", "d"]
    write_jsonl(tmp_path / "d.jsonl", [{"id": i, "embedding": x.tolist()} for i, x in zip(ids, d)])
    for name, number in (("#2", 0), ("#9", 2), ("#1", 1), ("#3", 3), ("b", 1)):
        out = run("explain", tmp_path / "d.jsonl", tmp_path / "d.jsonl", "-q", name, "-d", name, "--json")[0]
        assert json.loads(out)["query"] == ids[number] == json.loads(out)["documents"][0]["id"]
        (tmp_path / "run").write_text(f"{name} Q0 {name} 1 1 t\n")
        out = run("rerank", tmp_path / "d.jsonl", tmp_path / "d.jsonl", tmp_path / "run")[0]
        assert out.split("\t")[:2] == [ids[number], ids[number]]
    for name in ("#4", "2", "#02", "1"):
        fails(
            4, f"no query '{name}'", args=("explain", tmp_path / "d.jsonl", tmp_path / "d.jsonl", "-q", name)
        )


def test_ids_of_json_lines(small):
    q, d, folder = small
    rows = [x.tolist() for x in d[:4]]

    def hits(lines):
        (folder / "x.jsonl").write_text("\n".join(lines))
        return {x for x, _ in parse_tsv(run("score", folder / "q.npy", folder / "x.jsonl")[0])["0"]}

    def line(i, **more):
        return json.dumps(more | {"embedding": rows[i]})

    assert hits([line(0, _id="a", title="t"), line(1, _id="b")]) == {"a", "b"}
    assert hits([line(0, _id=7), line(1, _id="b")]) == {"7", "b"}
    assert hits([line(0, _id="x", id="a"), line(1, id="b", _id="x")]) == {"a", "b"}  # `id` comes first
    assert hits([line(0, _id={"$oid": "5"}, id="a"), line(1, _id=None, id="b")]) == {"a", "b"}
    assert hits([line(0, _id={"$oid": "5"}), line(1, _id=None)]) == {"0", "1"}
    assert hits([line(0, _id="a"), line(1, id="b")]) == {"a", "b"}
    assert hits([line(0, id=2**64 - 1), line(1, id=-5), line(2, id=10**30)]) == {
        str(2**64 - 1),
        "-5",
        str(10**30),
    }
    command = ("score", folder / "q.npy", folder / "x.jsonl")
    for lines, part in (
        (['{"_id": "a", "_id": "b", "embedding": [[1]]}'], '"_id" is there twice'),
        ([line(0, _id="a"), line(1, id="a")], "entries 1 and 2 both have the id 'a'"),
        ([line(0, _id="a"), line(1)], "line 2 has no id"),
        ([line(0, id=1.5)], "a string or a whole number"),
        ([line(0, _id=1e3)], "a string or a whole number"),
        (['{"id": 007, "embedding": [[1]]}'], "leading zero"),
        ([line(0, _id="a\tb")], "the id holds a control character"),
        ([line(0, id="\ufeffa")], "the id begins with a byte order mark"),
    ):
        (folder / "x.jsonl").write_text("\n".join(lines))
        fails(3, "x.jsonl", part, args=command)
    (folder / "ids").write_text("".join(f'{{"_id": "i{i}", "text": "text {i}"}}\n' for i in range(20)))
    both = ("score", folder / "q.npy", folder / "d.npy", "--ids", folder / "ids", "--text", folder / "ids")
    assert all(x[0] == "i" for x, _ in parse_tsv(run(*both)[0])["0"]) and "text 1" in run(*both, "--table")[0]
    alone = run("score", folder / "q.npy", folder / "d.npy", "--text", folder / "ids")[0]
    assert all(x[0] == "i" for x, _ in parse_tsv(alone)["0"])


@pytest.mark.parametrize(
    "raw",
    [
        b"\xc0\xaf",
        b"\xc1\x81",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xff",
        b"\xc3",
    ],
)
def test_utf8_is_checked(files, raw):
    """Overlong forms, surrogates, what is cut or beyond Unicode: in every reader, and never raw
    in a message.
    """
    for name, at in (
        ("run", b"d1"),
        ("qrels", b"q1"),
        ("pairs", b"d1"),
        ("ids", b"d1"),
        ("d.jsonl", b"d1"),
        ("texts", b"xt 1"),
    ):
        plain = (files / name).read_bytes()
        (files / name).write_bytes(plain.replace(at, at + raw))
        fails(3, name, "not UTF-8", args=reads(files)[name])
        (files / name).write_bytes(plain)
    (files / "run").write_bytes(b"q Q0 d 1 " + raw + b" t\n")
    fails(3, "the score '" + "".join(f"\\x{c:02x}" for c in raw) + "'", args=reads(files)["run"])


# ---- .safetensors ----


@pytest.mark.parametrize("extra", ["lengths", "doclens", "offsets", "mask", "scales", "zz"])
def test_the_tensor_that_is_no_sequence_is_named(tmp_path, rng, extra):
    np.save(tmp_path / "q.npy", unit(rng, 1, 2, 8))
    for array in (np.arange(3), np.array(1, np.float32), np.zeros((1, 2, 8), np.float32)):
        save_file({"a": unit(rng, 2, 8), "b": unit(rng, 3, 8), extra: array}, tmp_path / "d.safetensors")
        err = fails(
            4,
            f"tensor '{extra}' is",
            "not [tokens, dim]",
            args=("score", tmp_path / "q.npy", tmp_path / "d.safetensors"),
        )
        assert "tensor 'a'" not in err and "tensor 'b'" not in err


# ---- outputs that are inputs ----


def unchanged(folder, before):
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


# Long because it is a table: every output against every input, by every spelling.
def test_an_output_is_no_input(files):
    """For each output of each command and each input, by other spellings and links; before
    anything is read.
    """
    os.symlink(files / "q.npy", files / "link.npy")
    os.link(files / "d.npy", files / "hard.npy")
    os.symlink(files, files / "here")
    np.save(files / "x.ids.npy", np.arange(3))
    np.save(files / "one.npy", np.zeros((3, 4, 8), np.float32))
    np.save(files / "one_len.npy", np.array([4, 4, 4]))
    np.save(files / "two.npy", np.zeros((3, 4, 8), np.float32))
    np.save(files / "two.doclens.npy", np.array([4, 4, 4]))
    for name in ("page.html", "page.svg"):
        os.symlink(files / "texts", files / name)
    texts = (
        "--ids",
        files / "ids",
        "--text",
        files / "texts",
        "--lens",
        files / "lens",
        "--query-ids",
        files / "qids",
    )
    more = (*texts, "--query-text", files / "texts", "--query-lens", files / "lens")
    q, d = files / "q.npy", files / "d.npy"
    before = {p.name: p.read_bytes() for p in files.iterdir() if p.is_file()}
    for output in (
        "q.npy",
        "d.npy",
        "ids",
        "texts",
        "lens",
        "qids",
        "link.npy",
        "hard.npy",
        "here/q.npy",
        "./ids",
        f"../{files.name}/texts",
    ):
        for command in (
            ("score", q, d, *more),
            ("score", q, d, "--all", *more),
            ("explain", q, d, *more),
            ("rerank", q, d, files / "run", *more),
        ):
            fails(
                2,
                f"the output {files}/{output} is also the input",
                args=(*command, "-o", f"{files}/{output}"),
            )
    fails(2, "is also the input", args=("score", q, d, "--pairs", files / "pairs", "-o", files / "pairs"))
    fails(2, "is also the input", args=("rerank", q, d, files / "run", "-o", files / "run"))
    for how in ((), ("-k", 2)):
        fails(
            2,
            f"the output {files}/x.ids.npy is also the input",
            args=("score", q, d, "--ids", files / "x.ids.npy", "-o", files / "x.npy", *how),
        )
    fails(
        2,
        "x.ids.npy is also",
        args=("rerank", q, d, files / "run", "--ids", files / "x.ids.npy", "-o", files / "x.npy"),
    )
    for name in ("one_len.npy", "two.doclens.npy"):  # lengths found beside the vectors
        vectors = files / (name[:3] + ".npy")
        fails(2, name, "is also the input", args=("score", q, vectors, "--all", "-o", files / name))
        fails(2, name, "is also the input", args=("score", vectors, d, "--all", "-o", files / name))
    for name in ("page.html", "page.svg"):
        fails(
            2,
            f"{name} is also the input",
            args=("explain", q, d, "--text", files / "texts", "-o", files / name),
        )
    fails(2, "only one of 2 inputs", args=("info", "-", "--ids", "-"))
    with open(d, "rb") as data:
        command = [LIK, "score", q, "-", "--all", "-o", files / "hard.npy"]
        done = subprocess.run(command, stdin=data, capture_output=True, env=environment())
    assert done.returncode == 2 and b"is also the input standard input" in done.stderr
    unchanged(files, before)
    # Which has no file of ids.
    run("score", q, d, "--all", "--ids", files / "x.ids.npy", "-o", files / "x.npy")
    assert (files / "x.ids.npy").read_bytes() == before["x.ids.npy"]
    run("score", q, d, "-o", files / "y.npy")
    run("score", q, d, "-o", files / "y.npy")  # what a run before has written is no input
    (files / "y.ids.npy").unlink()
    os.link(files / "y.npy", files / "y.ids.npy")
    fails(2, "are one file", args=("score", q, d, "-o", files / "y.npy"))
    run("score", q, d, "-o", "/dev/null", "--ids", files / "ids")


def test_the_demo_keeps_its_collection(tmp_path):
    for name in DEMO.iterdir():
        if name.is_file():
            (tmp_path / name.name).write_bytes(name.read_bytes())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for name in (
        "documents.jsonl",
        "queries.jsonl",
        "documents.safetensors",
        "queries.safetensors",
        "qrels.txt",
        "bm25.run",
        "meanpool.run",
    ):
        for end in ("html", "svg"):
            os.symlink(tmp_path / name, tmp_path / f"map.{end}")
            fails(
                2,
                f"map.{end} is also the input",
                name,
                args=("demo", "--data", tmp_path, "-o", tmp_path / "map"),
            )
            (tmp_path / f"map.{end}").unlink()
    unchanged(tmp_path, before)


# ---- what reaches a terminal ----

# Overrides and isolates of direction, marks, zero-width characters, fillers, separators, tags;
# C1 and DEL.
HIDDEN = [
    *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0x200B, 0x200C, 0x200D, 0x2060,
    0xFEFF, 0xAD, 0x34F, 0x115F, 0x180E, 0x3164, 0xFFA0, 0x2028, 0x2029, 0xFFF9, 0xE0041, 0xE0001, 0x1D173,
]  # fmt: skip
EVIL = "".join(f"x{chr(c)}" for c in HIDDEN)
# What a name may show: also RTL letters, accents, variants.
SEEN = "\u00e4\u6587\u0301\u05d0\u0627\U0001f600\u2764\ufe0f"


def escaped(text, json_form=False):
    def one(c):
        code = ord(c)
        if not (code in HIDDEN or unicodedata.category(c) == "Cc"):
            return c
        if code < 0x10000:
            return f"\\u{code:04x}"
        return json.dumps(c)[1:-1] if json_form else f"\\U{code:08x}"

    return "".join(map(one, text))


def has_hidden(text):
    return any(
        unicodedata.category(c) in ("Cf", "Zl", "Zp")
        or ord(c) in HIDDEN
        or (unicodedata.category(c) == "Cc" and c not in "\t\n")
        for c in text
    )


@pytest.fixture
def evil(tmp_path, rng):
    """Documents and queries whose ids, texts and tokens hold what does not show; a run of them,
    and judgments.
    """

    def row(i, x):
        text = f"{EVIL} \x1b[31mred\x07 \x9b31m\x7f {SEEN}\ttab\nline"
        return {
            "id": f"{i}{EVIL}{SEEN}",
            "text": text,
            "tokens": ["\x1b[1m", f"{chr(0x202E)}red"],
            "embedding": x.tolist(),
        }

    write_jsonl(tmp_path / "x.jsonl", [row(i, x) for i, x in enumerate(unit(rng, 3, 2, 8))])
    (tmp_path / "run").write_text(
        "".join(f"{i}{EVIL}{SEEN} Q0 {j}{EVIL}{SEEN} 1 1 t\n" for i in range(2) for j in range(3))
    )
    (tmp_path / "qrels").write_text(f"0{EVIL}{SEEN} 0 1{EVIL}{SEEN} 1\n")
    np.save(tmp_path / "v.npy", unit(rng, 3, 2, 8))
    (tmp_path / "ids").write_text("".join(f"{i}{EVIL}{SEEN}\n" for i in range(3)))
    return tmp_path


def evil_commands(folder):
    x, run_ = folder / "x.jsonl", folder / "run"
    return {
        "table": ("score", x, x),
        "json": ("score", x, x, "--json"),
        "trec": ("score", x, x, "--trec=t\u202eag"),
        "rerank": ("rerank", x, x, run_),
        "rerank-trec": ("rerank", x, x, run_, "--trec"),
        "explain": ("explain", x, x, "--color", "never"),
        "explain-color": ("explain", x, x),
        "compare": ("explain", x, x, "--compare", f"2{EVIL}{SEEN}"),
        "explain-json": ("explain", x, x, "--json"),
        "eval": ("eval", run_, folder / "qrels"),
        "eval-each": ("eval", run_, folder / "qrels", "--per-query"),
        "eval-json": ("eval", run_, folder / "qrels", "--per-query", "--json"),
        "info": ("info", x, "--check"),
        "info-json": ("info", x, "--json"),
        "tsv": ("score", x, x, "-o", "/dev/stdout"),
    }  # fmt: skip


@pytest.mark.parametrize("columns", [30, 300, 2000])
@pytest.mark.parametrize("name", evil_commands(DEMO))
def test_nothing_hidden_reaches_the_terminal(evil, name, columns):
    text = visible(on_terminal(*evil_commands(evil)[name], columns=columns))
    assert not has_hidden(text), [hex(ord(c)) for c in text if has_hidden(c)]
    form = escaped(EVIL, name.endswith("json")) + SEEN
    if columns == 2000 and name not in ("info", "info-json", "eval"):
        assert form in text
    if name.endswith("json"):  # the same data
        for line in text.splitlines():
            json.loads(line)
    if name in ("json", "tsv", "trec"):
        plain = run(*evil_commands(evil)[name])[0]
        assert EVIL + SEEN in plain and "\\u202e" not in plain  # a pipe has them as they are
        if name == "json":
            ids = [
                [[h["id"] for h in json.loads(line)["hits"]] for line in x.split("\n") if line]
                for x in (text, plain)
            ]
            assert ids[0] == ids[1] and len(ids[0]) == 3


@pytest.mark.parametrize("columns", [24, 60, 90, 200])
def test_escapes_fit(evil, columns):
    lines = visible(on_terminal("score", evil / "x.jsonl", evil / "x.jsonl", columns=columns)).splitlines()
    width = (
        lambda c: 0
        if unicodedata.combining(c) or c == "\ufe0f"
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
    )
    assert max(sum(map(width, line)) for line in lines) <= columns


def test_messages_escape(evil):
    """Errors and warnings name ids, texts, options and paths."""
    name = f"0{EVIL}{SEEN}"
    nan = np.load(evil / "v.npy")
    nan[0, 1, 3] = np.nan
    np.save(evil / f"{EVIL}nan.npy", nan)
    path, x = evil / f"{EVIL}nan.npy", evil / "x.jsonl"
    (evil / "twice").write_text(f"{name} Q0 d 1 1 t\n" * 2)
    (evil / "odd").write_text(f"{name} Q0 {EVIL} 1 1 t\n")
    messages = [
        run("score", path, x, "--query-ids", evil / "ids", code=3)[1],
        run("score", x, path, "--ids", evil / "ids", code=3)[1],
        run("score", x, path, "--ids", evil / "ids", "--skip-bad")[1],
        run("info", evil / EVIL, code=3)[1],
        run("explain", x, x, "-q", EVIL, code=4)[1],
        run("eval", evil / "twice", evil / "twice", code=3)[1],
        run("rerank", x, x, evil / "odd", code=4)[1],
        run("eval", evil / "run", evil / "qrels", "-m", EVIL, code=2)[1],
        run(EVIL, code=2)[1],
        run("score", f"--{EVIL}", code=2)[1],
        run("score", x, x, "--color", EVIL, code=2)[1],
        run("bench", "--device", EVIL, code=6)[1],
    ]
    for text in messages:
        assert text and not has_hidden(text), text
        assert "\\u202e" in text or "\\u202a" in text or "device" in text, text
    out = run("info", path, "--ids", evil / "ids", "--check", code=3)[0]
    assert escaped(name) in out and not has_hidden(out)
    err = run("info", evil / "a\nlik: error: forged", code=3)[1]
    assert err.count("\n") == 1


def test_pages_name_what_is_hidden(evil):
    """In a page and a picture ids and tokens are told apart; the text itself is a paragraph as
    it is.
    """
    for name in ("m.html", "m.svg"):
        run("explain", evil / "x.jsonl", evil / "x.jsonl", "-d", f"1{EVIL}{SEEN}", "-o", evil / name)
        text = (evil / name).read_text()
        assert escaped(f"1{EVIL}{SEEN}") in text and "\\u202ered" in text
        for line in text.split("\n"):
            assert not has_hidden(line) or (
                name == "m.html"
                and (line.startswith('<p class="text">') or "<h1>" in line or line.startswith("line"))
            )
    assert EVIL in (evil / "m.html").read_text()
