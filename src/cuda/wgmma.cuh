/* wgmma and what goes with it (sm_90a), the PTX of it and nothing else: a warpgroup multiplies
 * 64 x 16 by 16 x 128 elements, warp w of it holding rows 16 w to 16 w + 15, each octet of
 * columns as mma.sync holds it (cuda/mma.cuh). */
#ifndef LIK_CUDA_WGMMA_CUH
#define LIK_CUDA_WGMMA_CUH

#include "cuda/copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Descriptor of an operand in shared memory, rows of 64 16-bit elements (128 bytes, 128-byte
 * swizzle), 8 rows to 1024 bytes, `address` a multiple of 1024: the half of it that depends on
 * the address; wgmma adds the other. Adding 2 steps 16 elements along the dim, adding 64 steps
 * 1024 bytes. */
LIK_DEVICE uint32_t wgmma_descriptor(uint32_t address)
{
    return address >> 4 | 1u << 16;
}

LIK_DEVICE void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

LIK_DEVICE void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int pending> LIK_DEVICE void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

template <int count> LIK_DEVICE void registers_give()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

template <int count> LIK_DEVICE void registers_take()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

/* Has parts first ... end - 1 of an operand in registers made before a fence, not after it,
 * where the compiler would have to fence again. */
template <int count> LIK_DEVICE void registers_ready(uint32_t (&x)[count][4], int first, int end)
{
#pragma unroll
    for (int i = 0; i < count; i++)
        if (first <= i && i < end)
            asm volatile("" : "+r"(x[i][0]), "+r"(x[i][1]), "+r"(x[i][2]), "+r"(x[i][3]));
}

/* wgmma<bf16, add, octets>: c += a b, or c = a b, for the first `octets` octets of columns (c:
 * 4 an octet); asynchronous until wgmma_wait. PTX wants every register of c named: LIK_C_n
 * are the operands of the first n octets, as PTX numbers them after a and b, LIK_R_n what they
 * are bound to: "+f" or "=f". */
/* clang-format off */
#define LIK_C_1 "%2, %3, %4, %5"
#define LIK_C_2 LIK_C_1 ", %6, %7, %8, %9"
#define LIK_C_3 LIK_C_2 ", %10, %11, %12, %13"
#define LIK_C_4 LIK_C_3 ", %14, %15, %16, %17"
#define LIK_C_5 LIK_C_4 ", %18, %19, %20, %21"
#define LIK_C_6 LIK_C_5 ", %22, %23, %24, %25"
#define LIK_C_7 LIK_C_6 ", %26, %27, %28, %29"
#define LIK_C_8 LIK_C_7 ", %30, %31, %32, %33"
#define LIK_C_9 LIK_C_8 ", %34, %35, %36, %37"
#define LIK_C_10 LIK_C_9 ", %38, %39, %40, %41"
#define LIK_C_11 LIK_C_10 ", %42, %43, %44, %45"
#define LIK_C_12 LIK_C_11 ", %46, %47, %48, %49"
#define LIK_C_13 LIK_C_12 ", %50, %51, %52, %53"
#define LIK_C_14 LIK_C_13 ", %54, %55, %56, %57"
#define LIK_C_15 LIK_C_14 ", %58, %59, %60, %61"
#define LIK_C_16 LIK_C_15 ", %62, %63, %64, %65"
#define LIK_R_1(f) f(c[0]), f(c[1]), f(c[2]), f(c[3])
#define LIK_R_2(f) LIK_R_1(f), f(c[4]), f(c[5]), f(c[6]), f(c[7])
#define LIK_R_3(f) LIK_R_2(f), f(c[8]), f(c[9]), f(c[10]), f(c[11])
#define LIK_R_4(f) LIK_R_3(f), f(c[12]), f(c[13]), f(c[14]), f(c[15])
#define LIK_R_5(f) LIK_R_4(f), f(c[16]), f(c[17]), f(c[18]), f(c[19])
#define LIK_R_6(f) LIK_R_5(f), f(c[20]), f(c[21]), f(c[22]), f(c[23])
#define LIK_R_7(f) LIK_R_6(f), f(c[24]), f(c[25]), f(c[26]), f(c[27])
#define LIK_R_8(f) LIK_R_7(f), f(c[28]), f(c[29]), f(c[30]), f(c[31])
#define LIK_R_9(f) LIK_R_8(f), f(c[32]), f(c[33]), f(c[34]), f(c[35])
#define LIK_R_10(f) LIK_R_9(f), f(c[36]), f(c[37]), f(c[38]), f(c[39])
#define LIK_R_11(f) LIK_R_10(f), f(c[40]), f(c[41]), f(c[42]), f(c[43])
#define LIK_R_12(f) LIK_R_11(f), f(c[44]), f(c[45]), f(c[46]), f(c[47])
#define LIK_R_13(f) LIK_R_12(f), f(c[48]), f(c[49]), f(c[50]), f(c[51])
#define LIK_R_14(f) LIK_R_13(f), f(c[52]), f(c[53]), f(c[54]), f(c[55])
#define LIK_R_15(f) LIK_R_14(f), f(c[56]), f(c[57]), f(c[58]), f(c[59])
#define LIK_R_16(f) LIK_R_15(f), f(c[60]), f(c[61]), f(c[62]), f(c[63])

