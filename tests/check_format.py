"""Checks the layout of the C sources: .clang-format by the clang-format beside this interpreter, and what that
has no rule for, comment lines up to 96 columns.

Prints each line that is wrong as FILE:LINE and returns 1 if there is one. `--write` formats the code; comments
are filled by hand.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("include", "src", "cli", "python", "tests", "bench", "examples")
SUFFIXES = (".c", ".h", ".cu", ".cuh", ".metal")
LINE, COMMENT = 110, 96

# A comment, or a string or character that may look like one.
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def comment_lines(text: str) -> set[int]:
    """The numbers of the lines that hold nothing but comment."""
    found: set[int] = set()
    for match in TOKEN.finditer(text):
        if match.group().startswith("/"):
            first = text.count("\n", 0, match.start()) + 1
            code_before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
            found.update(range(first + bool(code_before), first + match.group().count("\n") + 1))
    return found


def too_wide(path: Path) -> list[str]:
    """The lines of one file that are too wide."""
    text, found = path.read_text("utf-8"), []
    comments = comment_lines(text)
    for number, line in enumerate(text.splitlines(), 1):
        limit = COMMENT if number in comments else LINE
        if len(line) > limit:
            found.append(f"{path.relative_to(ROOT)}:{number}: {len(line)} columns, at most {limit}")
    return found


def main() -> int:
    sources = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*")) if path.suffix in SUFFIXES]
    how = ["-i"] if "--write" in sys.argv[1:] else ["--dry-run", "-Werror"]
    formatter = Path(sys.executable).with_name("clang-format")
    formatted = subprocess.run([formatter, *how, *sources], cwd=ROOT).returncode == 0
    found = [line for path in sources for line in too_wide(path)]
    print("\n".join(found) or f"check_format: {len(sources)} files, all lines fit")
    return 0 if formatted and sources and not found else 1


if __name__ == "__main__":
    sys.exit(main())
