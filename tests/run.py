#!/usr/bin/env python3
"""Builds everything and runs every test suite: `make test`.

Each suite is one or more commands; counts come from the JUnit files that ctest and pytest
write, a command without one counts as one test. A suite whose tool is missing on this machine
is skipped and says what to install; with CI set in the environment that is a failure instead.
The last line sums all suites: `N passed, N failed, N skipped`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
REPORTS = BUILD / "reports"
VENV = ROOT / ".venv"
REQUIREMENTS = [
    ROOT / "tests/requirements.txt",
    ROOT / "tests/cli/requirements.txt",
    ROOT / "tests/python/requirements.txt",
    ROOT / "tests/wasm/requirements.txt",
]
JOBS = str(os.cpu_count() or 1)


class Missing(Exception):
    """A tool that a suite needs is not on this machine."""


class Tally:
    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0
        self.failures: list[str] = []

    def add(self, name: str, ok: bool) -> None:
        self.passed += ok
        self.failed += not ok
        if not ok:
            self.failures.append(name)

    def add_junit(self, path: Path) -> bool:
        """Adds a JUnit report's cases; False if it holds none."""
        if not path.exists():
            return False
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
        for case in cases:
            if case.find("skipped") is not None or case.get("status") == "notrun":
                self.skipped += 1
            else:
                bad = (
                    case.find("failure") is not None
                    or case.find("error") is not None
                    or case.get("status") == "fail"
                )
                self.add(f"{case.get('classname')}::{case.get('name')}", not bad)
        return bool(cases)


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            raise Missing(tool)


def python() -> str:
    """The interpreter of the test environment, made on first use and again when a requirements
    file changes.
    """
    stamp = VENV / "requirements.stamp"
    wanted = "".join(path.read_text() for path in REQUIREMENTS if path.exists())
    interpreter = VENV / "bin/python"
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # torch first: its CPU build, before anything can ask for another.
        pins = [line for line in wanted.splitlines() if line.startswith("torch==")]
        if pins:
            subprocess.run([*pip, pins[0]], check=True)
        arguments = [item for path in REQUIREMENTS if path.exists() for item in ("-r", str(path))]
        subprocess.run([*pip, *arguments], check=True)
        stamp.write_text(wanted)
    return str(interpreter)


def call(tally: Tally, name: str, command: list[str], junit: Path | None = None, **environment: str) -> bool:
    """Runs one command; its JUnit cases count, else the command itself."""
    print(f"--- {name}: {' '.join(command)}", flush=True)
    if junit is not None:
        junit.unlink(missing_ok=True)
    ok = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}).returncode == 0
    before = tally.failed
    if junit is None or not tally.add_junit(junit):
        tally.add(name, ok)
    elif not ok and tally.failed == before:
        tally.add(f"{name} (exit status)", False)
    return ok


def call_all(tally: Tally, commands: list[tuple[str, list[str]]]) -> None:
    """Runs commands of one thread, mostly, as many at a time as there are processors; what one
    prints is shown when it ends.
    """

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    print(f"--- side by side: {', '.join(name for name, _ in commands)}", flush=True)
    with ThreadPoolExecutor(int(JOBS)) as pool:
        for (name, command), done in zip(
            commands, pool.map(run, [command for _, command in commands]), strict=True
        ):
            print(f"--- {name}: {' '.join(command)}\n{done.stdout}", end="", flush=True)
            tally.add(name, done.returncode == 0)


def build(tally: Tally, preset: str, *options: str) -> bool:
    configured = call(tally, f"configure {preset}", ["cmake", "--preset", preset, *options])
    return configured and call(tally, f"build {preset}", ["cmake", "--build", "--preset", preset, "-j", JOBS])


def ctest(tally: Tally, preset: str, *options: str, **environment: str) -> None:
    junit = REPORTS / f"{preset}.xml"
    command = [
        "ctest",
        "--test-dir",
        f"build/{preset}",
        "--output-on-failure",
        "--parallel",
        JOBS,
        "--output-junit",
        str(junit),
        *options,
    ]
    call(tally, f"ctest {preset}", command, junit, **environment)


def pytest(tally: Tally, name: str, path: str, *options: str, **environment: str) -> None:
    junit = REPORTS / f"{name}.xml"
    command = [python(), "-m", "pytest", "-q", "-n", JOBS, path, "--junitxml", str(junit), *options]
    call(tally, f"pytest {name}", command, junit, **environment)


