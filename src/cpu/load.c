/* The loaders: one a way in which tokens are stored. See stream.h. */
#include "cpu/stream.h"

#include "base/dtype.h"
#include "shared/residual.h"

#include <string.h>

/* Tokens whose f32 centroids are on their way: they come from L3 or memory. */
#define AHEAD 16
/* Tokens more for which residuals are than rounded centroids: they come from memory. */
#define FARTHER 16

static int takes_f32(const struct lik_score *op)
{
    return lik_cpu_in_place(&op->d);
}

static int takes_f16(const struct lik_score *op)
{
    return op->d.dtype == LIK_F16 && lik_cpu_lies_together(&op->d) && !op->d.normalize;
}

static int takes_bf16(const struct lik_score *op)
{
    return op->d.dtype == LIK_BF16 && lik_cpu_lies_together(&op->d) && !op->d.normalize;
}

/* bf16 documents whose query is bf16, too: their products need no conversion. An odd dim's last
 * pair would have a neighbor's element. */
static int takes_bf16_dot_apart(const struct lik_score *op)
{
    return op->d.dtype == LIK_BF16 && op->q.dtype == LIK_BF16 && op->d.storage == LIK_DENSE &&
           op->q.storage == LIK_DENSE && op->q.dim % 2 == 0;
}

static int takes_bf16_dot(const struct lik_score *op)
{
    return takes_bf16_dot_apart(op) && lik_cpu_lies_together(&op->d);
}

/* 8-bit documents whose query LIK_MEDIUM allows to round to 7 bits. */
static int takes_i8_q7_apart(const struct lik_score *op)
{
    return op->d.dtype == LIK_I8 && op->precision == LIK_MEDIUM && op->q.dtype != LIK_I8;
}

static int takes_i8_q7(const struct lik_score *op)
{
    return takes_i8_q7_apart(op) && lik_cpu_lies_together(&op->d);
}

static int takes_i8_q16_apart(const struct lik_score *op)
{
    return op->d.dtype == LIK_I8;
}

static int takes_i8_q16(const struct lik_score *op)
{
    return takes_i8_q16_apart(op) && lik_cpu_lies_together(&op->d);
}

static int takes_any(const struct lik_score *op)
{
    (void)op;
    return 1;
}

/* Elements of one or two bytes that do not lie together, copied. */
static void gather(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                   struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    const int64_t first = lik_tokens_base(d, &d->strides, j), bytes = job->plan.loader->gathered_bytes;
    for (int64_t r = from; r < to; r++) {
        int64_t at = first + stream->index[r] * d->strides.token;
        int8_t *row = slot->gathered + r * d->dim * bytes;
        for (int64_t k = 0; k < d->dim; k++, at += d->dim_stride) {
            if (bytes == 1)
                row[k] = ((const int8_t *)d->data)[at];
            else
                ((int16_t *)(void *)row)[k] = ((const int16_t *)d->data)[at];
        }
        stream->rows[r] = row;
    }
}

/* Any dense token as f32: 8-bit floats, strided elements, narrow dtypes to normalize. */
static void load_f32(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                     struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    const int compressed = job->op->d.storage == LIK_RESIDUAL;
    for (int64_t r = from; r < to; r++) {
        if (compressed && r + AHEAD < to)
            lik_cpu_prefetch_token(&job->op->d, j, stream->index[r + AHEAD]);
        float *row = slot->widened + r * job->plan.widened_stride;
        lik_cpu_load_token(&slot->documents, j, stream->index[r], row);
        stream->rows[r] = row;
    }
}

static int takes_residual(const struct lik_score *op)
{
    return op->d.storage == LIK_RESIDUAL;
}

/* Compressed tokens whose products LIK_MEDIUM allows to be of integers. */
static int takes_residual_i8(const struct lik_score *op)
{
    return op->d.storage == LIK_RESIDUAL && op->precision == LIK_MEDIUM;
}

