"""Checks that no files call each other in a circle: A a function of B, and B, perhaps by way of
others, one of A.

    check_calls.py [ROOT]

A call is the name of a function before its arguments, in a function of another file or in a
macro that it uses; functions that are reached through a pointer or a table do not count, which
is how a lower file may run a higher one. Prints each circle with its calls as FILE:LINE and
returns 1 if there is one.
"""

import sys
from collections import defaultdict
from pathlib import Path

from c_source import ROOT, Source, calls, sources

# (file, file that it calls): why these calls may close a circle.
ALLOWED: dict[tuple[str, str], str] = {}

Calls = dict[str, dict[str, list[str]]]  # file -> file that it calls -> the calls, in words


def included(files: dict[str, Source], name: str) -> set[str]:
    """The files of the project that a file includes, itself or by others."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for include in files[waiting.pop()].includes:
            if include.target in files and include.target not in found:
                found.add(include.target)
                waiting.append(include.target)
    return found


def expand(names: set[str], macros: dict[str, set[str]]) -> set[str]:
    """The names that are called, by macros too."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += macros.get(name, ())
    return found


def calls_between(files: dict[str, Source]) -> Calls:
    """Which file calls which, headers with inline functions included."""
    defined = {name: {function.name for function in source.functions} for name, source in files.items()}
    linked: dict[str, set[str]] = defaultdict(set)
    for name, source in files.items():
        for function in source.functions:
            if not source.is_header and not function.local:
                linked[function.name].add(name)
    found: Calls = {}
    for name, source in files.items():
        found[name] = defaultdict(list)
        headers = included(files, name)
        macros = {key: value for file in (*headers, name) for key, value in files[file].macros.items()}
        for function in source.functions:
            for called in sorted(expand(calls(function.body), macros) - defined[name]):
                inline = {header for header in headers if called in defined[header]}
                for other in inline or linked[called]:
                    words = f"{name}:{function.first}: {function.name} calls {called} of {other}"
                    found[name][other].append(words)
    return found


def circles(graph: Calls) -> list[list[str]]:
    """The sets of files of which each reaches each."""
    reach: dict[str, set[str]] = {}
    for name in graph:
        reach[name] = set()
        waiting = [name]
        while waiting:
            for other in graph[waiting.pop()]:
                if other not in reach[name]:
                    reach[name].add(other)
                    waiting.append(other)
    found = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return [list(circle) for circle in sorted(found) if circle]


def main() -> int:
    root = Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT
    files = sources(root)
    graph = calls_between(files)
    unused = [
        f"check_calls: {a} does not call {b}, which is allowed"
        for a, b in ALLOWED
        if b not in graph.get(a, ())
    ]
    for caller, called in ALLOWED:
        graph.get(caller, {}).pop(called, None)
    wrong = 0
    for circle in circles(graph):
        wrong += 1
        print(f"circle: {', '.join(circle)}")
        for caller in circle:
            for called in circle:
                print("".join(f"    {words}\n" for words in graph[caller].get(called, ())), end="")
    print("\n".join(unused) or f"check_calls: {len(files)} files, {wrong} circles")
    return 1 if wrong or unused or not files else 0


if __name__ == "__main__":
    sys.exit(main())
