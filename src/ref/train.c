/* Training in the oracle: k-means and quantiles as lik.h defines them, sums in f64. The tokens
 * that take part are remembered as rows of a contiguous array. */
#include "ref/ref.h"

#include "shared/sample.h"

#include <stdio.h>
#include <string.h>

struct train {
    const struct lik_train *op;
    struct lik_codec codec; /* for its centroids alone */
    int64_t *kept;          /* rows of kept tokens */
    int64_t kept_count, held_out, points;
    int64_t next;     /* of the points, counted on and on: whom the next empty cluster gets */
    int32_t *codes;   /* [points] */
    double *sum;      /* [dim] */
    float *residuals; /* elements of the tokens that make the buckets */
    int64_t elements; /* of them */
    struct lik_train_found found;
};

/* Token n of the shuffled ones; 0 if it has no direction. */
static int token_of(const struct train *job, int64_t n, struct lik_ref_token *token)
{
    const struct lik_train *op = job->op;
    lik_ref_token_of_row(&op->x, job->kept[lik_shuffled(n, job->kept_count, op->seed)], token);
    double norm = sqrt(lik_ref_product(token, token));
    return norm >= LIK_NORM_MIN && norm <= DBL_MAX;
}

static int point_of(const struct train *job, int64_t p, struct lik_ref_token *token)
{
    return token_of(job, job->held_out + p, token);
}

static void add_token(struct train *job, const struct lik_ref_token *token)
{
    for (int64_t from = 0; from < job->op->x.dim; from += LIK_REF_SPAN) {
        float span[LIK_REF_SPAN];
        int64_t n = lik_min_i64(LIK_REF_SPAN, job->op->x.dim - from);
        lik_ref_load(token, from, n, span);
        for (int64_t k = 0; k < n; k++)
            job->sum[from + k] += token->factor * (double)span[k];
    }
}

/* Centroid c becomes the direction of the sum; 0 if it has none. */
static int take_direction(struct train *job, int64_t c)
{
    int64_t dim = job->op->x.dim;
    double squares = 0;
    for (int64_t k = 0; k < dim; k++)
        squares += job->sum[k] * job->sum[k];
    int has = squares > 0 && squares <= DBL_MAX;
    for (int64_t k = 0; k < dim; k++)
        job->op->centroids[c * dim + k] = has ? (float)(job->sum[k] / sqrt(squares)) : 0;
    return has;
}

static void clear_sum(struct train *job)
{
    memset(job->sum, 0, (size_t)job->op->x.dim * sizeof *job->sum);
}

/* Centroid c begins from the next point that has a direction. */
static void begin_anew(struct train *job, int64_t c)
{
    struct lik_ref_token token;
    for (int64_t tries = 0; tries < job->points; tries++)
        if (point_of(job, job->next++ % job->points, &token)) {
            clear_sum(job);
            add_token(job, &token);
            if (take_direction(job, c))
                return;
        }
}

static void iterate(struct train *job)
{
    const struct lik_train *op = job->op;
    struct lik_tokens centroids = lik_centroids(&job->codec, op->x.dim);
    struct lik_ref_token token;
    for (int64_t p = 0; p < job->points; p++)
        job->codes[p] = point_of(job, p, &token) ? (int32_t)lik_ref_nearest(&token, &centroids) : -1;
    /* Whoever begins anew does so after all others have moved, as no one is assigned again. */
    for (int64_t c = 0; c < op->centroid_count; c++) {
        clear_sum(job);
        for (int64_t p = 0; p < job->points; p++)
            if (job->codes[p] == c && point_of(job, p, &token))
                add_token(job, &token);
        if (!take_direction(job, c)) {
            begin_anew(job, c);
            job->found.reseeded++;
        }
    }
}