/* The same, of few enough weights that each centroid has them in its unit. */
static int takes_residual_rounded(const struct lik_score *op)
{
    return takes_residual_i8(op) && op->d.codec->bits <= 4;
}

/* `token`: f32 scratch of two tokens. */
static void round_centroid(const struct lik_cpu_reader *reader, const void *centroid, float *token,
                           struct lik_cpu_rounded *to)
{
    const struct lik_cpu_kernels *kernels = reader->kernels;
    const struct lik_cpu_decoder *decoder = &reader->decoder;
    const struct lik_tokens *x = reader->x;
    kernels->widen(token, centroid, decoder->centroids_dtype, x->dim);
    if (decoder->round_to != LIK_F32 && decoder->round_to != decoder->centroids_dtype) {
        kernels->narrow(token + x->dim, token, decoder->round_to, x->dim);
        kernels->widen(token, token + x->dim, decoder->round_to, x->dim);
    }
    to->unit = kernels->quantize(to->elements, token, x->dim, decoder->weights_size);
    memset(to->elements + x->dim, 0, (size_t)(lik_round_up(x->dim, LIK_ROUNDED_UNIT) - x->dim));
    memset(to->weights, 0, sizeof to->weights);
    for (int n = 0; to->unit > 0 && decoder->bits && n < 1 << decoder->bits; n++)
        to->weights[n] = (int8_t)lrintf(decoder->weights[n] / to->unit);
}

static struct lik_cpu_rounded *rounded_at(void *rounded, int64_t dim, int64_t n)
{
    return (struct lik_cpu_rounded *)(void *)((char *)rounded + n * lik_cpu_rounded_bytes(dim));
}

#define CENTROIDS_AT_ONCE 64

void lik_cpu_round_centroids(struct lik_cpu_job *job, struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    const int64_t count = d->codec->centroid_count, dim = d->dim;
    const int64_t element_bytes = (int64_t)lik_dtype_bytes(d->codec->centroids_dtype);
    for (;;) {
        int64_t n = atomic_fetch_add_explicit(&job->next, CENTROIDS_AT_ONCE, memory_order_relaxed);
        if (n >= count)
            return;
        for (int64_t end = lik_min_i64(n + CENTROIDS_AT_ONCE, count); n < end; n++)
            round_centroid(&slot->documents, lik_centroid_at(d, n, element_bytes), slot->token,
                           rounded_at(job->rounded, dim, n));
    }
}

#define FIND_CENTROIDS(type)                                                                         \
    for (int64_t r = from; r < to; r++) {                                                            \
        const int64_t t = stream->index[r];                                                          \
        stream->centroid[r] = centroids + ((const type *)d->codes)[codes + t * step] * record_bytes; \
        stream->residual[r] = residuals ? residuals + t * stride : NULL;                             \
    }

/* Finds centroids, rounded or not, and residuals, for decode_rounded. */
static void find_rounded(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                         struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    const int64_t codes = lik_tokens_base(d, &d->codes_strides, j), step = d->codes_strides.token;
    const int64_t stride = d->codec->bits ? d->strides.token : 0;
    const uint8_t *residuals = d->codec->bits ? (const uint8_t *)d->data : NULL;
    const char *centroids = job->rounded ? (const char *)job->rounded : d->codec->centroids;
    int64_t record_bytes = lik_cpu_rounded_bytes(d->dim);
    (void)slot;
    if (!job->rounded)
        record_bytes = lik_centroid_stride(d) * (int64_t)lik_dtype_bytes(d->codec->centroids_dtype);
    if (d->codec->bits)
        residuals += lik_tokens_base(d, &d->strides, j);
    switch (d->codes_dtype) {
    case LIK_I16: FIND_CENTROIDS(uint16_t) break;
    case LIK_I32: FIND_CENTROIDS(int32_t) break;
    default: FIND_CENTROIDS(int64_t) break;
    }
    for (int64_t r = from; job->rounded && r < lik_min_i64(to, LIK_DECODE_AHEAD); r++)
        lik_cpu_prefetch(stream->centroid[r], record_bytes);
    for (int64_t r = to; r < to + LIK_DECODE_AHEAD; r++) /* if no others follow */
        stream->centroid[r] = stream->centroid[to - 1];
}

