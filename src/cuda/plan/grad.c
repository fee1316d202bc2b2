/* How the gradients will run: how rows are gathered, and how documents are cut into runs of
 * tokens. See cuda/grad/grad.cu. */
#include "cuda/plan/plan.h"

#include "base/error.h"
#include "base/size.h"
#include "shared/residual.h"

#include <math.h>
#include <stdio.h>

#define SCAN_COST  0.1   /* reading a document's entries once, of the time to add all of its rows */
#define KEPT_BYTES 65536 /* of the sums that a block keeps in shared memory, at most */

#define PART_LEAST 256 /* scores of a query, on average, whose rows of compressed documents a warp adds */
#define PARTS_MOST 64

/* The vector kinds count 32 bits of vectors, so that more than 64 GB, or strides below zero,
 * are left to the general one. */
static int kind_of(const struct lik_tokens *x, int vector)
{
    const struct lik_strides *by = &x->strides;
    int64_t members = x->group_size > 0 ? x->group_size : x->count, groups = members ? x->count / members : 0;
    int64_t tokens = x->offsets ? x->total : x->len_max;
    if (tokens < 1 || members < 1) /* nothing is read; the strides may be anything */
        return ROWS_OF_ANY;
    int64_t last = by->token * (tokens - 1);
    if (!x->offsets)
        last += by->sequence * (members - 1) + by->group * (groups > 1 ? groups - 1 : 0);
    if (!vector || x->dim % 8 || x->dtype > LIK_BF16 || by->token < 0 || by->sequence < 0 || by->group < 0 ||
        last / (x->dtype == LIK_F32 ? 4 : 8) >= (int64_t)GRAD_NO_ROW)
        return ROWS_OF_ANY;
    return x->dtype == LIK_F32 ? ROWS_OF_F32 : x->dtype == LIK_BF16 ? ROWS_OF_BF16 : ROWS_OF_F16;
}

/* How many entries a document may have at the most. */
static int64_t most_entries(const struct lik_score *op)
{
    int64_t scores = op->pairing == LIK_ALL ? op->q.count : op->pairing == LIK_LIST ? op->list_count : 1;
    /* in range: a count of queries times their length is, and so is all of an argmax */
    return scores * op->q.len_max;
}

/* Into how many runs of tokens each document is cut, `least` or more. The processors hold
 * `at_once` blocks, and others begin when those have ended: rounds. A block reads all of its
 * document's entries, which costs SCAN_COST of adding all of its rows, and adds a part of the
 * rows. */
static int64_t runs_of(int64_t documents, int64_t length, int64_t least, int64_t at_once)
{
    int64_t rounds = (least * documents + at_once - 1) / at_once, finest = GRAD_WARP_TOKENS(length),
            best = least;
    double shortest = INFINITY;
    for (int64_t last = rounds + 8; documents && rounds < last; rounds++) {
        int64_t n = rounds * at_once / documents;
        n = lik_max_i64(lik_min_i64(n, finest), least);
        double time = (double)rounds * (SCAN_COST + 1.0 / (double)n);
        if (time < shortest) {
            shortest = time;
            best = n;
        }
    }
    return best;
}

/* Shared memory of a block that owns `tokens` tokens: struct document_shared of entries.cuh. */
static size_t document_bytes(int64_t tokens, int hits, int row_floats)
{
    size_t ints = (size_t)(GRAD_WARPS * GRAD_WARP_TOKENS(tokens) * (GRAD_WARPS + 1) + 1) * 4;
    return ints + (size_t)hits * 6 + (size_t)tokens * (size_t)row_floats * 4;
}

