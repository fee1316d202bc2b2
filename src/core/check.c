#include "core/check.h"
#include "core/check_tokens.h"

#include "base/size.h"
#include "shared/argmax.h"
#include "shared/operand.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIM_MAX 65536 /* products of two i8 tokens fit an i32 up to 2^17 */

static const char *const pairing_names[] = {"LIK_ALL", "LIK_CANDIDATES", "LIK_PAIRS", "LIK_LIST"};

static int check_entries(const char *name, const int64_t *list, int64_t n, int64_t count)
{
    for (int64_t i = 0; i < n; i++)
        if (list[i] < 0 || list[i] >= count)
            return lik_fail(LIK_EINVAL, "%s[%lld] is %lld, must be 0 to %lld", name, (long long)i,
                            (long long)list[i], (long long)(count - 1));
    return LIK_OK;
}

static int check_list(const struct lik_context *ctx, const char *name, const int64_t *list, int64_t n,
                      int64_t count)
{
    if (n > 0 && !list)
        return lik_fail(LIK_EINVAL, "%s is NULL, list_count is %lld", name, (long long)n);
    if (lik_check_aligned(name, "", list, sizeof *list))
        return LIK_EINVAL;
    return ctx->backend->host_memory ? check_entries(name, list, n, count) : LIK_OK;
}

static int check_pairing(const struct lik_context *ctx, const struct lik_score *op)
{
    switch (op->pairing) {
    case LIK_ALL: return LIK_OK;
    case LIK_CANDIDATES: {
        int64_t want;
        if (op->per_query < 0)
            return lik_fail(LIK_EINVAL, "per_query is %lld, must not be negative", (long long)op->per_query);
        if (lik_mul_i64(op->q.count, op->per_query, &want) || want != op->d.count)
            return lik_fail(LIK_EINVAL, "d.count is %lld, q.count x per_query is %lld x %lld",
                            (long long)op->d.count, (long long)op->q.count, (long long)op->per_query);
        return LIK_OK;
    }
    case LIK_PAIRS:
        if (op->q.count != op->d.count)
            return lik_fail(LIK_EINVAL,
                            "d.count is %lld, q.count is %lld; pairs need as many documents as queries",
                            (long long)op->d.count, (long long)op->q.count);
        return LIK_OK;
    case LIK_LIST:
        if (op->list_count < 0)
            return lik_fail(LIK_EINVAL, "list_count is %lld, must not be negative",
                            (long long)op->list_count);
        if (check_list(ctx, "list_q", op->list_q, op->list_count, op->q.count))
            return LIK_EINVAL;
        return check_list(ctx, "list_d", op->list_d, op->list_count, op->d.count);
    default: return lik_fail(LIK_EINVAL, "pairing is %d, must be 0 (LIK_ALL) to 3 (LIK_LIST)", op->pairing);
    }
}

/* Of checked tokens: does the backend take them? Fills in defaults. */
static int complete_tokens(const struct lik_context *ctx, const char *name, struct lik_tokens *x)
{
    x->scale_dtype = x->scale_dtype ? x->scale_dtype : LIK_F32;
    if (!(ctx->backend->storages >> x->storage & 1))
        return lik_fail(LIK_EUNSUPPORTED, "%s.storage is %d, which %s does not take", name, x->storage,
                        ctx->name);
    return LIK_OK;
}

static int check_precision(int32_t precision)
{
    if (precision < LIK_HIGHEST || precision > LIK_MEDIUM)
        return lik_fail(LIK_EINVAL, "precision is %d, must be 0 (LIK_HIGHEST) to 2 (LIK_MEDIUM)", precision);
    return LIK_OK;
}

