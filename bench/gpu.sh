#!/bin/sh
# Runs the CUDA benchmark: `make bench-gpu`. Builds the library (build/cuda) and the package with its CUDA backend
# (build/gpu-package), fetches the peers into a folder of their own (build/gpu-peers: upstream's import name is the
# package's), then calls bench/gpu.py with the arguments given (merging: a table may take several calls, and what was
# measured on the same day stays), bench/ceiling.py and tests/gpu/staged.py, and writes bench/results/gpu-<date>.json, its
# plot and the table of docs/performance.md. LIK_BENCH_ONLY=table leaves the last two out. Needs an NVIDIA GPU, nvcc, and a python3 (or PYTHON) with a torch for CUDA and matplotlib.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
python=${PYTHON:-python3}
cmake --preset cuda >/dev/null
cmake --build --preset cuda -j "$(nproc)" >/dev/null
[ -d build/gpu-package ] || "$python" -m pip install --quiet --no-deps --target build/gpu-package \
    -Ccmake.define.LIK_CUDA=ON .
[ -d build/gpu-peers ] || "$python" -m pip install --quiet --no-deps --target build/gpu-peers \
    late-interaction-kernels==0.4.3 flash-maxsim==0.3.0
out=bench/results/gpu-$(date +%Y-%m-%d).json
mkdir -p bench/results
PYTHONPATH=build/gpu-peers "$python" bench/gpu.py --lib build/cuda/liblik.so --package build/gpu-package --merge "$out" "$@"
if [ "${LIK_BENCH_ONLY:-}" != table ]; then
    "$python" bench/ceiling.py --package build/gpu-package --peers build/gpu-peers --out "$out" || echo "that failed; the rest goes on" >&2
    "$python" tests/gpu/staged.py --lik build/cuda/lik --out "$out" || echo "that failed; the rest goes on" >&2
fi
exec "$python" bench/gpu_report.py "$out"
