/* Operations, similarities, slices and the search for NaN, for all commands. See engine.h;
 * staged.c is the way that operations take on a GPU. */
#include "engine.h"
#include "staged.h"

#include "base/dtype.h"
#include "base/size.h"
#include "shared/operand.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int on_gpu(const struct engine *engine)
{
    return !strncmp(lik_context_name(engine->library.context), "cuda", 4);
}

void engine_open(struct engine *engine, const struct options *options)
{
    /* for tests: bytes of a piece, and the staged way on every device */
    const char *staged = getenv("LIK_STAGED");
    *engine = (struct engine){0};
    library_open(&engine->library, options);
    if (on_gpu(engine) || (staged && *staged))
        engine->staged = staged_open(&engine->library, staged);
}

const char *engine_workers(const struct engine *engine, char text[48])
{
    int threads = engine->library.threads;
    if (on_gpu(engine))
        snprintf(text, 48, "pieces of %.0f MB", (double)staged_piece_bytes(engine->staged) * 1e-6);
    else if (*lik_context_hardware(engine->library.context))
        snprintf(text, 48, "memory shared");
    else
        snprintf(text, 48, "%d thread%s", threads, threads == 1 ? "" : "s");
    return text;
}

void engine_close(struct engine *engine)
{
    staged_close(engine->staged);
    lik_memory_free(engine->library.context, engine->workspace);
    library_close(&engine->library);
    *engine = (struct engine){0};
}

/* ---- running ---- */

static void accept_plan(struct engine *engine, int status, const struct lik_plan *plan)
{
    library_check(status);
    memcpy(engine->library.variant, plan->variant, sizeof plan->variant);
    if (plan->workspace_bytes <= engine->workspace_bytes)
        return;
    const struct lik_context *context = engine->library.context;
    lik_memory_free(context, engine->workspace);
    engine->workspace_bytes = plan->workspace_bytes;
    if (lik_memory_alloc(context, engine->workspace_bytes, &engine->workspace))
        die(EXIT_EXHAUSTED, "out of memory: %s needs %zu bytes of workspace", plan->variant,
            plan->workspace_bytes);
}

static struct lik_exec exec_of(const struct engine *engine)
{
    struct lik_exec exec = library_exec(&engine->library);
    exec.workspace = engine->workspace;
    exec.workspace_bytes = engine->workspace_bytes;
    return exec;
}

void engine_score(struct engine *engine, const struct lik_score *op)
{
    const struct lik_context *context = engine->library.context;
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = exec_of(engine);
    if (engine->staged) {
        staged_score(engine->staged, op);
        return;
    }
    accept_plan(engine, lik_score_plan(context, op, &exec, &plan), &plan);
    exec = exec_of(engine);
    library_check(lik_score_run(context, op, &exec));
}

void engine_topk(struct engine *engine, const struct lik_topk *op)
{
    const struct lik_context *context = engine->library.context;
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = exec_of(engine);
    if (engine->staged) {
        staged_topk(engine->staged, op);
        return;
    }
    accept_plan(engine, lik_topk_plan(context, op, &exec, &plan), &plan);
    exec = exec_of(engine);
    library_check(lik_topk_run(context, op, &exec));
}

/* Counts the phases of a training run, which are the only thing that is heard of it. */
struct phases {
    struct lik_pool *pool;
    double done, all, tokens;
};

static void run_phase(void *arg, int64_t n, void (*task)(void *arg, int64_t i), void *task_arg)
{
    struct phases *phases = arg;
    lik_pool_parallel_for(phases->pool, n, task, task_arg);
    phases->done = fmin(phases->done + 1, phases->all);
    progress_update(phases->done / phases->all, phases->tokens * phases->done / phases->all);
}

void engine_train(struct engine *engine, const struct lik_train *op)
{
    const struct lik_context *context = engine->library.context;
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = exec_of(engine);
    const double iterations = op->iterations ? op->iterations : 4,
                 points = op->points_per_centroid ? (double)op->points_per_centroid : 256;
    /* placing, an iteration's assignment and new centroids, the residuals */
    struct phases phases = {.pool = engine->library.pool, .all = 2 + 2 * iterations};
    phases.tokens = iterations * fmin(points * (double)op->centroid_count, (double)lik_tokens_rows(&op->x));
    if (engine->staged) {
        staged_train(engine->staged, op);
        return;
    }
    accept_plan(engine, lik_train_plan(context, op, &exec, &plan), &plan);
    exec = exec_of(engine);
    exec.parallel_for = run_phase;
    exec.pool = &phases;
    library_check(lik_train_run(context, op, &exec));
}

