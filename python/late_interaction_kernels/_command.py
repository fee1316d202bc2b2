"""The ``lik`` command that came with the package, and the console script that starts it."""

from __future__ import annotations

import os
import subprocess
import sys

WINDOWS = sys.platform == "win32"
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "lik.exe" if WINDOWS else "lik")


def run(*arguments: str) -> str:
    """What the command prints.

    Raises:
        RuntimeError: there is none in this build, or it fails.
    """
    if not os.path.exists(PATH):
        raise RuntimeError(
            f"this build has no lik command ({PATH} is not there): build the wheel with LIK_BUILD_CLI=ON"
        )
    kept = {k: v for k, v in os.environ.items() if k not in ("LIK_STAGED", "COLUMNS")}
    done = subprocess.run(
        [PATH, *arguments, "--quiet", "--color", "never"], capture_output=True, env=kept, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace").strip())
    return done.stdout.decode()


def main() -> None:
    """The console script: becomes the command, or where no process can, waits for it."""
    if not os.path.exists(PATH):
        sys.exit(f"lik: error: this build has no command: {PATH} is not there")
    if WINDOWS:
        sys.exit(subprocess.call([PATH, *sys.argv[1:]]))
    os.execv(PATH, ["lik", *sys.argv[1:]])