/* Everything but the outputs' pointers. */
static int check_problem(const struct lik_context *ctx, struct lik_score *op)
{
    const int one_hot = op->d.storage == LIK_ONE_HOT;
    const int64_t given = op->q.len_max;
    int status = lik_check_tokens(ctx, "q", &op->q, one_hot ? INT32_MAX : DIM_MAX);
    if (!status)
        status = lik_check_tokens(ctx, "d", &op->d, one_hot ? INT32_MAX : DIM_MAX);
    if (status)
        return status;
    if (op->argmax && op->q.len_max != given)
        return lik_fail(LIK_EINVAL,
                        "q.len_max is %lld and an argmax is wanted, which has q.len_max entries a score: "
                        "the longest query has %lld tokens",
                        (long long)given, (long long)op->q.len_max);
    if (complete_tokens(ctx, "d", &op->d) || complete_tokens(ctx, "q", &op->q))
        return LIK_EUNSUPPORTED;
    if (op->d.dim != op->q.dim)
        return lik_fail(LIK_EINVAL, "d.dim is %lld, q.dim is %lld", (long long)op->d.dim,
                        (long long)op->q.dim);
    if (op->d.weights)
        return lik_fail(LIK_EINVAL, "d.weights is set, weights belong to q");
    if (op->q.storage != LIK_DENSE)
        return lik_fail(LIK_EUNSUPPORTED, "q.storage is %s, queries must be LIK_DENSE",
                        op->q.storage == LIK_RESIDUAL ? "LIK_RESIDUAL" : "LIK_ONE_HOT");
    if (one_hot && op->q.dtype != LIK_F32)
        return lik_fail(LIK_EINVAL, "q.dtype is %d (%s), d.storage is LIK_ONE_HOT, with which it must be f32",
                        op->q.dtype, lik_dtype_name(op->q.dtype));
    if (one_hot && (op->q.scale || op->q.normalize))
        return lik_fail(LIK_EINVAL, "q.%s is set, d.storage is LIK_ONE_HOT, whose products are looked up",
                        op->q.scale ? "scale" : "normalize");
    if (one_hot) { /* where no data stand is nobody's business */
        op->d.strides = (struct lik_strides){0, 0, 0};
        op->d.dim_stride = 1;
    }
    if (op->reserved_i32 || op->reserved[0] || op->reserved[1] || op->reserved[2])
        return lik_fail(LIK_EUNSUPPORTED, "score.reserved is set, must be zero");
    if (check_precision(op->precision))
        return LIK_EINVAL;
    if (check_pairing(ctx, op))
        return LIK_EINVAL;
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op), entries;
    if (op->scores_stride == 0)
        op->scores_stride = columns;
    if (rows > 1 && op->scores_stride < columns)
        return lik_fail(LIK_EINVAL, "scores_stride is %lld, a row has %lld scores",
                        (long long)op->scores_stride, (long long)columns);
    if (lik_mul_i64(rows, lik_max_i64(op->scores_stride, columns), &entries) ||
        lik_mul_i64(entries, 4, &entries))
        return lik_fail(LIK_EINVAL, "scores_stride is %lld: %lld rows of it pass 2^63 bytes",
                        (long long)op->scores_stride, (long long)rows);
    if (lik_mul_i64(rows, columns, &entries) ||
        lik_mul_i64(entries, 4 * lik_max_i64(op->q.len_max, 1), &entries))
        return lik_fail(LIK_EINVAL, "%lld x %lld scores of %lld query tokens: their argmax passes 2^63 bytes",
                        (long long)rows, (long long)columns, (long long)op->q.len_max);
    if (op->argmax) {
        if (op->argmax_dtype != LIK_I32 && op->argmax_dtype != LIK_I16)
            return lik_fail(LIK_EINVAL, "argmax_dtype is %d, must be LIK_I32 or LIK_I16", op->argmax_dtype);
        if (op->argmax_dtype == LIK_I16 && op->d.len_max > INT16_MAX)
            return lik_fail(LIK_EINVAL, "argmax_dtype is LIK_I16, d.len_max is %lld, must be at most %d",
                            (long long)op->d.len_max, INT16_MAX);
        if (lik_check_aligned("argmax", "", op->argmax, lik_dtype_bytes(op->argmax_dtype)))
            return LIK_EINVAL;
    }
    return LIK_OK;
}

