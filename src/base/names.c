/* The names of constants, and the sizes of types. */
#include "lik/lik.h"

const char *lik_status_name(int status)
{
    static const char *const names[] = {"LIK_OK",         "LIK_EINVAL", "LIK_EUNSUPPORTED",
                                        "LIK_EWORKSPACE", "LIK_ENOMEM", "LIK_EDEVICE"};
    return status <= 0 && status >= LIK_EDEVICE ? names[-status] : "?";
}

size_t lik_dtype_bytes(int32_t dtype)
{
    switch (dtype) {
    case LIK_F32:
    case LIK_I32: return 4;
    case LIK_F16:
    case LIK_BF16:
    case LIK_I16: return 2;
    case LIK_E4M3:
    case LIK_E5M2:
    case LIK_I8: return 1;
    case LIK_I64: return 8;
    default: return 0;
    }
}

const char *lik_dtype_name(int32_t dtype)
{
    static const char *const names[] = {"?", "f32", "f16", "bf16", "e4m3", "e5m2", "i8", "i16", "i32", "i64"};
    return dtype >= LIK_F32 && dtype <= LIK_I64 ? names[dtype] : "?";
}