/* The residuals of tokens from ... to - 1 of the shuffled ones, against the centroids. */
static void take_residuals(struct train *job, int64_t from, int64_t to)
{
    const struct lik_train *op = job->op;
    struct lik_tokens centroids = lik_centroids(&job->codec, op->x.dim);
    double squares = 0;
    int64_t tokens = 0;
    for (int64_t n = from; n < to; n++) {
        struct lik_ref_token token;
        if (!token_of(job, n, &token))
            continue;
        const float *centroid = op->centroids + lik_ref_nearest(&token, &centroids) * op->x.dim;
        tokens++;
        for (int64_t k = 0; k < op->x.dim; k += LIK_REF_SPAN) {
            float span[LIK_REF_SPAN];
            int64_t here = lik_min_i64(LIK_REF_SPAN, op->x.dim - k);
            lik_ref_load(&token, k, here, span);
            for (int64_t e = 0; e < here; e++) {
                float element = (float)(token.factor * (double)span[e]) - centroid[k + e];
                job->residuals[job->elements++] = element;
                squares += (double)element * (double)element;
            }
        }
    }
    job->found.mean_squared_residual = tokens ? squares / (double)tokens : 0;
}

/* Value number `rank` of the sorted elements, found bit by bit of a float's order. */
static float ranked(const struct train *job, int64_t rank)
{
    uint32_t key = 0;
    for (int bit = 31; bit >= 0; bit--) {
        uint32_t above = key | (uint32_t)1 << bit;
        int64_t below = 0;
        for (int64_t e = 0; e < job->elements; e++)
            below += lik_order_of_f32(job->residuals[e]) < above;
        key = below <= rank ? above : key;
    }
    return lik_f32_of_order(key);
}

static float quantile(const struct train *job, int64_t part, int64_t parts)
{
    int64_t below;
    if (job->elements == 0)
        return 0;
    double share = lik_quantile_position(job->elements, part, parts, &below);
    double low = (double)ranked(job, below);
    return (float)(share > 0 ? low + share * ((double)ranked(job, below + 1) - low) : low);
}

static void train(struct train *job)
{
    const struct lik_train *op = job->op;
    for (int64_t row = 0; row < lik_tokens_rows(&op->x); row++) {
        int64_t i = lik_tokens_sequence(&op->x, row);
        if (i >= 0 && lik_token_kept(&op->x, i, row - lik_tokens_row(&op->x, i)))
            job->kept[job->kept_count++] = row;
    }
    job->held_out = lik_train_held_out(op, job->kept_count);
    job->points = lik_train_points(op, job->kept_count);
    job->found.points = job->points;
    job->found.held_out = job->held_out;
    for (int64_t c = 0; c < op->centroid_count; c++)
        begin_anew(job, c);
    for (int32_t i = 0; i < op->iterations; i++)
        iterate(job);
    take_residuals(job, 0, job->held_out ? job->held_out : lik_min_i64(job->points, LIK_HELD_OUT_MAX));
    int64_t buckets = (int64_t)1 << op->bits;
    for (int64_t b = 0; op->bits && b < buckets; b++) {
        op->weights[b] = quantile(job, 2 * b + 1, 2 * buckets);
        if (b + 1 < buckets)
            op->cutoffs[b] = quantile(job, b + 1, buckets);
    }
    if (op->found)
        *op->found = job->found;
}

int lik_ref_train(const struct lik_context *ctx, const struct lik_train *op, struct lik_exec *exec,
                  struct lik_plan *plan)
{
    int64_t rows = lik_tokens_rows(&op->x), elements;
    struct lik_layout layout = {0};
    char *memory;
    if (lik_mul_i64(lik_train_bucket_tokens(op, rows), op->x.dim, &elements))
        layout.failed = 1;
    size_t kept = lik_layout_take(&layout, rows, 8, 64);
    size_t codes = lik_layout_take(&layout, lik_train_points(op, rows), 4, 64);
    size_t sum = lik_layout_take(&layout, op->x.dim, 8, 64);
    size_t residuals = lik_layout_take(&layout, elements, 4, 64);
    if (layout.failed)
        return lik_fail(LIK_EINVAL, "the workspace to train on %lld tokens passes 2^63 bytes",
                        (long long)rows);
    if (plan) {
        snprintf(plan->variant, sizeof plan->variant, "train_ref");
        return lik_workspace_plan(ctx, &layout, plan);
    }
    int status = lik_workspace_take(ctx, exec, &layout, &memory);
    if (status)
        return status;
    struct train job = {.op = op, .codec = lik_train_codec(op)};
    job.kept = (int64_t *)(void *)(memory + kept);
    job.codes = (int32_t *)(void *)(memory + codes);
    job.sum = (double *)(void *)(memory + sum);
    job.residuals = (float *)(void *)(memory + residuals);
    train(&job);
    return LIK_OK;
}
