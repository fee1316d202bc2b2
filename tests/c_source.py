"""Reads C and CUDA sources as text, as far as the checks beside this file need it: the code
without comments and strings, the functions and their lines, what macros call, and what is
included. Nothing is preprocessed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("include", "src", "cli", "python", "tests", "bench", "examples", "web")
HEADERS = (".h", ".cuh")
SUFFIXES = (".c", ".cu", ".m", ".metal", *HEADERS)

# A comment, a string or a character.
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)

DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.)*", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*(?:include|import)[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)\([^)]*\)((?:[^\n\\]|\\.)*)", re.MULTILINE | re.DOTALL)

# A name before its arguments, a template's parameters or a launch's shape between them; not a
# member's.
CALL = re.compile(r"(?<![\w.])(?<!->)([A-Za-z_]\w*)(?:<(?:[^<>;{}()]|\([^()]*\))*>)?(?:<<<[^;{}]*?>>>)?\s*\(")

# What may stand before a function's name and looks like a call.
PARENTHESES = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
DECORATION = re.compile(
    rf"__(?:attribute|launch_bounds|align)__\s*{PARENTHESES}|\btemplate\s*<[^{{}}]*?>(?=\s*\w)"
)
LOCAL = re.compile(r"\b(?:static|inline|\w+_INLINE|LIK_DEVICE|LIK_MEMBER)\b")
SCOPE = re.compile(r"\s*(extern|namespace|struct|union|class)\b[^()=]*")  # whose inside is looked into


def blank(match: re.Match[str]) -> str:
    """What is matched goes, its lines stay."""
    return " " + "\n" * match.group().count("\n")


def calls(code: str) -> set[str]:
    """The names that are called, as far as they are no members."""
    return set(CALL.findall(code))


@dataclass(frozen=True)
class Include:
    line: int
    name: str
    quoted: bool
    target: str | None  # from the root; None: it is not the project's


@dataclass(frozen=True)
class Function:
    name: str
    first: int  # its lines, from 1: where the declaration begins, the brace that opens, the brace that closes
    opened: int
    last: int
    body: str
    local: bool  # static, inline or a member: no other translation unit calls it


class Source:
    """One file."""

    def __init__(self, path: Path, root: Path = ROOT) -> None:
        self.path, self.root = path, root
        self.name = path.relative_to(root).as_posix()
        self.text = path.read_text("utf-8")
        self.is_header = path.suffix in HEADERS

    @cached_property
    def code(self) -> str:
        """The text without comments and strings."""
        return TOKEN.sub(blank, self.text)

    @cached_property
    def includes(self) -> list[Include]:
        found = []
        for match in INCLUDE.finditer(self.text):
            quote, name = match.groups()
            line = self.text.count("\n", 0, match.start(1)) + 1
            found.append(Include(line, name, quote == '"', self._file(name)))
        return found

    def _file(self, name: str) -> str | None:
        for folder in (self.path.parent, self.root / "src", self.root / "include"):
            target = (folder / name).resolve()
            if target.is_file() and self.root in target.parents:
                return target.relative_to(self.root).as_posix()
        return None

    @cached_property
    def macros(self) -> dict[str, set[str]]:
        """What each macro with arguments calls."""
        return {match.group(1): calls(match.group(2)) for match in MACRO.finditer(self.code)}

    @cached_property
    def functions(self) -> list[Function]:
        return list(self._functions())

    def _functions(self) -> Iterator[Function]:
        code = DIRECTIVE.sub(blank, self.code)
        scopes: list[str] = []  # that are open here
        depth = start = opened = (
            0  # start: of the declaration that is read; opened: the brace that is not looked into
        )
        for match in re.finditer(r"[{};]", code):
            at, mark = match.start(), match.group()
            if depth:
                depth += {"{": 1, "}": -1, ";": 0}[mark]
                if not depth:
                    yield from self._function(code, start, opened, at, scopes)
                    start = at + 1
                continue
            scope = SCOPE.fullmatch(DECORATION.sub(blank, code[start:at])) if mark == "{" else None
            if mark == "{" and not scope:
                depth, opened = 1, at
                continue
            start = at + 1
            if scope:
                scopes.append(scope.group(1))
            elif mark == "}" and scopes:
                scopes.pop()
        if depth or scopes:
            raise ValueError(f"{self.name}: its braces do not pair")

    def _function(
        self, code: str, start: int, opened: int, closed: int, scopes: list[str]
    ) -> Iterator[Function]:
        """The function between these places, or nothing if it is something else."""
        declaration = code[start:opened]
        head = DECORATION.sub(blank, declaration)
        name = re.search(r"(\w+)\s*\(", head)
        if not name or "=" in head[: name.start()]:
            return
        start += len(declaration) - len(declaration.lstrip())
        first, line, last = (code.count("\n", 0, place) + 1 for place in (start, opened, closed))
        local = bool(LOCAL.search(head)) or any(scope in ("struct", "union", "class") for scope in scopes)
        yield Function(name.group(1), first, line, last, code[opened : closed + 1], local)


def sources(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> dict[str, Source]:
    """All sources of these rooms by their names from the root."""
    paths = [path for room in rooms for path in sorted((root / room).rglob("*")) if path.suffix in SUFFIXES]
    return {source.name: source for source in (Source(path, root) for path in paths)}
