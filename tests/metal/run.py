#!/usr/bin/env python3
"""The kernels of src/metal, compiled as C++ by clang and run by the emulator of this folder.

    run.py [--junit FILE] [PART ...]

Parts: `emulator`, groups of the check suite, and bits over 34 schedules; `races`, an exact
search for races; `sanitizers`, under AddressSanitizer and UndefinedBehaviorSanitizer;
`threads`, an OS thread a lane under ThreadSanitizer; `spaces`, a syntax pass with address
spaces on; `faults`, the planted ones of faults.py. Needs build/release/liblik*.a. Programs and
objects go to build/emulator.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "build/emulator"
LIBRARIES = [ROOT / "build/release" / name for name in ("liblik_io.a", "liblik.a")]
HERE, CHECK, METAL = ROOT / "tests/metal", ROOT / "tests/check", ROOT / "src/metal"

INCLUDES = [f"-I{ROOT / room}" for room in ("tests/metal", "tests/check", "src", "include")]
C = ["clang", "-std=gnu11", "-O1", "-gline-tables-only", "-w", "-DLIK_CHECK_METAL", *INCLUDES]
CXX = ["clang++", "-std=c++17", "-gline-tables-only", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
CXX += ["-Wno-unknown-attributes"]
THREADS = ["-fsanitize=thread"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

# What the check suite lends; main.c has its own main.
LENT = "harness arrays problem compressed gpu score special invariance grad topk system_posix".split()
OWN = "main backend schedules bounds".split()
PLANS = "plan plan_topk plan_grad".split()
# Of top-k, small: so that what is small goes through many. The mock's have their own size.
CHUNKS = ["-DLIK_METAL_CHUNK_SCORES=150", "-DLIK_METAL_CHUNK_DOCUMENTS=20"]


class Build(NamedTuple):
    """How a program is made: of the kernels, of the engine, and what looks for races."""

    kernels: list[str]
    engine: list[str]
    races: str
    link: list[str]


BUILDS = {
    "plain": Build(["-O1"], ["-O2"], "no_races.c", []),
    "races": Build(["-O1", *THREADS], ["-O2"], "races.cpp", []),
    "sanitized": Build(["-O1", *SANITIZERS], ["-O1", *SANITIZERS], "no_races.c", SANITIZERS),
    "threads": Build(
        ["-O1", "-fsanitize=thread"], ["-O1", "-fsanitize=thread"], "no_races.c", ["-fsanitize=thread"]
    ),
}
SPACES = ["clang++", "-target", "aarch64-linux-gnu", "-std=c++17", "-fsyntax-only", "-ffreestanding"]
SPACES += ["-nostdinc", "-DLIK_ADDRESS_SPACES", "-Wall", "-Werror", "-Wno-unknown-attributes"]

# Part: builds, arguments, and whether every kernel has to run.
RUNS = {
    "emulator": [
        ("plain", "score special grad topk bounds --quick", False),
        *(("plain", f"invariance --case {case}", False) for case in (29, 58, 116, 203, 261, 348, 435, 1002)),
        ("plain", "schedules --quick", False),
        ("plain", "schedules --schedule 1", True),
    ],
    "races": [("races", "schedules --schedule 2", True), ("races", "bounds", False)],
    "sanitizers": [
        ("sanitized", "schedules --schedule 3", True),
        ("sanitized", "special bounds --quick", False),
    ],
    "threads": [("threads", f"--threads schedules --schedule 0 --case {case}", False) for case in (36, 242)],
}
PARTS = (*RUNS, "spaces", "faults")


class Failed(Exception):
    """A command that should have succeeded did not; the argument is what it printed."""


def run(command: list[str], timeout: int = 600) -> tuple[int, str]:
    """A command's exit status and what it printed."""
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout
    )
    return done.returncode, done.stdout.decode(errors="replace")


def make(command: list[str]) -> None:
    status, text = run(command)
    if status:
        raise Failed(f"{' '.join(command)}\n{text}")


def compile_one(source: Path, target: Path, options: list[str], first: Path | None = None) -> Path:
    """An object file; `first` is a folder whose files stand before those of src."""
    before = [f"-I{first}"] if first else []
    if source.suffix == ".c":
        make([*C, *before, *options, "-c", str(source), "-o", str(target)])
    else:
        make([*CXX, *before, *INCLUDES, *options, "-c", str(source), "-o", str(target)])
    return target


