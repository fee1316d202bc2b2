"""Which GPUs a build is for: configures with an nvidia-smi that answers what a case says, and
looks at the output.

Usage: check_archs.py REPOSITORY. Needs nvcc.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ALL = "75-real;80-real;86-real;89-real;90a-real;100a-real;120"
CPU, EVERY = "but no GPU: not built", "no GPU here, so it is built for every one"
NONE = "echo No devices were found; exit 6"

# What nvidia-smi does, CMake options, environment -> what is said.
CASES = [
    ("echo 9.0", [], {}, ["for 90a-real\n"]),
    ("printf '9.0\\n8.6\\n9.0\\n12.0\\n'", [], {}, ["for 90a-real;86-real;120\n"]),
    ("printf '8.7\\n10.3\\n'", ["-DLIK_CUDA=ON"], {}, ["for 87-real;103-real\n"]),
    ("printf '7.0\\n7.5\\n'", [], {}, ["7.0 is too old", "for 75-real\n"]),
    ("echo 6.1", [], {}, ["6.1 is too old", CPU]),
    (NONE, [], {}, [CPU]),
    ("echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2", [], {}, [CPU]),
    (NONE, ["-DLIK_CUDA=ON"], {}, [EVERY, f"for {ALL}\n"]),
    (NONE, ["-DLIK_CUDA_ARCHS=all"], {}, [f"for {ALL}\n"]),
    (NONE, [], {"LIK_CUDA_ARCHS": "all"}, [f"for {ALL}\n"]),
    ("echo 8.0", [], {"LIK_CUDA_ARCHS": "90a-real"}, ["for 90a-real\n"]),
    ("echo 8.0", ["-DLIK_CUDA_ARCHS=75-real;80-real"], {}, ["for 75-real;80-real\n"]),
    ("echo 8.0", ["-DLIK_CUDA=OFF"], {}, []),
]


def main() -> int:
    wrong = 0
    for answer, options, environment, wanted in CASES:
        with tempfile.TemporaryDirectory(prefix="lik-archs-") as name:
            tool = Path(name) / "nvidia-smi"
            tool.write_text(f"#!/bin/sh\n{answer}\n")
            tool.chmod(0o755)
            path = f"{name}{os.pathsep}{os.environ['PATH']}"
            inherited = {k: v for k, v in os.environ.items() if k != "LIK_CUDA_ARCHS"}
            command = ["cmake", "-S", sys.argv[1], "-B", f"{name}/build", "-DLIK_BUILD_TESTS=OFF", *options]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env={**inherited, **environment, "PATH": path},
                check=False,
            )
            said = [line + "\n" for line in done.stdout.splitlines() if "CUDA backend" in line]
            if done.returncode or len(said) != len(wanted) or any(w not in s for w, s in zip(wanted, said)):
                wrong += 1
                print(f"FAILED: nvidia-smi: {answer}; {options} {environment}: wanted {wanted}")
                print(done.stdout + done.stderr)
    print(f"check_archs: {len(CASES)} cases, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
