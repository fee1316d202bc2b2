#!/usr/bin/env python3
"""The table and the roofline of a GPU benchmark's JSON, as the figures of that GPU in
docs/performance.md:

    python bench/gpu_report.py bench/results/gpu-....json

The plot goes beside the JSON. Text outside the GPU's markers is left alone; one that has none
gets them at the end."""

import json
import re
import sys
from pathlib import Path

from report import begin_plot, end_plot, fill

ROOT = Path(__file__).resolve().parent.parent
END = "<!-- gpu:end -->"
COLORS = {"ours": "#4477aa", "upstream": "#228833", "flash-maxsim": "#ee6677"}


def roofline(result, path):
    """Operations a second against operations a byte, over what the memory and the matrix units
    allow.
    """
    pyplot = begin_plot()
    figure, axis = pyplot.subplots(figsize=(9, 5.5))
    rows = [row for row in result["rows"] if not row["train"]]
    reach = [row["flops"] / row["bytes"] for row in rows]
    x = [min(reach) / 1.5, result["bf16_TFLOP_s"] / result["read_TB_s"], max(reach) * 2]
    axis.plot(
        x,
        [min(i * result["read_TB_s"], result["bf16_TFLOP_s"]) for i in x],
        color="#222222",
        lw=1,
        label="attainable",
    )
    for name, color in COLORS.items():
        points = [
            (i, row["flops"] / row["runners"][name]["median_ms"] / 1e9)
            for i, row in zip(reach, rows, strict=True)
            if "median_ms" in row["runners"].get(name, {})
        ]
        if points:
            axis.plot(*zip(*points, strict=True), "o", ms=4 if name != "ours" else 5, color=color, label=name)
    for i, row in zip(reach, rows, strict=True):
        if "median_ms" in row["runners"].get("ours", {}):
            at = row["flops"] / row["runners"]["ours"]["median_ms"] / 1e9
            axis.annotate(row["case"], (i, at), xytext=(3, -8), textcoords="offset points", fontsize=6)
    axis.set(xscale="log", yscale="log", xlabel="operations a byte of the operands", ylabel="TFLOP/s")
    axis.set_title(f"{result['gpu']}, {result['date']}: forward", loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    end_plot(pyplot, figure, path)


def peer_cell(record, ours):
    """Time and how many times ours it is; what is not quite the same work."""
    if "median_ms" not in record:
        return "-"
    times = f" ({record['median_ms'] / ours['median_ms']:.1f}x)" if "median_ms" in ours else ""
    more = [record["note"]] if record.get("note") else []
    more += ["eager"] if "uncaptured" in record else []
    return f"{record['median_ms']:.4f}{times}" + (f"; {', '.join(more)}" if more else "")


def table(result):
    """Rows of Markdown; peers that did not run have no column. Then who was left out, and
    why.
    """
    peers = [
        name for name in COLORS if name != "ours" and any(name in row["runners"] for row in result["rows"])
    ]
    names = ["case", "limit", "ours", "of the limit", *peers]
    lines, missing = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"], []
    for row in result["rows"]:
        ours = row["runners"].get("ours", {})
        elsewhere = f", on {row['gpu']}" if row.get("gpu", result["gpu"]) != result["gpu"] else ""
        cells = [f"{row['case']}: {row['shape']}{elsewhere}", f"{row['limit_ms']:.4f}"]
        if row["train"]:
            cells[0] += ", forward and backward"
        if "median_ms" in ours:
            cells += [f"{ours['median_ms']:.4f}", f"{ours['median_ms'] / row['limit_ms']:.2f}"]
        else:
            cells += ["not measured", ""]
        cells += [peer_cell(row["runners"].get(name, {}), ours) for name in peers]
        lines.append(f"| {' | '.join(cells)} |")
        missing += [f"{name} in {row['case']} ({why})" for name, why in row.get("left_out", {}).items()]
    return [*lines, "", fill(f"Left out: {'; '.join(missing)}.")] if missing else lines


def ceiling(found):
    """How large a batch each way trains."""
    if not found:
        return []
    texts, usable = [], 0
    for way, result in found["ways"].items():
        steps = sorted((s for s in result["steps"] if "failed" not in s), key=lambda s: s["batch"])
        text, usable = f"{way} {result['largest']:,}", max(usable, result.get("usable_bytes", 0))
        if steps:
            last = steps[-1]
            text += f" (a step takes {last['seconds']:.2f} s and at most {last['peak_bytes'] / 1e9:.1f} GB"
            if "predicted" in result:
                text += f"; {result['stopped']}, the memory would do for about {result['predicted']:,}"
            elif "failed_at" in result:
                text += f"; {result['failed_at']:,}: {result['why']}"
            text += ")"
        texts.append(f"{text} ({result['failed']})" if "failed" in result else text)
    return [
        "",
        fill(
            f"Largest in-batch training step of {found['shape']}, the inputs and their gradients included, "
            f"in {usable / 1e9:.1f} GB (`bench/ceiling.py`): {'; '.join(texts)}."
        ),
    ]


def staged(found):
    """How the command's copies of a mapped file go with scoring."""
    if not found:
        return []
    seconds, size = found["default"]["score_s"], found["bytes"] / 1e9
    plain = found["plain_GB_s"]
    return [
        "",
        fill(
            f"`lik score --device cuda:0` of {found['queries']} queries and a mapped file of {size:.1f} GB, "
            f"in the page cache (`tests/gpu/staged.py`): {seconds:.2f} s, {size / seconds:.1f} GB/s, where "
            f"copies alone take {found['copies_s']:.2f} s and scoring alone {found['kernels_s']:.2f} s; "
            f"pieces of {found['piece'] / 1e6:.0f} MB hide {found['overlapped']:.0%} of the shorter. A plain "
            f"copy of the mapping reaches {plain['mapped']:.1f} GB/s, reading into pinned memory and copying "
            f"{plain['read']:.1f} GB/s."
        ),
    ]


def main():
    path = Path(sys.argv[1])
    result = json.loads(path.read_text())
    plot = path.with_suffix(".svg")
    roofline(result, plot)
    relative = f"../{plot.resolve().relative_to(ROOT)}"
    text = [
        fill(
            f"Measured {result['date']} with `make bench-gpu` on: {result['gpu']}, torch {result['torch']}, "
            f"{result['lik']}. The best read of memory in the run was {result['read_TB_s']:.2f} TB/s, "
            f"torch's 4096^3 bf16 product ran at {result['bf16_TFLOP_s']:.0f} TFLOP/s; *limit* is what a "
            "case would take at these. Times of the GPU in ms, of the peers with how many times ours. The "
            "host's times, peaks of memory and targets are in "
            f"[`{path.name}`]({relative[:-3]}json), case by case."
        ),
        "",
        f"![Roofline]({relative})",
        "",
        *table(result),
        *ceiling(result.get("ceiling")),
        *staged(result.get("staged")),
    ]
    page = ROOT / "docs/performance.md"
    content = page.read_text(encoding="utf-8")
    begin = f"<!-- gpu:begin {result['gpu']} (written by bench/gpu_report.py) -->"
    block = "\n".join([begin, *text, END])
    if begin in content:
        content = re.sub(f"{re.escape(begin)}.*?{re.escape(END)}", lambda _: block, content, flags=re.DOTALL)
    else:
        content += f"\n### {result['gpu']}\n\n{block}\n"
    page.write_text(content, encoding="utf-8")
    print(f"wrote {page} and {plot}")


if __name__ == "__main__":
    main()