class Programs:
    """The programs, made when they are first asked for."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.common: list[Future[Path]] = []
        self.engines: dict[str, list[Future[Path]]] = {}
        for room, names, prefix in ((CHECK, LENT, "c"), (HERE, OWN, "m"), (METAL, PLANS, "p")):
            for name in names:
                target = WORK / f"{prefix}_{name}.o"
                self.common.append(pool.submit(compile_one, room / f"{name}.c", target, CHUNKS))

    def engine(self, build: str) -> list[Future[Path]]:
        if build not in self.engines:
            how = BUILDS[build]
            engine, races = WORK / f"emulator_{build}.o", WORK / f"races_{build}.o"
            self.engines[build] = [
                self.pool.submit(compile_one, HERE / "emulator.cpp", engine, how.engine),
                self.pool.submit(compile_one, HERE / how.races, races, ["-O2"]),
            ]
        return self.engines[build]

    def kernels(self, build: str, name: str, first: Path | None = None) -> Future[Path]:
        """The kernels of one program, those of `first` if there are any."""
        options, target = BUILDS[build].kernels, WORK / f"kernels_{name}.o"
        return self.pool.submit(compile_one, HERE / "kernels.cpp", target, options, first)

    def link(self, build: str, name: str, kernels: Future[Path]) -> str:
        objects = [str(x.result()) for x in (*self.common, *self.engine(build), kernels)]
        program = str(WORK / f"lik_check_metal_{name}")
        make(
            [
                "clang++",
                *objects,
                *BUILDS[build].link,
                *map(str, LIBRARIES),
                "-lpthread",
                "-lm",
                "-o",
                program,
            ]
        )
        return program


def check_run(program: str, arguments: str, all_kernels: bool) -> None:
    status, text = run([program, *arguments.split()])
    if status:
        raise Failed(f"exit status {status}\n{text[-4000:]}")
    if all_kernels and "never ran" in text:
        raise Failed(text[-4000:])
    print("   ", text.strip().splitlines()[-1], flush=True)


def plant(fault: Fault, folder: Path) -> Path:
    """A copy of src/metal with one fault; the folder to include from."""
    shutil.copytree(METAL, folder / "metal", dirs_exist_ok=True)
    path = folder / "metal" / fault.file
    text = path.read_text()
    if text.count(fault.old) != fault.count:
        raise Failed(f"its text stands {text.count(fault.old)} times in {fault.file}, not {fault.count}")
    path.write_text(text.replace(fault.old, fault.new))
    return folder


def check_fault(fault: Fault, status: int, text: str) -> None:
    if status == 0:
        raise Failed(f"not caught: {fault.build} {fault.arguments} passes")
    if not re.search(fault.caught, text):
        raise Failed(f"not caught as {fault.caught!r} but:\n{text[-2000:]}")


def spaces(first: Path | None = None) -> tuple[int, str]:
    before = [f"-I{first}"] if first else []
    return run([*SPACES, *before, *INCLUDES, str(HERE / "kernels.cpp")])


def try_fault(programs: Programs, number: int, fault: Fault, kernels: Future[Path] | None) -> None:
    if kernels is None:
        check_fault(fault, *spaces(WORK / f"fault{number}"))
        return
    program = programs.link(fault.build, f"fault{number}", kernels)
    check_fault(fault, *run([program, "--stop", *fault.arguments.split()], timeout=120))
    Path(program).unlink()


class Results:
    """What held and what did not, told as it is known."""

    def __init__(self) -> None:
        self.cases: list[tuple[str, float, str]] = []

    def add(self, name: str, start: float, error: BaseException | None) -> None:
        text = f"{type(error).__name__}: {error}" if error else ""
        self.cases.append((name, time.monotonic() - start, text))
        print(f"{'FAILED' if error else 'ok'}: {name}{': ' + text if error else ''}", flush=True)

    def write(self, path: Path) -> None:
        suite = ElementTree.Element("testsuite", name="metal", tests=str(len(self.cases)))
        for name, seconds, text in self.cases:
            case = ElementTree.SubElement(
                suite, "testcase", classname="metal", name=name, time=f"{seconds:.2f}"
            )
            if text:
                ElementTree.SubElement(case, "failure").text = re.sub(r"[^\t\n\x20-\x7e]", "?", text)
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(suite).write(path)


def start_part(part: str, programs: Programs, tests: ThreadPoolExecutor) -> list[tuple[str, Future[None]]]:
    started = []

    def later(name: str, function, *arguments) -> None:  # type: ignore[no-untyped-def]
        started.append((name, tests.submit(function, *arguments)))

    if part == "spaces":

        def pass_spaces() -> None:
            status, text = spaces()
            if status:
                raise Failed(text)

        later("spaces: syntax", pass_spaces)
    elif part == "faults":
        for number, fault in enumerate(FAULTS):

            def plant_and_try(number: int = number, fault: Fault = fault) -> None:
                folder = plant(fault, WORK / f"fault{number}")
                name = f"fault{number}"
                kernels = None if fault.build == "spaces" else programs.kernels(fault.build, name, folder)
                try_fault(programs, number, fault, kernels)

            later(f"fault: {fault.name}", plant_and_try)
    else:
        linked: dict[str, Future[str]] = {}
        for build, arguments, all_kernels in RUNS[part]:
            if build not in linked:
                kernels = programs.kernels(build, build)
                linked[build] = tests.submit(programs.link, build, build, kernels)

            def go(build: str = build, arguments: str = arguments, all_kernels: bool = all_kernels) -> None:
                check_run(linked[build].result(), arguments, all_kernels)

            later(f"{part}: {arguments}", go)
    return started


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--junit", type=Path, help="write the results there")
    options = parser.parse_args()
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"unknown part {part}; there are {', '.join(PARTS)}")
    for library in LIBRARIES:
        if not library.exists():
            parser.error(f"{library} is not there: cmake --preset release; cmake --build --preset release")
    WORK.mkdir(parents=True, exist_ok=True)
    jobs, results = os.cpu_count() or 1, Results()
    with ThreadPoolExecutor(jobs) as compilers, ThreadPoolExecutor(jobs) as tests:
        programs = Programs(compilers)
        started = [x for part in options.parts or PARTS for x in start_part(part, programs, tests)]
        for name, future in started:
            start = time.monotonic()
            results.add(name, start, future.exception())
    if options.junit:
        results.write(options.junit)
    failed = sum(bool(text) for _, _, text in results.cases)
    print(f"{len(results.cases) - failed} passed, {failed} failed")
    return 1 if failed or not results.cases else 0


if __name__ == "__main__":
    sys.exit(main())
