"""Checks that no source file, C, CUDA or Python, has over 800 lines, and no function over 80
without a reason: a comment right above it, or in the first lines of its body, that says "long
because ..".

    check_lengths.py [ROOT]

Prints each that is too long as FILE:LINE and returns 1 if there is one.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from c_source import ROOMS, ROOT, sources

FILE_LINES, FUNCTION_LINES = 800, 80
REASON, REASON_LINES = "long because", 5  # where it is looked for, from the line that opens the body

Place = tuple[str, int, int, int]  # a function's name, first line, line that opens its body, last line


def functions_of_python(text: str) -> Iterator[Place]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.name, node.lineno, node.body[0].lineno, node.end_lineno


def has_reason(lines: list[str], first: int, opened: int) -> bool:
    above = first - 1
    while above > 0 and lines[above - 1].strip():
        above -= 1
    return REASON in " ".join(line.strip(" \t*#/") for line in lines[above : opened + REASON_LINES]).lower()


def too_long(name: str, text: str, functions: list[Place]) -> list[str]:
    lines, found = text.splitlines(), []
    if len(lines) > FILE_LINES:
        found.append(f"{name}:{FILE_LINES + 1}: the file has {len(lines)} lines, at most {FILE_LINES}")
    for function, first, opened, last in functions:
        count = last - first + 1
        if count > FUNCTION_LINES and not has_reason(lines, first, opened):
            found.append(
                f"{name}:{first}: {function} has {count} lines, at most {FUNCTION_LINES} without a reason"
            )
    return found


def main() -> int:
    root = Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT
    wrong: dict[str, list[str]] = {}
    for name, source in sources(root).items():
        places = [
            (function.name, function.first, function.opened, function.last) for function in source.functions
        ]
        wrong[name] = too_long(name, source.text, places)
    for path in [path for room in ROOMS for path in sorted((root / room).rglob("*.py"))]:
        name, text = path.relative_to(root).as_posix(), path.read_text("utf-8")
        wrong[name] = too_long(name, text, list(functions_of_python(text)))
    found = [line for lines in wrong.values() for line in lines]
    print("\n".join(found) or f"check_lengths: {len(wrong)} files, none too long")
    return 1 if found or not wrong else 0


if __name__ == "__main__":
    sys.exit(main())
