/* Decoding and encoding: blocks of rows of the outputs, which slots take from a counter. Every
 * row is written by one task and depends on its token alone. */
#include "cpu/assign.h"

#include "base/dtype.h"

#include <string.h>

#define SPAN        64   /* elements that are put into buckets at once */
#define DECODE_ROWS 1024 /* of a block: far more work than taking it from the counter */

/* ---- decode ---- */

struct decode_job {
    const struct lik_decode *op;
    struct lik_cpu_reader reader;
    atomic_llong next;
    char *scratch; /* f32 rows of the slots, where outputs are narrow */
    size_t slot_bytes;
};

static void decode_slot(void *arg, int64_t slot)
{
    struct decode_job *job = arg;
    const struct lik_decode *op = job->op;
    int64_t rows = lik_tokens_rows(&op->x), dim = op->x.dim, row_bytes = dim, i, t;
    row_bytes *= (int64_t)lik_dtype_bytes(op->out_dtype);
    float *wide = (float *)(void *)(job->scratch + (size_t)slot * job->slot_bytes);
    for (;;) {
        int64_t row = atomic_fetch_add_explicit(&job->next, DECODE_ROWS, memory_order_relaxed);
        if (row >= rows)
            return;
        struct lik_cpu_rows_walk walk = lik_cpu_walk(&op->x, row);
        for (int64_t end = lik_min_i64(row + DECODE_ROWS, rows); row < end; row++) {
            char *out = (char *)op->out + row * row_bytes;
            if (!lik_cpu_walk_next(&walk, &i, &t)) {
                memset(out, 0, (size_t)row_bytes);
            } else if (op->out_dtype == LIK_F32) {
                lik_cpu_load_vector(&job->reader, i, t, (float *)(void *)out);
            } else {
                lik_cpu_load_vector(&job->reader, i, t, wide);
                job->reader.kernels->narrow(out, wide, op->out_dtype, dim);
            }
        }
    }
}

