/* How the codec's verbs will run: the chunks in which tokens get their centroids, and what
 * stands in the workspace. See cuda/codec. */
#include "cuda/plan/plan.h"

#include "base/error.h"
#include "shared/residual.h"
#include "shared/sample.h"

#include <stdio.h>

#define CHUNK_BYTES (64ll << 20) /* of rows: few launches, and little beside the tokens */
#define TILE_ROWS   256          /* a multiple of the rows of every row tile */

/* ---- Assignment ---- */

struct lik_score lik_cuda_assign_score(const struct assign_plan *p, char *workspace, int64_t rows,
                                       int32_t *codes)
{
    struct lik_score op = {.struct_size = sizeof op, .precision = p->precision, .argmax_dtype = LIK_I32};
    op.q = lik_tokens_padded(workspace + p->rows, p->dtype, rows / LIK_STRIP_ROWS, LIK_STRIP_ROWS, p->dim);
    op.q.strides.token = p->stride;
    op.q.strides.sequence = LIK_STRIP_ROWS * p->stride;
    op.q.scale_dtype = LIK_F32;
    op.d = lik_tokens_padded(workspace + p->centroids, p->dtype, 1, p->centroid_count, p->dim);
    op.d.strides.token = p->stride;
    op.d.strides.sequence = p->centroid_count * p->stride;
    op.d.scale_dtype = LIK_F32;
    op.scores = (float *)(void *)(workspace + p->scores);
    op.scores_stride = 1;
    op.argmax = codes;
    return op;
}

/* Whole rounds of row tiles, where there are so many. */
static int64_t rows_of_chunk(const struct gpu_limits *gpu, int64_t row_bytes, int64_t tokens)
{
    int64_t rows = lik_max_i64(CHUNK_BYTES / row_bytes, TILE_ROWS), round = TILE_ROWS * gpu->processors;
    rows -= rows % (rows >= round ? round : LIK_STRIP_ROWS);
    return lik_min_i64(rows, lik_round_up(tokens, LIK_STRIP_ROWS));
}

static int plan_assign(const struct gpu_limits *gpu, struct assign_plan *p, struct lik_layout *layout)
{
    /* Addresses of no memory, aligned as a workspace is: planning looks at that alone. */
    char *const nowhere = (char *)(uintptr_t)4096;
    int32_t *const codes = (int32_t *)(uintptr_t)4096;
    int64_t size = (int64_t)lik_dtype_bytes(p->dtype);
    if (p->tokens == 0)
        return LIK_OK;
    p->stride = lik_round_up(p->dim, 16 / size); /* what the copy engine takes */
    p->rows_per_chunk = rows_of_chunk(gpu, p->stride * size, p->tokens);
    p->rows = lik_cuda_take(layout, p->rows_per_chunk, p->stride * size);
    p->centroids = lik_cuda_take(layout, p->centroid_count, p->stride * size);
    p->scores = lik_cuda_take(layout, p->rows_per_chunk / LIK_STRIP_ROWS, 4);
    if (layout->failed)
        return LIK_OK; /* the front door refuses it */
    struct lik_layout whole = {0}, last = {0};
    int64_t rest = lik_round_up(p->tokens % p->rows_per_chunk, LIK_STRIP_ROWS);
    struct lik_score op = lik_cuda_assign_score(p, nowhere, p->rows_per_chunk, codes);
    int status = lik_cuda_plan_score(gpu, &op, &whole, &p->score);
    op = lik_cuda_assign_score(p, nowhere, rest, codes);
    if (!status && rest)
        status = lik_cuda_plan_score(gpu, &op, &last, &p->last);
    p->score_workspace = lik_cuda_take(layout, lik_max_i64(whole.bytes, last.bytes), 1);
    layout->failed |= whole.failed | last.failed;
    return status;
}

void lik_cuda_print_assign(const struct assign_plan *p, char *text, size_t size)
{
    if (!p->tokens) {
        snprintf(text, size, "nothing to assign");
        return;
    }
    size_t n = lik_cuda_add_text(text, size, 0, "%lld rows of %s at once; ", (long long)p->rows_per_chunk,
                                 lik_dtype_name(p->dtype));
    lik_cuda_print_score(&p->score, text + n, size - n);
}

static void name_assign(const char *verb, const struct assign_plan *p, char *text, size_t size)
{
    char score[64] = "nothing";
    struct lik_score op = {0};
    op.q.dtype = op.d.dtype = p->dtype;
    op.d.dim = p->dim;
    if (p->tokens)
        lik_cuda_name_score(&p->score, &op, score, sizeof score);
    snprintf(text, size, "%s_%.54s", verb, score);
}

/* ---- Decode, quantize and encode ---- */

/* Of a verb that is one pass over the rows: `to` is what comes out, if the name says that. */
static void name_pass(const char *verb, const char *to, const struct lik_tokens *x, char *text, size_t size)
{
    size_t n = lik_cuda_add_text(text, size, 0, "%s_%s%s_d%lld_cuda", verb, lik_dtype_name(x->dtype), to,
                                 (long long)x->dim);
    if (x->storage == LIK_RESIDUAL)
        lik_cuda_add_text(text, size, n, "_%dbits", x->codec->bits);
}

void lik_cuda_name_decode(const struct lik_decode *op, char *text, size_t size)
{
    name_pass("decode", "", &op->x, text, size);
}