int lik_check_score(const struct lik_context *ctx, const struct lik_score *in, enum lik_check_mode mode,
                    struct lik_score *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = lik_check_struct("score", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    status = check_problem(ctx, out);
    if (status)
        return status;
    int64_t rows = lik_score_rows(out), columns = lik_score_columns(out);
    if (mode == LIK_CHECK_RUN && rows > 0 && columns > 0 && !out->scores)
        return lik_fail(LIK_EINVAL, "scores is NULL, %lld x %lld scores are to be written", (long long)rows,
                        (long long)columns);
    return lik_check_aligned("scores", "", out->scores, sizeof(float));
}

int lik_check_topk(const struct lik_context *ctx, const struct lik_topk *in, enum lik_check_mode mode,
                   struct lik_topk *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = lik_check_struct("topk", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    if (out->score.struct_size != sizeof out->score)
        return lik_fail(LIK_EINVAL, "topk.score.struct_size is %zu, must be %zu", out->score.struct_size,
                        sizeof out->score);
    if (out->score.pairing != LIK_ALL && out->score.pairing != LIK_CANDIDATES)
        return lik_fail(LIK_EINVAL, "pairing is %s, top-k needs LIK_ALL or LIK_CANDIDATES",
                        out->score.pairing == LIK_PAIRS || out->score.pairing == LIK_LIST
                            ? pairing_names[out->score.pairing]
                            : "unknown");
    out->score.scores = NULL;
    out->score.scores_stride = 0;
    out->score.argmax = NULL;
    status = check_problem(ctx, &out->score);
    if (status)
        return status;
    int64_t entries;
    if (out->k < 1)
        return lik_fail(LIK_EINVAL, "k is %lld, must be at least 1", (long long)out->k);
    if (lik_mul_i64(out->score.q.count, out->k, &entries) || lik_mul_i64(entries, 16, &entries))
        return lik_fail(LIK_EINVAL, "q.count is %lld and k %lld: their product passes 2^59",
                        (long long)out->score.q.count, (long long)out->k);
    if (out->id_base < 0 || lik_add_i64(out->id_base, lik_score_columns(&out->score), &entries))
        return lik_fail(LIK_EINVAL, "id_base is %lld, must be 0 to 2^63 less the %lld documents",
                        (long long)out->id_base, (long long)lik_score_columns(&out->score));
    if (mode == LIK_CHECK_RUN && out->score.q.count > 0 && (!out->values || !out->ids))
        return lik_fail(LIK_EINVAL, "%s is NULL, %lld x %lld entries are to be written",
                        out->values ? "ids" : "values", (long long)out->score.q.count, (long long)out->k);
    if (lik_check_aligned("values", "", out->values, sizeof(float)))
        return LIK_EINVAL;
    return lik_check_aligned("ids", "", out->ids, sizeof(int64_t));
}

/* A gradient of an operand: in a float dtype, aligned. */
static int check_gradient(const char *name, const void *gradient, const struct lik_tokens *x,
                          const char *operand)
{
    if (!gradient)
        return LIK_OK;
    if (x->storage != LIK_DENSE)
        return lik_fail(LIK_EINVAL, "%s is wanted, %s.storage is LIK_RESIDUAL, which has no gradient", name,
                        operand);
    if (x->dtype > LIK_BF16)
        return lik_fail(LIK_EINVAL, "%s is wanted, %s.dtype is %s, must be f32, f16 or bf16", name, operand,
                        lik_dtype_name(x->dtype));
    return lik_check_aligned(name, "", gradient, lik_dtype_bytes(x->dtype));
}

/* Winners are used as indices: each must be a token of its document, or -1. */
static int check_winners(const struct lik_score *op)
{
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op);
    for (int64_t n = 0; n < rows * columns; n++) {
        int64_t row = n / columns, column = n % columns;
        int64_t tokens = lik_tokens_length(&op->q, lik_score_query(op, row));
        int64_t length = lik_tokens_length(&op->d, lik_score_document(op, row, column));
        for (int64_t s = 0; s < tokens; s++) {
            int64_t t = lik_argmax_at(op, n, s);
            if (t < -1 || t >= length)
                return lik_fail(
                    LIK_EINVAL,
                    "argmax of score [%lld, %lld], query token %lld is %lld, the document has %lld tokens",
                    (long long)row, (long long)column, (long long)s, (long long)t, (long long)length);
        }
    }
    return LIK_OK;
}

int lik_check_grad(const struct lik_context *ctx, const struct lik_grad *in, enum lik_check_mode mode,
                   struct lik_grad *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = lik_check_struct("grad", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    if (out->score.struct_size != sizeof out->score)
        return lik_fail(LIK_EINVAL, "grad.score.struct_size is %zu, must be %zu", out->score.struct_size,
                        sizeof out->score);
    out->score.scores = NULL;
    status = check_problem(ctx, &out->score);
    if (status)
        return status;
    if (out->score.d.storage == LIK_ONE_HOT)
        return lik_fail(LIK_EUNSUPPORTED,
                        "d.storage is LIK_ONE_HOT, gradients need LIK_DENSE or LIK_RESIDUAL");
    if (check_gradient("grad_q", out->grad_q, &out->score.q, "q") ||
        check_gradient("grad_d", out->grad_d, &out->score.d, "d") ||
        lik_check_aligned("grad_weights", "", out->grad_weights, sizeof(float)) ||
        lik_check_aligned("grad_scores", "", out->grad_scores, sizeof(float)))
        return LIK_EINVAL;
    if (out->grad_weights && !out->score.q.weights)
        return lik_fail(LIK_EINVAL, "grad_weights is wanted, q.weights is NULL");
    int64_t rows = lik_score_rows(&out->score), columns = lik_score_columns(&out->score);
    if (out->grad_scores_stride == 0)
        out->grad_scores_stride = columns;
    if (rows > 1 && out->grad_scores_stride < columns)
        return lik_fail(LIK_EINVAL, "grad_scores_stride is %lld, a row has %lld scores",
                        (long long)out->grad_scores_stride, (long long)columns);
    int64_t reach;
    if (lik_mul_i64(rows, lik_max_i64(out->grad_scores_stride, columns), &reach) ||
        lik_mul_i64(reach, 4, &reach))
        return lik_fail(LIK_EINVAL, "grad_scores_stride is %lld: %lld rows of it pass 2^63 bytes",
                        (long long)out->grad_scores_stride, (long long)rows);
    if (mode == LIK_CHECK_RUN && rows > 0 && columns > 0) {
        if (!out->grad_scores)
            return lik_fail(LIK_EINVAL, "grad_scores is NULL, %lld x %lld are read", (long long)rows,
                            (long long)columns);
        if (!out->score.argmax && out->score.q.len_max > 0)
            return lik_fail(LIK_EINVAL, "argmax is NULL, the gradient needs the one lik_score_run wrote");
        if (out->score.argmax && ctx->backend->host_memory)
            return check_winners(&out->score);
    }
    return LIK_OK;
}

/* The operand of a verb of the codec. */
static int check_input(const struct lik_context *ctx, struct lik_tokens *x)
{
    int status = lik_check_tokens(ctx, "x", x, DIM_MAX);
    if (status)
        return status;
    if (x->weights)
        return lik_fail(LIK_EINVAL, "x.weights is set, weights belong to the queries of a score");
    if (x->storage == LIK_ONE_HOT)
        return lik_fail(LIK_EUNSUPPORTED, "x.storage is LIK_ONE_HOT, which is for scores alone");
    return complete_tokens(ctx, "x", x);
}

/* An output of `entries` entries: there when a run comes, and aligned. */
static int check_output(const char *name, const void *output, int64_t entries, size_t element_bytes,
                        enum lik_check_mode mode)
{
    if (mode == LIK_CHECK_RUN && entries > 0 && !output)
        return lik_fail(LIK_EINVAL, "%s is NULL, %lld entries are to be written", name, (long long)entries);
    return lik_check_aligned(name, "", output, element_bytes);
}

int lik_check_decode(const struct lik_context *ctx, const struct lik_decode *in, enum lik_check_mode mode,
                     struct lik_decode *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = lik_check_struct("decode", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    status = check_input(ctx, &out->x);
    if (status)
        return status;
    if (!lik_dtype_is_float(out->out_dtype))
        return lik_fail(LIK_EINVAL, "out_dtype is %d (%s), must be f32, f16 or bf16", out->out_dtype,
                        lik_dtype_name(out->out_dtype));
    return check_output("out", out->out, lik_tokens_rows(&out->x) * out->x.dim,
                        lik_dtype_bytes(out->out_dtype), mode);
}

int lik_check_quantize(const struct lik_context *ctx, const struct lik_quantize *in, enum lik_check_mode mode,
                       struct lik_quantize *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = lik_check_struct("quantize", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    status = check_input(ctx, &out->x);
    if (status)
        return status;
    if (out->values_dtype != LIK_I8 && out->values_dtype != LIK_E4M3 && out->values_dtype != LIK_E5M2)
        return lik_fail(LIK_EINVAL, "values_dtype is %d (%s), must be i8, e4m3 or e5m2", out->values_dtype,
                        lik_dtype_name(out->values_dtype));
    if (out->one_scale && out->x.normalize)
        return lik_fail(LIK_EINVAL, "one_scale is %d and x.normalize %d: unit vectors have a scale each",
                        out->one_scale, out->x.normalize);
    int64_t rows = lik_tokens_rows(&out->x);
    status = check_output("values", out->values, rows * out->x.dim, 1, mode);
    return status ? status
                  : check_output("scales", out->scales, out->one_scale ? 1 : rows, sizeof(float), mode);
}

/* Bounds of buckets. What lies on a device cannot be looked at; the order does not matter to
 * memory. */
static int check_cutoffs(const struct lik_context *ctx, const float *cutoffs, int32_t bits)
{
    if (bits && !cutoffs)
        return lik_fail(LIK_EINVAL, "cutoffs is NULL, %d bits have %d", bits, (1 << bits) - 1);
    if (lik_check_aligned("cutoffs", "", cutoffs, sizeof *cutoffs))
        return LIK_EINVAL;
    for (int i = 0; ctx->backend->host_memory && i < (1 << bits) - 1; i++)
        if (isnan(cutoffs[i]) || (i > 0 && cutoffs[i] < cutoffs[i - 1]))
            return lik_fail(LIK_EINVAL, "cutoffs[%d] is %g, the one before it %g: they must ascend", i,
                            (double)cutoffs[i], (double)cutoffs[i > 0 ? i - 1 : 0]);
    return LIK_OK;
}

int lik_check_encode(const struct lik_context *ctx, const struct lik_encode *in, enum lik_check_mode mode,
                     struct lik_encode *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = lik_check_struct("encode", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    status = check_input(ctx, &out->x);
    if (status)
        return status;
    const struct lik_codec *codec = out->codec;
    int64_t rows = lik_tokens_rows(&out->x);
    if (!codec)
        return lik_fail(LIK_EINVAL, "codec is NULL");
    status = lik_check_codec("codec", codec, out->x.dim);
    if (!status)
        status = check_cutoffs(ctx, out->cutoffs, codec->bits);
    if (!status)
        status = check_precision(out->precision);
    if (status)
        return status;
    if (rows > 0 && codec->centroid_count < 1)
        return lik_fail(LIK_EINVAL, "codec.centroid_count is 0, x has %lld tokens", (long long)rows);
    if (out->codes_dtype != LIK_I16 && out->codes_dtype != LIK_I32 && out->codes_dtype != LIK_I64)
        return lik_fail(LIK_EINVAL, "codes_dtype is %d (%s), must be i16, i32 or i64", out->codes_dtype,
                        lik_dtype_name(out->codes_dtype));
    if (out->codes_dtype == LIK_I16 && codec->centroid_count > UINT16_MAX + 1)
        return lik_fail(LIK_EINVAL,
                        "codes_dtype is LIK_I16, codec.centroid_count is %lld, must be at most %d",
                        (long long)codec->centroid_count, UINT16_MAX + 1);
    out->inv_norms_dtype = out->inv_norms_dtype ? out->inv_norms_dtype : LIK_F32;
    if (out->inv_norms_dtype != LIK_F32 && out->inv_norms_dtype != LIK_F16)
        return lik_fail(LIK_EINVAL, "inv_norms_dtype is %d (%s), must be f32 or f16", out->inv_norms_dtype,
                        lik_dtype_name(out->inv_norms_dtype));
    if (check_output("codes", out->codes, rows, lik_dtype_bytes(out->codes_dtype), mode) ||
        check_output("residuals", out->residuals, rows * lik_residual_bytes(out->x.dim, codec->bits), 1,
                     mode))
        return LIK_EINVAL;
    return lik_check_aligned("inv_norms", "", out->inv_norms, lik_dtype_bytes(out->inv_norms_dtype));
}

/* Are there tokens enough to begin from? Masks are looked at when a run comes, and on the host
 * alone: elsewhere every row may be a token. */
static int check_points(const struct lik_context *ctx, const struct lik_train *op, enum lik_check_mode mode)
{
    const struct lik_tokens *x = &op->x;
    int64_t kept = lik_tokens_rows(x);
    if (ctx->backend->host_memory && x->offsets)
        kept = lik_offset_at(x, x->count) - lik_offset_at(x, 0);
    if (ctx->backend->host_memory && x->mask && kept > 0 && mode == LIK_CHECK_RUN) {
        kept = 0;
        for (int64_t i = 0; i < x->count; i++)
            kept += lik_tokens_kept(x, i);
    }
    if (op->centroid_count > kept)
        return lik_fail(LIK_EINVAL, "centroid_count is %lld, x keeps %lld tokens",
                        (long long)op->centroid_count, (long long)kept);
    return LIK_OK;
}

int lik_check_train(const struct lik_context *ctx, const struct lik_train *in, enum lik_check_mode mode,
                    struct lik_train *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = lik_check_struct("train", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    status = check_input(ctx, &out->x);
    if (!status)
        status = lik_check_bits("bits", out->bits);
    if (!status)
        status = check_precision(out->precision);
    if (status)
        return status;
    int64_t entries, bytes;
    if (out->centroid_count < 1 || out->centroid_count > INT32_MAX)
        return lik_fail(LIK_EINVAL, "centroid_count is %lld, must be 1 to %d", (long long)out->centroid_count,
                        INT32_MAX);
    if (lik_mul_i64(out->centroid_count, out->x.dim, &entries) || lik_mul_i64(entries, 4, &bytes))
        return lik_fail(LIK_EINVAL, "centroid_count is %lld and x.dim %lld: centroids pass 2^63 bytes",
                        (long long)out->centroid_count, (long long)out->x.dim);
    if (out->points_per_centroid < 0)
        return lik_fail(LIK_EINVAL, "points_per_centroid is %lld, must not be negative",
                        (long long)out->points_per_centroid);
    if (out->iterations < 0)
        return lik_fail(LIK_EINVAL, "iterations is %d, must not be negative", out->iterations);
    out->points_per_centroid = out->points_per_centroid ? out->points_per_centroid : 256;
    out->iterations = out->iterations ? out->iterations : 4;
    if (check_points(ctx, out, mode))
        return LIK_EINVAL;
    if (check_output("centroids", out->centroids, entries, sizeof(float), mode) ||
        check_output("cutoffs", out->cutoffs, (1 << out->bits) - 1, sizeof(float), mode) ||
        check_output("weights", out->weights, out->bits ? 1 << out->bits : 0, sizeof(float), mode))
        return LIK_EINVAL;
    return lik_check_aligned("found", "", out->found, sizeof(double));
}

/* A copy of what lies on the device; the caller frees it. */
static int fetch(const struct lik_context *ctx, const void *from, int64_t count, size_t size, void **out)
{
    size_t bytes = (size_t)count * size;
    *out = malloc(bytes ? bytes : 1);
    if (!*out)
        return lik_fail(LIK_ENOMEM, "LIK_CHECK: no memory for %lld entries", (long long)count);
    return bytes ? ctx->backend->memory_copy(ctx, *out, from, bytes) : LIK_OK;
}

static int check_device_offsets(const struct lik_context *ctx, const char *name, const struct lik_tokens *x)
{
    void *copy = NULL;
    if (!x->offsets)
        return LIK_OK;
    int status = fetch(ctx, x->offsets, x->count + 1, lik_dtype_bytes(x->offsets_dtype), &copy);
    if (!status) {
        struct lik_tokens host = *x;
        host.offsets = copy;
        status = lik_check_offsets(name, &host, host.len_max);
    }
    free(copy);
    return status;
}

static int check_device_list(const struct lik_context *ctx, const char *name, const int64_t *list, int64_t n,
                             int64_t count)
{
    void *copy = NULL;
    int status = fetch(ctx, list, n, sizeof *list, &copy);
    if (!status)
        status = check_entries(name, copy, n, count);
    free(copy);
    return status;
}

/* A copy of array n of x, which `host` then has. */
static int fetch_array(const struct lik_context *ctx, const struct lik_tokens *x, int n,
                       struct lik_tokens *host, void **copy)
{
    struct lik_operand_array array = lik_array_of(x, n);
    int64_t extents[4], low = 0, high = 1;
    const int64_t steps[4] = {array.strides.group, array.strides.sequence, array.strides.token,
                              array.inner_stride};
    lik_operand_extents(x, &array, extents);
    for (int i = 0; i < 4; i++)
        *(steps[i] < 0 ? &low : &high) += (extents[i] - 1) * steps[i];
    const char *first = (const char *)array.at + low * array.element_bytes;
    int status = fetch(ctx, first, high - low, (size_t)array.element_bytes, copy);
    lik_operand_move(host, n, (const char *)*copy - low * array.element_bytes);
    return status;
}

static int check_device_codes(const struct lik_context *ctx, const char *name, const struct lik_tokens *x)
{
    void *offsets = NULL, *mask = NULL, *codes = NULL;
    struct lik_tokens host = *x;
    int status = LIK_OK;
    if (x->storage == LIK_DENSE || lik_tokens_rows(x) == 0)
        return LIK_OK;
    if (x->offsets) {
        status = fetch(ctx, x->offsets, x->count + 1, lik_dtype_bytes(x->offsets_dtype), &offsets);
        host.offsets = offsets;
    }
    if (!status && x->mask)
        status = fetch_array(ctx, x, LIK_MASK, &host, &mask);
    if (!status)
        status = fetch_array(ctx, x, LIK_CODES, &host, &codes);
    if (!status)
        status = lik_check_codes(name, &host);
    free(offsets);
    free(mask);
    free(codes);
    return status;
}

int lik_check_device_tokens(const struct lik_context *ctx, const char *name, const struct lik_tokens *x,
                            const struct lik_exec *exec)
{
    int status = ctx->backend->stream_synchronize(ctx, exec->stream);
    if (!status)
        status = check_device_offsets(ctx, name, x);
    return status ? status : check_device_codes(ctx, name, x);
}

int lik_check_device_score(const struct lik_context *ctx, const struct lik_score *op,
                           const struct lik_exec *exec)
{
    int status = lik_check_device_tokens(ctx, "q", &op->q, exec);
    if (!status)
        status = lik_check_device_tokens(ctx, "d", &op->d, exec);
    if (!status && op->pairing == LIK_LIST)
        status = check_device_list(ctx, "list_q", op->list_q, op->list_count, op->q.count);
    if (!status && op->pairing == LIK_LIST)
        status = check_device_list(ctx, "list_d", op->list_d, op->list_count, op->d.count);
    return status;
}

static void run_serially(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    (void)pool;
    for (int64_t i = 0; i < n; i++)
        task(arg, i);
}

int lik_check_exec(const struct lik_exec *in, struct lik_exec *out)
{
    *out = (struct lik_exec){0};
    if (in) {
        size_t first_version = offsetof(struct lik_exec, get_workspace);
        int short_one = in->struct_size == first_version; /* of a caller built with that version's header */
        int status = short_one ? LIK_OK : lik_check_struct("exec", in, sizeof *in);
        if (status)
            return status;
        memcpy(out, in, short_one ? first_version : sizeof *out);
    }
    if (out->threads < 0 || out->threads > 4096)
        return lik_fail(LIK_EINVAL, "exec.threads is %d, must be 0 to 4096", out->threads);
    if (out->threads > 1 && !out->parallel_for)
        return lik_fail(LIK_EINVAL, "exec.threads is %d, but exec.parallel_for is NULL", out->threads);
    if (out->threads <= 1 || !out->parallel_for) {
        out->threads = 1;
        out->parallel_for = run_serially;
    }
    return LIK_OK;
}
