/* How the kernels of a level are written out: ordinary C loops over rows and vectors that must
 * vanish, so that arrays of vectors become registers. Under a sanitizer they stay loops: speed
 * does not count there, and instrumenting the unrolled code takes compilers minutes. */
#ifndef LIK_CPU_UNROLL_H
#define LIK_CPU_UNROLL_H

#define FORCE_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define UNROLL _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("clang loop unroll(full)")
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNROLL
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#endif