def suite_check(tally: Tally) -> None:
    """The C check suite in an optimized build, warnings being errors."""
    if build(tally, "release", "-DLIK_WERROR=ON"):
        ctest(tally, "release")


def suite_amalgamation(tally: Tally) -> None:
    """The CPU library in one file: gcc and clang compile it without a warning; the examples and
    the check suite run on it.
    """
    need("gcc", "clang")
    folder = BUILD / "amalgamation"
    if not call(tally, "amalgamation", [sys.executable, "cmake/amalgamate.py", str(folder)]):
        return
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-math-errno"]
    libraries = ["-lm", "-lpthread"]
    for compiler, level in (("gcc", "-O3"), ("clang", "-O1")):
        library = str(folder / f"{compiler}.o")
        if not call(
            tally,
            f"{compiler}: lik.c",
            [compiler, *strict, level, "-c", str(folder / "lik.c"), "-o", library],
        ):
            continue
        for name, arguments in (("score", []), ("rerank", []), ("serve", ["200", "2", "5"])):
            program = str(folder / f"{name}-{compiler}")
            source = [f"examples/{name}.c", library, "-Iinclude", *libraries, "-o", program]
            if call(tally, f"{compiler}: {name}.c", [compiler, *strict, *source]):
                call(tally, f"{name} by {compiler}", [program, *arguments])
    check, plans = str(folder / "lik_check"), [str(x) for x in sorted((ROOT / "src/cuda/plan").glob("*.c"))]
    common = ["gcc", "-std=gnu11", "-O1", "-w", "-Isrc", "-Iinclude", "-Itests/check"]
    objects = []
    for i, path in enumerate(plans):
        objects.append(str(folder / f"plan{i}.o"))
        made = [*common, "-Dlik_fail=check_plan_fail", "-c", path, "-o", objects[-1]]
        if subprocess.run(made, cwd=ROOT).returncode:
            tally.add(f"compile {path}", False)
            return
    sources = [str(x) for room in ("tests/check", "src/io") for x in sorted((ROOT / room).glob("*.c"))]
    define = f'-DLIK_CHECK_PLANS="{ROOT}/tests/check/plans.txt"'
    link = [*common, define, *sources, *objects, str(folder / "gcc.o"), *libraries, "-o", check]
    if call(tally, "lik_check of the amalgamation", link):
        call(tally, "lik_check --quick", [check, "--quick"])


def suite_clang(tally: Tally) -> None:
    """The same sources by clang."""
    need("clang")
    if build(tally, "clang"):
        call(tally, "lik_check by clang", ["build/clang/tests/lik_check", "--quick"])


def suite_asan(tally: Tally) -> None:
    """Everything under AddressSanitizer and UndefinedBehaviorSanitizer."""
    if build(tally, "asan", "-DLIK_WERROR=OFF"):
        ctest(tally, "asan", "-L", "check", LIK_CHECK_QUICK="1", UBSAN_OPTIONS="print_stacktrace=1")
        pytest(tally, "cli-asan", "tests/cli", LIK_BIN=str(BUILD / "asan/lik"), LIK_CLI_QUICK="1")


def suite_asan_clang(tally: Tally) -> None:
    """The C suite under clang's sanitizers: they know pointer arithmetic and conversions that
    gcc's do not.
    """
    need("clang")
    if build(tally, "asan-clang"):
        ctest(tally, "asan-clang", "-L", "check", LIK_CHECK_QUICK="1", UBSAN_OPTIONS="print_stacktrace=1")


def suite_emulator(tally: Tally) -> None:
    """Metal's kernels, compiled as C++ by clang and emulated: results, bits over schedules,
    races, sanitizers, address spaces; and planted faults, which must be found.
    """
    need("clang", "clang++")
    if build(tally, "release", "-DLIK_WERROR=ON"):
        junit = REPORTS / "emulator.xml"
        call(tally, "emulator", [sys.executable, "tests/metal/run.py", "--junit", str(junit)], junit)


def suite_msan(tally: Tally) -> None:
    """The oracle and the baseline under MemorySanitizer, which takes intrinsics for reads of
    everything.
    """
    need("clang")
    if build(tally, "msan"):
        check = ["build/msan/tests/lik_check", "--quick", "--device"]
        call_all(tally, [(f"msan {device}", [*check, device]) for device in ("ref", "cpu:generic")])


