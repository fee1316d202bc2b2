#!/usr/bin/env python3
"""Tables and the plot of a benchmark's JSON: on the terminal (called by bench.py), and as the
figures of docs/performance.md, between its markers:

    python bench/report.py [bench/results/cpu-....json]

Without a file the newest in bench/results is taken. Text outside the markers is left alone; a
missing docs/performance.md is begun with a heading and the markers."""

import argparse
import json
import os
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- bench:begin (written by bench/report.py) -->", "<!-- bench:end -->"
PEER_COLORS = {"numpy": "#4477aa", "torch": "#ee6677", "upstream": "#228833", "maxsim-cpu": "#aa3377"}


def file_stem(machine):
    """cpu-<date>-<cpu model>, fit for a file name."""
    return f"cpu-{machine['date']}-{re.sub('[^a-z0-9]+', '-', machine['cpu'].lower()).strip('-')}"


def rounded(value):
    """The same structure with floats cut to six digits: more were never measured."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def time_text(seconds):
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def target_text(target):
    """(what was reached, whether): e.g. ("share ≥ 83%: 85%", True); True, False or None (not
    measured).
    """
    got, metric = target["got"], target["metric"]
    if got is None:
        return f"{target['text']}: not judged", None
    percent = "share" in metric or metric == "argmax"
    return f"{target['text']}: {f'{got:.1%}' if percent else f'{got:.2f}x'}", target["met"]


def peer_texts(row):
    """One text a peer, fastest first: "maxsim-cpu 3.2x (27%)"; then those dropped."""
    measured = {name: p["times_median"] for name, p in row["peers"].items() if p["times_median"] is not None}
    texts = [
        f"{name} {times:.2f}x ({row['candidates'][name]['share_median']:.0%})"
        for name, times in sorted(measured.items(), key=lambda item: item[1])
    ]
    texts += [f"{name} disturbed" for name in row["peers"] if name not in measured]
    return texts + [f"{name} dropped: {why}" for name, why in row["dropped"].items()]


def peer_cell(row, starts):
    """How many times as long the fastest of some peers takes: "2.04x, torch blocked"."""
    found = {name: p["times_median"] for name, p in row["peers"].items() if name.startswith(starts)}
    measured = {name: times for name, times in found.items() if times is not None}
    if not measured:
        return "disturbed" if found else "-"
    name = min(measured, key=measured.get)
    return f"{measured[name]:.2f}x" + (f", {name}" if len(starts) > 1 else "")


def share_texts(lik):
    """(median, best) share of the FMA peak."""
    return ("disturbed" if lik["disturbed"] else f"{lik['share_median']:.1%}"), f"{lik['share_best']:.1%}"


def run_heading(run):
    giga = 1e9
    reads = ", ".join(
        f"{name} {v['median'] / giga:.0f} / {v['best'] / giga:.0f}" for name, v in run["bandwidth"].items()
    )
    return (
        f"{run['threads']} thread{'s' * (run['threads'] > 1)}: FMA peak ({run['peak_level']}) "
        f"{run['fma_median'] / giga:.1f} / {run['fma_best'] / giga:.1f} GFLOP/s; reads {reads} GB/s (median "
        f"/ best); {run['fma_trusted']:.0%} of the peak readings undisturbed"
    )


def heading(results):
    machine, run = results["machine"], results["runs"][0]
    text = f"{machine['cpu']}, {machine['processors']} processors, {machine['date']}, liblik {run['version']}"
    return f"{text} ({run['device']}, commit {machine['commit']}; {run['build']})"


def print_tables(results):
    """Prints one table a number of threads."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(heading(results), highlight=False)
    for run in results["runs"]:
        table = Table(title=run_heading(run), title_justify="left")
        for name in (
            "case",
            "median",
            "best",
            "share of peak",
            "best",
            "peers: time over ours (their share)",
            "targets",
        ):
            table.add_column(name, justify="right" if name in ("median", "best", "share of peak") else "left")
        for row in run["rows"]:
            if "lik" not in row:
                wrong = f"[red]WRONG: off by {row['error']:.3g}, allowed {row['tolerance']:.3g}[/red]"
                table.add_row(row["title"], "", "", "", "", "", wrong)
                continue
            lik, targets = row["lik"], []
            for target in row["targets"]:
                text, met = target_text(target)
                color = {True: "green", False: "red", None: "yellow"}[met]
                targets.append(f"[{color}]{text}[/{color}]")
            table.add_row(
                row["title"],
                time_text(lik["seconds_median"]),
                time_text(lik["seconds_best"]),
                *share_texts(lik),
                "\n".join(peer_texts(row)),
                "\n".join(targets),
                end_section=True,
            )
        console.print(table)


