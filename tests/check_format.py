"""Checks the layout of the C sources: .clang-format by the clang-format beside this
interpreter, and what that has no rule for, comment lines up to 96 columns.

Prints each line that is wrong as FILE:LINE and returns 1 if there is one. `--write` formats the
code; comments are filled by hand.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from c_source import ROOT, TOKEN, Source, sources

LINE, COMMENT = 110, 96


def comment_lines(text: str) -> set[int]:
    """The numbers of the lines that hold nothing but comment."""
    found: set[int] = set()
    for match in TOKEN.finditer(text):
        if match.group().startswith("/"):
            first = text.count("\n", 0, match.start()) + 1
            code_before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
            found.update(range(first + bool(code_before), first + match.group().count("\n") + 1))
    return found


def too_wide(source: Source) -> list[str]:
    """The lines of one file that are too wide."""
    found, comments = [], comment_lines(source.text)
    for number, line in enumerate(source.text.splitlines(), 1):
        limit = COMMENT if number in comments else LINE
        if len(line) > limit:
            found.append(f"{source.name}:{number}: {len(line)} columns, at most {limit}")
    return found


def main() -> int:
    files = sources()
    how = ["-i"] if "--write" in sys.argv[1:] else ["--dry-run", "-Werror"]
    formatter = shutil.which("clang-format", path=Path(sys.executable).parent)
    if formatter is None:
        print(f"check_format: there is no clang-format beside {sys.executable}: run it by .venv/bin/python")
        return 1
    formatted = subprocess.run([formatter, *how, *files], cwd=ROOT).returncode == 0
    found = [line for source in files.values() for line in too_wide(source)]
    print("\n".join(found) or f"check_format: {len(files)} files, all lines fit")
    return 0 if formatted and files and not found else 1


if __name__ == "__main__":
    sys.exit(main())
