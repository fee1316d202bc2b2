/* What lik.js calls: the C API with numbers and addresses alone. An operand is made once, by
 * web_tokens, and freed as memory; web_score and web_topk return a status, whose text
 * web_message has. Memory that a call needs for itself is kept for the next. */
#include "lik/lik.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name)))

/* The workspace, aligned to 64. */
static struct {
    void *memory;
    size_t bytes;
} kept;

static void *lend(void *lender, size_t bytes)
{
    (void)lender;
    if (bytes > kept.bytes) {
        free(kept.memory);
        kept.bytes = 0;
        kept.memory = bytes > SIZE_MAX - 63 ? NULL : aligned_alloc(64, (bytes + 63) & ~(size_t)63);
        if (kept.memory)
            kept.bytes = bytes;
    }
    return kept.memory;
}

static const struct lik_exec exec = {.struct_size = sizeof exec, .get_workspace = lend};

/* NULL without memory; 0 bytes are an address, too. */
EXPORT(web_alloc) void *web_alloc(size_t bytes)
{
    return bytes > SIZE_MAX - 127 ? NULL : aligned_alloc(64, (bytes + 64) & ~(size_t)63);
}

EXPORT(web_free) void web_free(void *memory)
{
    free(memory);
}

EXPORT(web_message) const char *web_message(void)
{
    return lik_last_error();
}

EXPORT(web_version) const char *web_version(void)
{
    return lik_version();
}

/* The n-th level's name, NULL past the last. */
EXPORT(web_level) const char *web_level(int32_t n)
{
    return lik_cpu_level(n, NULL);
}

/* NULL: see web_message. */
EXPORT(web_open) struct lik_context *web_open(const char *device)
{
    struct lik_context *ctx = NULL;
    return lik_context_create(device, &ctx) ? NULL : ctx;
}

EXPORT(web_name) const char *web_name(const struct lik_context *ctx)
{
    return lik_context_name(ctx);
}

/* An operand over memory of web_alloc: contiguous, padded to `len` tokens, or packed where
 * there are offsets, i32 [count + 1]. mask, scale and weights have an entry a token, or are
 * NULL; `scale_is_one`: a single factor. NULL without memory. */
EXPORT(web_tokens)
struct lik_tokens *web_tokens(const void *data, int32_t dtype, int32_t count, int32_t len, int32_t total,
                              int32_t dim, const int32_t *offsets, int32_t normalize, const uint8_t *mask,
                              const float *scale, int32_t scale_is_one, const float *weights)
{
    struct lik_tokens *x = malloc(sizeof *x);
    if (!x)
        return NULL;
    *x = offsets ? lik_tokens_packed(data, dtype, count, len, total, dim, offsets, LIK_I32)
                 : lik_tokens_padded(data, dtype, count, len, dim);
    x->normalize = normalize;
    x->mask = mask;
    x->scale = scale;
    x->weights = weights;
    if (scale_is_one)
        x->scale_strides = (struct lik_strides){0, 0, 0};
    return x;
}

static struct lik_score problem(const struct lik_tokens *q, const struct lik_tokens *d, int32_t pairing,
                                int32_t per_query, int32_t precision)
{
    struct lik_score op = LIK_SCORE_INIT;
    op.q = *q;
    op.d = *d;
    op.pairing = pairing;
    op.per_query = per_query;
    op.precision = precision;
    return op;
}

/* scores by pairing; argmax NULL, or i32 [scores, longest query]. */
EXPORT(web_score)
int web_score(const struct lik_context *ctx, const struct lik_tokens *q, const struct lik_tokens *d,
              int32_t pairing, int32_t per_query, int32_t precision, float *scores, int32_t *argmax)
{
    struct lik_score op = problem(q, d, pairing, per_query, precision);
    op.scores = scores;
    op.argmax = argmax;
    op.argmax_dtype = argmax ? LIK_I32 : 0;
    return lik_score_run(ctx, &op, &exec);
}

/* values f32 and ids i64 [queries, k]. */
EXPORT(web_topk)
int web_topk(const struct lik_context *ctx, const struct lik_tokens *q, const struct lik_tokens *d,
             int32_t pairing, int32_t per_query, int32_t precision, int32_t k, int32_t smallest,
             float *values, int64_t *ids)
{
    struct lik_topk op = LIK_TOPK_INIT;
    op.score = problem(q, d, pairing, per_query, precision);
    op.k = k;
    op.smallest = smallest;
    op.values = values;
    op.ids = ids;
    return lik_topk_run(ctx, &op, &exec);
}