template <bool bf16, bool add, int octets> struct wgmma;

#define LIK_WGMMA(is_bf16, type, add, f, octets, columns)                                       \
    template <> struct wgmma<is_bf16, add, octets> {                                            \
        static LIK_MEMBER void run(float *c, uint32_t a, uint32_t b)                            \
        {                                                                                       \
            asm volatile("{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, " #add ", 0;\n"      \
                         "mov.b64 a, {%0, 0x40000040};\nmov.b64 b, {%1, 0x40000040};\n"         \
                         "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type  \
                         " {" LIK_C_##octets "}, a, b, p, 1, 1, 0, 0;\n}"                       \
                         : "+r"(a), "+r"(b), LIK_R_##octets(f));                                \
        }                                                                                       \
    };
#define LIK_WGMMAS(octets, columns)                    \
    LIK_WGMMA(true, "bf16", 1, "+f", octets, columns) \
    LIK_WGMMA(true, "bf16", 0, "=f", octets, columns) \
    LIK_WGMMA(false, "f16", 1, "+f", octets, columns) \
    LIK_WGMMA(false, "f16", 0, "=f", octets, columns)
LIK_WGMMAS(1, 8)
LIK_WGMMAS(2, 16)
LIK_WGMMAS(3, 24)
LIK_WGMMAS(4, 32)
LIK_WGMMAS(5, 40)
LIK_WGMMAS(6, 48)
LIK_WGMMAS(7, 56)
LIK_WGMMAS(8, 64)
LIK_WGMMAS(9, 72)
LIK_WGMMAS(10, 80)
LIK_WGMMAS(11, 88)
LIK_WGMMAS(12, 96)
LIK_WGMMAS(13, 104)
LIK_WGMMAS(14, 112)
LIK_WGMMAS(15, 120)
LIK_WGMMAS(16, 128)

/* wgmma_i8<add, octets>: the same of 32 i8 elements, their sums integers. Above 3 octets there
 * are even numbers of them alone. */
template <bool add, int octets> struct wgmma_i8;

#define LIK_WGMMA_I8(add, f, octets, columns)                                                   \
    template <> struct wgmma_i8<add, octets> {                                                  \
        static LIK_MEMBER void run(int *c, uint32_t a, uint32_t b)                              \
        {                                                                                       \
            asm volatile("{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, " #add ", 0;\n"      \
                         "mov.b64 a, {%0, 0x40000040};\nmov.b64 b, {%1, 0x40000040};\n"         \
                         "wgmma.mma_async.sync.aligned.m64n" #columns "k32.s32.s8.s8"           \
                         " {" LIK_C_##octets "}, a, b, p;\n}"                                   \
                         : "+r"(a), "+r"(b), LIK_R_##octets(f));                                \
        }                                                                                       \
    };
#define LIK_WGMMAS_I8(octets, columns)     \
    LIK_WGMMA_I8(1, "+r", octets, columns) \
    LIK_WGMMA_I8(0, "=r", octets, columns)
LIK_WGMMAS_I8(1, 8)
LIK_WGMMAS_I8(2, 16)
LIK_WGMMAS_I8(3, 24)
LIK_WGMMAS_I8(4, 32)
LIK_WGMMAS_I8(6, 48)
LIK_WGMMAS_I8(8, 64)
LIK_WGMMAS_I8(10, 80)
LIK_WGMMAS_I8(12, 96)
LIK_WGMMAS_I8(14, 112)
LIK_WGMMAS_I8(16, 128)
/* clang-format on */

/* The same with a's rows in registers, 16 a warp as mma.sync has them, for four or eight octets
 * of columns. */
template <bool bf16, bool add, int octets> struct wgmma_registers;

/* clang-format off */
#define LIK_A_4 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define LIK_A_8 LIK_A_4 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIK_WGMMA_A(is_bf16, type, add, f, octets, columns, a, b)                                     \
    template <> struct wgmma_registers<is_bf16, add, octets> {                                        \
        static LIK_MEMBER void run(float *c, const uint32_t (&rows)[4], uint32_t from)                \
        {                                                                                             \
            asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, " #add ", 0;\n"              \
                         "mov.b64 b, {" b ", 0x40000040};\n"                                          \
                         "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type        \
                         " {" LIK_A_##octets "}, {" a "}, b, p, 1, 1, 0;\n}"                          \
                         : LIK_R_##octets(f)                                                          \
                         : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(from));        \
        }                                                                                             \
    };
#define LIK_WGMMAS_A(octets, columns, a, b)                     \
    LIK_WGMMA_A(true, "bf16", 1, "+f", octets, columns, a, b)   \
    LIK_WGMMA_A(true, "bf16", 0, "=f", octets, columns, a, b)   \
    LIK_WGMMA_A(false, "f16", 1, "+f", octets, columns, a, b)   \
    LIK_WGMMA_A(false, "f16", 0, "=f", octets, columns, a, b)
LIK_WGMMAS_A(4, 32, "%16, %17, %18, %19", "%20")
LIK_WGMMAS_A(8, 64, "%32, %33, %34, %35", "%36")

/* wgmma_i8_registers<add, octets>: the same of 32 i8 elements. */
template <bool add, int octets> struct wgmma_i8_registers;

#define LIK_WGMMA_I8_A(add, f, octets, columns, a, b)                                                 \
    template <> struct wgmma_i8_registers<add, octets> {                                              \
        static LIK_MEMBER void run(int *c, const uint32_t (&rows)[4], uint32_t from)                  \
        {                                                                                             \
            asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, " #add ", 0;\n"              \
                         "mov.b64 b, {" b ", 0x40000040};\n"                                          \
                         "wgmma.mma_async.sync.aligned.m64n" #columns "k32.s32.s8.s8"                 \
                         " {" LIK_A_##octets "}, {" a "}, b, p;\n}"                                   \
                         : LIK_R_##octets(f)                                                          \
                         : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(from));        \
        }                                                                                             \
    };
LIK_WGMMA_I8_A(1, "+r", 4, 32, "%16, %17, %18, %19", "%20")
LIK_WGMMA_I8_A(0, "=r", 4, 32, "%16, %17, %18, %19", "%20")
LIK_WGMMA_I8_A(1, "+r", 8, 64, "%32, %33, %34, %35", "%36")
LIK_WGMMA_I8_A(0, "=r", 8, 64, "%32, %33, %34, %35", "%36")
/* clang-format on */

#endif

#endif