def suite_tsan(tally: Tally) -> None:
    """The pool and everything that uses it under ThreadSanitizer."""
    if build(tally, "tsan"):
        check, groups = ["build/tsan/tests/lik_check", "--quick"], ("invariance", "pool", "topk", "grad")
        call_all(tally, [(f"tsan {group}", [*check, group]) for group in groups])


def suite_valgrind(tally: Tally) -> None:
    """A subset under valgrind: uninitialized reads, which the sanitizers do not see."""
    need("valgrind")
    if build(tally, "dev"):
        valgrind = [
            "valgrind",
            "-q",
            "--error-exitcode=9",
            "--leak-check=full",
            "build/dev/tests/lik_check",
            "--quick",
        ]
        groups = ("special", "topk", "pool")
        call_all(tally, [(f"valgrind {group}", [*valgrind, group]) for group in groups])


def suite_qemu(tally: Tally) -> None:
    """The baseline on a processor without AVX, the AVX2 level on the oldest one that has it."""
    need("qemu-x86_64-static")
    if build(tally, "release", "-DLIK_WERROR=ON"):
        # QEMU 7.2 loads a whole vector where a scalar FMA names 4 bytes: the guard pages must
        # stand back a little.
        lik_check = ["build/release/tests/lik_check", "--quick", "--slack", "64"]
        emulate = ["qemu-x86_64-static", "-L", "/", "-cpu"]
        checks = [
            (f"qemu {cpu} {group}", [*emulate, cpu, *lik_check, group])
            for cpu in ("Nehalem", "Haswell")
            for group in ("dtypes", "score", "special", "grad", "topk")
        ]
        call_all(tally, checks)


# Of the tiles of aarch64: which percentage of the vector instructions multiplies, at least.
MIXES = [
    (85, "^lik_neon(_f32|dot_i8_q(7|16))_lanes(12|16|20|24)$"),
    (80, "^lik_neon_(f32_lanes8|b?f16_lanes(12|16|20|24))$"),
    (63, "^lik_neon(i8mm_i8_q(7|16)|bf16_dot)_lanes(8|12|16|20|24)$"),
]


def suite_aarch64(tally: Tally) -> None:
    """The levels of aarch64, built crosswise: what their tiles consist of, and the suite on
    emulated processors with and without their instructions.
    """
    need("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump", "qemu-aarch64-static")
    if not call(tally, "configure aarch64", ["cmake", "--preset", "aarch64"]):
        return
    command = ["cmake", "--build", "--preset", "aarch64", "-j", JOBS, "--target", "lik_check", "lik_cli"]
    if not call(tally, "build aarch64", command):
        return
    objects = [str(x) for x in sorted((BUILD / "aarch64/CMakeFiles/lik_objects.dir").rglob("*.o"))]
    look = [sys.executable, "tests/check_objects.py"]
    call(tally, "baseline", [*look, "baseline", *objects], OBJDUMP="aarch64-linux-gnu-objdump")
    for percent, names in MIXES:
        mix = [*look, "mix", str(percent), names, *objects]
        call(tally, f"mix {names}", mix, OBJDUMP="aarch64-linux-gnu-objdump")
    run = ["qemu-aarch64-static", "-cpu"]
    call(tally, "lik --build-info", [*run, "max", "build/aarch64/lik", "--version", "--build-info"])
    peak = str(BUILD / "aarch64/peak")
    compiler = "aarch64-linux-gnu-gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -pthread -DPEAK_MAIN"
    if call(tally, "build bench/peak.c", [*compiler.split(), "-o", peak, "bench/peak.c"]):
        for cpu in ("cortex-a57", "neoverse-n1", "max"):
            call(tally, f"bench/peak.c on {cpu}", [*run, cpu, peak])
    checks = (
        ("cortex-a57", "dtypes", "score", "special"),
        ("neoverse-n1", "score", "arguments"),
        ("max", "dtypes", "score", "special", "topk", "codec", "arguments"),
        ("max", "--device", "cpu:neon", "grad"),
        *(("max", "--case", str(n), "invariance") for n in (0, 29, 58, 2000, 2029, 2058)),
    )
    check = ["build/aarch64/tests/lik_check", "--quick"]
    call_all(tally, [(f"qemu {' '.join(x)}", [*run, x[0], *check, *x[1:]]) for x in checks])


