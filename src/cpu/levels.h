/* The levels of the CPU backend, from the baseline up. A line here is what dispatch, messages
 * and tests know of a level; its kernels are a table lik_kernels_NAME in files that end in
 * _NAME.c, which CMakeLists.txt compiles for it. */
#ifndef LIK_CPU_LEVELS_H
#define LIK_CPU_LEVELS_H

/* LEVEL(name, usable): `usable` says whether this processor and its operating system have what
 * the level needs, and whether it is worth taking unasked (backend.c). */
#if defined(__x86_64__)
#define LIK_CPU_LEVELS(LEVEL)         \
    LEVEL(generic, has_baseline)      \
    LEVEL(avx2, has_avx2)             \
    LEVEL(avxvnni, has_avxvnni)       \
    LEVEL(avx512, has_avx512)         \
    LEVEL(avx512vnni, has_avx512vnni) \
    LEVEL(avx512bf16, has_avx512bf16) \
    LEVEL(amx, has_amx)
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
#define LIK_CPU_LEVELS(LEVEL)     \
    LEVEL(generic, has_baseline)  \
    LEVEL(neon, has_baseline)     \
    LEVEL(neondot, has_neondot)   \
    LEVEL(neoni8mm, has_neoni8mm) \
    LEVEL(neonbf16, has_neonbf16)
#elif defined(__wasm__)
#define LIK_CPU_LEVELS(LEVEL)    \
    LEVEL(generic, has_baseline) \
    LEVEL(simd128, has_baseline)
#else
#define LIK_CPU_LEVELS(LEVEL) LEVEL(generic, has_baseline)
#endif

#endif
