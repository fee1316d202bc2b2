"""The figures of bench/results as one flat list for the page of benchmarks: a row a run of one
case by one program, in the words of the table that the file is for.
"""

import json

# What a file holds, for the page's list of tables: the longest name that a file begins with.
TITLES = {
    "cpu": "CPU: against other programs",
    "levels": "CPU: instruction sets",
    "gpu": "GPU: scores, gradients, top-k",
    "gpu-storages": "GPU: short, 8-bit and compressed documents",
    "exact-cpu": "CPU: exact top-k from 8 bits",
    "exact-gpu": "GPU: exact top-k from 8 bits",
    "codec-gpu": "GPU: training, encoding, decoding",
}


def titled(rows):
    """(title, row): what "the same" is the same as is said again."""
    first = ""
    for row in rows:
        if row["title"].startswith("the same in "):
            yield f"{first}, {row['title'].removeprefix('the same in ')}", row
        else:
            first = row["title"].rsplit(", ", 1)[0]
            yield row["title"], row


def cpu(data):
    for run in data["runs"]:
        for title, row in titled(run["rows"]):
            for who, c in row["candidates"].items():
                if "seconds_median" in c:
                    yield (
                        f"{title}, {row['threads']} thread{'s' * (row['threads'] > 1)}",
                        f"lik, {who} alone" if who.startswith(("forward", "backward")) else who,
                        c["seconds_median"] * 1e3,
                        f"{c['share_median']:.0%} of the FMA peak" if "share_median" in c else "",
                    )


def levels(data):
    for title, row in titled(data["rows"]):
        for who, c in row["levels"].items():
            yield title, who, c["seconds"] * 1e3, c["variant"]


def gpu(data):
    for row in data["rows"]:
        times = {who: c["median_ms"] for who, c in row["runners"].items() if c.get("median_ms")}
        micro = max(times.values(), default=0) < 0.1  # as plots.js chooses the unit of a group
        limit = f"{row['limit_ms'] * 1e3:.3g} µs" if micro else f"{row['limit_ms']:.3g} ms"
        note = f"{limit} is what the memory or the multiplications alone take"
        for who, ms in times.items():
            yield f"{row['case']}: {row['shape']}", "lik" if who == "ours" else who, ms, note


def exact(data):
    for row in data["rows"]:
        yield f"{row['collection']} documents", row["way"], row["ms"], f"recall@10 {row['recall@10']:.4g}"


def codec(data):
    for who, c in data["kmeans"].items():
        yield (
            f"k-means of {data['tokens']:,} tokens",
            who,
            c["median_seconds"] * 1e3,
            f"mean squared residual {c['mean_squared_residual']:.4g}",
        )
    for what, c in data["codec"].items():
        if "median_seconds" in c:
            yield (
                f"{data['encoded']:,} tokens: {what.split()[0]}",
                " ".join(what.split()[1:]),
                c["median_seconds"] * 1e3,
                "",
            )


READERS = {
    "cpu": cpu,
    "levels": levels,
    "gpu": gpu,
    "gpu-storages": gpu,
    "exact-cpu": exact,
    "exact-gpu": exact,
    "codec-gpu": codec,
}


def tables(folder):
    """One for each file of results that has a reader; the order of the rows is the file's."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        kinds = [kind for kind in READERS if path.name.startswith(f"{kind}-")]
        if not kinds:
            continue
        kind, data = max(kinds, key=len), json.loads(path.read_text())
        about = data.get("machine") or data.get("about") or data
        machine = (
            about if isinstance(about, str) else about.get("cpu") or about.get("machine") or about.get("gpu")
        )
        rows = [[case, who, float(f"{ms:.4g}"), note] for case, who, ms, note in READERS[kind](data)]
        if rows:
            yield {
                "title": TITLES[kind],
                "machine": machine,
                "file": path.name,
                "rows": rows,
                "date": data.get("date") or about.get("date"),
            }


def figures_script(folder):
    found = list(tables(folder))
    if len(found) < 2:
        raise ValueError(f"{folder} has {len(found)} files of results that the page of benchmarks can read")
    order = list(TITLES.values())
    found.sort(key=lambda t: (order.index(t["title"]), t["date"]), reverse=False)
    return f"window.likFigures = {json.dumps(found, separators=(',', ':'))};\n"
