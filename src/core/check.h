/* Checks of the public structs: each function copies `in` to `out`, completed with defaults, or
 * fails with a message that names the argument and both values. Nothing is written besides
 * `out`. */
#ifndef LIK_CORE_CHECK_H
#define LIK_CORE_CHECK_H

#include "core/backend.h"

/* What the outputs must be: a plan may come before they are allocated. */
enum lik_check_mode { LIK_CHECK_PLAN, LIK_CHECK_RUN };

LIK_STATUS lik_check_score(const struct lik_context *ctx, const struct lik_score *in,
                           enum lik_check_mode mode, struct lik_score *out);
LIK_STATUS lik_check_topk(const struct lik_context *ctx, const struct lik_topk *in, enum lik_check_mode mode,
                          struct lik_topk *out);
LIK_STATUS lik_check_grad(const struct lik_context *ctx, const struct lik_grad *in, enum lik_check_mode mode,
                          struct lik_grad *out);
LIK_STATUS lik_check_decode(const struct lik_context *ctx, const struct lik_decode *in,
                            enum lik_check_mode mode, struct lik_decode *out);
LIK_STATUS lik_check_encode(const struct lik_context *ctx, const struct lik_encode *in,
                            enum lik_check_mode mode, struct lik_encode *out);
LIK_STATUS lik_check_train(const struct lik_context *ctx, const struct lik_train *in,
                           enum lik_check_mode mode, struct lik_train *out);
LIK_STATUS lik_check_quantize(const struct lik_context *ctx, const struct lik_quantize *in,
                              enum lik_check_mode mode, struct lik_quantize *out);
/* What lies in device memory: fetch offsets, codes and lists, after what the stream still does,
 * and say of them what lik_check_* say of the host's. */
LIK_STATUS lik_check_device_score(const struct lik_context *ctx, const struct lik_score *op,
                                  const struct lik_exec *exec);
LIK_STATUS lik_check_device_tokens(const struct lik_context *ctx, const char *name,
                                   const struct lik_tokens *x, const struct lik_exec *exec);
LIK_STATUS lik_check_exec(const struct lik_exec *in, struct lik_exec *out);

#endif
