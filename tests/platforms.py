#!/usr/bin/env python3
"""The library, the command and the check suite for other platforms: `tests/run.py platforms`.

    platforms.py [TARGET ...]

Each target is built with ziglang, warnings being errors. Where this machine can run it,
natively or under wine or qemu, so are `lik_check --quick` and the command, whose outputs must
have the same bytes everywhere. What cannot be run is said.
"""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "cmake"))
import wheels  # noqa: E402

BUILD = ROOT / "build/platforms"
JOBS = str(os.cpu_count() or 1)
# target -> what runs it, and the groups of lik_check (none: all). Programs for musl are linked
# statically and so need nothing of their system.
TARGETS = {
    "x86_64-linux-musl": ("native", []),
    "x86_64-windows-gnu": ("wine64", []),
    "aarch64-linux-musl": ("qemu-aarch64-static", ["dtypes", "special", "pool", "plans", "files", "views"]),
    "aarch64-macos.11.0": (None, []),
    "x86_64-macos.11.0": (None, []),
}
passed, failed, skipped = 0, [], []


def count(name: str, ok: bool, said: str = "") -> bool:
    global passed
    passed += ok
    if not ok:
        failed.append(name)
        print(f"FAILED {name}\n{said[-6000:]}", flush=True)
    return ok


def call(name: str, *command: object, **more: object) -> bool:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **more,
    )
    print(f"--- {name}: {(done.stdout.strip().splitlines() or [''])[-1][:150]}", flush=True)
    return count(name, done.returncode == 0, done.stdout)


def runner(tool: str | None) -> list[str] | None:
    """The words before a program that it runs with; None: it cannot be."""
    if tool == "native":
        return []
    if tool == "wine64":
        for path in (shutil.which("wine64"), "/usr/lib/wine/wine64"):
            if path and os.path.exists(path):
                return [path]
    elif tool and shutil.which(tool):
        return [tool]
    return None


def build(target: str, zig: str) -> bool:
    folder = BUILD / target
    configure = ["cmake", "-S", ROOT, "-B", folder, f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/cmake/zig.cmake"]
    configure += [f"-DLIK_ZIG={zig}", f"-DLIK_ZIG_TARGET={target}", "-DLIK_WERROR=ON", "-DLIK_CUDA=OFF"]
    if "macos" not in target:  # there a shared library is what has not been tried
        configure.append("-DBUILD_SHARED_LIBS=OFF")
    return call(f"{target}: configure", *configure) and call(
        f"{target}: build", "cmake", "--build", folder, "-j", JOBS
    )


class Command:
    """The `lik` command of a target."""

    def __init__(self, words: list[str], target: str) -> None:
        self.windows = "windows" in target
        self.words = [*words, str(BUILD / target / ("lik.exe" if self.windows else "lik"))]
        self.environment = {
            **os.environ,
            "LIK_CPU": "generic",  # what every processor has
            "WINEDEBUG": "-all",
            "WINEPREFIX": str(BUILD / "wine"),
        }

    def start(self, *args: object, **more: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.words, *map(str, args)], stderr=subprocess.PIPE, env=self.environment, **more
        )

    def run(
        self, *args: object, code: int = 0, stdin: bytes = b"", cwd: Path | None = None
    ) -> tuple[bytes, str]:
        process = self.start(*args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd)
        out, err = process.communicate(stdin, timeout=300)
        assert process.returncode == code, f"{args}: exit {process.returncode}, not {code}: {err[-1000:]!r}"
        return out, err.decode()


def make_files(folder: Path) -> tuple[Path, Path]:
    """Few queries and documents, as .npy, whose paths it returns, and with texts as .jsonl."""
    numbers = random.Random(25)
    for name, count, length in (("queries", 20, 6), ("documents", 60, 30)):
        tokens = [[[numbers.gauss(0, 1) for _ in range(16)] for _ in range(length)] for _ in range(count)]
        flat = [x for sequence in tokens for token in sequence for x in token]
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {length}, 16), }}"
        head = head.ljust(128 - 11) + "\n"
        data = struct.pack(f"<{len(flat)}f", *flat)
        (folder / f"{name}.npy").write_bytes(
            b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head.encode() + data
        )
        lines = []
        for i, sequence in enumerate(tokens):
            words = [f"Wörter{i}x{j}" for j in range(length)]
            line = {"id": f"{name[0]}{i}", "text": " ".join(words), "tokens": words, "embedding": sequence}
            lines.append(json.dumps(line) + "\n")
        (folder / f"{name}.jsonl").write_bytes("".join(lines).encode())
    return folder / "queries.npy", folder / "documents.npy"


