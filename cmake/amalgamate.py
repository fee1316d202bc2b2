#!/usr/bin/env python3
"""The C sources of the CPU library in one file: `make amalgamation`.

    amalgamate.py OUTPUT_FOLDER

Writes lik.c and lik.h there. Headers go in where they are first included. Names that two
sources have for themselves (static functions, tables, structs) get the source's name in front,
by a macro around it. Sources of an instruction-set level are compiled for it by a pragma; their
options are those of CMakeLists.txt, and its processor a condition around it.
"""

import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("base", "core", "ref", "cpu")
HEAD = """/* late-interaction-kernels {version}: the CPU library in one file, made of its sources by
 * `make amalgamation`. Apache-2.0.
 *
 *     cc -std=c11 -O3 -ffp-contract=off -fno-math-errno -c lik.c
 *     cc program.c lik.o -lm -lpthread
 *
 * lik.h is its interface. On x86-64 and aarch64 the instruction set is chosen when a context
 * is made. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#define LIK_STATIC
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
"""
PROCESSORS = {
    "x86": "defined(__x86_64__)",
    "arm": "defined(__aarch64__) && !defined(__AARCH64EB__)",
    "wasm": "defined(__wasm__)",
}
# A level's functions, for gcc and clang.
ENTER = """#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("{clang}"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("{gcc}")
#endif
"""
LEAVE = """#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
"""


class Level(NamedTuple):
    processor: str  # of PROCESSORS
    gcc: str  # what a target attribute says; "" for the baseline
    clang: str


def levels() -> dict[str, Level]:
    """By name, of CMakeLists.txt's lik_level(name processors -mfeature ...), or of those with
    -march=architecture+feature+...
    """
    text = (ROOT / "CMakeLists.txt").read_text()
    for name, options in re.findall(r"^set\((LIK_\w+)((?: -m[\w.-]+)+)\)", text, re.M):
        text = text.replace(f" ${{{name}}}", options)
    found = {}
    for name, processors, options in re.findall(
        r'^lik_level\((\w+) "([^"]*)"((?: -m[\w.+=-]+)*)', text, re.M
    ):
        processor = next(x for x in ("x86", "wasm", "arm") if x in processors)
        if arch := re.search(r"-march=([\w.-]+)\+([\w+]+)", options):
            gcc, clang = f"arch={arch[1]}+{arch[2]}", arch[2].replace("+", ",")
        else:
            gcc = clang = ",".join(re.findall(r"-m([\w.-]+)", options))
        found[name] = Level(processor, gcc, clang)
    return found


def uncommented(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"", " ", text, flags=re.S)


