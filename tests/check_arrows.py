"""Checks the include arrows of the project: base <- shared <- core/backend.h <- backends <- core <- io, cli, tests.

Backends never include each other, the public header includes nothing but the standard, plain C under src/ knows no CUDA
header, and nothing under src/ prints or knows Python or torch. Prints each violation as FILE:LINE and returns 1 if there
is one.
"""

import re
import sys
from pathlib import Path

BACKENDS = ("ref", "cpu", "cuda", "metal")
SUFFIXES = (".c", ".h", ".cu", ".cuh", ".m", ".metal")
INTERFACE = "core/backend.h"
PLAN = "cuda/plan"  # plain C: it knows neither the rest of its room nor CUDA
LOOPS = ("cuda/sm90", "cuda/mma", "cuda/grad")  # kernels; the others know of them by kernels.cuh alone
CUDA_HEADER = re.compile(r"cuda(_\w+)?\.h")

# Rooms (or single files) that a room may include, besides itself and lik/lik.h.
ALLOWED = {
    "lik": (),
    "base": (),
    "shared": ("base",),
    INTERFACE: ("base", "shared"),
    PLAN: ("base", "shared"),
    "core": ("base", "shared"),
    "io": ("base",),
    "cli": ("base", "shared", "io"),
    "tests": ("base", "shared", "core", "io", "cli", PLAN, *BACKENDS),
} | {backend: ("base", "shared", INTERFACE, *([PLAN] if backend == "cuda" else [])) for backend in BACKENDS}
ALLOWED |= {loop: (*ALLOWED["cuda"], "cuda") for loop in LOOPS}

INCLUDE = re.compile(r'^\s*#\s*(?:include|import)\s*([<"])([^>"]+)[>"]')
PRINTS = re.compile(r"(?<![\w.>])(?:v?f?printf|puts|fputs|putchar|putc|fputc|perror|fwrite)\s*\(|\bstdout\b|\bstderr\b")
FOREIGN = re.compile(r"\bPython\.h\b|\bPyObject\b|\btorch/|\bat::|\bATen\b")
COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def room_of(path: str) -> str:
    """The room of a file named from the repository's root or from src/ or include/."""
    parts = [part for part in path.split("/") if part not in ("src", "include")]
    inner = "/".join(parts[:2])
    return inner if inner in (INTERFACE, PLAN, *LOOPS) else parts[0]


def resolve(root: Path, source: Path, name: str) -> str | None:
    """The included file from the repository's root, or None if it is not the project's."""
    for base in (source.parent, root / "src", root / "include"):
        target = (base / name).resolve()
        if target.is_file() and root in target.parents:
            return target.relative_to(root).as_posix()
    return None


def blank(match: re.Match) -> str:
    """Comments and strings go, the lines stay."""
    return "\n" * match.group().count("\n")


def check_file(root: Path, source: Path) -> list[str]:
    """All violations of one file."""
    name = source.relative_to(root).as_posix()
    room, found = room_of(name), []
    text = source.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = resolve(root, source, match.group(2))
        if target is None:
            if match.group(1) == '"':
                found.append(f'{name}:{number}: "{match.group(2)}" is no file of the project')
            elif name.startswith("src/") and source.suffix in (".c", ".h") and CUDA_HEADER.fullmatch(match.group(2)):
                found.append(f"{name}:{number}: plain C includes {match.group(2)}")
            continue
        other = room_of(target)
        if other not in (room, "lik", *ALLOWED[room]) and not (room == "core" and other == INTERFACE):
            found.append(f"{name}:{number}: {room} must not include {target}")
    if name.startswith("src/"):
        for number, line in enumerate(COMMENT.sub(blank, text).splitlines(), 1):
            if room != "io" and PRINTS.search(line):
                found.append(f"{name}:{number}: prints: {line.strip()}")
            if FOREIGN.search(line):
                found.append(f"{name}:{number}: knows Python or torch: {line.strip()}")
    return found


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    rooms = (root / room for room in ("include", "src", "cli", "tests"))
    sources = [path for room in rooms for path in sorted(room.rglob("*")) if path.suffix in SUFFIXES]
    unknown = [p for p in sources if room_of(p.relative_to(root).as_posix()) not in ALLOWED]
    found = [f"{p.relative_to(root)}: no room of this name is known" for p in unknown]
    for source in sources:
        if source not in unknown:
            found += check_file(root, source)
    print("\n".join(found) or f"check_arrows: {len(sources)} files, all arrows point one way")
    return 1 if found or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
