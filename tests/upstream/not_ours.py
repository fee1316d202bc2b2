"""not_ours.txt: tests of the existing package that do not apply to this one.

A line in brackets is the reason of the entries that follow. An entry is FILE, FILE::NAME or
FILE::NAME[PARAMETERS], with * for anything; before it may stand where alone it holds: "cuda "
or "cpu ", with a GPU of that kind or without, "emulated " or "plain ", with Metal's kernels by
their emulator or without.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    pattern: str
    reason: str
    where: str

    def matches(self, name: str) -> bool:
        """FILE::NAME or FILE::NAME[PARAMETERS]; an entry without parameters stands for all of
        them.
        """
        pattern = re.escape(self.pattern).replace(r"\*", ".*")
        rest = "" if "[" in self.pattern else r"(\[.*\])?" if "::" in self.pattern else "::.*"
        return re.fullmatch(pattern + rest, name) is not None


def where(cuda: bool, emulated: bool) -> tuple[str, str, str]:
    """What may stand before an entry that holds here."""
    return "", "cuda" if cuda else "cpu", "emulated" if emulated else "plain"


def read() -> list[Entry]:
    found, reason = [], ""
    for line in Path(__file__).with_name("not_ours.txt").read_text().splitlines():
        if line.startswith("["):
            reason = line.strip("[]")
        elif line and not line.startswith("#"):
            where, _, pattern = line.rpartition(" ")
            found.append(Entry(pattern, reason, where))
    return found
