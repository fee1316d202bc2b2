"""Draws the pictures of architecture.md, eight-bits.md and kernels.md beside itself: python
docs/draw.py. (The README's bars: bench/front_page.py.)

Colors follow the reader's: each picture carries its style for a light page and for a dark one.
"""

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .name { font-weight: 600 }
    .small { font-size: 11.5px; fill: #59636e }
    .box { fill: #f6f8fa; stroke: #8c959f; rx: 6px }
    .door { fill: #ddf4ff; stroke: #218bff }
    .room { fill: #fff8c5; stroke: #bf8700 }
    .kernel { fill: #dafbe1; stroke: #2da44e }
    .arrow { stroke: #59636e; fill: none; stroke-width: 1.3 }
    .head { fill: #59636e }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .small { fill: #9198a1 }
      .box { fill: #151b23; stroke: #656c76 }
      .door { fill: #0c2d4d; stroke: #4493f8 }
      .room { fill: #3b2a05; stroke: #d29922 }
      .kernel { fill: #0f2f1a; stroke: #3fb950 }
      .arrow { stroke: #9198a1 }
      .head { fill: #9198a1 }
    }
"""


class Picture:
    """Named boxes with lines of text, and arrows; a screen reader says the title."""

    def __init__(self, width: int, height: int, title: str):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def box(self, x: int, y: int, width: int, height: int, name: str, *lines: str, kind: str = "") -> None:
        self.parts.append(f'<rect class="box {kind}" x="{x}" y="{y}" width="{width}" height="{height}"/>')
        top = y + height / 2 + 4.5 - 8.5 * len(lines)
        for row, text in enumerate((name, *lines)):
            style = "small" if row else "name"
            at = f'class="{style}" x="{x + width / 2:g}" y="{top + 17 * row:g}"'
            self.parts.append(f'<text {at} text-anchor="middle">{escape(text)}</text>')

    def note(self, x: int, y: int, text: str) -> None:
        self.parts.append(f'<text class="small" x="{x}" y="{y}">{escape(text)}</text>')

    def arrow(self, *points: tuple[int, int]) -> None:
        path = " L".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'<path class="arrow" d="M{path}" marker-end="url(#head)"/>')

    def text(self) -> str:
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto">'
            '<path class="head" d="M0 0 L8 4 L0 8 z"/></marker>'
        )
        body = "\n  ".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'width="{self.width}" height="{self.height}" aria-label="{escape(self.title)}">\n'
            f"  <style>{STYLE}  </style>\n  <defs>{head}</defs>\n  {body}\n</svg>\n"
        )

    def save(self, path: Path) -> None:
        path.write_text(self.text(), encoding="utf-8")


def rooms() -> Picture:
    p = Picture(880, 520, "Rooms of the source: who includes whom, from the callers down to src/base")
    p.box(20, 20, 190, 56, "cli/", "the lik command")
    p.box(230, 20, 330, 56, "python/", "package, and native/ in C beneath it")
    p.box(580, 20, 280, 56, "your program", "C, or anything that calls C")
    p.box(230, 112, 630, 40, "include/lik/lik.h: the public API", kind="door")
    p.box(20, 186, 190, 64, "src/io/", "readers and writers", "of the command")
    p.box(
        230,
        186,
        630,
        64,
        "src/core/: the front door",
        "checks, workspace, memory, views",
        kind="door",
    )
    p.box(230, 280, 630, 40, "core/backend.h: one hook a verb (score, topk, grad), and memory", kind="door")
    p.box(230, 350, 110, 76, "src/ref/", "the oracle,", "scalar, f64", kind="room")
    p.box(355, 350, 165, 76, "src/cpu/", "drivers, loaders,", "a kernel table a level", kind="room")
    p.box(535, 350, 165, 76, "src/cuda/", "plan/ in plain C;", "sm90/ mma/ scan/ grad/", kind="room")
    p.box(715, 350, 145, 76, "src/metal/", "plans and host in C,", "emulated", kind="room")
    p.box(20, 456, 400, 44, "src/base/: sizes, dtypes, layout, errors, pool")
    p.box(440, 456, 420, 44, "src/shared/: operands, pairings, argmax, top-k order")
    for x, y, end in ((395, 76, 112), (720, 76, 112), (545, 152, 186), (545, 250, 280), (285, 350, 320),
                      (437, 350, 320), (617, 350, 320), (787, 350, 320)):  # fmt: skip
        p.arrow((x, y), (x, end))
    p.arrow((170, 76), (170, 132), (230, 132))
    p.arrow((90, 76), (90, 186))
    p.arrow((90, 250), (90, 456))
    for x in (285, 437, 617, 787):
        p.arrow((x, 426), (x, 456))
    p.arrow((440, 478), (420, 478))
    p.note(20, 518, "An arrow: may include. Backends never include each other.")
    return p


def call() -> Picture:
    p = Picture(880, 470, "A call: from the caller through checks, one plan and the workspace to the kernels")
    p.box(20, 20, 180, 56, "caller", "lik_score_run(ctx, op, exec)")
    p.box(240, 20, 200, 56, "check", "core/check.c: a completed copy", kind="door")
    p.box(480, 20, 180, 56, "the backend's hook", "ctx->backend->score", kind="door")
    p.box(700, 20, 160, 56, "plan, once", "arithmetic on sizes", kind="room")
    p.box(700, 120, 160, 64, "workspace", "exec->workspace, or", "exec->get_workspace")
    p.arrow((200, 48), (240, 48))
    p.arrow((440, 48), (480, 48))
    p.arrow((660, 48), (700, 48))
    p.arrow((780, 76), (780, 120))
    p.note(242, 96, "errors leave here, nothing is written")
    p.note(482, 96, "lik_score_plan returns after the plan")
    p.note(106, 228, "cpu: slots, at most one a thread, take items until none is left")
    p.box(20, 240, 150, 72, "pack", "queries to panels", "pack.c", kind="room")
    p.box(200, 240, 150, 72, "stream", "kept tokens of", "documents, stream.c", kind="room")
    p.box(380, 240, 150, 72, "load", "only what kernels", "do not read, load.c", kind="room")
    p.box(560, 240, 150, 72, "rows kernel", "panel x rows to", "running maxima", kind="kernel")
    p.box(740, 240, 120, 72, "finish", "sums to scores", "or heaps", kind="room")
    p.note(20, 356, "cuda: enqueued on exec->stream, nothing waits")
    p.box(20, 370, 150, 72, "ready", "masks, lists, factors", "in the workspace", kind="room")
    p.box(200, 370, 150, 72, "producer", "copies document", "tiles into a ring", kind="kernel")
    p.box(380, 370, 150, 72, "stage", "as stored, or split,", "converted, factors", kind="kernel")
    p.box(560, 370, 150, 72, "multiply", "tensor cores: strips", "x tokens", kind="kernel")
    p.box(740, 370, 120, 72, "maxima", "to scores, keys", "or winners", kind="kernel")
    for y in (276, 406):
        for x in (170, 350, 530, 710):
            p.arrow((x, y), (x + 30, y))
    p.arrow((780, 184), (780, 204), (8, 204), (8, 406), (20, 406))
    p.arrow((95, 204), (95, 240))
    return p


def hopper() -> Picture:
    """A block of the Hopper loop (src/cuda/sm90): its warps, its rings and their barriers."""
    p = Picture(
        880, 480, "A block of the Hopper loop: warps, rings in shared memory, and the barriers between them"
    )
    p.box(20, 40, 150, 70, "memory", "document tokens,", "offsets, masks")
    p.box(20, 170, 150, 70, "producer", "1 warp: plans tiles,", "asks the copy engine", kind="kernel")

    def ring(x: int, y: int, stages: int, name: str, what: str) -> None:
        p.parts.append(f'<text class="name" x="{x}" y="{y - 10}">{name}</text>')
        for s in range(stages):
            p.box(x + 58 * s, y, 54, 70, str(s), what, kind="room")

    ring(230, 40, 4, "first ring: stages of a tile", "tokens")
    p.box(560, 30, 300, 90, "multiplying warpgroups, 1 to 4", "query rows stay in shared memory,",
          "products in 2 x 64 registers a thread,", "row maxima beside them", kind="kernel")  # fmt: skip
    p.arrow((170, 62), (230, 62))
    p.arrow((95, 170), (95, 110))
    p.arrow((462, 62), (560, 62))
    p.arrow((560, 94), (462, 94))
    p.note(474, 56, "full[stage]")
    p.note(474, 110, "empty[stage]")
    p.arrow((170, 205), (200, 205), (200, 94), (230, 94))
    p.box(230, 190, 228, 80, "token warps, 0 to 8", "split f32 into planes, widen 8 bits,",
          "take norms, bring factors", kind="kernel")  # fmt: skip
    p.arrow((344, 110), (344, 190))
    p.parts.append('<text class="name" x="560" y="180">second ring</text>')
    for s in range(2):
        p.box(560 + 78 * s, 190, 74, 80, str(s), "planes,", "widened", kind="room")
    p.arrow((458, 214), (560, 214))
    p.arrow((560, 248), (458, 248))
    p.note(468, 208, "planes_full")
    p.note(468, 264, "planes_empty")
    p.arrow((672, 190), (672, 120))
    p.parts.append('<text class="name" x="560" y="320">sums, 4 slots</text>')
    for s in range(4):
        p.box(560 + 58 * s, 330, 54, 50, str(s), kind="room")
    p.arrow((768, 120), (768, 330))
    p.note(776, 260, "sums_full")
    p.box(230, 320, 228, 70, "finisher", "1 warp: adds strips and weights,", "writes scores, keys, winners",
          kind="kernel")  # fmt: skip
    p.arrow((560, 346), (458, 346))
    p.arrow((458, 372), (560, 372))
    p.note(470, 390, "sums_empty")
    p.note(20, 350, "producer and finisher are warps")
    p.note(20, 366, "of one warpgroup, the last")
    p.note(
        20,
        412,
        "A copy arrives at full[stage] by itself; the producer waits for empty[stage] before it asks.",
    )
    p.note(
        20,
        431,
        "Beside each tile travels its head: how many of its columns count, which documents end in it.",
    )
    p.note(
        20,
        450,
        "A barrier has a parity: a warp that has gone once more around the ring waits for the other one.",
    )
    p.note(
        20, 469, "Stages of the first ring: as many as keep 64 KB (packed documents: 120 KB) on their way."
    )
    return p


def eight_bits(results: list[Path]) -> Picture:
    """Bars of time beside 16 bits, with recall@10, one group a collection and machine."""
    files = [json.loads(path.read_text()) for path in results]
    groups: list[tuple[str, list[dict[str, Any]]]] = []
    for file in files:
        for row in file["rows"]:
            title = f"{row['collection']}, {file['about']['machine']}"
            if not groups or groups[-1][0] != title:
                groups.append((title, []))
            groups[-1][1].append(row)
    height = 30 + sum(36 + 26 * len(rows) for _, rows in groups)
    p = Picture(860, height, "Time of retrieval beside 16 bits, and recall, of each storage")
    y = 24
    for title, rows in groups:
        p.parts.append(f'<text class="name" x="20" y="{y}">{escape(title)}</text>')
        longest = max(row["of 16 bits"] for row in rows)
        for row in rows:
            y += 26
            p.note(20, y, row["way"])
            kind = "door" if row["way"].startswith("exact") else "kernel" if row["way"] != "16 bits" else ""
            wide = 420 * row["of 16 bits"] / longest
            p.parts.append(f'<rect class="box {kind}" x="120" y="{y - 14}" width="{wide:.1f}" height="19"/>')
            share = f"{row['of 16 bits']:.2f} of 16 bits' time"
            text = f"{row['ms']:.3g} ms, {share}; recall@10 {row['recall@10']:.3f}"
            p.note(round(128 + wide), y, text)
        y += 36
    return p


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    rooms().save(here / "rooms.svg")
    hopper().save(here / "hopper.svg")
    call().save(here / "call.svg")
    eight_bits(sorted((here.parent / "bench/results").glob("exact-*.json"))).save(here / "eight-bits.svg")
