#!/usr/bin/env python3
"""The table and the roofline of a GPU benchmark's JSON, as the CUDA figures of docs/performance.md:

    python bench/gpu_report.py bench/results/gpu-....json

The plot goes beside the JSON. Text outside the markers is left alone."""

import json
import re
import sys
from pathlib import Path

from report import begin_plot, end_plot

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- gpu:begin (written by bench/gpu_report.py) -->", "<!-- gpu:end -->"
COLORS = {"ours": "#4477aa", "upstream": "#228833", "flash-maxsim": "#ee6677"}


def roofline(result, path):
    """Operations a second against operations a byte, over what the memory and the matrix units allow."""
    pyplot = begin_plot()
    figure, axis = pyplot.subplots(figsize=(9, 5.5))
    rows = [row for row in result["rows"] if not row["train"]]
    reach = [row["flops"] / row["bytes"] for row in rows]
    x = [min(reach) / 1.5, result["bf16_TFLOP_s"] / result["read_TB_s"], max(reach) * 2]
    axis.plot(
        x, [min(i * result["read_TB_s"], result["bf16_TFLOP_s"]) for i in x], color="#222222", lw=1, label="attainable"
    )
    for name, color in COLORS.items():
        points = [
            (i, row["flops"] / row["runners"][name]["median_ms"] / 1e9)
            for i, row in zip(reach, rows, strict=True)
            if "median_ms" in row["runners"].get(name, {})
        ]
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


def milliseconds(record):
    if not record or "median_ms" not in record:
        return "-"
    return f"{record['median_ms']:.4f} / {record['host_ms']:.3f}, {record['peak_bytes'] / 1e6:.1f} MB"


def table(result):
    """Rows of Markdown; peers that did not run have no column."""
    peers = [name for name in COLORS if name != "ours" and any(name in row["runners"] for row in result["rows"])]
    names = ["case", "limit", "target", "ours, kernel", "of the limit", "host, C / Python", "peak", *peers]
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for row in result["rows"]:
        ours = row["runners"].get("ours", {})
        cells = [f"{row['case']}: {row['shape']}", f"{row['limit_ms']:.4f}"]
        if "median_ms" in ours:
            met = "✓" if ours["median_ms"] <= row["target_ms"] else "✗"
            python = f" / {row['python_host_ms']:.3f}" if "python_host_ms" in row else ""
            cells += [
                f"{row['target_ms']:.4f} {met}" if row["target_ms"] else "",
                f"{ours['median_ms']:.4f}",
                f"{ours['median_ms'] / row['limit_ms']:.2f}",
                f"{ours['host_ms']:.3f}{python}",
                f"{row.get('python_peak_bytes', ours['peak_bytes']) / 1e6:.1f} MB",
            ]
        else:
            cells += ["", "not measured", "", "", ""]
        cells += [milliseconds(row["runners"].get(name)) for name in peers]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main():
    path = Path(sys.argv[1])
    result = json.loads(path.read_text())
    plot = path.with_suffix(".svg")
    roofline(result, plot)
    relative = f"../{plot.resolve().relative_to(ROOT)}"
    text = [
        f"Measured {result['date']} with `make bench-gpu` on: {result['gpu']}, torch {result['torch']}, "
        f"{result['lik']}. The best read of memory in the run was {result['read_TB_s']:.2f} TB/s, torch's 4096^3 bf16 "
        f"product ran at {result['bf16_TFLOP_s']:.0f} TFLOP/s. Times in ms; of the peers kernel / host, peak. *Peak* "
        "is what a call (ours from Python) allocates at most, results included. "
        f"All values: [`{path.name}`]({relative[:-3]}json).",
        "",
        f"![Roofline]({relative})",
        "",
        *table(result),
    ]
    page = ROOT / "docs/performance.md"
    content = page.read_text(encoding="utf-8")
    block = "\n".join([BEGIN, *text, END])
    if BEGIN in content:
        content = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, content, flags=re.DOTALL)
    else:
        content += (
            f"\n## CUDA\n\nMade by `python bench/gpu_report.py` from the results of `make bench-gpu`.\n\n{block}\n"
        )
    page.write_text(content, encoding="utf-8")
    print(f"wrote {page} and {plot}")


if __name__ == "__main__":
    main()
