/* Compressed tokens in a .safetensors file, read and written; docs/formats.md says what each
 * tensor holds. */
#ifndef LIK_IO_COMPRESSED_H
#define LIK_IO_COMPRESSED_H

#include "io/array.h"

#include "lik/lik.h"

/* What a file of compressed tokens holds, but for its sequences. The residuals and, where they
 * can be, the centroids stay mapped; all else was checked and is a copy. */
struct lik_compressed {
    struct lik_codec codec;
    int64_t rows, dim;
    int normalize; /* tokens count as unit vectors */
    const uint8_t *residuals;
    int64_t residual_bytes; /* a token */
    void *codes;
    int32_t codes_dtype;
    void *inv_norms; /* NULL: there are none */
    int32_t inv_norms_dtype;
    float *cutoffs, *weights;
    void *centroids; /* NULL: they are mapped */
};

/* Does the file say that it is one, or look like one? */
int lik_compressed_recognize(const struct lik_safetensors *file);
/* Free also after a failure. */
LIK_CHECKED int lik_compressed_read(struct lik_compressed *x, const struct lik_safetensors *file,
                                    const char *path, struct lik_io_error *error);
void lik_compressed_free(struct lik_compressed *x);

/* A file to be written: centroids and inverse norms in f16, bytes in ColBERT's order. */
struct lik_compressed_shape {
    int64_t sequences, rows, dim, centroids;
    int64_t documents_bytes; /* of the JSON lines; 0 = there are none */
    int bits, normalize;
    int has_inv_norms, has_mask;
};

int32_t lik_compressed_codes_dtype(int64_t centroids); /* the smallest that holds them */
/* Bytes a token of codes, residuals and inverse norms. */
int64_t lik_compressed_token_bytes(const struct lik_compressed_shape *shape);
/* The header, and how many bytes of data follow it: lengths (i64), centroids, bucket weights
 * and cutoffs (f32), residuals, codes, inverse norms, mask and documents, in this order. -1
 * without memory, or where they pass 2^63. */
LIK_CHECKED int lik_compressed_header(const struct lik_compressed_shape *shape, struct lik_bytes *header,
                                      int64_t *data_bytes);

#endif
