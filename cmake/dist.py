#!/usr/bin/env python3
"""What a release consists of, in dist/: `make dist`.

    dist.py [--source]      --source: the source archive alone, in seconds

The commit that is checked out, and nothing else of the tree, becomes a source archive; from
that archive a wheel for this platform is built, as `make wheels` does it; SHA256SUMS has both.
All of it is made twice, in folders of different names, and must have the same bytes: dates are
the commit's, or SOURCE_DATE_EPOCH's."""

import argparse
import hashlib
import os
import platform
import shutil
import sys
import tarfile
from pathlib import Path

import wheels
from wheels import DIST, ROOT, run

WORK = ROOT / "build/dist"


def here() -> str:
    """The platform of wheels.PLATFORMS that this machine is."""
    processor = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    libc = "manylinux_2_28" if platform.libc_ver()[0] == "glibc" else "musllinux_1_2"
    names = {
        "linux": f"{libc}_{processor}",
        "darwin": f"macosx_11_0_{platform.machine()}",
        "win32": f"win_{platform.machine().lower()}",
    }
    name = names.get(sys.platform, sys.platform)
    if name not in wheels.PLATFORMS:
        sys.exit(f"dist: no wheel is made for {name}, there are {', '.join(wheels.PLATFORMS)}")
    return name


def sdist(folder: Path, commit: str, bin_folder: Path) -> Path:
    """The commit's files, and the archive that the build backend makes of them."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tree").mkdir(parents=True)
    run("git", "archive", "--output", folder / "tree.tar", commit)
    with tarfile.open(folder / "tree.tar") as archive:
        archive.extractall(folder / "tree", filter="data")
    run(
        bin_folder / "python", "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, folder / "tree"
    )
    (made,) = folder.glob("*.tar.gz")
    return made


def wheel(source: Path, bin_folder: Path, compiler: str) -> Path:
    """From the archive alone, which shows that it is complete."""
    folder = source.parent / "unpacked"
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return wheels.build(here(), bin_folder, compiler, root, source.parent / "wheel")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", action="store_true", help="the source archive alone")
    arguments = parser.parse_args()
    commit, date = run("git", "log", "-1", "--format=%H %ct").split()
    os.environ.setdefault("SOURCE_DATE_EPOCH", date)
    if run("git", "status", "--porcelain"):
        print("dist: the tree differs from the commit, which alone is packed")
    bin_folder = wheels.tools()
    compiler = "" if arguments.source else wheels.zig(bin_folder)
    if not arguments.source:
        wheels.headers()
    rounds = []
    for name in ("once", "and again"):
        made = [sdist(WORK / name, commit, bin_folder)]
        if not arguments.source:
            made.append(wheel(made[0], bin_folder, compiler))
        rounds.append(made)
    for first, second in zip(*rounds, strict=True):
        if first.name != second.name or first.read_bytes() != second.read_bytes():
            sys.exit(f"dist: {first} and {second} differ: the build is not reproducible")
    if not arguments.source:
        wrong = wheels.inspect(rounds[0][1], here(), bin_folder)
        if wrong:
            sys.exit(f"dist: {rounds[0][1].name}: {'; '.join(wrong)}")
    DIST.mkdir(exist_ok=True)
    lines = []
    for path in rounds[0]:
        shutil.copyfile(path, DIST / path.name)
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, the same bytes twice")
    (DIST / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