def begin_plot():
    """pyplot, set up for SVG files that come out alike for alike data."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "lik", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot

    return pyplot


def end_plot(pyplot, figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def plot(results, path):
    """Share of the FMA peak of every undisturbed case: ours as bars, exact peers as dots, the
    target as a line.
    """
    pyplot = begin_plot()
    runs = results["runs"]
    rows_max = max(len(run["rows"]) for run in runs)
    figure, axes = pyplot.subplots(
        1, len(runs), figsize=(5 + 4 * len(runs), 0.34 * rows_max + 1.6), squeeze=False
    )
    for axis, run in zip(axes[0], runs, strict=True):
        rows = [row for row in run["rows"] if "lik" in row and not row["lik"]["disturbed"]][::-1]
        axis.barh(
            range(len(rows)), [100 * r["lik"]["share_median"] for r in rows], color="#bbccee", label="liblik"
        )
        labeled = set()
        for y, row in enumerate(rows):
            axis.text(
                100 * row["lik"]["share_median"] + 1,
                y,
                f"{100 * row['lik']['share_median']:.0f}",
                va="center",
                fontsize=8,
            )
            for name in row["peers"]:
                if row["candidates"][name]["disturbed"]:
                    continue
                family = next((key for key in PEER_COLORS if name.startswith(key)), name)
                label = None if family in labeled else family
                labeled.add(family)
                axis.plot(100 * row["candidates"][name]["share_median"], y, "o", ms=4, label=label,
                          color=PEER_COLORS.get(family, "#777777"))  # fmt: skip
            for target in row["targets"]:
                if target["metric"] == "share":
                    label = None if "target" in labeled else "target"
                    labeled.add("target")
                    axis.plot(
                        [100 * target["value"]] * 2,
                        [y - 0.45, y + 0.45],
                        color="#222222",
                        lw=1.5,
                        label=label,
                    )
        axis.set_yticks(range(len(rows)), [row["case"] for row in rows])
        axis.set_xlabel("useful work, % of the FMA peak measured beside it (median)")
        axis.set_title(f"{run['threads']} thread{'s' * (run['threads'] > 1)}", loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(left=0)
    axes[0][-1].legend(loc="lower right", frameon=False)
    figure.suptitle(f"{results['machine']['cpu']}, {results['machine']['date']}", x=0.01, ha="left")
    end_plot(pyplot, figure, path)


def fill(text):
    """Prose of the docs, in lines of 110 columns."""
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False)


def markdown(results, json_path, plot_path):
    """The figures of docs/performance.md."""
    peers = ", ".join(f"{name} {version}" for name, version in results["peers"].items())
    machine = results["machine"]
    lines = [
        fill(
            f"Measured {machine['date']} with `make bench` on: {heading(results)}. Load when it began: "
            f"{machine['load']:.1f}. {results['rounds']} interleaved rounds a case. Peers: {peers}."
        ),
        "",
        f"![Share of the FMA peak]({plot_path})",
        "",
        fill(
            "*Share* is useful operations a second over the FMA peak of as many threads, measured right "
            "before and after; the median of the rounds. Then how many times as long the others take: the "
            "best form in NumPy or torch, maxsim-cpu, and upstream, the Triton package on a CPU. Rounds in "
            "which other programs held the processor are left out; *disturbed* where too few were left. All "
            f"forms, best rounds and targets: [`{Path(json_path).name}`]({json_path}), or `python "
            "bench/report.py --print`."
        ),
    ]
    for run in results["runs"]:
        lines += [
            "",
            fill(run_heading(run) + "."),
            "",
            "| case | ours | share | best of NumPy and torch | maxsim-cpu | upstream |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in run["rows"]:
            if "lik" not in row:
                lines.append(f"| {row['title']} | wrong by {row['error']:.3g}, not timed | | | | |")
                continue
            lik = row["lik"]
            peers = [peer_cell(row, names) for names in (("numpy", "torch"), ("maxsim-cpu",), ("upstream",))]
            cells = [row["title"], time_text(lik["seconds_median"]), share_texts(lik)[0], *peers]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_docs(results, json_path, docs):
    """Puts the figures between the markers of `docs`."""
    if docs.exists():
        text = docs.read_text(encoding="utf-8")
    else:
        intro = "Made by `python bench/report.py` from the results of `make bench`."
        text = f"# Performance\n\n## CPU\n\n{intro}\n\n{BEGIN}\n{END}\n"
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{docs}: wanted the line {BEGIN!r} once and {END!r} once after it")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    relative = [os.path.relpath(path, docs.parent) for path in (json_path, json_path.with_suffix(".svg"))]
    docs.write_text(f"{before}{BEGIN}\n{markdown(results, *relative)}\n{END}{after}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        description="Writes the CPU figures of docs/performance.md from a benchmark's JSON."
    )
    parser.add_argument("json", nargs="?", type=Path, help="the file (default: the newest in bench/results)")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "performance.md")
    parser.add_argument("--print", action="store_true", help="only print the tables")
    args = parser.parse_args()
    found = sorted((ROOT / "bench" / "results").glob("cpu-*.json"))
    path = args.json or (found[-1] if found else None)
    if path is None:
        parser.error("bench/results holds no cpu-*.json: run make bench")
    results = json.loads(path.read_text(encoding="utf-8"))
    if args.print:
        print_tables(results)
        return
    plot(results, path.with_suffix(".svg"))
    args.docs.parent.mkdir(parents=True, exist_ok=True)
    write_docs(results, path.resolve(), args.docs.resolve())
    print(f"wrote {args.docs} and {path.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