void engine_encode(struct engine *engine, const struct lik_encode *op)
{
    const struct lik_context *context = engine->library.context;
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = exec_of(engine);
    if (engine->staged) {
        staged_encode(engine->staged, op);
        return;
    }
    accept_plan(engine, lik_encode_plan(context, op, &exec, &plan), &plan);
    exec = exec_of(engine);
    library_check(lik_encode_run(context, op, &exec));
}

struct lik_tokens tokens_rows(const struct lik_tokens *x, int64_t first, int64_t count)
{
    struct lik_tokens rows = *x;
    rows.count = count;
    rows.len_max = 1;
    rows.offsets = NULL;
    rows.offsets_dtype = 0;
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        if (!array.at || lik_operand_array_is_constant(&array))
            continue;
        struct lik_strides strides = {.sequence = array.strides.token, .token = array.strides.token};
        lik_operand_move(&rows, n,
                         (const char *)array.at + first * array.strides.token * array.element_bytes);
        memcpy((char *)&rows + lik_operand_fields[n].strides, &strides, sizeof strides);
    }
    return rows;
}

int64_t token_bytes(const struct lik_tokens *x)
{
    static const int arrays[] = {LIK_DATA, LIK_SCALE, LIK_CODES};
    int64_t bytes = 0;
    for (size_t n = 0; n < sizeof arrays / sizeof *arrays; n++) {
        struct lik_operand_array array = lik_array_of(x, arrays[n]);
        if (array.at && !lik_operand_array_is_constant(&array))
            bytes += array.inner * array.element_bytes;
    }
    return bytes;
}

const char *storage_name(const struct lik_tokens *x)
{
    static const char *const bits[] = {"centroids", "1-bit", "2-bit", "", "4-bit", "", "", "", "8-bit"};
    return x->storage == LIK_RESIDUAL ? bits[x->codec->bits] : lik_dtype_name(x->dtype);
}

/* The tokens of sequence i as so many sequences of one token, each of which is kept. */
static struct lik_tokens single_tokens(const struct lik_collection *c, int64_t i)
{
    struct lik_tokens x = tokens_rows(&c->tokens, lik_collection_row(c, i, 0), lik_collection_length(c, i));
    x.mask = NULL;
    x.weights = NULL;
    return x;
}

void engine_similarities(struct engine *engine, const struct inputs *inputs, int64_t q, int64_t d, float *out)
{
    struct lik_score op = {.struct_size = sizeof op, .pairing = LIK_ALL, .scores = out};
    op.q = single_tokens(&inputs->queries, q);
    op.d = single_tokens(&inputs->documents, d);
    if (!op.q.count || !op.d.count)
        return;
    engine_score(engine, &op);
    for (int64_t s = 0; s < op.q.count; s++)
        for (int64_t t = 0; t < op.d.count; t++)
            if (!lik_collection_keeps(&inputs->queries, q, s) ||
                !lik_collection_keeps(&inputs->documents, d, t))
                out[s * op.d.count + t] = NAN;
}

struct lik_tokens collection_slice(const struct lik_collection *c, int64_t first, int64_t count)
{
    return tokens_slice(&c->tokens, first, count);
}

/* ---- slices ---- */

double flops_per_row(const struct lik_collection *queries, int64_t first, int64_t count)
{
    int64_t tokens = lik_collection_row(queries, first + count, 0) - lik_collection_row(queries, first, 0);
    return 2 * (double)lik_max_i64(tokens, 1) * (double)queries->tokens.dim;
}

int slicer_next(struct slicer *slicer, int64_t *first, int64_t *count)
{
    const struct lik_collection *d = slicer->documents;
    double now = lik_seconds(), spent = now - slicer->start;
    if (slicer->next == 0)
        slicer->start = now;
    else if (spent > 0)
        slicer->rate = (double)slicer->rows_done * slicer->flops_per_row / spent;
    if (slicer->next >= d->tokens.count)
        return 0;
    double rows = (slicer->rate > 0 ? slicer->rate * 0.25 : 1e9) / slicer->flops_per_row;
    int64_t low = slicer->next, high = d->tokens.count, begin = lik_collection_row(d, low, 0);
    while (low + 1 < high) { /* the most documents that stay within `rows` */
        int64_t middle = low + (high - low) / 2;
        if ((double)(lik_collection_row(d, middle, 0) - begin) <= rows)
            low = middle;
        else
            high = middle;
    }
    int64_t end = high == d->tokens.count && (double)(lik_collection_row(d, high, 0) - begin) <= rows
                      ? high
                      : lik_max_i64(low, slicer->next + 1);
    *first = slicer->next;
    *count = end - slicer->next;
    slicer->next = end;
    slicer->rows_done += lik_collection_row(d, end, 0) - begin;
    return 1;
}

/* ---- NaN ---- */

