/* The small loops of the baseline that a level with the same order of summation takes as they
 * are. */
#ifndef LIK_CPU_GENERIC_H
#define LIK_CPU_GENERIC_H

#include "cpu/kernels.h"

void lik_generic_look_up(const struct lik_rows *job);
void lik_generic_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                        const uint8_t *bytes, int64_t dim);
void lik_generic_decode_i8(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens);
float lik_generic_quantize(int8_t *dst, const float *src, int64_t n, float room);
void lik_generic_narrow(void *dst, const float *src, int32_t dtype, int64_t n);
float lik_generic_sum(const float *x, const float *w, int64_t n);

#endif
