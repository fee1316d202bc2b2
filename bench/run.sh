#!/bin/sh
# Runs the CPU benchmark, on Linux and macOS: makes its virtual environment (.venv-bench), builds the library into
# build/release and the peak loops into build/bench, then calls bench/bench.py, or bench/levels.py if the first is `levels`,
# with the arguments given. PYTHON and CC choose the programs.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
venv=$root/.venv-bench
if ! cmp -s bench/requirements.txt "$venv/requirements.txt"; then
    "${PYTHON:-python3}" -m venv --clear "$venv"
    # torch first: its CPU build, before anything can ask for another.
    "$venv/bin/pip" install --quiet "$(grep '^torch==' bench/requirements.txt)"
    "$venv/bin/pip" install --quiet -r bench/requirements.txt
    # Upstream's Python name is the one of this project's package: into a folder of its own, without its dependencies.
    "$venv/bin/pip" install --quiet --no-deps --target "$venv/upstream" late-interaction-kernels==0.4.3
    cp bench/requirements.txt "$venv/requirements.txt"
fi
cmake -S . -B build/release -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build build/release --target lik --parallel 2 >/dev/null
mkdir -p build/bench
"${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -shared -fPIC -pthread -o build/bench/libpeak.so bench/peak.c
if [ "${1:-}" = levels ]; then
    shift
    exec "$venv/bin/python" bench/levels.py "$@"
fi
exec "$venv/bin/python" bench/bench.py --upstream "$venv/upstream" "$@"
