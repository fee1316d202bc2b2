/* How the k best are found: documents are scored a chunk at a time into the workspace, and a
 * chunk's scores are reduced to k keys a query before the next. Of many queries some thousands
 * go through all documents before the next.
 *
 * A key is 64 bits, the score as an ordered integer above the document's number, so that plain
 * integer order is the order of lik_topk. Selection sorts runs of keys in threadgroup memory
 * and keeps the k first of each, level by level; k above half a run sorts in device memory. */
#include "metal/pass.h"
#include "metal/plan.h"

#include "base/error.h"

#include <stdio.h>

/* Scores of a chunk, and the documents that it has at least: tests make both small. */
#ifndef LIK_METAL_CHUNK_SCORES
#define LIK_METAL_CHUNK_SCORES    (16ll << 20)
#define LIK_METAL_CHUNK_DOCUMENTS (4ll * LIK_METAL_RUN)
#endif

int lik_metal_run_sort(uint64_t *keys, int64_t queries, int64_t padded, const struct lik_metal_queue *queue)
{
    int status = LIK_OK;
    for (int64_t size = 2; size <= padded; size *= 2)
        for (int64_t stride = size / 2; stride > 0 && !status; stride /= 2) {
            struct lik_metal_dispatch dispatch = {.kernel = LIK_METAL_SORT_PASS};
            struct lik_metal_sort args = {queries, padded, size, stride, 0};
            args.threadgroups = dispatch.threadgroups =
                lik_metal_groups(queries * (padded / 2), LIK_METAL_THREADS);
            dispatch.args = &args;
            dispatch.buffers[LIK_AT_KEYS_OUT] = keys;
            status = queue->dispatch(queue->host, &dispatch);
        }
    return status;
}

int lik_metal_plan_topk(const struct lik_topk *op, struct lik_layout *layout, struct lik_metal_topk_plan *p)
{
    const struct lik_score *s = &op->score;
    const int64_t queries = s->q.count, columns = lik_score_columns(s), k = op->k;
    *p = (struct lik_metal_topk_plan){0};
    if (columns >= 0xffffffffll)
        return lik_fail(LIK_EUNSUPPORTED, "%lld documents a query, top-k on Metal takes 2^32 - 2",
                        (long long)columns);
    int64_t documents = lik_min_i64(columns, LIK_METAL_CHUNK_DOCUMENTS);
    int64_t rows = lik_min_i64(queries, lik_max_i64(LIK_METAL_CHUNK_SCORES / lik_max_i64(documents, 1), 1));
    int64_t chunk = lik_max_i64(LIK_METAL_CHUNK_SCORES / lik_max_i64(rows, 1), LIK_METAL_CHUNK_DOCUMENTS);
    p->queries_per_chunk = rows;
    p->documents_per_chunk = lik_min_i64(chunk, columns);
    int status = lik_metal_plan_score_part(s, rows, p->documents_per_chunk, &p->score);
    if (status)
        return status;
    if (p->score.items > 0)
        lik_metal_take_factors(s, layout, &p->score);
    int64_t more = columns > p->documents_per_chunk ? lik_min_i64(k, columns) : 0; /* best before a chunk */
    if (k > LIK_METAL_RUN / 2)
        for (p->sorted_keys = 2; p->sorted_keys - p->documents_per_chunk < more;)
            p->sorted_keys *= 2;
    int64_t runs = lik_divide_up(p->documents_per_chunk, LIK_METAL_RUN);
    int64_t keys = p->sorted_keys ? p->sorted_keys : (runs + 1) * k, key_bytes;
    if (lik_mul_i64(keys, 8, &key_bytes))
        key_bytes = layout->failed = 1;
    p->scores = lik_layout_take(layout, rows * p->documents_per_chunk, 4, LIK_METAL_ALIGN);
    for (int i = 0; i < 2; i++)
        p->keys[i] = lik_layout_take(layout, rows, key_bytes, LIK_METAL_ALIGN);
    for (int i = 0; i < 2 && !p->sorted_keys; i++)
        p->best[i] = lik_layout_take(layout, rows, k * 8, LIK_METAL_ALIGN);
    return LIK_OK;
}

/* Where the best keys of the chunks so far stand: `count` a query, `stride` apart. */
struct best {
    const uint64_t *keys;
    int64_t count, stride;
};

static int select_level(struct lik_metal_select *args, const void *scores, const uint64_t *keys,
                        const struct best *before, uint64_t *out, enum lik_metal_kernel_number kernel,
                        const struct lik_metal_queue *queue)
{
    struct lik_metal_dispatch dispatch = {.kernel = kernel};
    args->threadgroups = dispatch.threadgroups =
        kernel == LIK_METAL_SELECT ? lik_metal_groups(args->queries * args->runs, 1)
                                   : lik_metal_groups(args->queries * args->padded, LIK_METAL_THREADS);
    dispatch.args = args;
    dispatch.buffers[LIK_AT_SCORES] = args->from_scores ? scores : NULL;
    dispatch.buffers[LIK_AT_KEYS] = args->from_scores ? NULL : keys;
    dispatch.buffers[LIK_AT_MORE_KEYS] = args->more ? before->keys : NULL;
    dispatch.buffers[LIK_AT_KEYS_OUT] = out;
    return queue->dispatch(queue->host, &dispatch);
}

