/* The library as the command uses it: one context, one pool, one workspace that grows. See
 * engine.h; staged.c is the way that operations take on a GPU. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "engine.h"

#include "base/dtype.h"
#include "base/size.h"
#include "io/text.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- threads and context ---- */

/* Cores this process may run on, two hardware threads of a core counted once. */
int physical_cores(void)
{
    cpu_set_t allowed, seen;
    int cores = 0;
    CPU_ZERO(&seen);
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return (int)lik_max_i64(sysconf(_SC_NPROCESSORS_ONLN), 1);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        char path[96], text[256] = "";
        if (!CPU_ISSET(cpu, &allowed) || CPU_ISSET(cpu, &seen))
            continue;
        cores++;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (!fgets(text, sizeof text, file))
            text[0] = 0;
        fclose(file);
        for (char *at = text; *at >= '0' && *at <= '9';) { /* "0,4" or "0-1" */
            long from = strtol(at, &at, 10), to = *at == '-' ? strtol(at + 1, &at, 10) : from;
            for (; from <= to && from < CPU_SETSIZE; from++)
                CPU_SET((size_t)from, &seen);
            at += *at == ',';
        }
    }
    return cores ? cores : 1;
}

void engine_check(int status)
{
    int code = status == LIK_EDEVICE  ? EXIT_DEVICE
               : status == LIK_ENOMEM ? EXIT_EXHAUSTED
                                      : EXIT_INCOMPATIBLE;
    if (status)
        die(code, "%s", lik_last_error());
}

static int on_gpu(const struct engine *engine)
{
    return !strncmp(lik_context_name(engine->context), "cuda", 4);
}

void engine_open(struct engine *engine, const struct options *options)
{
    const char *device = options->device ? options->device : "auto", *environment = getenv("LIK_THREADS");
    /* for tests: bytes of a piece, and the staged way on every device */
    const char *staged = getenv("LIK_STAGED");
    int64_t threads = options->threads;
    *engine = (struct engine){0};
    if (!threads && environment && *environment) {
        if (lik_text_whole(environment, (int64_t)strlen(environment), &threads) || threads < 1 ||
            threads > 4096)
            die(EXIT_USAGE, "LIK_THREADS is '%s', must be a whole number from 1 to 4096", environment);
    }
    if (threads > 4096)
        die(EXIT_USAGE, "--threads is %lld, must be at most 4096", (long long)threads);
    if (!threads)
        threads = physical_cores();
    int status = lik_context_create(strcmp(device, "auto") ? device : "cpu", &engine->context);
    if (status == LIK_EINVAL || status == LIK_EUNSUPPORTED)
        die(EXIT_DEVICE, "--device %s: %s", device, lik_last_error());
    engine_check(status);
    engine_check(lik_pool_create((int32_t)threads, &engine->pool));
    engine->threads = lik_pool_threads(engine->pool);
    if (on_gpu(engine) || (staged && *staged))
        engine->staged = staged_open(engine, staged);
}

const char *engine_workers(const struct engine *engine, char text[48])
{
    if (on_gpu(engine))
        snprintf(text, 48, "pieces of %.0f MB", (double)staged_piece_bytes(engine->staged) * 1e-6);
    else
        snprintf(text, 48, "%d thread%s", engine->threads, engine->threads == 1 ? "" : "s");
    return text;
}

void engine_close(struct engine *engine)
{
    staged_close(engine);
    lik_pool_destroy(engine->pool);
    lik_context_destroy(engine->context);
    free(engine->workspace);
    *engine = (struct engine){0};
}

/* ---- running ---- */

struct lik_exec engine_exec(const struct engine *engine)
{
    return (struct lik_exec){.struct_size = sizeof(struct lik_exec),
                             .workspace = engine->workspace,
                             .workspace_bytes = engine->workspace_bytes,
                             .threads = engine->threads,
                             .parallel_for = lik_pool_parallel_for,
                             .pool = engine->pool};
}

static void accept_plan(struct engine *engine, int status, const struct lik_plan *plan)
{
    engine_check(status);
    memcpy(engine->variant, plan->variant, sizeof engine->variant);
    if (plan->workspace_bytes <= engine->workspace_bytes)
        return;
    free(engine->workspace);
    engine->workspace_bytes = (plan->workspace_bytes + 63) & ~(size_t)63;
    engine->workspace = aligned_alloc(64, engine->workspace_bytes);
    if (!engine->workspace)
        die(EXIT_EXHAUSTED, "out of memory: %s needs %zu bytes of workspace", plan->variant,
            plan->workspace_bytes);
}

void engine_score(struct engine *engine, const struct lik_score *op)
{
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = engine_exec(engine);
    if (engine->staged) {
        staged_score(engine, op);
        return;
    }
    accept_plan(engine, lik_score_plan(engine->context, op, &exec, &plan), &plan);
    exec = engine_exec(engine);
    engine_check(lik_score_run(engine->context, op, &exec));
}

void engine_topk(struct engine *engine, const struct lik_topk *op)
{
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = engine_exec(engine);
    if (engine->staged) {
        staged_topk(engine, op);
        return;
    }
    accept_plan(engine, lik_topk_plan(engine->context, op, &exec, &plan), &plan);
    exec = engine_exec(engine);
    engine_check(lik_topk_run(engine->context, op, &exec));
}

/* The tokens of sequence i as so many sequences of one token. */
static struct lik_tokens single_tokens(const struct lik_collection *c, int64_t i)
{
    struct lik_tokens x = c->tokens;
    int64_t row = lik_collection_row(c, i, 0);
    x.data = (const char *)x.data + row * x.strides.token * (int64_t)lik_dtype_bytes(x.dtype);
    x.count = lik_collection_length(c, i);
    x.len_max = 1;
    x.strides.sequence = x.strides.token;
    x.offsets = NULL;
    x.offsets_dtype = 0;
    x.mask = NULL;
    x.weights = NULL;
    if (x.scale && x.scale_strides.token) {
        x.scale += row;
        x.scale_strides.sequence = x.scale_strides.token = 1;
    }
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

struct lik_tokens tokens_slice(const struct lik_tokens *all, int64_t first, int64_t count)
{
    struct lik_tokens slice;
    engine_check(lik_tokens_slice(all, first, count, &slice));
    return slice;
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
    double now = seconds(), spent = now - slicer->start;
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
    if (c->tokens.dtype == LIK_I8 || chunks < 1)
        return;
    scan.found = allocate(chunks, 1, "marks of the NaN search");
    lik_pool_parallel_for(engine->pool, chunks, scan_chunk, &scan);
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
