#!/bin/sh
# Builds the fuzz targets with clang, replays what was found before, and fuzzes each from its seeds, two at a time.
#     tests/fuzz/run.sh [SECONDS] [WORK_DIR] [TARGET ...]      default: 60 seconds each, ./build-fuzz, all targets
# The seed is 1, so that a commit that passed here passes elsewhere; SEED=N in the environment for another hunt.
# A target is a file fuzz_NAME.c with lines that say what it is made of:
#     // sources: FILES       relative to the repository; a file *_LEVEL.c is for that level
#     // flags: FLAGS         more of them, for the compiler and the linker; optional
# Seeds come from make_corpus.py, old finds lie in finds/fuzz_NAME/. Exits non-zero on a finding; the input that caused it
# is left in WORK_DIR/fuzz_NAME/. WORK_DIR/report.xml has one case a target.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

note() {
    sed -n "s,^// $1: ,,p" "$here/$target.c"
}

# `set -e` does not hold in these two, since their status is asked for.
build() {
    sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"
    objects=
    mkdir -p "$work/$target/found" "$work/$target/objects" "$work/corpus/$target"
    cd "$root"
    for source in "tests/fuzz/$target.c" $(note sources); do
        level=
        case $(uname -m)/$source in
        x86_64/*_avx2.c | x86_64/*_avxvnni.c) level="-mavx2 -mfma -mf16c" ;;
        x86_64/*_avx512*.c | x86_64/*_amx.c) level="-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl" ;;
        */*_avx*.c | */*_amx.c) continue ;;
        aarch64/*_neondot.c) level="-march=armv8.2-a+dotprod" ;;
        aarch64/*_neoni8mm.c) level="-march=armv8.2-a+dotprod+i8mm" ;;
        aarch64/*_neonbf16.c) level="-march=armv8.2-a+dotprod+i8mm+bf16" ;;
        aarch64/*_neon.c) ;;
        */*_neon*.c | */*_simd128.c) continue ;;
        esac
        object=$work/$target/objects/$(echo "$source" | tr / -).o
        ${CC:-clang} -std=gnu11 -g -O1 -D_GNU_SOURCE -ffp-contract=off $sanitize -fsanitize=fuzzer-no-link $level \
            -Wno-unused-command-line-argument -I src -I include $(note flags) -c "$source" -o "$object" || return 1
        objects="$objects $object"
    done
    ${CC:-clang} -g $sanitize -fsanitize=fuzzer $objects $(note flags) -lm -lpthread -o "$work/$target/$target"
}

fuzz() {
    cd "$work/$target"
    options="-seed=${SEED:-1} -max_len=4096 -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 -close_fd_mask=2"
    set -- "$here/finds/$target"/*
    if [ -e "$1" ]; then
        "./$target" $options "$@" || return 1
    fi
    "./$target" $options -max_total_time="$seconds" -print_final_stats=1 found "../corpus/$target"
}

if [ "${1:-}" = --one ]; then # how this script calls itself
    seconds=$2 work=$3 target=$4
    if (build && fuzz) >"$work/$target.log" 2>&1; then
        echo "$target: $(grep -E '^stat::number_of_executed_units' "$work/$target.log" | tr -dc 0-9) runs"
        echo "<testcase classname=\"fuzz\" name=\"$target\"/>" >"$work/$target.xml"
    else
        tail -n 50 "$work/$target.log"
        echo "$target: failed, see $work/$target.log"
        echo "<testcase classname=\"fuzz\" name=\"$target\"><failure/></testcase>" >"$work/$target.xml"
    fi
    exit 0
fi

seconds=${1:-60}
mkdir -p "${2:-build-fuzz}"
work=$(cd "${2:-build-fuzz}" && pwd)
[ $# -gt 2 ] && shift 2 || set -- $(cd "$here" && ls fuzz_*.c | sed 's/\.c$//')
rm -f "$work"/fuzz_*.xml "$work/report.xml"
${PYTHON:-python3} "$here/make_corpus.py" "$work/corpus"
printf '%s\n' "$@" | xargs -P 2 -I{} "$0" --one "$seconds" "$work" {}
{ echo "<testsuite>"; cat "$work"/fuzz_*.xml; echo "</testsuite>"; } >"$work/report.xml"
! grep -q "<failure" "$work/report.xml"
