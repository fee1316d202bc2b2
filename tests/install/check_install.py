"""Installs a build to a temporary prefix and uses it as a stranger would.

Usage: check_install.py REPOSITORY BUILD CC CXX. Compiles lik.h alone as C11 and C++17; builds
examples/score.c with the flags of pkg-config, with the static library, and with the CMake
package; runs them and compares what they print.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXPECTED = "1.5 1 on cpu:"  # 1 + 0.5 and 0 + 1
# What the block of C in README.md stands in: its names, and what becomes of its scores.
AROUND = """#include <stdio.h>
#include <stdlib.h>
%s
int main(void)
{
    enum { n_queries = 2, n_docs = 3, longest = 4, total = 9 };
    static float queries[n_queries * 32 * 128], scores[n_queries * n_docs];
    static unsigned short tokens[total * 128];
    static const long long offsets[] = {0, 4, 5, 9};
    for (int i = 0; i < n_queries * 32 * 128; i++)
        queries[i] = 1;
    for (int i = 0; i < total * 128; i++)
        tokens[i] = 0x3c00; /* 1 in f16 */
%s
    printf("%%g %%g\\n", scores[0], scores[n_queries * n_docs - 1]);
    return 0;
}
"""


def run(*command: object, **options: object) -> str:
    """What the command prints; ends the check with its output if it fails."""
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    if result.returncode:
        print(f"FAILED ({result.returncode}): {' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
        sys.exit(1)
    return result.stdout


def check_program(how: str, program: Path, environment: dict[str, str]) -> None:
    printed = run(program, env=environment)
    if not printed.startswith(EXPECTED):
        print(f"FAILED: built with {how} it prints {printed!r}, expected {EXPECTED!r}")
        sys.exit(1)


def check_uninstall(repository: Path, build: str, work: Path) -> None:
    """`make uninstall` takes away what was installed, files and folders of our own, below a
    prefix and below DESTDIR, and nothing else."""
    if not shutil.which("make"):
        print("skipped: make is not installed")
        return
    (work / "build").mkdir(parents=True)
    (work / "build" / "release").symlink_to(Path(build).resolve())
    make = ["make", "-C", work, "-f", repository / "Makefile", "uninstall"]
    for stage in ("", str(work / "stage")):
        for name in ("usr", "two words"):
            prefix = work / name if not stage else Path("/opt") / name
            root = Path(stage + str(prefix))
            theirs = {root / x for x in ("bin/theirs", "share/man/man1/theirs.1", "lib/theirs.so")}
            if name == "usr":  # a stranger's file in a folder of ours
                theirs.add(root / "include/lik/theirs.h")
            for file in theirs:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("theirs")
            os.symlink("theirs.so", root / "lib" / "liblik-theirs.so")
            folders = {x for x in root.rglob("*") if x.is_dir()}
            run("cmake", "--install", build, "--prefix", prefix, env={**os.environ, "DESTDIR": stage})
            assert len([x for x in root.rglob("*") if not x.is_dir()]) > len(theirs) + 5
            run(*make, f"DESTDIR={stage}")
            left = {x for x in root.rglob("*") if not x.is_dir()}
            assert left == theirs | {root / "lib" / "liblik-theirs.so"}, left ^ theirs
            assert all(x.read_text() == "theirs" for x in theirs)
            assert all(x.is_dir() for x in folders)
            ours = {x for x in root.rglob("*") if x.is_dir() and x.name in ("lik", "demo")}
            assert ours == ({root / "include" / "lik"} if name == "usr" else set()), ours
            run(*make, f"DESTDIR={stage}")  # nothing is there, and nothing fails


def main() -> int:
    repository, build, cc, cxx = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    example = repository / "examples" / "score.c"
    with tempfile.TemporaryDirectory(prefix="lik-install-") as name:
        work = Path(name)
        prefix = work / "prefix"
        run("cmake", "--install", build, "--prefix", prefix)
        header = next(prefix.rglob("lik.h"))
        library = next(iter(sorted(prefix.rglob("liblik.so*")) + sorted(prefix.rglob("liblik.a")))).parent
        environment = dict(os.environ, LD_LIBRARY_PATH=str(library))

        command = prefix / "bin" / "lik"
        if command.exists():  # started from the prefix, it finds the library and the demo's data by itself
            bare = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
            run(command, "--version", env=bare)
            run(command, "demo", "--quiet", "-o", work / "map", env=bare)
            for text in (
                "man/man1/lik.1",
                "bash-completion/completions/lik",
                "zsh/site-functions/_lik",
                "fish/vendor_completions.d/lik.fish",
            ):
                assert "rerank" in (prefix / "share" / text).read_text(), text

        strict = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror", "-fsyntax-only"]
        (work / "alone.c").write_text("#include <lik/lik.h>\nint main(void) { return 0; }\n")
        shutil.copy(work / "alone.c", work / "alone.cc")
        run(cc, "-std=c11", *strict, f"-I{header.parent.parent}", work / "alone.c")
        run(cxx, "-std=c++17", *strict, f"-I{header.parent.parent}", work / "alone.cc")

        found = dict(os.environ, PKG_CONFIG_PATH=str(library / "pkgconfig"))
        version = run("pkg-config", "--modversion", "lik", env=found).strip()
        flags = run("pkg-config", "--cflags", "--libs", "lik", env=found).split()
        run(cc, "-std=c11", example, *flags, "-o", work / "with_pkg_config")
        check_program("pkg-config", work / "with_pkg_config", environment)

        archive = library / "liblik.a"
        if archive.exists():  # the program then needs no file of ours
            cflags = run("pkg-config", "--cflags", "lik", env=found).split()
            static = [*cflags, archive, "-lm", "-lpthread", "-o", work / "static"]
            run(cc, "-std=c11", example, *static)
            bare = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
            check_program("the static library", work / "static", bare)
            strict_c = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
            run(
                cc,
                *strict_c,
                repository / "examples" / "serve.c",
                *cflags,
                archive,
                "-lm",
                "-lpthread",
                "-o",
                work / "serve",
            )
            assert "queries/s" in run(work / "serve", 100, 2, 3, env=bare)

        block = re.search(r"^```c\n(.*?)^```$", (repository / "README.md").read_text(), re.M | re.S)
        if block:
            head, body = block[1].split("\n\n", 1)
            (work / "block.c").write_text(AROUND % (head, body))
            run(cc, "-std=c11", work / "block.c", *flags, "-o", work / "block")
            assert run(work / "block", env=environment) == "4096 4096\n", "the README's block of C"

        options = (f"-DEXAMPLE={example}", f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_C_COMPILER={cc}")
        run("cmake", "-S", repository / "tests" / "install", "-B", work / "build", *options)
        run("cmake", "--build", work / "build")
        check_program("the CMake package", work / "build" / "score", environment)
        if archive.exists():
            check_program("the CMake package, static", work / "build" / "score_static", dict(os.environ))
        check_uninstall(repository, build, work / "uninstall")
    print(f"check_install: lik {version} found by pkg-config and CMake, header alone as C11 and C++17")
    return 0


if __name__ == "__main__":
    sys.exit(main())
