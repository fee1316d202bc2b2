#!/bin/sh
# Builds the fuzz target with clang and runs it on the seed corpus.
#     tests/fuzz/run.sh [SECONDS] [WORK_DIR]        default: 60 seconds, ./build-fuzz
# Exits non-zero on a finding; the input that caused it is left in WORK_DIR.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
seconds=${1:-60}
work=${2:-build-fuzz}
mkdir -p "$work/found"
${CC:-clang} -std=gnu11 -g -O1 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
    -I"$root/src" -I"$root/include" "$root/tests/fuzz/fuzz_io.c" "$root"/src/io/*.c "$root/src/base/error.c" \
    "$root/src/core/views.c" -o "$work/fuzz_io"
${PYTHON:-python3} "$root/tests/fuzz/make_corpus.py" "$work/corpus"
cd "$work"
exec ./fuzz_io -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=2048 -malloc_limit_mb=1024 -print_final_stats=1 \
    found corpus