def suite_platforms(tally: Tally) -> None:
    """Three other systems: library, command and check suite are built, and run where they can
    be. tests/platforms.py by itself takes all.
    """
    need("cmake")
    targets = ("x86_64-linux-musl", "x86_64-windows-gnu", "aarch64-macos.11.0")
    call(tally, "platforms", [sys.executable, "tests/platforms.py", *targets])
    if (ROOT / ".git").exists():
        call(tally, "the source archive, twice", [sys.executable, "cmake/dist.py", "--source"])


def suite_wasm(tally: Tally) -> None:
    """WebAssembly: lik_check in Node, the JavaScript's bits beside the command's, and the live
    page in a browser.
    """
    need("node", "chromium")
    if not build(tally, "release", "-DLIK_WERROR=ON"):
        return
    if call(tally, "make wasm", [sys.executable, "cmake/wasm.py", "--check"]):
        pytest(tally, "wasm", "tests/wasm", LIK_BIN=str(BUILD / "release/lik"))


def suite_cli(tally: Tally) -> None:
    """The lik command, end to end."""
    if build(tally, "release", "-DLIK_WERROR=ON"):
        pytest(tally, "cli", "tests/cli", LIK_BIN=str(BUILD / "release/lik"))


def suite_inject(tally: Tally) -> None:
    """Every allocation, thread and system call fails in turn, and every output is killed:
    command, C API, extension.
    """
    if not sys.platform.startswith("linux"):
        return
    if build(tally, "release", "-DLIK_WERROR=ON") and build(
        tally, "extension", f"-DPython_EXECUTABLE={python()}"
    ):
        module = BUILD / "extension/python/_native.abi3.so"
        pytest(tally, "inject", "tests/inject", LIK_BUILD=str(BUILD / "release"), LIK_EXTENSION=str(module))


def suite_fuzz(tally: Tally) -> None:
    """Each fuzz target: what it found before, then a short run from its seeds."""
    need("clang")
    call(
        tally,
        "fuzz",
        ["tests/fuzz/run.sh", "60", str(BUILD / "fuzz")],
        BUILD / "fuzz/report.xml",
        PYTHON=python(),
    )


def install_package(tally: Tally) -> bool:
    """Builds a wheel of this tree, audits it, and installs it in the test environment."""
    folder, pip = BUILD / "wheel", [python(), "-m", "pip"]
    shutil.rmtree(folder, ignore_errors=True)
    make = [
        *pip,
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        "-Ccmake.define.LIK_CUDA=OFF",
        ".",
    ]
    if not call(tally, "build the wheel", make):
        return False
    wheels = [str(wheel) for wheel in folder.glob("*.whl")]
    call(tally, "abi3audit", [str(VENV / "bin/abi3audit"), "--strict", *wheels])
    return call(
        tally, "install the wheel", [*pip, "install", "--quiet", "--force-reinstall", "--no-deps", *wheels]
    )


def suite_python(tally: Tally) -> None:
    """The Python package: a wheel of this tree, audited and installed, then its tests."""
    if install_package(tally):
        pytest(tally, "python", "tests/python")


def suite_cuda(tally: Tally) -> None:
    """The CUDA backend compiles for three generations of GPUs without warnings, and works where
    there is none.
    """
    need("nvcc")
    call(tally, "which GPUs a build is for", [sys.executable, "tests/install/check_archs.py", "."])
    if build(tally, "cuda", "-DLIK_CUDA_ARCHS=75-real;80-real;90a-real", "-DLIK_WERROR=ON"):
        ctest(tally, "cuda", "-R", "symbols|needs")
        call(tally, "lik_check in the CUDA build", ["build/cuda/tests/lik_check", "--quick"])
        pytest(tally, "cli-cuda", "tests/cli/test_process.py", LIK_BIN=str(BUILD / "cuda/lik"))


