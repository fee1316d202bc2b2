#!/bin/sh
# The host matrix: each pair of PyLate and colpali-engine versions, and sentence-transformers 6, in a virtual environment of
# its own, with the wheel installed, running the checks of this folder and the hosts' own tests of their backend.
#
#   tests/hosts/run.sh [pair ...]        pairs: new v150 v140 v133 st6 (all by default)
#
# LIK_HOSTS_DIR: where the environments live and are kept (default build-hosts), about 1.7 GB each.
# LIK_WHEEL: a wheel to test instead of building one. PYTHON: the interpreter (default python3).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${LIK_HOSTS_DIR:-$root/build-hosts}
python=${PYTHON:-python3}
mkdir -p "$work"

hosts_of() {
    case $1 in
    new) echo "pylate==1.6.0 colpali-engine==0.3.18" ;;
    v150) echo "pylate==1.5.0 colpali-engine==0.3.16" ;;
    v140) echo "pylate==1.4.0 colpali-engine==0.3.12" ;;
    v133) echo "pylate==1.3.3 colpali-engine==0.3.10" ;;
    st6) echo "" ;;
    *) echo "unknown pair: $1" >&2; exit 2 ;;
    esac
}

if [ -z "${LIK_WHEEL:-}" ]; then
    rm -rf "$work/dist"
    "$python" -m pip wheel --quiet --no-deps -Ccmake.define.LIK_CUDA=OFF --wheel-dir "$work/dist" "$root"
    LIK_WHEEL=$(ls "$work"/dist/late_interaction_kernels-*.whl)
fi

for pair in ${*:-new v150 v140 v133 st6}; do
    hosts=$(hosts_of "$pair")
    venv=$work/$pair
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/pip" install --quiet torch==2.13.0
        # PyLate pins an index package that pins torch, colpali-engine asks for torchvision: neither is used for scores.
        [ -z "$hosts" ] || "$venv/bin/pip" install --quiet --no-deps $hosts
        "$venv/bin/pip" install --quiet -r "$here/requirements/$pair.txt"
        touch "$venv/complete"
    fi
    "$venv/bin/pip" install --quiet --no-deps --force-reinstall "$LIK_WHEEL"
    echo "== $pair: $hosts"
    (cd "$here" && "$venv/bin/python" -m pytest -q -p no:cacheprovider .)
    [ "$pair" != new ] || sh "$here/own_tests.sh" "$venv" "$work"
done
