"""The page and the picture of `lik explain`: long documents, weights, page images, readers."""

import json
import re
import struct
import xml.dom.minidom
import zlib

import numpy as np
import pytest
from conftest import DEMO, DEMO_FILES, fails, run, unit, write_jsonl

FILES = (*DEMO_FILES, "-q", "q26", "-d", "scipy.sparse.linalg.LaplacianNd")


def png(path, width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(range(width)) for _ in range(height)))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.fixture
def collection(tmp_path, rng):
    """A query of five tokens, and a document of a given length in which each has one match."""

    def make(length, weights=None):
        q, d = unit(rng, 5, 32), unit(rng, length, 32)
        places = [int(x) for x in np.linspace(3, length - 4, 5)]
        d[places] = q
        line = {"id": "q", "tokens": [f"w{i}" for i in range(5)], "embedding": q.tolist()}
        if weights:
            line["weights"] = weights
        write_jsonl(tmp_path / "q.jsonl", [line])
        tokens = [f"t{i}" for i in range(length)]
        write_jsonl(tmp_path / "d.jsonl", [{"id": "d", "tokens": tokens, "embedding": d.tolist()}])
        return places, ("explain", tmp_path / "q.jsonl", tmp_path / "d.jsonl")

    return make


@pytest.mark.parametrize("length", [30, 177, 178, 1200, 8000])
def test_long_documents_are_their_winners_neighborhoods(tmp_path, collection, length):
    places, args = collection(length)
    run(*args, "-o", tmp_path / "m.svg")
    svg = xml.dom.minidom.parse(str(tmp_path / "m.svg")).documentElement
    titles = [t.firstChild.data for t in svg.getElementsByTagName("title")]
    cells = {int(m[1]) for t in titles if (m := re.search(r"\((\d+)\): ", t))}
    if length <= 177:
        assert cells == set(range(length))
    else:
        near = {t for p in places for t in range(max(p - 8, 0), min(p + 9, length))}
        assert cells == near
        strip = [int(m[1]) for t in titles if (m := re.search(r"\((\d+)\)$", t))]
        assert strip == places
    frames = [r for r in svg.getElementsByTagName("rect") if r.getAttribute("class") == "hit"]
    assert len(frames) == 5 and all(float(r.getAttribute("width")) >= 9 for r in frames)
    assert (tmp_path / "m.svg").stat().st_size < 300_000
    run(*args, "-o", tmp_path / "m.html")
    page = (tmp_path / "m.html").read_text()
    assert (f"{length} tokens: the matrix has the neighborhoods" in page) == (length > 177)
    assert (page.index('class="text"') > page.index('class="map"')) == (length > 177)


def test_weights_have_a_column(tmp_path, collection):
    _, args = collection(40, [0.5, 1, 1.5, 2, 2.25])
    plain = run(*args)[0]
    lines = [line.split() for line in plain.splitlines() if re.match(r"w\d ", line)]
    assert "weight" in plain and [float(line[3]) for line in lines] == [0.5, 1, 1.5, 2, 2.25]
    assert all(float(line[4]) == pytest.approx(float(line[2]) * float(line[3]), abs=2e-3) for line in lines)
    found = json.loads(run(*args, "--json")[0])["documents"][0]["matches"]
    assert [m["weight"] for m in found] == [0.5, 1, 1.5, 2, 2.25]
    for name in ("m.html", "m.svg"):
        run(*args, "-o", tmp_path / name)
        text = (tmp_path / name).read_text()
        assert "weight</t" in text and ">2.25<" in text
    _, err = run(*args, "--no-weights", "-o", tmp_path / "m.html")
    assert "weight</t" not in (tmp_path / "m.html").read_text() and "weights" not in err
    assert "weight" not in run(*args, "--no-weights", "--json")[0]