def package_with(module: Path, folder: Path) -> str:
    """A folder for PYTHONPATH: the package's sources beside this extension module."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "python/late_interaction_kernels", folder / "late_interaction_kernels")
    shutil.copy(module, folder / "late_interaction_kernels")
    return str(folder)


def suite_metal(tally: Tally) -> None:
    """The Metal backend's host, the command and the package on a Metal that is none, of
    tests/metal: its kernels are emulated.
    """
    need("clang++")
    if not build(tally, "metal", "-DLIK_WERROR=ON"):
        return
    mock = str(BUILD / "metal/tests/liblik_mock_metal.so")
    call(tally, "the host on the mock", ["build/metal/tests/lik_metal_host"])
    pytest(
        tally,
        "cli-metal",
        "tests/cli/test_selftest.py",
        LIK_BIN=str(BUILD / "metal/lik"),
        LIK_MOCK_METAL=mock,
    )
    if build(tally, "metal-extension", f"-DPython_EXECUTABLE={python()}"):
        module = BUILD / "metal-extension/python/_native.abi3.so"
        package = package_with(module, BUILD / "metal-extension/package")
        program = str(BUILD / "metal/lik")
        pytest(
            tally, "mps", "tests/metal/test_mps.py", LIK_BIN=program, LIK_MOCK_METAL=mock, PYTHONPATH=package
        )
    zig = [sys.executable, "-m", "ziglang"]
    if subprocess.run([*zig, "version"], capture_output=True).returncode:
        print("not compiled for macOS: the package ziglang is not installed")
        tally.skipped += 1
        return
    strict = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    for target in ("aarch64-macos.11.0", "x86_64-macos.11.0"):
        for source in sorted((ROOT / "src/metal").glob("*.c")):
            made = str(BUILD / f"metal/{source.stem}-{target}.o")
            compile_it = [*zig, "cc", "-target", target, *strict, "-Isrc", "-Iinclude", "-c", str(source)]
            call(tally, f"{source.name} for {target}", [*compile_it, "-o", made])


def suite_site(tally: Tally) -> None:
    """The documentation: the code of its guides runs; the site builds; a browser looks at
    every page."""
    installed = BUILD / "site-prefix"
    if build(tally, "release", "-DLIK_WERROR=ON") and build(
        tally, "extension", f"-DPython_EXECUTABLE={python()}"
    ):
        package = package_with(BUILD / "extension/python/_native.abi3.so", BUILD / "site-package")
        command = Path(package) / "late_interaction_kernels/_bin"
        command.mkdir(exist_ok=True)
        shutil.copy(BUILD / "release/lik", command)
        call(tally, "install", ["cmake", "--install", "build/release", "--prefix", str(installed)])
        guides = "tests/site/test_guides.py"
        pytest(tally, "guides", guides, LIK_PREFIX=str(installed), PYTHONPATH=package)
    if not call(tally, "make docs", ["make", "docs", f"PYTHON={sys.executable}"]):
        return
    need("chromium")
    interpreter, junit = str(ROOT / ".venv-docs/bin/python"), REPORTS / "site.xml"
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if call(tally, "browser's library", [*pip, "-r", "tests/site/requirements.txt"]):
        look = [interpreter, "-m", "pytest", "-q", "tests/site/test_browser.py", "--junitxml", str(junit)]
        call(tally, "browser", look, junit)


def suite_lint(tally: Tally) -> None:
    """Format of the C sources, style and types of the Python ones."""
    interpreter = python()
    call(tally, "format", [interpreter, "tests/check_format.py"])
    call(tally, "mutants", [interpreter, "tests/mutants.py", "--check"])
    folders = ["python", "tests", "bench", "examples", "cmake", "docs/site"]
    call(tally, "ruff", [interpreter, "-m", "ruff", "check", *folders])
    call(tally, "ruff format", [interpreter, "-m", "ruff", "format", "--check", *folders])
    call(tally, "mypy", [interpreter, "-m", "mypy", "--strict", "python/late_interaction_kernels"])


SUITES = {
    name.removeprefix("suite_"): function
    for name, function in list(globals().items())
    if name.startswith("suite_")
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="suites to run (default: all)")
    parser.add_argument("--list", action="store_true", help="name the suites and exit")
    options = parser.parse_args()
    if options.list:
        for name, function in SUITES.items():
            print(f"{name:10} {(function.__doc__ or '').strip()}")
        return 0
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"unknown suite {unknown[0]}; there are {', '.join(SUITES)}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    tally, times = Tally(), []
    for name in options.suites or SUITES:
        print(f"=== {name}: {(SUITES[name].__doc__ or '').strip()}", flush=True)
        start = time.monotonic()
        try:
            SUITES[name](tally)
        except Missing as tool:
            print(f"skipped: {tool} is not installed")
            if os.environ.get("CI"):
                tally.add(f"{name}: {tool} is not installed", False)
            else:
                tally.skipped += 1
        times.append(f"{name} {time.monotonic() - start:.0f} s")
    print("=== " + ", ".join(times))
    for failure in tally.failures:
        print(f"FAILED {failure}")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