static void decode_rounded(const struct lik_cpu_job *job, int64_t from, int64_t to,
                           struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    const int64_t dim = job->op->d.dim, at_once = job->rounded ? LIK_CPU_MADE_AT_ONCE : 1;
    const void *one[1 + LIK_DECODE_AHEAD]; /* without rounded centroids: the one at hand */
    int32_t squares[LIK_CPU_MADE_AT_ONCE];
    struct lik_cpu_compressed tokens = {.dim = dim, .squares = squares};
    if (job->op->d.codec->bits)
        tokens.ahead = (LIK_DECODE_AHEAD + FARTHER) * (uint64_t)job->op->d.strides.token;
    for (size_t n = 0; n < sizeof one / sizeof *one && !job->rounded; n++)
        one[n] = slot->rounded;
    for (int64_t r = from; r < to; r += tokens.count) {
        tokens.count = lik_min_i64(at_once, to - r);
        tokens.centroids = job->rounded ? stream->centroid + r : one;
        tokens.bytes = stream->residual + r;
        tokens.rows = (int8_t *)(uintptr_t)stream->rows[r];
        tokens.units = stream->unit + r;
        if (!job->rounded)
            round_centroid(&slot->documents, stream->centroid[r], slot->token, slot->rounded);
        job->kernels->decode_i8(&slot->documents.decoder, &tokens);
        for (int64_t i = 0; i < tokens.count; i++)
            stream->norm[r + i] = stream->unit[r + i] * sqrtf((float)squares[i]);
    }
}

/* As f32, and from there to integers of a unit of the token's own: so its bits depend on it
 * alone, and an element far out costs no other token anything. */
static void load_i8(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                    struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    for (int64_t r = from; r < to; r++) {
        if (r + AHEAD < to)
            lik_cpu_prefetch_token(d, j, stream->index[r + AHEAD]);
        int8_t *row = slot->gathered + r * d->dim;
        lik_cpu_load_token(&slot->documents, j, stream->index[r], slot->token);
        if (d->normalize)
            stream->norm[r] = lik_cpu_norm(job->kernels, slot->token, d->dim);
        stream->unit[r] = job->kernels->quantize(row, slot->token, d->dim, 0);
        stream->rows[r] = row;
    }
}

static int takes_one_hot(const struct lik_score *op)
{
    return op->d.storage == LIK_ONE_HOT;
}

/* Do all query tokens' elements of one number lie together? Then they are a row. */
static int takes_table(const struct lik_score *op)
{
    return takes_one_hot(op) && !op->q.mask && (op->q.strides.token == 1 || op->q.len_max <= 1);
}

#define FIND_PRODUCTS(type)                                                                      \
    for (int64_t r = from; r < to; r++) {                                                        \
        type code = ((const type *)d->codes)[codes + stream->index[r] * d->codes_strides.token]; \
        stream->rows[r] = table + code * step;                                                   \
    }

static void find_products(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                          struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    const struct lik_tokens *q = &job->op->q, *d = &job->op->d;
    int64_t codes = lik_tokens_base(d, &d->codes_strides, j);
    int64_t first = lik_tokens_base(q, &q->strides, lik_score_query(job->op, slot->block.row));
    if (slot->block.lanes == 0) /* there may be no table */
        return;
    const float *table = (const float *)q->data + first;
    int64_t step = q->dim_stride;
    switch (d->codes_dtype) {
    case LIK_I16: FIND_PRODUCTS(uint16_t) break;
    case LIK_I32: FIND_PRODUCTS(int32_t) break;
    default: FIND_PRODUCTS(int64_t) break;
    }
}

