/* Checks of one operand, which the checks of the verbs are made of (check.h). Each fails with a
 * message that names the field by `name` and both values. */
#ifndef LIK_CORE_CHECK_TOKENS_H
#define LIK_CORE_CHECK_TOKENS_H

#include "core/backend.h"

/* A struct of at least our size; what a newer header added must be zero. */
LIK_STATUS lik_check_struct(const char *name, const void *in, size_t size);
LIK_STATUS lik_check_aligned(const char *name, const char *field, const void *pointer, size_t bytes);

/* Sizes, strides, arrays and storage; what lies in host memory is looked at, and tells the
 * longest sequence where len_max is 0. */
LIK_STATUS lik_check_tokens(const struct lik_context *ctx, const char *name, struct lik_tokens *x,
                            int64_t dim_max);
/* Its parts that read memory: of the host's, or a copy. */
LIK_STATUS lik_check_offsets(const char *name, const struct lik_tokens *x, int64_t len_max);
LIK_STATUS lik_check_codes(const char *name, const struct lik_tokens *x);

/* What all compressed tokens share, of `dim` elements. */
LIK_STATUS lik_check_codec(const char *name, const struct lik_codec *c, int64_t dim);
LIK_STATUS lik_check_bits(const char *name, int32_t bits);

int lik_dtype_is_float(int32_t dtype); /* F32, F16 or BF16 */

#endif
