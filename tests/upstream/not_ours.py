"""not_ours.txt: tests of the existing package that do not apply to this one.

A line in brackets is the reason of the entries that follow. An entry is FILE, FILE::NAME or
FILE::NAME[PARAMETERS], with * for anything; "cuda " or "cpu " before it says that it stands
only where there is a GPU, or where there is none.
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


def read() -> list[Entry]:
    found, reason = [], ""
    for line in Path(__file__).with_name("not_ours.txt").read_text().splitlines():
        if line.startswith("["):
            reason = line.strip("[]")
        elif line and not line.startswith("#"):
            where, _, pattern = line.rpartition(" ")
            found.append(Entry(pattern, reason, where))
    return found