int lik_cpu_decode(const struct lik_context *ctx, const struct lik_decode *op, struct lik_exec *exec,
                   struct lik_plan *plan)
{
    struct decode_job job = {.op = op};
    struct lik_layout layout = {0}, slot = {0};
    int64_t tasks = lik_divide_up(lik_tokens_rows(&op->x), DECODE_ROWS);
    lik_layout_take(&slot, op->out_dtype == LIK_F32 ? 0 : op->x.dim, 4, 64);
    lik_layout_repeat(&layout, &slot, exec->threads, 64, &job.slot_bytes);
    lik_cpu_reader_init(&job.reader, ctx->kernels, &op->x);
    if (plan) {
        lik_cpu_name_tokens(ctx->kernels, "decode", &op->x, "", plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    int status = lik_workspace_take(ctx, exec, &layout, &job.scratch);
    if (status)
        return status;
    atomic_store(&job.next, 0);
    exec->parallel_for(exec->pool, lik_min_i64(exec->threads, lik_max_i64(tasks, 1)), decode_slot, &job);
    return LIK_OK;
}

/* ---- encode ---- */

struct encode_job {
    const struct lik_encode *op;
    struct lik_cpu_reader reader;
    struct lik_cpu_reader decoder; /* of what is written */
    struct lik_tokens decoded;     /* what it reads: f32 */
    struct lik_cpu_assign assign;
    uint8_t numbers[256]; /* [1 << bits]: a bucket's number as it stands in a byte */
    atomic_llong next;
    char *scratch;
    size_t rows, centroid, slot_bytes; /* rows: [block], of the tokens in assign's rows */
};

/* The buckets of SPAN elements that remain. Few cutoffs are counted one after another, which
 * compilers turn into vector instructions; many are bisected. */
static void find_buckets(const float *cutoffs, int bits, const float element[SPAN], int32_t bucket[SPAN])
{
    for (int k = 0; k < SPAN; k++)
        bucket[k] = bits == 8 ? lik_bucket_of(cutoffs, bits, element[k]) : 0;
    for (int c = 0; bits < 8 && c < (1 << bits) - 1; c++)
        for (int k = 0; k < SPAN; k++)
            bucket[k] += cutoffs[c] < element[k];
}

/* The token's bytes: the buckets of what remains of it beside the centroid. */
static void encode_residual(const struct encode_job *job, const float *token, const float *centroid,
                            uint8_t *bytes)
{
    const struct lik_codec *codec = job->op->codec;
    const int bits = codec->bits, per_byte = 8 / bits;
    for (int64_t from = 0, dim = job->op->x.dim; from < dim; from += SPAN) {
        float element[SPAN] = {0};
        int32_t bucket[SPAN];
        int n = (int)lik_min_i64(SPAN, dim - from);
        for (int k = 0; k < n; k++)
            element[k] = token[from + k] - centroid[from + k];
        find_buckets(job->op->cutoffs, bits, element, bucket);
        for (int k = 0; k < n; bytes++) {
            int byte = 0;
            for (int f = 0; f < per_byte && k < n; f++, k++)
                byte |= job->numbers[bucket[k]] << lik_residual_shift(bits, codec->bit_order, f);
            *bytes = (uint8_t)byte;
        }
    }
}

static void encode_token(const struct encode_job *job, int64_t row, int64_t code, const float *token,
                         float *centroid)
{
    const struct lik_encode *op = job->op;
    const struct lik_codec *codec = op->codec;
    int64_t dim = op->x.dim, token_bytes = lik_residual_bytes(dim, codec->bits);
    uint8_t *bytes = op->residuals ? op->residuals + row * token_bytes : NULL;
    const void *stored =
        (const char *)codec->centroids +
        code * job->assign.op.d.strides.token * (int64_t)lik_dtype_bytes(codec->centroids_dtype);
    lik_code_put(op->codes, op->codes_dtype, row, code);
    if (codec->bits) {
        job->reader.kernels->widen(centroid, stored, codec->centroids_dtype, dim);
        encode_residual(job, token, centroid, bytes);
    }
    if (op->inv_norms) {
        job->reader.kernels->decode(&job->decoder.decoder, centroid, stored, bytes, dim);
        float norm = lik_clamp_norm(lik_cpu_norm(job->reader.kernels, centroid, dim));
        lik_inv_norm_put(op->inv_norms, op->inv_norms_dtype, row, 1.0f / norm);
    }
}

static void encode_none(const struct lik_encode *op, int64_t row)
{
    int64_t token_bytes = lik_residual_bytes(op->x.dim, op->codec->bits);
    lik_code_put(op->codes, op->codes_dtype, row, 0);
    if (op->codec->bits)
        memset(op->residuals + row * token_bytes, 0, (size_t)token_bytes);
    if (op->inv_norms)
        lik_inv_norm_put(op->inv_norms, op->inv_norms_dtype, row, 0);
}

static void encode_slot(void *arg, int64_t slot)
{
    struct encode_job *job = arg;
    const struct lik_encode *op = job->op;
    char *scratch = job->scratch + (size_t)slot * job->slot_bytes;
    float *vectors = lik_cpu_assign_rows(&job->assign, scratch);
    float *centroid = (float *)(void *)(scratch + job->centroid);
    int64_t *row_of = (int64_t *)(void *)(scratch + job->rows);
    int64_t rows = lik_tokens_rows(&op->x), dim = op->x.dim, i, t;
    for (;;) {
        int64_t row = atomic_fetch_add_explicit(&job->next, job->assign.block, memory_order_relaxed);
        if (row >= rows)
            return;
        struct lik_cpu_rows_walk walk = lik_cpu_walk(&op->x, row);
        int64_t count = 0;
        for (int64_t end = lik_min_i64(row + job->assign.block, rows); row < end; row++) {
            if (!lik_cpu_walk_next(&walk, &i, &t)) {
                encode_none(op, row);
                continue;
            }
            lik_cpu_load_vector(&job->reader, i, t, vectors + count * dim);
            row_of[count++] = row;
        }
        const int32_t *codes = lik_cpu_assign_run(&job->assign, count, scratch);
        for (int64_t n = 0; n < count; n++)
            encode_token(job, row_of[n], codes[n], vectors + n * dim, centroid);
    }
}

/* What reads back what is written, in f32, and a bucket's number in the bytes. */
static void prepare_decoder(struct encode_job *job)
{
    const struct lik_codec *codec = job->op->codec;
    job->decoded = (struct lik_tokens){.storage = LIK_RESIDUAL, .dtype = LIK_F32, .codec = codec};
    lik_cpu_reader_init(&job->decoder, job->reader.kernels, &job->decoded);
    for (int n = 0; n < 1 << codec->bits; n++)
        job->numbers[n] =
            (uint8_t)(codec->bit_order == LIK_BITS_COLBERT ? lik_reversed_bits(n, codec->bits) : n);
}

int lik_cpu_encode(const struct lik_context *ctx, const struct lik_encode *op, struct lik_exec *exec,
                   struct lik_plan *plan)
{
    struct encode_job job = {.op = op};
    struct lik_layout layout = {0}, slot = {0};
    struct lik_tokens centroids = lik_centroids(op->codec, op->x.dim);
    int64_t rows = lik_tokens_rows(&op->x);
    int status =
        lik_cpu_assign_plan(&job.assign, ctx->kernels, &centroids, LIK_HIGHEST, rows, exec->threads, &slot);
    if (status)
        return status;
    job.rows = lik_layout_take(&slot, job.assign.block, 8, 64);
    job.centroid = lik_layout_take(&slot, op->x.dim, 4, 64);
    lik_layout_repeat(&layout, &slot, exec->threads, 64, &job.slot_bytes);
    if (plan) {
        lik_cpu_name_tokens(ctx->kernels, "encode", &op->x, "", plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    status = lik_workspace_take(ctx, exec, &layout, &job.scratch);
    if (status)
        return status;
    lik_cpu_reader_init(&job.reader, ctx->kernels, &op->x);
    prepare_decoder(&job);
    atomic_store(&job.next, 0);
    int64_t tasks = lik_max_i64(lik_divide_up(rows, job.assign.block), 1);
    exec->parallel_for(exec->pool, lik_min_i64(exec->threads, tasks), encode_slot, &job);
    return LIK_OK;
}