void lik_cuda_name_quantize(const struct lik_quantize *op, char *text, size_t size)
{
    char to[8];
    snprintf(to, sizeof to, "_%s", lik_dtype_name(op->values_dtype));
    name_pass("quantize", to, &op->x, text, size);
}

/* Products of 16-bit numbers are exact, so that such tokens are multiplied as they are, if the
 * centroids are such too. */
static int32_t product_dtype(const struct lik_tokens *x, int32_t centroids_dtype, int32_t precision)
{
    if (x->dtype == centroids_dtype && x->dtype != LIK_F32 && !x->scale && !x->normalize)
        return x->dtype;
    return precision == LIK_MEDIUM ? LIK_BF16 : LIK_F32;
}

int lik_cuda_plan_encode(const struct gpu_limits *gpu, const struct lik_encode *op, struct lik_layout *layout,
                         struct encode_plan *p)
{
    *p = (struct encode_plan){.assign = {.precision = op->precision, .dim = op->x.dim}};
    p->assign.dtype = product_dtype(&op->x, op->codec->centroids_dtype, op->precision);
    p->assign.centroid_count = op->codec->centroid_count;
    p->assign.tokens = lik_tokens_rows(&op->x);
    int status = plan_assign(gpu, &p->assign, layout);
    p->codes = lik_cuda_take(layout, p->assign.rows_per_chunk, 4);
    return status;
}

void lik_cuda_name_encode(const struct encode_plan *p, char *text, size_t size)
{
    name_assign("encode", &p->assign, text, size);
}

/* ---- Train ---- */

static int64_t power_of_two(int64_t n, struct lik_layout *layout)
{
    int64_t power = 1;
    while (power < n && power <= INT64_MAX / 2)
        power *= 2;
    layout->failed |= power < n;
    return power;
}

int lik_cuda_plan_train(const struct gpu_limits *gpu, const struct lik_train *op, struct lik_layout *layout,
                        struct train_plan *p)
{
    const int64_t rows = lik_tokens_rows(&op->x), count = op->centroid_count, dim = op->x.dim;
    int64_t elements;
    *p = (struct train_plan){.rows = rows, .points = lik_train_points(op, rows)};
    p->bucket_tokens = lik_train_bucket_tokens(op, rows);
    p->placed = lik_min_i64(rows, p->points + LIK_HELD_OUT_MAX);
    if (p->points > UINT32_MAX)
        return lik_fail(LIK_EUNSUPPORTED, "k-means of %lld tokens, the CUDA backend takes %u",
                        (long long)p->points, UINT32_MAX);
    if (lik_mul_i64(op->bits ? p->bucket_tokens : 0, dim, &elements))
        layout->failed = 1;
    p->nearest = (struct assign_plan){.dtype = LIK_F32, .dim = dim, .centroid_count = count};
    p->nearest.tokens = p->bucket_tokens;
    p->assign = p->nearest;
    p->assign.dtype = op->precision == LIK_MEDIUM ? LIK_BF16 : LIK_F32;
    p->assign.precision = op->precision;
    p->assign.tokens = p->points;
    struct lik_layout assign = {0}, nearest = {0};
    int status = plan_assign(gpu, &p->assign, &assign);
    if (!status)
        status = plan_assign(gpu, &p->nearest, &nearest);
    if (status)
        return status;
    p->point_keys = power_of_two(p->points, layout);
    p->element_keys = power_of_two(elements, layout);
    p->state = lik_cuda_take(layout, 16, 8);
    p->kept = lik_cuda_take(layout, op->x.mask ? rows : 0, 8);
    p->blocks = lik_cuda_take(layout, lik_divide_up(lik_max_i64(rows, count), COMPACT_BLOCK), 8);
    p->row_of = lik_cuda_take(layout, p->placed, 8);
    p->point_rows = lik_cuda_take(layout, p->points, 8);
    p->codes =
        lik_cuda_take(layout, lik_round_up(lik_max_i64(p->points, p->bucket_tokens), LIK_STRIP_ROWS), 4);
    p->sorted = lik_cuda_take(layout, lik_max_i64(p->point_keys, p->element_keys), 8);
    p->sums = lik_cuda_take(layout, count, dim * 8);
    p->is_new = lik_cuda_take(layout, count, 1);
    p->empty = lik_cuda_take(layout, count, 8);
    p->squares = lik_cuda_take(layout, p->bucket_tokens, 8);
    p->assign_workspace = lik_cuda_take(layout, lik_max_i64(assign.bytes, nearest.bytes), 1);
    layout->failed |= assign.failed | nearest.failed;
    if (layout->failed)
        return lik_fail(LIK_EINVAL, "the workspace to train on %lld tokens passes 2^63 bytes",
                        (long long)rows);
    return LIK_OK;
}

void lik_cuda_name_train(const struct train_plan *p, char *text, size_t size)
{
    name_assign("train", &p->assign, text, size);
}

void lik_cuda_print_train(const struct train_plan *p, char *text, size_t size)
{
    size_t n = lik_cuda_add_text(text, size, 0, "%lld points and %lld bucket tokens, %lld and %lld keys; ",
                                 (long long)p->points, (long long)p->bucket_tokens, (long long)p->point_keys,
                                 (long long)p->element_keys);
    lik_cuda_print_assign(&p->assign, text + n, size - n);
}
