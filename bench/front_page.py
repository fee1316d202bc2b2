#!/usr/bin/env python3
"""The README's table and its bars (docs/speed.svg), from the files of bench/results:

    python bench/front_page.py [--check]

--check writes nothing and fails if either is not what the files say."""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"
BEGIN, END = "<!-- speed:begin (written by bench/front_page.py) -->", "<!-- speed:end -->"
sys.path.insert(0, str(ROOT / "docs"))
from draw import Picture, escape  # noqa: E402

GPU, CPU = "gpu-2026-11-29.json", "cpu-2026-11-25-amd-epyc-family-25-model-1-stepping-1.json"
COMPRESSED, RETRIEVE, PEERS = (
    "gpu-storages-2026-11-30.json",
    "exact-gpu-2026-11-30.json",
    "peers-2026-11-30.json",
)
COLUMNS = ("ours", "upstream", "flash-maxsim", "torch")
# (title, file, case). Sizes are tokens of a query against documents x tokens, of 128 elements.
ROWS = (
    ("score 1 query, 10,000 documents of 300", GPU, "corpus-10k"),
    ("the same, packed, lengths of about 300", GPU, "packed-10k"),
    ("score 128 queries, 128 pages of 1030 (ColPali)", GPU, "colpali-in-batch"),
    ("train a batch of 256 x 256, documents of 300", GPU, "train-step-256"),
    ("train PyLate's tile of 32 x 32, documents of 8192", GPU, "pylate-tile-8192"),
    ("score 1 query, 10,000 documents of 300 at 2 bits (PLAID)", COMPRESSED, "plaid-A"),
    ("score 1 query, 1000 documents of 300", CPU, "text-f32"),
    ("train a batch of 32 x 32, documents of 180", CPU, "train"),
)
PLACES = {GPU: "H200", COMPRESSED: "H200", CPU: "1 core"}


def load(name):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def milliseconds(file, case):
    """{column: ms} of a case; of several forms in torch the fastest."""
    data = load(file)
    if "runs" in data:
        row = next(row for row in data["runs"][0]["rows"] if row["case"] == case)
        names = {"ours": ["lik"], "upstream": ["upstream"]}
        names["torch"] = [name for name in row["peers"] if name.startswith("torch")]
        found = {
            column: [row["candidates"][name]["seconds_median"] for name in some if name in row["candidates"]]
            for column, some in names.items()
        }
        return {column: 1e3 * min(times) for column, times in found.items() if times}
    row = next(row for row in data["rows"] if row["case"] == case)
    found = {name: runner["median_ms"] for name, runner in row["runners"].items() if "median_ms" in runner}
    for peer in load(PEERS)["rows"]:
        if peer.get("case") == case:
            found[peer["peer"].split()[0]] = peer["ms"]
    return found


def short(ms):
    return f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"


def retrieval():
    """Queries a second, one after another: the ten best of 25,000 documents on a GPU, and of
    20,000 on a CPU core; fast-plaid's of 25,000.
    """
    gpu, peers = load(RETRIEVE), [row for row in load(PEERS)["rows"] if "recall@10" in row]
    ours = next(r["ms"] for r in gpu["rows"] if r["collection"] == "clustered" and r["way"] == "16 bits")
    plaid = [
        f"{1e3 / max(row['ms'] for row in some):.3g} to {1e3 / min(row['ms'] for row in some):.3g}"
        for some in (peers[:2], peers[2:])
    ]
    recall = f"{peers[0]['recall@10']:.2f} to {peers[1]['recall@10']:.2f}"
    core = 1e3 / milliseconds(CPU, "corpus")["ours"]
    return [
        "| H200 | *queries a second*: the 10 best of 25,000 documents of 160 | "
        f"**{1e3 / ours:,.0f}**, exact | - | - | fast-plaid, H100: {plaid[0]}, recall {recall} |",
        f"| 1 core | *queries a second*: 20,000 documents of 128 | **{core:.2g}**, exact | - | - | "
        f"fast-plaid, 16 cores, 25,000 of 160: {plaid[1]} |",
    ]


def table():
    lines = [
        f"| | milliseconds | {' | '.join(COLUMNS[:-1])} | torch, others |",
        "| --- " * (len(COLUMNS) + 2) + "|",
    ]
    for title, file, case in ROWS:
        found = milliseconds(file, case)
        cells = [short(found[name]) if name in found else "-" for name in COLUMNS]
        best = cells.index(short(min(found.values())))
        cells[best] = f"**{cells[best]}**"
        lines.append(f"| {PLACES[file]} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines + retrieval())


def bars():
    """A group of bars a row, each as long as its time beside the longest of the group."""
    rows = [(title, PLACES[file], milliseconds(file, case)) for title, file, case in ROWS]
    height = 20 + sum(34 + 20 * len(found) for _, _, found in rows)
    p = Picture(820, height, "Time of each case, ours and the others': shorter is better")
    kinds = dict(zip(COLUMNS, ("kernel", "door", "room", ""), strict=True))
    y = 22
    for title, place, found in rows:
        p.parts.append(f'<text class="name" x="16" y="{y}">{escape(place)}: {escape(title)}</text>')
        for name in COLUMNS:
            if name in found:
                y += 20
                wide = 420 * found[name] / max(found.values())
                p.note(16, y, name)
                p.parts.append(
                    f'<rect class="box {kinds[name]}" x="110" y="{y - 12}" width="{wide:.1f}" height="15"/>'
                )
                times = "" if name == "ours" else f", {found[name] / found['ours']:.2g} times ours"
                p.note(round(118 + wide), y, f"{short(found[name])} ms{times}")
        y += 34
    return p


def main():
    parser = argparse.ArgumentParser(description="Writes the README's table and docs/speed.svg.")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args()
    readme, picture = ROOT / "README.md", ROOT / "docs/speed.svg"
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{readme}: wanted the line {BEGIN!r} once and {END!r} once after it")
    before, rest = text.split(BEGIN)
    wanted = f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
    drawn = bars().text()
    if args.check:
        old = picture.read_text(encoding="utf-8") if picture.exists() else ""
        wrong = [
            name for name, a, b in (("README.md", text, wanted), ("docs/speed.svg", old, drawn)) if a != b
        ]
        if wrong:
            raise SystemExit(f"{' and '.join(wrong)}: not what bench/results says; run bench/front_page.py")
        return
    readme.write_text(wanted, encoding="utf-8")
    picture.write_text(drawn, encoding="utf-8")
    print("wrote README.md and docs/speed.svg")


if __name__ == "__main__":
    main()