def test_readers_of_all_kinds(tmp_path):
    """Small screens, dark rooms, screen readers: what the page tells them."""
    run("explain", *FILES, "-o", tmp_path / "m.html")
    page = (tmp_path / "m.html").read_text()
    for part in (
        '<meta name="viewport"',
        "@media(prefers-color-scheme:dark)",
        "color-scheme:light dark",
        'role="img"',
        "aria-label=",
        "position:sticky",
        '<th scope="col">',
        "<caption>",
        "<main>",
    ):
        assert part in page, part
    run("explain", *FILES, "-o", tmp_path / "m.svg")
    picture = (tmp_path / "m.svg").read_text()
    assert (
        "@media(prefers-color-scheme:dark)" in picture and "<title>q26" in picture and 'role="img"' in picture
    )


def test_words_are_shaded_from_the_median_up(tmp_path):
    run("explain", *FILES, "-o", tmp_path / "m.html")
    text = (tmp_path / "m.html").read_text().split('<p class="text">')[1].split("</p>")[0]
    shades = [float(x) for x in re.findall(r"--p:([0-9.]+)", text)]
    lines = map(json.loads, (DEMO / "documents.jsonl").read_text().splitlines())
    (tokens,) = [len(x["tokens"]) for x in lines if x["id"] == "scipy.sparse.linalg.LaplacianNd"]
    assert 0 < len(shades) <= tokens / 2 and max(shades) == 1 and 'class="won"' in text


def test_a_note_where_no_tokens_are_known(small):
    _, _, folder = small
    _, err = run("explain", folder / "q.npy", folder / "d.npy")
    assert "give --text FILE and --query-text FILE" in err
    _, err = run("explain", *DEMO_FILES)
    assert "--text" not in err


@pytest.mark.parametrize("grid, first", [("4x6", 0), ("4x6+3", 3)])
def test_page_images(tmp_path, collection, grid, first):
    _, args = collection(30)
    png(tmp_path / "page.png", 60, 40)
    run(*args, "--grid", grid, "--image", tmp_path / "page.png", "-o", tmp_path / "m.html")
    page = (tmp_path / "m.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and page.count('<use href="#page"/>') == 6
    assert page.count("<figure>") == 6 and "all query tokens" in page
    winners = [m["document_token"] for m in json.loads(run(*args, "--json")[0])["documents"][0]["matches"]]
    figures = page.split("<figure>")[2:]
    for winner, figure in zip(winners, figures):
        at = winner - first
        if not 0 <= at < 24:
            assert "beside the page" in figure
            continue
        x, y = (float(v) for v in re.search(r'class="hit" x="([0-9.]+)" y="([0-9.]+)"', figure).groups())
        assert (x, y) == pytest.approx((at % 6 / 6, at // 6 / 4 * 40 / 60), abs=1e-4)
    run(*args, "--grid", grid, "-o", tmp_path / "m.html")  # without a picture
    assert "data:" not in (tmp_path / "m.html").read_text()


def test_page_images_that_do_not_fit(tmp_path, collection):
    _, args = collection(30)
    out, bad = tmp_path / "m.html", tmp_path / "x.png"
    bad.write_bytes(b"GIF89a, and more than thirty-three bytes of it")
    for grid in ("4", "x4", "0x4", "4x", "4x6+", "4x6+x", "99999x1"):
        fails(2, "--grid is HxW", args=(*args, "--grid", grid, "-o", out))
    fails(2, "--image needs --grid", args=(*args, "--image", bad, "-o", out))
    fails(2, "goes with -o x.html", args=(*args, "--grid", "4x6"))
    fails(4, "needs 36 tokens, the document has 30", args=(*args, "--grid", "6x6", "-o", out))
    fails(4, "is no PNG", args=(*args, "--grid", "4x6", "--image", bad, "-o", out))
    fails(3, "nothing.png", args=(*args, "--grid", "4x6", "--image", tmp_path / "nothing.png", "-o", out))
    assert not out.exists()
