"""Faults that are planted into the kernels' source, each with the check that must catch it.

`old` stands once in `file` of src/metal (or `count` times, all of which are replaced). `build`
names a program of run.py, `arguments` what it is called with; its exit status must not be 0 and
its output must match `caught`.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    build: str
    arguments: str
    caught: str
    count: int = 1


SCORE = "score --quick"
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);\n"
RACES = "schedules --schedule 0 --case"

FAULTS = (
    Fault(
        "no barrier between loading the tiles and multiplying them",
        "score.metal",
        "load_columns<T, KIND>(args, s, from, columns);\n        " + BARRIER,
        "load_columns<T, KIND>(args, s, from, columns);\n",
        "races",
        f"{RACES} 240",
        "RACE in threadgroup memory",
    ),
    Fault(
        "the same, as ThreadSanitizer sees it",
        "score.metal",
        "load_columns<T, KIND>(args, s, from, columns);\n        " + BARRIER,
        "load_columns<T, KIND>(args, s, from, columns);\n",
        "threads",
        "--threads schedules --schedule 0 --case 240",
        "ThreadSanitizer: data race",
    ),
    Fault(
        "no barrier between multiplying a slice and loading the next",
        "score.metal",
        "        }\n        " + BARRIER + "    }\n    for (uint c",
        "        }\n    }\n    for (uint c",
        "races",
        f"{RACES} 240",
        "RACE in threadgroup memory",
    ),
    Fault(
        "no barrier between storing a simdgroup's products and reading them",
        "score.metal",
        "PRODUCT_STRIDE);\n    simdgroup_barrier(mem_flags::mem_threadgroup);",
        "PRODUCT_STRIDE);",
        "races",
        f"{RACES} 240",
        "RACE in threadgroup memory",
    ),
    Fault(
        "a barrier that orders no threadgroup memory",
        "score.metal",
        "combine(s, columns, best);\n        " + BARRIER,
        "combine(s, columns, best);\n        threadgroup_barrier(mem_flags::mem_none);\n",
        "races",
        f"{RACES} 240",
        "RACE in threadgroup memory",
    ),
    Fault(
        "no barrier between two steps of a sort",
        "select.metal",
        "                }\n                " + BARRIER,
        "                }\n",
        "races",
        f"{RACES} 241",
        "RACE in threadgroup memory",
    ),
    Fault(
        "threadgroup memory of halves that is taken for integers",
        "score.metal",
        "LIK_THREADGROUP(int, columns, LIK_METAL_COLUMNS *COLUMN_STRIDE);",
        "LIK_THREADGROUP(half, halves, LIK_METAL_COLUMNS *COLUMN_STRIDE * 2);"
        "threadgroup int *columns = (threadgroup int *)halves;",
        "sanitized",
        f"{RACES} 240",
        "misaligned address",
    ),
    Fault(
        "two simdgroups that write one row",
        "tokens.metal",
        "long(group) * LIK_METAL_SIMDS + simd; row < args.rows;",
        "long(group) * LIK_METAL_SIMDS + simd / 2; row < args.rows;",
        "races",
        f"{RACES} 242",
        "RACE in device memory",
    ),
    Fault(
        "a barrier that half of the threads come to",
        "score.metal",
        "load_columns<T, KIND>(args, s, from, columns);\n        " + BARRIER,
        "load_columns<T, KIND>(args, s, from, columns);\n        if (s.simd < 2)\n            " + BARRIER,
        "plain",
        SCORE,
        "EMULATOR (is stuck|found a divergent barrier)",
    ),
    Fault(
        "a vote that not all lanes take part in",
        "grad.metal",
        "for (uint votes = votes_for(named); votes != 0; votes &= votes - 1) {\n"
        "            long met = n + ctz(votes);",
        "for (uint votes = named ? votes_for(named) : 0; votes != 0; votes &= votes - 1) {\n"
        "            long met = n + ctz(votes);",
        "plain",
        "grad --quick",
        "EMULATOR (is stuck|found a divergent barrier)",
    ),
    Fault(
        "matrices that only some lanes load",
        "score.metal",
        "simdgroup_load(row, rows + s.simd * ROWS_EACH * ROW_STRIDE + k + e, ROW_STRIDE);",
        "if (s.lane != 31)\n"
        "                simdgroup_load(row, rows + s.simd * ROWS_EACH * ROW_STRIDE + k + e, ROW_STRIDE);",
        "plain",
        SCORE,
        "EMULATOR found a simdgroup whose lanes did different things together",
    ),
    Fault(
        "documents that are not transposed",
        "score.metal",
        "ulong2(0, 0),\n                                   true);",
        "ulong2(0, 0),\n                                   false);",
        "plain",
        SCORE,
        "expected",
    ),
    Fault(
        "a tile whose tail is not filled with zeros",
        "score.metal",
        "            load_four<KIND>(args.d, s.d, p, from + k, four);\n        }",
        "            load_four<KIND>(args.d, s.d, p, from + k, four);\n        } else {\n"
        "            continue;\n        }",
        "plain",
        SCORE,
        "is nan, expected",
    ),
    Fault(
        "four elements read where fewer are left",
        "tokens.metal",
        "x.quads != 0 && k + 4 <= x.dim",
        "x.quads != 0",
        "plain",
        "bounds",
        "FAILED bounds: between tokens",
    ),
    Fault(
        "rows read one past the tile",
        "score.metal",
        "rows + s.simd * ROWS_EACH * ROW_STRIDE + k + e",
        "rows + (s.simd * ROWS_EACH + 1) * ROW_STRIDE + k + e",
        "sanitized",
        f"{RACES} 240",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    Fault(
        "sequences that are found by the stride of tokens",
        "tokens.metal",
        "return i * strides.sequence + t * strides.token;",
        "return (i * x.len_max + t) * strides.token;",
        "plain",
        SCORE,
        "CRASHED|expected",
    ),
    Fault(
        "32-bit places",
        "tokens.metal",
        "return i * strides.sequence + t * strides.token;",
        "return int(i * strides.sequence + t * strides.token);",
        "plain",
        "bounds",
        "CRASHED|expected",
    ),
    Fault(
        "sequences whose number is not looked at",
        "tokens.metal",
        "s.valid = i >= 0 && i < x.count;",
        "s.valid = i >= 0;",
        "plain",
        "bounds",
        "CRASHED|FAILED",
    ),
    Fault(
        "offsets that are not looked at",
        "tokens.metal",
        "begin >= 0 && begin <= end && end <= x.total && end - begin <= x.len_max",
        "begin >= 0 && begin <= end && end <= x.total",
        "plain",
        "bounds",
        "FAILED",
    ),
    Fault(
        "dropped tokens that count",
        "score.metal",
        "if (s.column_kept[s.lane] == 0)\n        return;",
        "if (t < 0)\n        return;",
        "plain",
        SCORE,
        "expected",
    ),
    Fault(
        "of equals the last",
        "score.metal",
        "    return t < u;",
        "    return t > u;",
        "plain",
        SCORE,
        "is the same|expected",
    ),
    Fault(
        "a NaN that is lost",
        "score.metal",
        "    if (nan_a != nan_b)\n        return nan_a;",
        "    if (nan_a != nan_b)\n        return nan_b;",
        "plain",
        "special --quick",
        "expected|FAILED",
    ),
    Fault(
        "the k best with ties to the higher document",
        "select.metal",
        "return ulong(smallest ? order : ~order) << 32 | document;",
        "return ulong(smallest ? order : ~order) << 32 | (document ^ 3u);",
        "plain",
        "topk --quick",
        "FAILED",
    ),
    Fault(
        "gradients without the first token",
        "grad.metal",
        "in.column + mine * in.column_step, own.t) >= 0;",
        "in.column + mine * in.column_step, own.t) > 0;",
        "plain",
        "grad --quick",
        "FAILED",
    ),
    Fault(
        "an address in no space",
        "grad.metal",
        "put_gradient(constant lik_metal_grad &args, device uchar *out, long at, float value)",
        "put_gradient(constant lik_metal_grad &args, uchar *out, long at, float value)",
        "spaces",
        "",
        "no matching function for call to 'put_gradient'",
    ),
    Fault(
        "a buffer at another's place",
        "grad.metal",
        "LIK_BUFFER(device const ulong *, keys, LIK_AT_KEYS)",
        "LIK_BUFFER(device const ulong *, keys, LIK_AT_MORE_KEYS)",
        "plain",
        "grad --quick",
        r"EMULATOR lik_grad\w* declares buffers",
    ),
)
