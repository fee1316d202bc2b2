/* Training and encoding for the command; see codec.h. */
#include "codec.h"

#include "base/dtype.h"
#include "base/size.h"

#include <stdlib.h>

int64_t codec_auto_centroids(int64_t tokens)
{
    int64_t centroids = 1;
    while ((double)(2 * centroids) * (double)(2 * centroids) <= 256 * (double)tokens)
        centroids *= 2;
    /* as many as tokens would leave no residual to make buckets of */
    return lik_max_i64(lik_min_i64(centroids, tokens / 2), 1);
}

/* Of these centroids. */
static void make_codec(struct trained *trained, uint16_t *centroids, int64_t count, int32_t bits)
{
    *trained = (struct trained){.centroids = centroids};
    trained->weights = allocate(1 << bits, sizeof *trained->weights, "bucket weights");
    trained->cutoffs = allocate(1 << bits, sizeof *trained->cutoffs, "bucket cutoffs");
    trained->codec = (struct lik_codec){.struct_size = sizeof trained->codec,
                                        .bits = bits,
                                        .bit_order = LIK_BITS_COLBERT,
                                        .centroids = centroids,
                                        .centroid_count = count,
                                        .centroids_dtype = LIK_F16,
                                        .weights_dtype = LIK_F32,
                                        .weights = trained->weights};
}

void codec_blank(struct trained *trained, int32_t bits, int64_t centroids, int64_t dim)
{
    make_codec(trained, allocate(centroids, dim * (int64_t)sizeof *trained->centroids, "centroids"),
               centroids, bits);
    trained->owns_centroids = 1;
}

void codec_train(struct trained *trained, struct engine *engine, const struct lik_train *op)
{
    struct lik_train run = *op;
    int64_t elements = op->centroid_count * op->x.dim;
    codec_blank(trained, op->bits, op->centroid_count, op->x.dim);
    run.struct_size = sizeof run;
    run.centroids = allocate(elements, sizeof *run.centroids, "centroids");
    run.weights = trained->weights;
    run.cutoffs = trained->cutoffs;
    run.found = &trained->found;
    /* k-means by 8-bit products finds centroids as good, sooner (demo: squares of a residual
     * 0.3125 instead of 0.3126); tokens are encoded by exact ones */
    run.precision = LIK_MEDIUM;
    progress_begin("train", "tokens");
    engine_train(engine, &run);
    progress_end();
    for (int64_t i = 0; i < elements; i++)
        trained->centroids[i] = lik_f16_of_f32(run.centroids[i]);
    free(run.centroids);
}

void codec_narrow(struct trained *trained, const struct trained *from, int32_t bits)
{
    const int wide = 1 << from->codec.bits, narrow = 1 << bits;
    make_codec(trained, from->centroids, from->codec.centroid_count, bits);
    /* cutoff i of the wide ones is quantile (i + 1) / wide */
    for (int i = 0; i < narrow; i++) {
        trained->weights[i] = from->cutoffs[(2 * i + 1) * wide / (2 * narrow) - 1];
        if (i + 1 < narrow)
            trained->cutoffs[i] = from->cutoffs[(i + 1) * wide / narrow - 1];
    }
}

void codec_free(struct trained *trained)
{
    if (trained->owns_centroids)
        free(trained->centroids);
    free(trained->weights);
    free(trained->cutoffs);
    *trained = (struct trained){0};
}

void codec_encode(const struct trained *trained, struct engine *engine, const struct lik_tokens *x,
                  void *codes, uint8_t *residuals, uint16_t *inv_norms)
{
    struct lik_encode op = {.struct_size = sizeof op,
                            .x = *x,
                            .codec = &trained->codec,
                            .cutoffs = trained->cutoffs,
                            .codes_dtype = lik_compressed_codes_dtype(trained->codec.centroid_count),
                            .codes = codes,
                            .residuals = residuals,
                            .inv_norms = inv_norms,
                            .inv_norms_dtype = LIK_F16};
    engine_encode(engine, &op);
}