def check_command(lik: Command, folder: Path) -> dict[str, bytes]:
    """Asserts what holds on every platform; returns the outputs that are the same on all."""
    queries, documents = make_files(folder)
    texts = [folder / "queries.jsonl", folder / "documents.jsonl"]
    outputs = {"version": lik.run("--version")[0]}
    # names beyond ASCII, replaced when they are there, nothing left behind
    matrix = folder / "größe 行列.npy"
    matrix.write_bytes(b"old")
    lik.run("score", queries, documents, "--all", "-o", matrix)
    outputs["matrix"] = matrix.read_bytes()
    lik.run("explain", *texts, "-q", "q7", "-o", folder / "match.html")
    outputs["picture"] = (folder / "match.html").read_bytes()
    assert not list(folder.glob(".lik-*")), "temporary files are left"
    # bytes through pipes, texts with either end of line
    outputs["run"] = lik.run("score", *texts, "--trec", "-k", "5")[0]
    assert b"\r" not in outputs["run"] and outputs["run"].count(b"\n") == 100
    numbered = lik.run("score", queries, documents, "--trec")[0]
    piped = lik.run("score", "-", documents, "--trec", stdin=queries.read_bytes())[0]
    assert piped == numbered, "standard input gives another run"
    for path in texts:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    again = lik.run("score", *texts, "--trec", "-k", "5")[0]
    assert again == outputs["run"], "CRLF changes the run"
    # what goes wrong is told and leaves what was there
    before = matrix.read_bytes()
    _, said = lik.run("score", queries, folder / "not there.npy", "-o", matrix, code=3)
    assert "not there.npy: cannot open: No such file or directory" in said, said
    _, said = lik.run("score", queries, folder, code=3)
    assert "is a directory, not a file" in said, said
    lik.run("score", matrix, documents, "-o", matrix, code=2)
    assert matrix.read_bytes() == before
    # a reader that has seen enough is no error
    process = lik.start("score", *texts, "-k", "60", "--json", stdout=subprocess.PIPE)
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=300) == 0, process.stderr.read()
    process.stderr.close()
    if lik.windows:
        check_windows(lik, folder)
    return outputs


def check_windows(lik: Command, folder: Path) -> None:
    """Names as Windows has them; wine calls the root of this system Z:."""
    deep = folder / ("x" * 100) / ("y" * 100) / ("z" * 100)
    deep.mkdir(parents=True)
    for name, path in (
        ("Z:" + str(folder / "drive.npy").replace("/", "\\"), folder / "drive.npy"),
        ("x.npy", folder / "x.npy"),
        (f"{'x' * 100}\\{'y' * 100}\\{'z' * 100}\\deep.npy", deep / "deep.npy"),
    ):
        for _ in range(2):  # anew, and over what is there
            lik.run("score", "queries.npy", "documents.npy", "--all", "-o", name, cwd=folder)
            assert path.stat().st_size == 128 + 20 * 60 * 4, path
            assert not list(path.parent.glob(".lik-*")), "temporary files are left"
    lik.run("score", "queries.npy", "documents.npy", "--all", "-o", "NUL", cwd=folder)
    assert not (folder / "NUL").exists()


def check_target(target: str, outputs: dict[str, bytes]) -> None:
    tool, groups = TARGETS[target]
    words = runner(tool)
    if words is None:
        skipped.append(
            f"{target}: built, not run: " + (f"{tool} is not installed" if tool else "no such system here")
        )
        print(skipped[-1], flush=True)
        return
    lik = Command(words, target)
    suffix = ".exe" if lik.windows else ""
    environment = {key: value for key, value in lik.environment.items() if key != "LIK_CPU"}
    check = [*words, BUILD / target / f"tests/lik_check{suffix}", "--quick", *groups]
    call(f"{target}: lik_check --quick", *check, env=environment)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found, said = check_command(lik, Path(folder)), ""
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            found, said = {}, f"{type(error).__name__}: {error}"
    if count(f"{target}: the command", bool(found), said):
        print(f"--- {target}: the command", flush=True)
    for name in found:
        first = outputs.setdefault(name, found[name])
        count(f"{target}: the same {name}", first == found[name], "it differs from the first target's")


def main() -> int:
    wanted = sys.argv[1:] or list(TARGETS)
    zig = wheels.zig(wheels.tools())
    BUILD.mkdir(parents=True, exist_ok=True)
    outputs: dict[str, bytes] = {}
    for target in wanted:
        if build(target, zig):
            check_target(target, outputs)
    for name in failed:
        print(f"FAILED {name}")
    print(f"platforms: {passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
