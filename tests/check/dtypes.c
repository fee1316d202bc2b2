/* The scalar conversions of src/base/dtype.h: decoding against the definition of each format,
 * for every code; encoding against "no neighbor is nearer, a tie goes to the even code", at and
 * around every midpoint. */
#include "check.h"

#include "base/dtype.h"

/* A small float by its definition. `finite`: the format has no infinities and NaN only at all
 * ones (e4m3). */
static double decode(uint32_t code, int exponent_bits, int mantissa_bits, int finite)
{
    uint32_t mantissa = code & ((1u << mantissa_bits) - 1), top = (1u << exponent_bits) - 1;
    uint32_t exponent = code >> mantissa_bits & top;
    int bias = (1 << (exponent_bits - 1)) - 1;
    double sign = code >> (mantissa_bits + exponent_bits) & 1 ? -1 : 1;
    if (exponent == top && (!finite || mantissa == (1u << mantissa_bits) - 1))
        return mantissa ? (double)NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp((double)mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp((double)(mantissa + (1u << mantissa_bits)), (int)exponent - bias - mantissa_bits);
}

static void check_decoded(const char *format, uint32_t code, float got, double want)
{
    int same = isnan(want) ? isnan(got) : (double)got == want && !signbit(got) == !signbit(want);
    check(same, "%s code 0x%x is %.9g, expected %.9g", format, code, (double)got, want);
}

/* Where an f32 between codes `low` and `low + 1` must go. */
static uint16_t nearest(double x, uint16_t low, double low_value, double high_value)
{
    if (x - low_value == high_value - x)
        return low & 1 ? (uint16_t)(low + 1) : low;
    return x - low_value < high_value - x ? low : (uint16_t)(low + 1);
}

/* Around the midpoint between each two neighboring codes; past the largest finite one the next
 * step is the infinity. */
static void check_encoding(const char *format, uint16_t (*encode)(float), float (*decoder)(uint16_t),
                           uint16_t infinity)
{
    for (uint32_t code = 0; code < infinity; code += totals.quick ? 37 : 1) {
        double low = (double)decoder((uint16_t)code), high = (double)decoder((uint16_t)(code + 1));
        if (code + 1 == infinity)
            high = low + (low - (double)decoder((uint16_t)(code - 1)));
        float middle = (float)((low + high) / 2);
        float samples[] = {(float)low, nextafterf(middle, 0), middle, nextafterf(middle, INFINITY)};
        for (int i = 0; i < 4; i++) {
            if (isinf(samples[i]) || (double)samples[i] < low || (double)samples[i] > high)
                continue;
            uint16_t want = nearest((double)samples[i], (uint16_t)code, low, high), got = encode(samples[i]);
            check(got == want, "%s of %a is 0x%x, expected 0x%x", format, (double)samples[i], got, want);
            got = encode(-samples[i]);
            check(got == (want | 0x8000), "%s of %a is 0x%x, expected 0x%x", format, -(double)samples[i], got,
                  want | 0x8000);
        }
    }
    check(encode(INFINITY) == infinity && encode(-INFINITY) == (infinity | 0x8000), "%s of an infinity",
          format);
    check(encode(3e38f) == infinity || (double)decoder(encode(3e38f)) > 2.9e38, "%s of 3e38", format);
    for (uint32_t payload = 1; payload < 0x800000; payload = payload * 3 + 1) {
        float nan = lik_f32_of_bits(0x7f800000 | payload);
        check(isnan(decoder(encode(nan))) && isnan(decoder(encode(-nan))), "%s of the NaN 0x%x", format,
              0x7f800000 | payload);
    }
}

void check_dtypes(void)
{
    check_describe("dtypes");
    totals.cases++;
    for (uint32_t code = 0; code < 0x10000; code++) {
        uint16_t x = (uint16_t)code;
        check_decoded("f16", code, lik_f16_to_f32(x), decode(code, 5, 10, 0));
        check_decoded("bf16", code, lik_bf16_to_f32(x), decode(code, 8, 7, 0));
        if (!isnan(lik_f16_to_f32(x)))
            check(lik_f16_of_f32(lik_f16_to_f32(x)) == x, "f16 0x%x does not survive the way to f32 and back",
                  code);
        if (!isnan(lik_bf16_to_f32(x)))
            check(lik_bf16_of_f32(lik_bf16_to_f32(x)) == x,
                  "bf16 0x%x does not survive the way to f32 and back", code);
    }
    for (uint32_t code = 0; code < 256; code++) {
        check_decoded("e4m3", code, lik_e4m3_to_f32((uint8_t)code), decode(code, 4, 3, 1));
        check_decoded("e5m2", code, lik_e5m2_to_f32((uint8_t)code), decode(code, 5, 2, 0));
    }
    check_encoding("f16", lik_f16_of_f32, lik_f16_to_f32, 0x7c00);
    check_encoding("bf16", lik_bf16_of_f32, lik_bf16_to_f32, 0x7f80);

    static const int32_t known[] = {LIK_F32, LIK_F16, LIK_BF16, LIK_E4M3, LIK_E5M2,
                                    LIK_I8,  LIK_I16, LIK_I32,  LIK_I64};
    static const char *const names[] = {"f32", "f16", "bf16", "e4m3", "e5m2", "i8", "i16", "i32", "i64"};
    static const size_t sizes[] = {4, 2, 2, 1, 1, 1, 2, 4, 8};
    for (int64_t i = 0; i < COUNT(known); i++) {
        check(!strcmp(lik_dtype_name(known[i]), names[i]), "dtype %d is called %s", known[i],
              lik_dtype_name(known[i]));
        check(lik_dtype_bytes(known[i]) == sizes[i], "%s has %zu bytes", names[i], lik_dtype_bytes(known[i]));
    }
    static const int32_t unknown[] = {0, -1, 10, INT32_MAX, INT32_MIN};
    for (int64_t i = 0; i < COUNT(unknown); i++)
        check(lik_dtype_bytes(unknown[i]) == 0 && !strcmp(lik_dtype_name(unknown[i]), "?"),
              "dtype %d is known", unknown[i]);
}
