#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU: `make test-gpu`, `make test-gpu ARGS=--quick`.
#
# Builds build/cuda (or takes what LIK_GPU_BUILD names), then, on the kernels of this GPU and on those of sm_80 and sm_75
# (LIK_CUDA_ARCH): the C check suite over guarded device memory, the problems of tests/gpu/check.py against torch in f64,
# all four tools of compute-sanitizer over the check suite's small problems, the command's way through the GPU in pieces
# (tests/gpu/staged.py), and what the machine code is made of; last the package's CUDA tests and those of the existing
# package, if this one is installed. A missing tool is a failure. Closes with `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/../.."
quick=
[ "${1:-}" = --quick ] && quick=--quick
build=${LIK_GPU_BUILD:-build/cuda}
python=${PYTHON:-python3}
passed=0 failed=0 skipped=0

step() { # NAME COMMAND...: counts one test
    local name=$1 start=$SECONDS
    shift
    echo "--- $name: $*"
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name"
    fi
    echo "    $name: $((SECONDS - start)) s"
}

sanitize() { # TOOL: no errors, and something ran
    local log
    log=$(compute-sanitizer --tool "$1" --error-exitcode 9 "$build/tests/lik_check" --device cuda:0 --quick score topk grad codec quantize 2>&1)
    local status=$?
    echo "$log" | tail -n 6
    [ $status -eq 0 ] && grep -q 'ERROR SUMMARY: 0 errors\|RACECHECK SUMMARY: 0 hazards' <<<"$log" &&
        grep -q '[1-9][0-9]* operations ran on the GPU' <<<"$log"
}

[ -n "${LIK_GPU_BUILD:-}" ] || { cmake --preset cuda && cmake --build --preset cuda -j "$(nproc)"; } || exit 1
for arch in "" 80 75; do
    export LIK_CUDA_ARCH=$arch
    less=${arch:+--quick}
    step "check suite sm_${arch:-native}" "$build/tests/lik_check" --device cuda:0 ${quick:-$less} score topk grad invariance codec quantize
    step "problems sm_${arch:-native}" "$python" tests/gpu/check.py --lib "$build/liblik.so" \
        --seconds $([ -n "$quick$arch" ] && echo 12 || echo 90) $([ -n "$arch" ] && echo --only special,random,topk)
done
unset LIK_CUDA_ARCH
LIK_CHECK=1 step "problems with LIK_CHECK=1" "$python" tests/gpu/check.py --lib "$build/liblik.so" --only refused,topk
for tool in memcheck racecheck initcheck synccheck; do
    export LIK_CHECK_RAW=$([ $tool = initcheck ] && echo 1)
    step "$tool" sanitize $tool
    LIK_CUDA_ARCH=80 step "$tool sm_80" sanitize $tool
done
unset LIK_CHECK_RAW
step "pieces" "$python" tests/gpu/staged.py --lik "$build/lik" --gb $([ -n "$quick" ] && echo 1 || echo 4)
step "machine code" "$python" tests/check_objects.py sass "$build/liblik.so"
if "$python" -c 'import late_interaction_kernels._native as n, sys; sys.exit(not n.has_device(0))' 2>/dev/null; then
    step "package" "$python" -m pytest -q tests/python/test_cuda*.py tests/python/test_retrieve.py
    PYTHON=$python step "the existing package's tests" tests/upstream/run.py # LIK_UPSTREAM_SDIST without a network
else
    skipped=$((skipped + 1))
    echo "skipped: the package with a CUDA backend is not installed"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
