"""Checks the include arrows of the project: base <- shared <- core/backend.h <- backends <-
core <- io, cli, tests.

Backends never include each other, the public header includes nothing but the standard, plain C
under src/ knows no CUDA header, and nothing under src/ prints or knows Python or torch. Prints
each violation as FILE:LINE and returns 1 if there is one.
"""

import re
import sys

from c_source import Source, sources

BACKENDS = ("ref", "cpu", "cuda", "metal")
INTERFACE = "core/backend.h"
PLAN = "cuda/plan"  # plain C: it knows neither the rest of its room nor CUDA
LOOPS = (
    "cuda/sm90",
    "cuda/scan",
    "cuda/mma",
    "cuda/grad",
)  # kernels; the others know of them by kernels.cuh alone
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
    "web": (),
    "tests": ("base", "shared", INTERFACE, "core", "io", "cli", PLAN, *BACKENDS),
} | {backend: ("base", "shared", INTERFACE, *([PLAN] if backend == "cuda" else [])) for backend in BACKENDS}
ALLOWED |= {loop: (*ALLOWED["cuda"], "cuda") for loop in LOOPS}

PRINTS = re.compile(
    r"(?<![\w.>])(?:v?f?printf|puts|fputs|putchar|putc|fputc|perror|fwrite)\s*\(|\bstdout\b|\bstderr\b"
)
FOREIGN = re.compile(r"\bPython\.h\b|\bPyObject\b|\btorch/|\bat::|\bATen\b")


def room_of(path: str) -> str:
    """The room of a file named from the repository's root or from src/ or include/."""
    parts = [part for part in path.split("/") if part not in ("src", "include")]
    inner = "/".join(parts[:2])
    return inner if inner in (INTERFACE, PLAN, *LOOPS) else parts[0]


def check_file(source: Source) -> list[str]:
    """All violations of one file."""
    name, room, found = source.name, room_of(source.name), []
    plain = name.startswith("src/") and name.endswith((".c", ".h"))
    for include in source.includes:
        if include.target is None:
            if include.quoted:
                found.append(f'{name}:{include.line}: "{include.name}" is no file of the project')
            elif plain and CUDA_HEADER.fullmatch(include.name):
                found.append(f"{name}:{include.line}: plain C includes {include.name}")
            continue
        other = room_of(include.target)
        if other not in (room, "lik", *ALLOWED[room]) and not (room == "core" and other == INTERFACE):
            found.append(f"{name}:{include.line}: {room} must not include {include.target}")
    if name.startswith("src/"):
        for number, line in enumerate(source.code.splitlines(), 1):
            if room != "io" and PRINTS.search(line):
                found.append(f"{name}:{number}: prints: {line.strip()}")
            if FOREIGN.search(line):
                found.append(f"{name}:{number}: knows Python or torch: {line.strip()}")
    return found


def main() -> int:
    files = sources(rooms=("include", "src", "cli", "tests"))
    found = []
    for source in files.values():
        known = room_of(source.name) in ALLOWED
        found += check_file(source) if known else [f"{source.name}: no room of this name is known"]
    print("\n".join(found) or f"check_arrows: {len(files)} files, all arrows point one way")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