def own_names(text: str) -> tuple[set[str], set[str]]:
    """(names of file scope, macros) that a source defines for itself."""
    code = uncommented(text)
    macros = set(re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", code, re.M))
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", code, flags=re.M)
    depth, flat = 0, []
    for part in re.split(r"([{}])", code):
        if part == "{":
            depth += 1
        elif part == "}":
            depth -= 1
            flat.append(";" if depth == 0 else "")
        elif depth == 0:
            flat.append(part)
    top = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", "".join(flat))
    names = set(re.findall(r"\bstatic\b[^;=(]*?\b(\w+)\s*(?:\[[^\]]*\]\s*)*[(;=]", top))
    names |= set(re.findall(r"\bFORCE_INLINE\b[^;=(]*?\b(\w+)\s*\(", top))
    names |= set(re.findall(r"^(?:struct|enum|union)\s+(\w+)\s*(?:;|$|\s)", top, re.M))
    names |= set(re.findall(r"\benum\s*\{([^}]*)\}", code))
    for values in re.findall(r"^enum\b\s*\w*\s*\{([^}]*)\}", code, re.M):
        names |= set(re.findall(r"\b([A-Za-z_]\w*)\s*(?:=[^,]*)?(?:,|$)", values))
    return {name for name in names if re.fullmatch(r"(?!__)\w+", name)}, macros


def with_words(text: str, words: list[str], prefix: str) -> str:
    """With these names renamed in code, but not where they are members."""
    if not words:
        return text
    pattern = re.compile(rf"(?<![.>\w])({'|'.join(words)})\b")
    parts = re.split(r"(/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\")", text, flags=re.S)
    return "".join(x if i % 2 else pattern.sub(rf"{prefix}_\1", x) for i, x in enumerate(parts))


class Amalgamation:
    def __init__(self) -> None:
        self.sources = [path for room in ROOMS for path in sorted((ROOT / "src" / room).glob("*.c"))]
        self.levels = levels()
        self.included: dict[str, set[Path]] = {"": set(), **{name: set() for name in PROCESSORS}}
        self.processor = ""  # of the source at hand, if it is of a level
        own = {path: own_names(self.with_templates(path)) for path in self.sources}
        count = Counter(name for names, _ in own.values() for name in names)
        self.twice = {name for name, n in count.items() if n > 1}
        self.own = own
        headers = [path for room in (*ROOMS, "shared") for path in (ROOT / "src" / room).glob("*.h")]
        self.in_headers = {
            word for path in headers for word in re.findall(r"\w+", uncommented(path.read_text()))
        }

    def inlined(self, text: str, folder: Path) -> str:
        """With the project's headers in the places of their first includes."""

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("lik/"):
                return '#include "lik.h"'
            for base in (folder, ROOT / "src"):
                path = (base / name).resolve()
                if path.exists():
                    break
            else:
                raise SystemExit(f"{folder}: no header {name}")
            content = path.read_text()
            if re.search(r"^#ifndef LIK_\w+_H$", content, re.M):
                if path in self.included[""] | self.included[self.processor]:
                    return ""
                self.included[self.processor].add(path)
            return self.inlined(content, path.parent)

        return re.sub(r'^[ \t]*#[ \t]*include "([^"]+)".*$', replace, text, flags=re.M)

    def with_templates(self, path: Path) -> str:
        """The source with the headers that it includes for itself, which have no guard."""

        def replace(match: re.Match[str]) -> str:
            if self.is_guarded(match[0], path.parent):
                return match[0]
            return next(
                b / match[1] for b in (path.parent, ROOT / "src") if (b / match[1]).exists()
            ).read_text()

        return re.sub(r'^[ \t]*#[ \t]*include "([^"]+)".*$', replace, path.read_text(), flags=re.M)

    def source(self, path: Path) -> str:
        names, macros = self.own[path]
        prefix = "_".join((path.parent.name, path.stem))
        renamed = sorted(names & self.twice)
        text = path.read_text()
        # headers first, outside of the renaming
        includes = re.findall(r'^[ \t]*#[ \t]*include "[^"]+".*$', text, re.M)
        guarded = [line for line in includes if self.is_guarded(line, path.parent)]
        body = text
        for line in guarded:
            body = body.replace(line, "", 1)
        level = next((self.levels[name] for name in self.levels if path.stem.endswith("_" + name)), None)
        self.processor = level.processor if level else ""
        parts = [f"\n/* ---- src/{path.relative_to(ROOT / 'src')} ---- */\n"]
        if level:
            parts.append(f"#if {PROCESSORS[level.processor]}\n")
        if level and level.gcc:
            parts.append(ENTER.format(gcc=level.gcc, clang=level.clang))
        parts.append(self.inlined("\n".join(guarded), path.parent) + "\n")
        at = max((m.end() for m in re.finditer(r"^[ \t]*#[ \t]*include <.*$", body, re.M)), default=0)
        if at:  # the rest of a condition that the last of them stands in
            after = re.match(r"\n[ \t]*#[ \t]*endif[^\n]*", body[at:])
            at += after.end() if after else 0
        parts.append(body[:at] + "\n")
        # What a header calls so too is a member of a struct there, as .pack = pack: by words.
        words = [name for name in renamed if name in self.in_headers]
        renamed = [name for name in renamed if name not in words]
        parts += [f"#define {name} {prefix}_{name}\n" for name in renamed]
        parts.append(with_words(self.inlined(body[at:], path.parent), words, prefix))
        parts += [f"#undef {name}\n" for name in [*renamed, *sorted(macros)]]
        if level and level.gcc:
            parts.append(LEAVE)
        if level:
            parts.append("#endif\n")
        return "".join(parts)

    @staticmethod
    def is_guarded(line: str, folder: Path) -> bool:
        name = re.search(r'"([^"]+)"', line)[1]
        path = next((b / name for b in (folder, ROOT / "src") if (b / name).exists()), None)
        return name.startswith("lik/") or bool(
            path and re.search(r"^#ifndef LIK_\w+_H$", path.read_text(), re.M)
        )

    def text(self) -> str:
        version = re.search(r"project\(lik VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
        joined = HEAD.format(version=version) + "".join(map(self.source, self.sources))
        return re.sub(r"\n{3,}", "\n\n", joined)


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lik.c").write_text(Amalgamation().text())
    (folder / "lik.h").write_text((ROOT / "include/lik/lik.h").read_text())
    print(f"{folder}/lik.c: {(folder / 'lik.c').read_text().count(chr(10))} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