static void gather_products(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                            struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    const struct lik_tokens *q = &job->op->q, *d = &job->op->d;
    int64_t table = lik_tokens_base(q, &q->strides, lik_score_query(job->op, slot->block.row));
    int64_t codes = lik_tokens_base(d, &d->codes_strides, j);
    for (int64_t r = from; r < to; r++) {
        int64_t code = lik_code_at(d, codes + stream->index[r] * d->codes_strides.token);
        int64_t at = table + code * q->dim_stride;
        float *row = slot->widened + r * job->plan.widened_stride;
        for (int64_t lane = 0; lane < slot->block.lanes; lane++)
            row[lane] = ((const float *)q->data)[at + slot->block.lane_token[lane] * q->strides.token];
        stream->rows[r] = row;
    }
}

#define KERNELS(name) offsetof(struct lik_cpu_kernels, name)

static const struct lik_cpu_loader loaders[] = {
    {"_one_hot", takes_table, 0, 4, LIK_ROWS_READ, KERNELS(look_up), 0, 0, 0, find_products, NULL},
    {"_one_hot_gather", takes_one_hot, 0, 4, LIK_ROWS_LOADED, KERNELS(look_up), 0, 0, 0, gather_products,
     NULL},
    {"_q7", takes_residual_rounded, 4, 1, LIK_ROWS_RING, KERNELS(i8_q7), 1, 0, 1, find_rounded,
     decode_rounded},
    {"_q16", takes_residual_i8, 2, 1, LIK_ROWS_RING, KERNELS(i8_q16), 1, 0, 1, load_i8, NULL},
    {"", takes_residual, 1, 4, LIK_ROWS_LOADED, KERNELS(f32), 0, 0, 0, load_f32, NULL},
    {"", takes_f32, 1, 4, LIK_ROWS_READ, KERNELS(f32), 0, 0, 0, NULL, NULL},
    {"", takes_f16, 1, 2, LIK_ROWS_WIDENED, KERNELS(f16), 0, 0, 0, NULL, NULL},
    {"_dot", takes_bf16_dot, 2, 2, LIK_ROWS_READ, KERNELS(bf16_dot), 0, 1, 0, NULL, NULL},
    {"_dot", takes_bf16_dot_apart, 2, 2, LIK_ROWS_READ, KERNELS(bf16_dot), 2, 1, 0, gather, NULL},
    {"", takes_bf16, 1, 2, LIK_ROWS_WIDENED, KERNELS(bf16), 0, 0, 0, NULL, NULL},
    {"_q7", takes_i8_q7, 4, 1, LIK_ROWS_RING, KERNELS(i8_q7), 0, 0, 0, NULL, NULL},
    {"_q7", takes_i8_q7_apart, 4, 1, LIK_ROWS_RING, KERNELS(i8_q7), 1, 0, 0, gather, NULL},
    {"_q16", takes_i8_q16, 2, 1, LIK_ROWS_RING, KERNELS(i8_q16), 0, 0, 0, NULL, NULL},
    {"_q16", takes_i8_q16_apart, 2, 1, LIK_ROWS_RING, KERNELS(i8_q16), 1, 0, 0, gather, NULL},
    {"_gather", takes_any, 1, 4, LIK_ROWS_LOADED, KERNELS(f32), 0, 0, 0, load_f32, NULL},
};

int lik_cpu_rounds_centroids(const struct lik_cpu_loader *loader)
{
    return loader->decode == decode_rounded;
}

const struct lik_cpu_loader *lik_cpu_find_loader(const struct lik_cpu_kernels *kernels,
                                                 const struct lik_score *op)
{
    const struct lik_cpu_loader *loader = loaders;
    /* the widest shape stands for all */
    const int widest = kernels->geometry.panel_lanes / kernels->geometry.unit_lanes;
    while (!loader->takes(op) || (loader->kernels == KERNELS(bf16_dot) && !kernels->bf16_dot[widest]))
        loader++;
    return loader;
}