static int plan_documents(const struct gpu_limits *gpu, const struct lik_score *op, struct grad_plan *p)
{
    const int64_t entries = most_entries(op), length = op->d.len_max;
    p->few = entries <= GRAD_FEW;
    int64_t room = p->few ? GRAD_WARPS * entries : entries; /* each warp has its own list of few */
    int hits = GRAD_HITS;
    while (hits > 32 * GRAD_WARPS * GRAD_AHEAD && hits / 2 >= room)
        hits /= 2;
    if (entries > hits) /* a block lists those of its tokens alone */
        hits /= 2;
    p->hits_per_window = hits;
    p->keep_rows = p->slices_per_row > 1 || entries > hits;
    int row_floats = p->keep_rows ? p->slices_per_row * p->lanes_per_row * 8 : 0;
    int64_t most = GRAD_TOKENS;
    while (most > 0 && document_bytes(most, hits, row_floats) > gpu->shared_bytes - 1024)
        most--;
    if (most < 1)
        return lik_fail(LIK_EUNSUPPORTED, "d.dim is %lld: the gradient's rows pass a block's shared memory",
                        (long long)op->d.dim);
    int64_t kept = row_floats ? KEPT_BYTES / (row_floats * 4) : GRAD_TOKENS;
    most = lik_min_i64(most, lik_max_i64(lik_min_i64(kept, GRAD_TOKENS), 1));
    int64_t least = length ? (length + most - 1) / most : 1;
    size_t bytes = document_bytes((length + least - 1) / least, hits, row_floats) + 2048;
    int64_t resident = lik_max_i64((int64_t)(gpu->shared_bytes / bytes), 1); /* the 2048 may be of the next */
    int64_t limit = GRAD_RESIDENT_BLOCKS(p->q_kind, gpu->arch);
    int64_t runs = runs_of(op->d.count, length, least, gpu->processors * lik_min_i64(resident, limit));
    p->tokens_per_block = (int32_t)((length + runs - 1) / runs);
    p->blocks_per_document =
        p->tokens_per_block ? (length + p->tokens_per_block - 1) / p->tokens_per_block : runs;
    p->document_bytes = document_bytes(p->tokens_per_block, hits, row_floats);
    p->one_launch = p->q_kind == p->d_kind && p->query_bytes <= p->document_bytes && resident >= limit;
    return LIK_OK;
}

static int plan_queries(const struct gpu_limits *gpu, const struct lik_score *op, struct grad_plan *p)
{
    size_t row_bytes = p->slices_per_row > 1 ? (size_t)p->slices_per_row * (size_t)p->lanes_per_row * 32 : 0;
    p->query_warps = GRAD_WARPS;
    while (p->query_warps > 1 && (size_t)p->query_warps * row_bytes > KEPT_BYTES)
        p->query_warps /= 2;
    p->query_bytes = (size_t)p->query_warps * row_bytes;
    if (p->query_bytes > gpu->shared_bytes - 1024)
        return lik_fail(LIK_EUNSUPPORTED, "q.dim is %lld: a gradient's row passes a block's shared memory",
                        (long long)op->q.dim);
    return LIK_OK;
}

/* Are centroids read where they lie: as rows of the documents' dtype, aligned to 16 bytes? */
static int centroids_lie_well(const struct lik_tokens *d)
{
    const int64_t element = (int64_t)lik_dtype_bytes(d->dtype), step = lik_centroid_stride(d) * element;
    return d->codec->centroids_dtype == d->dtype && d->dim % 8 == 0 && step % 16 == 0 && step <= UINT32_MAX &&
           (uintptr_t)d->codec->centroids % 16 == 0;
}

static int plan_compressed(const struct lik_score *op, struct lik_layout *layout, struct grad_plan *plan)
{
    struct compressed_plan *p = &plan->compressed;
    const struct lik_tokens *q = &op->q, *d = &op->d;
    const int bits = d->codec->bits;
    if (d->codec->centroid_count > UINT32_MAX)
        return lik_fail(LIK_EUNSUPPORTED,
                        "codec.centroid_count is %lld, the CUDA backend takes gradients of up to %lld",
                        (long long)d->codec->centroid_count, (long long)UINT32_MAX);
    /* by the number of scores alone: the order of a sum is the problem's */
    int64_t scores = op->pairing == LIK_LIST ? op->list_count / lik_max_i64(q->count, 1) : plan->columns;
    p->parts = (int32_t)lik_max_i64(lik_min_i64((scores + PART_LEAST - 1) / PART_LEAST, PARTS_MOST), 1);
    p->row_floats = (int32_t)((d->dim + 7) / 8 * 8);
    int64_t steps = d->strides.token | d->strides.sequence | (d->group_size > 0 ? d->strides.group : 0);
    p->whole_bits = bits == 0 || (d->dim % 8 == 0 && ((int64_t)(uintptr_t)d->data | steps) % bits == 0);
    if (!centroids_lie_well(d))
        p->centroid_bytes = d->codec->centroid_count * p->row_floats * (int64_t)lik_dtype_bytes(d->dtype);
    p->centroids = lik_cuda_take(layout, p->centroid_bytes, 1);
    p->partial = lik_cuda_take(layout, q->count * q->len_max * p->parts, p->row_floats * 4);
    return LIK_OK;
}