/* Is there a NaN among n elements? Written as one reduction without branches, which compilers
 * vectorize. */
static int any_nan(const void *data, int32_t dtype, int64_t n)
{
    unsigned found = 0;
    switch (dtype) {
    case LIK_F32:
        for (int64_t i = 0; i < n; i++)
            found |= (((const uint32_t *)data)[i] & 0x7fffffffu) > 0x7f800000u;
        break;
    case LIK_F16:
        for (int64_t i = 0; i < n; i++)
            found |= (((const uint16_t *)data)[i] & 0x7fffu) > 0x7c00u;
        break;
    case LIK_BF16:
        for (int64_t i = 0; i < n; i++)
            found |= (((const uint16_t *)data)[i] & 0x7fffu) > 0x7f80u;
        break;
    case LIK_E4M3:
        for (int64_t i = 0; i < n; i++)
            found |= (((const uint8_t *)data)[i] & 0x7fu) == 0x7fu;
        break;
    case LIK_E5M2:
        for (int64_t i = 0; i < n; i++)
            found |= (((const uint8_t *)data)[i] & 0x7fu) > 0x7cu;
        break;
    default: break;
    }
    return found != 0;
}

#define CHUNK_ROWS 2048

struct nan_scan {
    const struct lik_collection *c;
    int64_t begin, end; /* rows */
    uint8_t *found;     /* one a chunk */
};

static const void *row_data(const struct lik_collection *c, int64_t row)
{
    return (const char *)c->tokens.data + row * c->tokens.dim * (int64_t)lik_dtype_bytes(c->tokens.dtype);
}

static void scan_chunk(void *arg, int64_t i)
{
    struct nan_scan *scan = arg;
    int64_t from = scan->begin + i * CHUNK_ROWS, to = lik_min_i64(from + CHUNK_ROWS, scan->end);
    scan->found[i] =
        (uint8_t)any_nan(row_data(scan->c, from), scan->c->tokens.dtype, (to - from) * scan->c->tokens.dim);
}

void engine_find_bad(struct engine *engine, const struct lik_collection *c, int64_t first, int64_t count,
                     struct bad_rows *bad)
{
    struct nan_scan scan = {
        .c = c, .begin = lik_collection_row(c, first, 0), .end = lik_collection_row(c, first + count, 0)};
    int64_t chunks = (scan.end - scan.begin + CHUNK_ROWS - 1) / CHUNK_ROWS;
    if (c->tokens.dtype == LIK_I8 || c->compressed || chunks < 1) /* whose tables were looked at */
        return;
    scan.found = allocate(chunks, 1, "marks of the NaN search");
    lik_pool_parallel_for(engine->library.pool, chunks, scan_chunk, &scan);
    if (!memchr(scan.found, 1, (size_t)chunks)) {
        free(scan.found);
        return;
    }
    for (int64_t i = first; i < first + count; i++) {
        int64_t before = bad->rows;
        for (int64_t t = 0; t < lik_collection_length(c, i); t++) {
            int64_t row = lik_collection_row(c, i, t);
            if (!scan.found[(row - scan.begin) / CHUNK_ROWS] || !lik_collection_keeps(c, i, t) ||
                !any_nan(row_data(c, row), c->tokens.dtype, c->tokens.dim))
                continue;
            if (!bad->rows++) {
                bad->sequence = i;
                bad->token = t;
            }
        }
        bad->sequences += bad->rows > before;
    }
    free(scan.found);
}

static void mask_bad(struct lik_collection *c)
{
    struct lik_io_error error;
    int status = lik_collection_own_mask(c, &error);
    if (status)
        die_io(status, &error);
    for (int64_t row = 0; row < c->rows; row++)
        if (c->mask[row] && any_nan(row_data(c, row), c->tokens.dtype, c->tokens.dim))
            c->mask[row] = 0;
}

void engine_refuse_bad(struct engine *engine, struct lik_collection *c, int queries, int skip_bad)
{
    struct bad_rows bad = {0};
    char number[24];
    engine_find_bad(engine, c, 0, c->tokens.count, &bad);
    if (!bad.rows)
        return;
    if (!skip_bad)
        die(EXIT_UNREADABLE,
            "NaN in %s, %s %s, token %lld (%lld rows in %lld %s)\n    Drop these tokens with --skip-bad, or "
            "see "
            "`lik info --check %s`.",
            c->path, queries ? "query" : "document", lik_collection_id(c, bad.sequence, number),
            (long long)bad.token, (long long)bad.rows, (long long)bad.sequences,
            queries ? "queries" : "documents", c->path);
    warn("NaN in %s: %lld tokens of %lld %s are dropped", c->path, (long long)bad.rows,
         (long long)bad.sequences, queries ? "queries" : "documents");
    mask_bad(c);
}
