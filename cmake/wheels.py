#!/usr/bin/env python3
"""Builds a wheel for every platform on this one, and inspects them: `make wheels`.

    wheels.py [PLATFORM ...]        default: all; wheels go to dist/
    wheels.py FILE.whl ...          looks at wheels that were made otherwise, such as with CUDA

One wheel a platform serves every Python from 3.11 on (abi3). It holds the CPU library, whose
levels are chosen where it runs, and the `lik` command. The compiler is the PyPI package
ziglang, in .venv-wheels, which this script makes.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-wheels"
PINS = ROOT / "cmake/wheels.txt"
DIST = ROOT / "dist"
MOST_BYTES = 5_000_000
MOST_BYTES_CUDA = 100_000_000  # what PyPI takes

# platform tag -> zig's target. The numbers are the oldest system that a wheel is for.
PLATFORMS = {
    "manylinux_2_28_x86_64": "x86_64-linux-gnu.2.28",
    "manylinux_2_28_aarch64": "aarch64-linux-gnu.2.28",
    "musllinux_1_2_x86_64": "x86_64-linux-musl",
    "musllinux_1_2_aarch64": "aarch64-linux-musl",
    "win_amd64": "x86_64-windows-gnu",
    "macosx_11_0_arm64": "aarch64-macos.11.0",
    "macosx_11_0_x86_64": "x86_64-macos.11.0",
}

# The libraries that a file of a wheel asks for.
NEEDED = """
import io, sys, zipfile
from elftools.elf.elffile import ELFFile
elf = ELFFile(io.BytesIO(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2])))
print(*(tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")))
"""


def run(*command: object, **environment: str) -> str:
    """Its output; an error shows it and ends all."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}\nwheels: failed with {done.returncode}")
    return done.stdout


def tools() -> Path:
    """The folder of the environment's programs, made anew when a pin changes."""
    stamp, wanted = VENV / "requirements.stamp", PINS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", PINS)
        stamp.write_text(wanted)
    return VENV / "bin"


def zig(bin_folder: Path) -> str:
    return (
        run(
            bin_folder / "python", "-c", "import ziglang, os; print(os.path.dirname(ziglang.__file__))"
        ).strip()
        + "/zig"
    )


def headers() -> Path:
    """This Python's headers without pyconfig.h, which is this platform's."""
    folder = ROOT / "build/wheels/headers"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        sysconfig.get_path("include"), folder, ignore=shutil.ignore_patterns("pyconfig.h", "internal")
    )
    return folder


def build(
    platform: str, bin_folder: Path, compiler: str, source: Path = ROOT, folder: Path | None = None
) -> Path:
    """NAME-VERSION-cp311-abi3-PLATFORM.whl of `source`, made in `folder`."""
    folder = folder or ROOT / "build/wheels" / platform
    made = folder / "made"
    shutil.rmtree(made, ignore_errors=True)
    defines = {
        "LIK_CUDA": "OFF",
        "LIK_WERROR": "ON",
        "CMAKE_TOOLCHAIN_FILE": source / "cmake/zig.cmake",
        "LIK_ZIG": compiler,
        "LIK_ZIG_TARGET": PLATFORMS[platform],
        "LIK_PYTHON_HEADERS": ROOT / "build/wheels/headers",
    }
    run(
        *(bin_folder / "python", "-m", "build", "--wheel", "--no-isolation", "--outdir", made, source),
        *(f"-Ccmake.define.{key}={value}" for key, value in defines.items()),
        f"-Cbuild-dir={folder}/cmake",
        PATH=f"{bin_folder}:{os.environ['PATH']}",
    )
    (wheel,) = made.glob("*.whl")
    # The backend names the platform that it runs on.
    tagged = run(bin_folder / "wheel", "tags", "--remove", "--platform-tag", platform, wheel).split()[-1]
    return made / tagged


def inspect(wheel: Path, platform: str, bin_folder: Path) -> list[str]:
    """What is wrong with a wheel."""
    wrong, windows = [], platform.startswith("win")
    package = "late_interaction_kernels/"
    module = package + ("_native.pyd" if windows else "_native.abi3.so")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        tag = next(archive.read(n).decode() for n in names if n.endswith(".dist-info/WHEEL"))
        cuda = module in names and b".nv_fatbin" in archive.read(module)  # the name of a section
    for part in (module, package + ("_bin/lik.exe" if windows else "_bin/lik")):
        if part not in names:
            wrong.append(f"{part} is not in it")
    wrong += [
        f"{n} does not belong in it" for n in names if n.endswith((".pdb", ".lib", ".a", ".h", ".dylib"))
    ]
    if f"Tag: cp311-abi3-{platform}" not in tag.splitlines() or "Root-Is-Purelib: false" not in tag:
        wrong.append(f"its tags are\n{tag}")
    most = MOST_BYTES_CUDA if cuda else MOST_BYTES
    if wheel.stat().st_size > most:
        wrong.append(f"it has {wheel.stat().st_size} bytes, more than {most}")
    run(bin_folder / "abi3audit", "--strict", "--assume-minimum-abi3", "3.11", wheel)
    if platform.startswith("manylinux"):
        shown = run(bin_folder / "auditwheel", "show", wheel).replace("\n", " ")
        processor = platform.split("_", 3)[3]
        if not any(f"manylinux_2_{minor}_{processor}" in shown for minor in range(5, 29)):
            wrong.append(shown)
    if platform.startswith("musllinux"):  # whose libc auditwheel looks for among this system's
        needed = run(bin_folder / "python", "-c", NEEDED, wheel, package + "_native.abi3.so").split()
        if needed != ["libc.so"]:
            wrong.append(f"it needs {needed}")
    return wrong


def main() -> int:
    wanted = sys.argv[1:] or list(PLATFORMS)
    for name in wanted:
        if name not in PLATFORMS and not (name.endswith(".whl") and Path(name).is_file()):
            sys.exit(f"wheels: {name!r} is neither a wheel nor a platform: {', '.join(PLATFORMS)}")
    bin_folder = tools()
    compiler, failed = zig(bin_folder), 0
    headers()
    for name in wanted:
        given = name.endswith(".whl")
        platform = Path(name).stem.split("-", 4)[4] if given else name
        if given:
            wheel = Path(name)
        else:
            made = build(platform, bin_folder, compiler)
            DIST.mkdir(exist_ok=True)
            wheel = Path(shutil.move(made, DIST / made.name))
        wrong = inspect(wheel, platform, bin_folder)
        print(
            f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, " + ("; ".join(wrong) or "sound"), flush=True
        )
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