/* Reduces a chunk's scores and the best before them to the best of both. */
static int select_chunk(const struct lik_topk *op, const struct lik_metal_topk_plan *p,
                        const struct lik_metal_part *part, char *workspace, int turn, struct best *best,
                        const struct lik_metal_queue *queue)
{
    struct lik_metal_select args = {
        .queries = part->rows,
        .count = part->columns,
        .stride = part->columns,
        .more = best->count,
        .more_stride = best->stride,
        .from_scores = 1,
        .first_id = part->column,
        .smallest = op->smallest != 0,
        .padded = p->sorted_keys,
    };
    const void *scores = workspace + p->scores;
    uint64_t *keys[2] = {(uint64_t *)(void *)(workspace + p->keys[0]),
                         (uint64_t *)(void *)(workspace + p->keys[1])};
    int64_t found = lik_min_i64(op->k, best->count + part->columns);
    if (p->sorted_keys) {
        int status = select_level(&args, scores, NULL, best, keys[turn], LIK_METAL_GATHER_KEYS, queue);
        *best = (struct best){keys[turn], found, p->sorted_keys};
        return status ? status : lik_metal_run_sort(keys[turn], args.queries, p->sorted_keys, queue);
    }
    uint64_t *after = (uint64_t *)(void *)(workspace + p->best[turn]);
    for (int level = 0;; level ^= 1) {
        int64_t n = args.count + args.more;
        args.keep = op->k;
        for (args.run = LIK_METAL_RUN; args.run > 64 && args.run / 2 >= n;)
            args.run /= 2;
        args.runs = lik_divide_up(n, args.run);
        uint64_t *out = args.runs == 1 ? after : keys[level];
        int status = select_level(&args, scores, keys[level ^ 1], best, out, LIK_METAL_SELECT, queue);
        if (status || args.runs == 1) {
            *best = (struct best){after, op->k, op->k};
            return status;
        }
        args.from_scores = args.more = 0;
        args.count = args.stride = args.runs * args.keep;
    }
}

/* All documents by queries row ... row + rows - 1. */
static int run_queries(const struct lik_topk *op, const struct lik_metal_topk_plan *p, int64_t row,
                       int64_t rows, char *workspace, const struct lik_metal_queue *queue)
{
    const int64_t columns = lik_score_columns(&op->score);
    struct best best = {NULL, 0, 0};
    int status = LIK_OK, turn = 0;
    for (int64_t column = 0; column < columns && !status; column += p->documents_per_chunk, turn ^= 1) {
        struct lik_metal_score_plan chunk = p->score;
        struct lik_metal_part part = {
            .row = row,
            .rows = rows,
            .column = column,
            .columns = lik_min_i64(columns - column, p->documents_per_chunk),
            .scores = (float *)(void *)(workspace + p->scores),
        };
        part.scores_stride = part.columns;
        if (part.columns < p->documents_per_chunk || rows < p->queries_per_chunk)
            lik_metal_cut_score(rows, part.columns, &chunk);
        status = lik_metal_run_score_part(&op->score, &chunk, workspace, &part, queue);
        if (!status)
            status = select_chunk(op, p, &part, workspace, turn, &best, queue);
    }
    if (status)
        return status;
    struct lik_metal_dispatch dispatch = {.kernel = LIK_METAL_WRITE_BEST};
    struct lik_metal_best args = {rows, op->k, best.stride, best.count, op->id_base, op->smallest != 0, 0};
    args.threadgroups = dispatch.threadgroups = lik_metal_groups(rows * op->k, LIK_METAL_THREADS);
    dispatch.args = &args;
    dispatch.buffers[LIK_AT_KEYS] = best.keys;
    dispatch.buffers[LIK_AT_VALUES] = op->values + row * op->k;
    dispatch.buffers[LIK_AT_IDS] = op->ids + row * op->k;
    return queue->dispatch(queue->host, &dispatch);
}

int lik_metal_run_topk(const struct lik_topk *op, const struct lik_metal_topk_plan *p, char *workspace,
                       const struct lik_metal_queue *queue)
{
    const struct lik_score *s = &op->score;
    const int64_t queries = s->q.count, per = p->queries_per_chunk;
    int status = queries && lik_score_columns(s) ? lik_metal_run_score_factors(s, &p->score, workspace, queue)
                                                 : LIK_OK;
    for (int64_t row = 0; row < queries && !status; row += per)
        status = run_queries(op, p, row, lik_min_i64(per, queries - row), workspace, queue);
    return status;
}

void lik_metal_name_topk(const struct lik_topk *op, const struct lik_metal_topk_plan *p, char *text,
                         size_t size)
{
    char score[64];
    lik_metal_name_score(&op->score, &p->score, score, sizeof score);
    snprintf(text, size, "topk_%.56s", score);
}