int lik_cuda_plan_grad(const struct gpu_limits *gpu, const struct lik_grad *op, struct lik_layout *layout,
                       struct grad_plan *p)
{
    const struct lik_score *score = &op->score;
    const struct lik_tokens *q = &score->q, *d = &score->d;
    *p = (struct grad_plan){.columns = lik_score_columns(score)};
    p->q_vector = lik_cuda_vector_loads(q);
    p->d_vector = lik_cuda_vector_loads(d);
    p->q_kind = kind_of(q, p->q_vector);
    p->d_kind = kind_of(d, p->d_vector);
    p->argmax_vector =
        q->len_max % GRAD_AHEAD == 0 &&
        (uintptr_t)score->argmax % (GRAD_AHEAD * (score->argmax_dtype == LIK_I16 ? 2u : 4u)) == 0;
    p->plain = p->q_kind != ROWS_OF_ANY && d->dtype == GRAD_ROW_DTYPE(p->q_kind) && !d->scale &&
               !d->normalize && !op->accumulate && (uintptr_t)op->grad_d % 16 == 0;
    p->lanes_per_row = q->dim <= 64 ? 8 : q->dim <= 128 ? 16 : 32;
    p->slices_per_row = (int32_t)((q->dim + p->lanes_per_row * 8 - 1) / (p->lanes_per_row * 8));
    p->q_factors = q->normalize ? lik_tokens_rows(q) : 0;
    const int compressed = d->storage == LIK_RESIDUAL;
    /* of rows that a group of lanes has whole, norms are taken as they are met */
    p->d_factors =
        d->normalize && !(compressed && p->slices_per_row == 1 && !d->scale) ? lik_tokens_rows(d) : 0;
    int status = compressed ? LIK_OK : plan_queries(gpu, score, p);
    if (status)
        return status;
    if (score->pairing == LIK_LIST && score->list_count) {
        if (score->list_count > INT32_MAX || q->count > INT32_MAX || d->count > INT32_MAX)
            return lik_fail(LIK_EUNSUPPORTED,
                            "list_count is %lld, the CUDA backend takes gradients of up to %d pairs",
                            (long long)score->list_count, INT32_MAX);
        for (p->list_keys = 1; p->list_keys < score->list_count;)
            p->list_keys *= 2;
    }
    p->q_factor = lik_cuda_take(layout, p->q_factors, 4);
    p->d_factor = lik_cuda_take(layout, p->d_factors, 4);
    p->by_q = lik_cuda_take(layout, p->list_keys, 8);
    p->by_d = lik_cuda_take(layout, p->list_keys, 8);
    return compressed ? plan_compressed(score, layout, p) : plan_documents(gpu, score, p);
}

void lik_cuda_name_grad(const struct grad_plan *p, const struct lik_grad *op, char *text, size_t size)
{
    const struct lik_tokens *d = &op->score.d;
    if (d->storage == LIK_RESIDUAL)
        snprintf(text, size, "grad_%s_d%lld_cuda_%dbits", lik_dtype_name(d->dtype), (long long)d->dim,
                 d->codec->bits);
    else
        snprintf(text, size, "grad_%s_%s_d%lld_cuda_%dx%d", lik_dtype_name(op->score.q.dtype),
                 lik_dtype_name(op->score.d.dtype), (long long)op->score.q.dim, p->tokens_per_block,
                 p->hits_per_window);
}

void lik_cuda_print_grad(const struct grad_plan *p, char *text, size_t size)
{
    static const char *const kinds[] = {"f16", "bf16", "f32", "any"};
    const struct compressed_plan *c = &p->compressed;
    int n;
    if (c->parts)
        n = snprintf(
            text, size,
            "rows by %d lanes in %d slices; %d parts of %d floats a query token; bits %s; %lld bytes "
            "of centroids",
            p->lanes_per_row, p->slices_per_row, c->parts, c->row_floats,
            c->whole_bits ? "at once" : "by bytes", (long long)c->centroid_bytes);
    else
        n = snprintf(
            text, size,
            "rows of %s and %s by %d lanes in %d slices; %lld blocks a document of %d tokens, %d hits "
            "at once%s%s, %zu bytes; %d query tokens a block, %zu bytes; %s",
            kinds[p->q_kind], kinds[p->d_kind], p->lanes_per_row, p->slices_per_row,
            (long long)p->blocks_per_document, p->tokens_per_block, p->hits_per_window, p->few ? " few" : "",
            p->keep_rows ? " kept" : "", p->document_bytes, p->query_warps, p->query_bytes,
            p->one_launch ? "one launch" : "two launches");
    if (n > 0 && (size_t)n < size && (p->q_factors || p->d_factors || p->list_keys))
        snprintf(text + n, size - (size_t)n, "; %lld and %lld factors, %lld keys", (long long)p->q_factors,
                 (long long)p->d_factors, (long long)p->list_keys);
}
