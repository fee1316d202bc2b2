/* Training and encoding for the command: what `lik compress` writes and `lik demo` scores. */
#ifndef LIK_CLI_CODEC_H
#define LIK_CLI_CODEC_H

#include "engine.h"

/* A trained codec, its centroids rounded to f16 as files hold them. It stays where it is: the
 * staged way knows it by its address. */
struct trained {
    struct lik_codec codec;
    uint16_t *centroids; /* [centroids, dim] */
    int owns_centroids;
    float *weights, *cutoffs;
    struct lik_train_found found;
};

/* As many as ColBERT takes for so many tokens: the power of two up to 16 * sqrt(tokens), but no
 * more than there are. */
int64_t codec_auto_centroids(int64_t tokens);
/* One of zeros, to try how long encoding takes. */
void codec_blank(struct trained *trained, int32_t bits, int64_t centroids, int64_t dim);
/* `op` without its outputs. */
void codec_train(struct trained *trained, struct engine *engine, const struct lik_train *op);
/* The same with fewer bits, of which 1 at least: its buckets' quantiles are among those of
 * `from`, whose centroids it shares. */
void codec_narrow(struct trained *trained, const struct trained *from, int32_t bits);
void codec_free(struct trained *trained);
/* Encodes x into codes of the type that files have, residuals and, where they are wanted,
 * inverse norms in f16. */
void codec_encode(const struct trained *trained, struct engine *engine, const struct lik_tokens *x,
                  void *codes, uint8_t *residuals, uint16_t *inv_norms);

#endif
