/* All kernels as one source text: what stands here with its quoted includes written out (once
 * each, in this order) is what is embedded, and what torch.mps.compile_shader takes. It is
 * written in what MSL 2.3 and C++17 have in common, and for the emulator of tests/metal, which
 * compiles it as the latter:
 *
 * - buffers are declared by LIK_BUFFER, threadgroup arrays by LIK_THREADGROUP, the place of a
 *   thread by LIK_WHERE, kernels by LIK_KERNEL;
 * - nothing counts on lanes being in step: between a write of threadgroup memory and another
 *   lane's access there is a barrier, of the simdgroup where only its lanes are concerned;
 * - which lane holds which element of an 8x8 matrix is nobody's business: matrices are loaded,
 *   multiplied and stored;
 * - NaN is looked for in the bits, so that no fast mathematics lose it (Safe mathematics are
 *   asked for all the same: infinities);
 * - every index of a buffer is 64 bits wide. */
#include "metal/layout.h"
#include "metal/tokens.metal"
#include "metal/score.metal"
#include "metal/grad.metal"
#include "metal/select.metal"
