#!/usr/bin/env python3
"""Breaks the library on purpose, one line at a time, and counts what the check suite notices:
`make mutants`.

Each row of MUTANTS is a file, a piece of it that must stand there exactly once, and what stands
there instead. A copy of the sources is built with each, warnings allowed, and the quick suite
runs in the build that watches workspaces; what survives that runs under the sanitizers. A
mutant that the suite does not fail on shows a test that is missing; one that changes nothing
anybody can see belongs to EQUIVALENT, with the reason.

tests/mutants.py [--only TEXT] [--jobs N]        exit status 0: at least 90 of 100 were killed
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
GROUPS = {  # what is likely to kill
    "check.c": "arguments",
    "check_tokens.c": "arguments",
    "tokens.h": "score",
    "npy.c": "files",
    "operand.h": "arguments",
    "argmax.h": "grad",
    "load.c": "score",
    "token.c": "score",
    "train.c": "codec",
    "score_generic.c": "score",
    "driver.h": "score",
    "plan.c": "score",
    "topk.c": "topk",
    "grad.c": "grad",
}
SECONDS = 300  # a suite that takes longer hangs

CHECK, OPERANDS, TOKENS, NPY = (
    "src/core/check.c",
    "src/core/check_tokens.c",
    "src/shared/tokens.h",
    "src/io/npy.c",
)
PLAN, TOPK, GRAD = "src/cpu/plan.c", "src/cpu/topk.c", "src/cpu/grad.c"
OPERAND, LOAD, ARGMAX = "src/shared/operand.h", "src/cpu/load.c", "src/shared/argmax.h"
DRIVER, TOKEN, TRAIN = "src/cpu/driver.h", "src/cpu/token.c", "src/cpu/train.c"
GENERIC = "src/cpu/score_generic.c"

MUTANTS = [
    # ---- bounds off by one, comparisons turned ----
    (OPERANDS, "given < size)", "given <= size)"),
    (OPERANDS, "given > size + 4096", "given > size + 4095"),
    (OPERANDS, "given > size + 4096", "given > size + 4097"),
    (OPERANDS, "i = size; i < given", "i = size + 1; i < given"),
    (OPERANDS, "i = size; i < given", "i = size; i + 1 < given"),
    (OPERANDS, "x->total : extents[i] - 1;", "x->total : extents[i];"),
    (OPERANDS, "i <= x->count; i++", "i < x->count; i++"),
    (OPERANDS, "if (next < last)", "if (next <= last)"),
    (OPERANDS, "next - last > len_max", "next - last >= len_max"),
    (OPERANDS, "next - last > len_max", "next - last > len_max + 1"),
    (OPERANDS, "if (last > x->total)", "if (last >= x->total)"),
    (OPERANDS, "if (last > x->total)", "if (last > x->total + 1)"),
    (OPERANDS, "if (x->total < 0)", "if (x->total < -1)"),
    (OPERANDS, "rows > 0 && !x->data", "rows > 1 && !x->data"),
    (
        OPERANDS,
        "i < sizeof c->reserved / sizeof *c->reserved",
        "i + 1 < sizeof c->reserved / sizeof *c->reserved",
    ),
    (OPERANDS, "x->dtype > LIK_I8", "x->dtype > LIK_I16"),
    (OPERANDS, "x->dim > dim_max", "x->dim >= dim_max"),
    (OPERANDS, "x->dim > dim_max", "x->dim > dim_max + 1"),
    (OPERANDS, "x->len_max > INT32_MAX", "x->len_max >= INT32_MAX"),
    (CHECK, "n > 0 && !list", "n > 1 && !list"),
    (CHECK, "list[i] >= count", "list[i] > count"),
    (CHECK, "want != op->d.count", "want < op->d.count"),
    (CHECK, "want != op->d.count", "want > op->d.count"),
    (CHECK, "if (op->q.count != op->d.count)", "if (op->q.count < op->d.count)"),
    (CHECK, "rows > 1 && op->scores_stride < columns", "rows > 2 && op->scores_stride < columns"),
    (CHECK, "op->d.len_max > INT16_MAX", "op->d.len_max >= INT16_MAX"),
    (CHECK, "op->d.len_max > INT16_MAX", "op->d.len_max > INT16_MAX + 1"),
    (CHECK, "if (out->k < 1)", "if (out->k < 0)"),
    (CHECK, "x->dtype > LIK_BF16", "x->dtype >= LIK_BF16"),
    (CHECK, "t < -1 || t >= length", "t < -2 || t >= length"),
    (CHECK, "t < -1 || t >= length", "t < -1 || t > length"),
    (CHECK, "n < rows * columns", "n + 1 < rows * columns"),
    (CHECK, "s < tokens; s++", "s + 1 < tokens; s++"),
    (CHECK, "out->threads > 4096", "out->threads >= 4096"),
    (CHECK, "out->threads > 4096", "out->threads > 4097"),
    (CHECK, "out->threads > 1 && !out->parallel_for", "out->threads > 2 && !out->parallel_for"),
    # ---- checks removed ----
    (OPERANDS, "if (bytes && (uintptr_t)pointer % bytes)", "if (0)"),
    (OPERANDS, "if (last < 0)", "if (0)"),
    (OPERANDS, "if (x->group_size && x->count % x->group_size)", "if (0)"),
    (OPERANDS, "if (x->group_size)", "if (0)"),
    (OPERANDS, "if (x->offsets_dtype)", "if (0)"),
    (CHECK, "if (x->storage != LIK_DENSE)", "if (0)"),
    (OPERANDS, "% (size_t)array.element_bytes)", "% (size_t)array.element_bytes && n != 2)"),
    (OPERANDS, "strides[i] == INT64_MIN || ", ""),
    (OPERANDS, "&& check_array(name, x, &array))", "&& n != LIK_MASK && check_array(name, x, &array))"),
    (OPERANDS, "&& check_array(name, x, &array))", "&& n != LIK_SCALE && check_array(name, x, &array))"),
    (CHECK, "if (op->d.weights)", "if (0)"),
    (CHECK, "out->id_base < 0 || ", ""),
    (CHECK, "(!out->values || !out->ids)", "!out->values"),
    (CHECK, "if (out->grad_weights && !out->score.q.weights)", "if (0)"),
    (CHECK, " && columns > 0 && !out->scores", " && !out->scores"),
    (CHECK, "!out->score.argmax && out->score.q.len_max > 0", "!out->score.argmax"),
    # ---- wrong operands, sizes and signs ----
    (OPERAND, "x->count / x->group_size : 1;", "x->count / x->group_size : x->count;"),
    (OPERAND, "x->group_size > 0 ? x->group_size : x->count;", "x->count;"),
    (OPERAND, "x->offsets ? 1 : x->group_size > 0", "x->group_size > 0"),
    (OPERANDS, "i == 2 && x->offsets ? x->total : extents[i] - 1", "extents[i] - 1"),
    (OPERANDS, "strides[i] < 0 ? -strides[i] : strides[i]", "strides[i]"),
    (OPERANDS, "lik_add_i64(reach, term, &reach)", "lik_add_i64(0, term, &reach)"),
    (OPERANDS, "lik_mul_i64(reach, array->element_bytes, &term)", "lik_mul_i64(reach, 1, &term)"),
    (OPERANDS, "lik_max_i64(x->len_max, 8)", "lik_max_i64(x->len_max, 1)"),
    (OPERANDS, "8 : x->dim * 4;", "8 : x->dim;"),
    (CHECK, "lik_mul_i64(rows, lik_max_i64(op->scores_stride, columns)", "lik_mul_i64(rows, columns"),
    (CHECK, "lik_mul_i64(entries, 4 * lik_max_i64(", "lik_mul_i64(entries, lik_max_i64("),
    (CHECK, "lik_mul_i64(entries, 16, &entries)", "lik_mul_i64(entries, 8, &entries)"),
    (CHECK, "lik_mul_i64(rows, lik_max_i64(out->grad_scores_stride, columns)", "lik_mul_i64(rows, columns"),
    (CHECK, "t = lik_argmax_at(op, n, s);", "t = lik_argmax_at(op, 0, s);"),
    (
        CHECK,
        'check_list(ctx, "list_d", op->list_d, op->list_count, op->d.count)',
        'check_list(ctx, "list_d", op->list_d, op->list_count, op->q.count)',
    ),
    # ---- regions of the workspace, one entry too small ----
    (PLAN, "plan->lanes * words, 4, 64", "plan->lanes * words - 1, 4, 64"),
    (
        PLAN,
        "lane_bias = lik_layout_take(&slot, plan->lanes",
        "lane_bias = lik_layout_take(&slot, plan->lanes - 1",
    ),
    (
        PLAN,
        "lane_token = lik_layout_take(&slot, plan->lanes",
        "lane_token = lik_layout_take(&slot, plan->lanes - 1",
    ),
    (
        PLAN,
        "lane_weight = lik_layout_take(&slot, plan->lanes",
        "lane_weight = lik_layout_take(&slot, plan->lanes - 1",
    ),
    (PLAN, "block_queries + 1, 8, 64", "block_queries, 8, 64"),
    (
        PLAN,
        "maxima = lik_layout_take(&slot, plan->segments * plan->stride",
        "maxima = lik_layout_take(&slot, plan->segments * plan->stride - 1",
    ),
    (
        PLAN,
        "op->argmax ? plan->segments * plan->stride : 0",
        "op->argmax ? plan->segments * plan->stride - 1 : 0",
    ),
    (PLAN, "sliced * g->panel_lanes, 4", "sliced * g->panel_lanes - (sliced > 0), 4"),
    (
        PLAN,
        "plan->widened_rows * plan->widened_stride, 4",
        "plan->widened_rows * plan->widened_stride - 1, 4",
    ),
    (PLAN, "g->vector_lanes * dim, 4, 64", "g->vector_lanes * dim - 1, 4, 64"),
    (PLAN, "integer ? dim : 0", "integer ? dim - 1 : 0"),
    (PLAN, "(&slot, gathered * dim, loader", "(&slot, gathered * dim - (gathered > 0), loader"),
    (PLAN, "lik_layout_repeat(layout, &slot, plan->slots", "lik_layout_repeat(layout, &slot, 1"),
    (TOPK, "queries, plan->slots * 8, 8", "queries, plan->slots * 8 - 8, 8"),
    (TOPK, "queries * at->heap_k, (plan->slots - 1) * 8", "queries * at->heap_k - 1, (plan->slots - 1) * 8"),
    (TOPK, "queries * at->heap_k, (plan->slots - 1) * 4", "queries * at->heap_k - 1, (plan->slots - 1) * 4"),
    (GRAD, "(layout, q_starts, 8, 64)", "(layout, q_starts - (q_starts > 0), 8, 64)"),
    (
        GRAD,
        "q_order = lik_layout_take(layout, listed,",
        "q_order = lik_layout_take(layout, listed - (listed > 0),",
    ),
    (GRAD, "(layout, d_starts, 8, 64)", "(layout, d_starts - (d_starts > 0), 8, 64)"),
    (
        GRAD,
        "d_order = lik_layout_take(layout, listed,",
        "d_order = lik_layout_take(layout, listed - (listed > 0),",
    ),
    (GRAD, "(&slot, GROUP * score->q.dim, 4, 64)", "(&slot, GROUP * score->q.dim - 1, 4, 64)"),
    (GRAD, "2 * score->q.dim + GROUP, 4", "2 * score->q.dim + GROUP - 1, 4"),
    (GRAD, "(&slot, entries, 8, 64)", "(&slot, entries - (entries > 0), 8, 64)"),
    (GRAD, "score->d.len_max + 2 : 0", "score->d.len_max + 1 : 0"),
    # ---- wrong cuts ----
    (
        PLAN,
        "plan->item_rows = lik_divide_up(rows, plan->rows_per_item)",
        "plan->item_rows = rows / plan->rows_per_item",
    ),
    (
        PLAN,
        "plan->item_columns = lik_divide_up(columns, plan->columns_per_item)",
        "plan->item_columns = columns / plan->columns_per_item",
    ),
    (PLAN, "!d->offsets || d->count == 0", "!d->offsets"),
    (
        PLAN,
        "all = plan->stream_rows + ring",
        "all = plan->stream_rows + ring / 2",
    ),
    (PLAN, "return plan->panels > 1 ? all", "return plan->panels > 2 ? all"),
    (LOAD, "op->precision == LIK_MEDIUM && op->q.dtype != LIK_I8", "op->precision == LIK_MEDIUM"),
    (PLAN, "scratch + plan->lane_token", "scratch + plan->lane_bias"),
    (PLAN, "scratch + plan->winners", "scratch + plan->maxima"),
    (DRIVER, "x->dtype == LIK_F32 && lik_cpu_lies_together(x)", "x->dtype == LIK_F32"),
    # ---- wrong indices ----
    (TOKENS, "(int64_t)((const int32_t *)x->offsets)[i]", "(int64_t)((const uint32_t *)x->offsets)[i]"),
    (TOKENS, "lik_offset_at(x, i + 1) - lik_offset_at(x, i)", "lik_offset_at(x, i) - lik_offset_at(x, i)"),
    (TOKENS, "return lik_offset_at(x, i) * strides->token;", "return i * strides->token;"),
    (TOKENS, "(i / x->group_size) * strides->group", "(i / x->group_size) * strides->sequence"),
    (TOKENS, "(i % x->group_size) * strides->sequence", "(i / x->group_size) * strides->sequence"),
    (TOKENS, "lik_offset_at(x, i) : i * x->len_max", "lik_offset_at(x, i) : i"),
    (TOKENS, "x->offsets ? x->total : x->count * x->len_max", "x->count * x->len_max"),
    (TOKENS, "op->pairing == LIK_CANDIDATES ? op->per_query : 1", "op->per_query"),
    (TOKENS, "op->pairing == LIK_LIST ? op->list_count : op->q.count", "op->q.count"),
    (TOKENS, "op->pairing == LIK_LIST ? op->list_q[row] : row", "row"),
    (TOKENS, "row * op->per_query + column", "column"),
    (TOKENS, "case LIK_PAIRS: return row;", "case LIK_PAIRS: return column;"),
    (TOKENS, "default: return op->list_d[row]", "default: return op->list_q[row]"),
    (TOKENS, "return nan_b;", "return nan_a;"),
    (TOKENS, "smallest ? a < b : a > b", "a > b"),
    (TOKENS, "return id_a < id_b", "return id_a > id_b"),
    (TOKENS, "!nan_a && a != b", "a != b"),
    # ---- files ----
    (NPY, "map->size >= 6", "map->size >= 7"),
    (NPY, "map->size >= 6", "map->size >= 5"),
    (NPY, "*d->at && n + 1 < room", "*d->at && n < room"),
    (NPY, "*d->at && n + 1 < room", "*d->at && n + 2 < room"),
    (NPY, "*d->at && n + 1 < room", "n + 1 < room"),
    (NPY, "quote != '\\'' && quote != '\"'", "quote != '\\''"),
    (NPY, "(size_t)(d->end - d->at) < length", "(size_t)(d->end - d->at) + 1 < length"),
    (NPY, "*d->at <= '9'", "*d->at < '9'"),
    (NPY, "lik_mul_i64(value, 10, &value) || ", "(value *= 10, 0) || "),
    (NPY, "d->at == start || d->rank == LIK_ARRAY_RANK_MAX", "d->rank == LIK_ARRAY_RANK_MAX"),
    (
        NPY,
        "d->at == start || d->rank == LIK_ARRAY_RANK_MAX",
        "d->at == start || d->rank > LIK_ARRAY_RANK_MAX",
    ),
    (
        NPY,
        "d->at == start || d->rank == LIK_ARRAY_RANK_MAX",
        "d->at == start || d->rank + 1 == LIK_ARRAY_RANK_MAX",
    ),
    (NPY, "*d->at == 'L'", "*d->at == 'l'"),
    (NPY, "if (seen & which)", "if (0)"),
    (NPY, "seen != 7", "seen < 3"),
    (NPY, "return d->at == d->end ? 0 : -1;", "return 0;"),
    (NPY, "descr[0] == '<' || descr[2] == '1'", "1"),
    (NPY, "descr[0] != '<' && descr[0] != '|'", "descr[0] == '>'"),
    (NPY, "map->size < 10", "map->size < 9"),
    (NPY, "version > 3", "version > 4"),
    (NPY, "map->data[7] != 0", "0"),
    (NPY, "version == 1 ? 10 : 12", "10"),
    (NPY, "map->data[8] | map->data[9] << 8", "map->data[8]"),
    (NPY, "map->size >= 12", "map->size >= 13"),
    (NPY, "(int64_t)map->data[11] << 24", "0"),
    (NPY, "map->size < start || ", ""),
    (NPY, "length > map->size - start", "length >= map->size - start"),
    (NPY, "length > map->size - start", "length > map->size"),
    (NPY, "d.fortran && d.rank > 1", "d.fortran && d.rank > 2"),
    (NPY, "d.fortran && d.rank > 1", "d.fortran"),
    (NPY, "array->bytes != held", "array->bytes > held"),
    (NPY, "array->bytes != held", "array->bytes < held"),
    (NPY, 'rank == 1      ? ","', 'rank == 1      ? ""'),
    (NPY, "lik_round_up(at + 1, 64)", "lik_round_up(at + 1, 32)"),
    (NPY, "(char)((total - 10) & 255)", "(char)(total & 255)"),
    (NPY, "text[total - 1] = '\\n'", "text[total - 1] = ' '"),
    # ---- compressed tokens ----
    (OPERANDS, "codes_within(x, base, length, count - 1)", "codes_within(x, base, length, count)"),
    (OPERANDS, "below_32 |= code | ((uint32_t)last - code);", "below_32 |= (uint32_t)last - code;"),
    (LOAD, "takes_residual_i8(op) && op->d.codec->bits <= 4", "takes_residual_i8(op)"),
    (LOAD, "stream->unit[r + i] * sqrtf((float)squares[i])", "sqrtf((float)squares[i])"),
    (LOAD, "token, x->dim, decoder->weights_size)", "token, x->dim, 0)"),
    (LOAD, "decoder->weights[n] / to->unit", "decoder->weights[n] * to->unit"),
    (PLAN, "? op->d.codec->centroid_count : 0,", "? op->d.codec->centroid_count - 1 : 0,"),
    (TOKEN, "decoder->top_first ? lik_reversed_bits(n, codec->bits) : n", "n"),
    (TOKEN, "within = f % (8 / codec->bits)", "within = f"),
    (GENERIC, "limit = room > 0 ? 126 : 127", "limit = room > 0 ? 127 : 126"),
    (TRAIN, "quantile(job, n, 2 * b + 1, 2 * buckets)", "quantile(job, n, b, buckets)"),
    (TRAIN, "quantile(job, n, b + 1, buckets)", "quantile(job, n, b, buckets)"),
]

# The host of the Metal backend, for the tests on the mock (tests/metal).
METAL_DEVICE, METAL_RUN = "src/metal/device.c", "src/metal/run.c"
MUTANTS += [
    (METAL_DEVICE, "#define MATH_SAFE    0 ", "#define MATH_SAFE    2 "),
    (METAL_DEVICE, "lik_objc_release(function);", ""),
    (METAL_DEVICE, "!gpu->library && !gpu->failure[0]", "!gpu->library"),
    (METAL_DEVICE, "if (!gpus[index])", "if (1)"),
    (METAL_DEVICE, "if (width != LIK_METAL_SIMD ||", "if ("),
    (METAL_RUN, "lik_objc_release(r->buffer);", ""),
    (METAL_RUN, "lik_objc_release(run->nothing);", ""),
    (METAL_RUN, "LIK_SEND(plain, run->commands, lik_objc.wait);", ""),
    (METAL_RUN, "r->copied && r->rows > 0)", "r->copied && r->rows > 1)"),
    (METAL_RUN, "(size_t)r->row_bytes);", "(size_t)(r->rows > 1 ? r->row_stride : r->row_bytes));"),
    (METAL_RUN, "r->keep || r->rows == 0", "r->rows == 0"),
    (METAL_RUN, "r->offset + ((const char *)at - r->begin)", "r->offset"),
    (METAL_RUN, "(const char *)begin < low ? begin", "(const char *)begin > low ? begin"),
    (METAL_RUN, "(uintptr_t)r->begin % LINE ||", ""),
    (METAL_RUN, "if (done == COMPLETED)", "if (done)"),
    ("src/metal/backend.c", "lik_metal_reads(run, op->list_d, op->list_count * 8);", ""),
    ("src/metal/backend.c", "op->scores_stride * 4, 0);", "row_bytes, 0);"),
    ("src/metal/objc.c", "&& nobody != self)", "&& 0)"),
]

# (file, text, replacement): why nobody can tell.
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        PLAN,
        "all = plan->stream_rows + ring",
        "all = plan->stream_rows + ring / 2",
    ): "kernels widen at most one tile of rows past the stream; there is room for two",
    (NPY, "map->size < start || ", ""): "a length is never less than the size that is missing",
}

BUILDS = {  # of the copy: the options of the presets dev and asan-clang, without the command
    "guarded": ["-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O1 -g"],
    "sanitized": [
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        "-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O1 -g",
        "-DCMAKE_C_COMPILER=clang",
        "-DLIK_SANITIZE=address,undefined,float-cast-overflow",
    ],
    "metal": ["-DCMAKE_BUILD_TYPE=Release", "-DLIK_METAL=ON"],
}
PROGRAMS = {"metal": "lik_metal_host"}  # else lik_check
SHARED = ["-DLIK_GUARD_WORKSPACE=ON", "-DLIK_CUDA=OFF", "-DLIK_BUILD_CLI=OFF", "-DLIK_WERROR=OFF"]


def copy_sources() -> None:
    """What is as it was keeps its time, and its object; what a stopped run left of a mutant
    does not.
    """
    parts = ("src", "include", "cmake", "tests/check", "tests/inject", "tests/install", "tests/metal")
    files = [path for part in parts for path in (ROOT / part).rglob("*") if path.is_file()]
    files += [ROOT / "CMakeLists.txt", *(ROOT / "tests").glob("*.*")]
    wanted = {TREE / path.relative_to(ROOT): path.read_bytes() for path in files}
    for path in TREE.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
    for path, content in wanted.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def builds_of(file: str) -> list[str]:
    return [name for name in BUILDS if (name == "metal") == file.startswith("src/metal/")]


def build(name: str, jobs: int) -> bool:
    target = PROGRAMS.get(name, "lik_check")
    command = ["cmake", "--build", str(WORK / name), "--target", target, "-j", str(jobs)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return any(subprocess.run(command, **quiet).returncode == 0 for _ in range(2))


def suite(name: str, *groups: str) -> str:
    """The first complaint of the quick suite; "" if it passes."""
    command = [str(WORK / name / "tests/lik_check"), "--quick", *groups]
    if name in PROGRAMS:
        command = [str(WORK / name / "tests" / PROGRAMS[name])]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return f"it takes longer than {SECONDS} s"
    if not done.returncode:
        return ""
    words = ("FAILED", "CRASHED", "ERROR", "runtime error", "mock Metal")
    return next(
        (line for line in done.stdout.splitlines() if any(w in line for w in words)),
        f"exit {done.returncode}",
    )


def verdict(file: str, jobs: int) -> tuple[str, str]:
    """Which build killed the mutant that stands in the tree, and by what; "" if none did."""
    for name in builds_of(file):
        if not build(name, jobs):
            return "NOT BUILT", ""
        complaint = suite(name, *GROUPS.get(Path(file).name, "").split()) or suite(name)
        if complaint:
            return name, complaint
    return "", ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="mutants whose file or text holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--check", action="store_true", help="only see that the table fits the sources")
    options = parser.parse_args()
    for file, text, _ in MUTANTS:
        count = (ROOT / file).read_text().count(text)
        if count != 1:
            sys.exit(
                f"{file}: {text!r} stands there {count} times, must be once: the table of mutants is behind"
            )
    if options.check:
        print(f"{len(MUTANTS)} mutants, each stands where it says")
        return 0
    copy_sources()
    chosen = [row for row in MUTANTS if options.only in row[0] or options.only in row[1]]
    wanted = {name for file, _, _ in chosen for name in builds_of(file)}
    for name, arguments in BUILDS.items():
        if name not in wanted:
            continue
        subprocess.run(
            ["cmake", "-S", str(TREE), "-B", str(WORK / name), *arguments, *SHARED],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        if not build(name, options.jobs) or suite(name):
            sys.exit(f"the suite does not pass in the {name} build without any mutant: {suite(name)}")
    survivors, killed, start = [], 0, time.monotonic()
    for file, text, replacement in chosen:
        path, original = TREE / file, (ROOT / file).read_text()
        line = original[: original.index(text)].count("\n") + 1
        path.write_text(original.replace(text, replacement))
        by, complaint = verdict(file, options.jobs)
        path.write_text(original)
        reason = EQUIVALENT.get((file, text, replacement))
        what = f"{file}:{line}: {text!r} -> {replacement!r}"
        if by == "NOT BUILT":
            sys.exit(f"does not build: {what}")
        killed += bool(by)
        print(f"{'killed by ' + by if by else 'equivalent' if reason else 'SURVIVED':20} {what}")
        print(f"    {complaint[:150] or reason or 'nobody noticed'}", flush=True)
        if not by and not reason:
            survivors.append(what)
        elif by and reason:
            sys.exit(f"named equivalent, but was killed: {what}")
    total = killed + len(survivors)
    for what in survivors:
        print(f"SURVIVED {what}")
    print(f"{killed} of {total} mutants killed, {len(survivors)} survived, {time.monotonic() - start:.0f} s")
    return 0 if total and killed >= 0.9 * total else 1


if __name__ == "__main__":
    sys.exit(main())
