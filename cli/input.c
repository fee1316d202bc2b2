/* Opening queries and documents, and what should be said about them before work begins. */
#include "engine.h"

#include "base/dtype.h"
#include "base/size.h"
#include "shared/operand.h"

#include <math.h>

static int collection_try(struct lik_collection *c, const struct options *options, const char *path,
                          int queries, struct lik_io_error *error)
{
    struct lik_collection_options from = {
        .path = path, .queries = queries, .weights = queries && !options->no_weights};
    from.lens = queries ? options->query_lens : options->lens;
    from.ids = queries ? options->query_ids : options->ids;
    from.text = queries ? options->query_text : options->text;
    from.key = queries ? options->query_key : options->key;
    return lik_collection_open(c, &from, error);
}

static void collection_ready(struct lik_collection *c, const struct options *options)
{
    if (c->converted)
        note("%s holds float64; it is converted to float32 in memory", c->path);
    if (!c->compressed || !c->compressed->normalize) /* those are unit vectors already */
        c->tokens.normalize = options->normalize;
}

void collection_open(struct lik_collection *c, const struct options *options, const char *path, int queries)
{
    struct lik_io_error error;
    int status = collection_try(c, options, path, queries, &error);
    if (status)
        die_io(status, &error);
    collection_ready(c, options);
}

/* Element i of a compressed token, in f32. */
static float decoded(const struct lik_tokens *x, int64_t row, int64_t i)
{
    const struct lik_codec *codec = x->codec;
    const uint8_t *bytes = (const uint8_t *)x->data + row * x->strides.token;
    int bucket = lik_residual_bucket(bytes, i, codec->bits, codec->bit_order);
    return lik_load_f32(codec->centroids, codec->centroids_dtype,
                        lik_code_at(x, row) * lik_centroid_stride(x) + i) +
           lik_load_f32(codec->weights, codec->weights_dtype, bucket);
}

double row_norm(const struct lik_collection *c, int64_t row)
{
    const struct lik_tokens *x = &c->tokens;
    double sum = 0;
    for (int64_t i = 0; i < x->dim; i++) {
        double value =
            (double)(x->storage == LIK_RESIDUAL ? decoded(x, row, i)
                                                : lik_load_f32(x->data, x->dtype, row * x->dim + i));
        sum += value * value;
    }
    if (!x->scale)
        return sqrt(sum);
    int32_t dtype = x->scale_dtype ? x->scale_dtype : LIK_F32;
    return sqrt(sum) * fabs((double)lik_load_f32(x->scale, dtype, row * x->scale_strides.token));
}

int norms_are_unit(const struct lik_tokens *x, double low, double high)
{
    double slack = x->dtype == LIK_E4M3 || x->dtype == LIK_E5M2 ? 0.1 : x->dtype == LIK_I8 ? 0.05 : 0.02;
    return low >= 1 - slack && high <= 1 + slack;
}

/* Warns if the tokens are not unit length, which makes scores that are no cosines; looks at up
 * to a thousand of them. */
static void look_at_norms(const struct lik_collection *c, const char *noun)
{
    const struct lik_tokens *x = &c->tokens;
    double low = INFINITY, high = 0;
    if (x->normalize || terminal.quiet)
        return;
    for (int64_t row = 0; row < lik_min_i64(c->rows, 1000); row++) {
        double norm = row_norm(c, row);
        if ((c->mask && !c->mask[row]) || norm == 0 || !isfinite(norm))
            continue;
        low = fmin(low, norm);
        high = fmax(high, norm);
    }
    if (high > 0 && !norms_are_unit(x, low, high))
        warn("%s are not unit length (norms %.3g to %.3g): scores are dot products; --normalize makes them "
             "cosines",
             noun, low, high);
}

int inputs_try(struct inputs *inputs, const struct options *options, const char *queries,
               const char *documents, struct lik_io_error *error)
{
    double start = lik_seconds();
    *inputs = (struct inputs){0};
    int status = collection_try(&inputs->queries, options, queries, 1, error);
    if (!status)
        status = collection_try(&inputs->documents, options, documents, 0, error);
    if (status)
        inputs_close(inputs);
    inputs->seconds = lik_seconds() - start;
    return status;
}

void inputs_look(struct inputs *inputs, const struct options *options)
{
    double start = lik_seconds();
    collection_ready(&inputs->queries, options);
    collection_ready(&inputs->documents, options);
    const struct lik_collection *q = &inputs->queries, *d = &inputs->documents;
    if (q->tokens.dim != d->tokens.dim)
        die(EXIT_INCOMPATIBLE,
            "queries have %lld dimensions (%s), documents have %lld (%s)\n    Embed both with the same "
            "model.",
            (long long)q->tokens.dim, q->path, (long long)d->tokens.dim, d->path);
    look_at_norms(q, "queries");
    look_at_norms(d, "documents");
    inputs->seconds += lik_seconds() - start;
}

void inputs_tell_weights(const struct inputs *inputs)
{
    if (inputs->queries.tokens.weights)
        note("%s has weights of query tokens, which are applied; --no-weights ignores them",
             inputs->queries.path);
}

void inputs_open(struct inputs *inputs, const struct options *options, const char *queries,
                 const char *documents)
{
    struct lik_io_error error;
    int status = inputs_try(inputs, options, queries, documents, &error);
    if (status)
        die_io(status, &error);
    inputs_look(inputs, options);
}

void inputs_close(struct inputs *inputs)
{
    lik_collection_free(&inputs->queries);
    lik_collection_free(&inputs->documents);
}

double query_weight(const struct lik_collection *queries, int64_t i)
{
    double sum = 0;
    for (int64_t t = 0; t < lik_collection_length(queries, i); t++)
        if (lik_collection_keeps(queries, i, t))
            sum += queries->tokens.weights
                       ? (double)queries->tokens.weights[lik_collection_row(queries, i, t)]
                       : 1;
    return sum;
}
