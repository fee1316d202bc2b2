/* Contexts, views, names. */
#include "core/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct lik_backend *const backends[] = {
    &lik_backend_cpu,
    &lik_backend_ref,
#ifdef LIK_WITH_CUDA
    &lik_backend_cuda,
#endif
};

int lik_context_create(const char *device, struct lik_context **out)
{
    if (!out)
        return lik_fail(LIK_EINVAL, "out is NULL");
    *out = NULL;
    if (!device)
        return lik_fail(LIK_EINVAL, "device is NULL");
    const char *colon = strchr(device, ':');
    size_t length = colon ? (size_t)(colon - device) : strlen(device);
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        const struct lik_backend *backend = backends[i];
        if (strlen(backend->name) != length || memcmp(backend->name, device, length))
            continue;
        struct lik_context *ctx = calloc(1, sizeof *ctx);
        if (!ctx)
            return lik_fail(LIK_ENOMEM, "no memory for a context");
        ctx->backend = backend;
        int status = backend->open(ctx, colon ? colon + 1 : NULL);
        if (status) {
            free(ctx);
            return status;
        }
        *out = ctx;
        return lik_succeed();
    }
    if (length == 4 && !memcmp(device, "cuda", 4))
        return lik_fail(LIK_EDEVICE, "device is \"%.40s\", this library was built without CUDA", device);
    return lik_fail(LIK_EINVAL, "device is \"%.40s\", must be \"cpu\", \"cpu:LEVEL\", \"ref\" or \"cuda:N\"", device);
}

void lik_context_destroy(struct lik_context *ctx)
{
    free(ctx);
}

const char *lik_context_name(const struct lik_context *ctx)
{
    return ctx ? ctx->name : "";
}

struct lik_tokens lik_tokens_padded(const void *data, int32_t dtype, int64_t count, int64_t len, int64_t dim)
{
    struct lik_tokens x = {.struct_size = sizeof x, .dtype = dtype, .count = count, .len_max = len, .dim = dim};
    x.data = data;
    x.dim_stride = 1;
    x.strides.token = dim;
    if (__builtin_mul_overflow(len, dim, &x.strides.sequence)) /* refused when the operation checks the sizes */
        x.strides.sequence = INT64_MAX;
    x.mask_strides = x.scale_strides = x.weights_strides = (struct lik_strides){.sequence = len, .token = 1};
    return x;
}

struct lik_tokens lik_tokens_packed(const void *data, int32_t dtype, int64_t count, int64_t len_max, int64_t total,
                                    int64_t dim, const void *offsets, int32_t offsets_dtype)
{
    struct lik_tokens x = {.struct_size = sizeof x, .dtype = dtype, .count = count, .len_max = len_max, .dim = dim};
    x.data = data;
    x.total = total;
    x.dim_stride = 1;
    x.strides.token = dim;
    x.offsets = offsets;
    x.offsets_dtype = offsets_dtype;
    x.mask_strides = x.scale_strides = x.weights_strides = (struct lik_strides){.token = 1};
    return x;
}

const char *lik_status_name(int status)
{
    static const char *const names[] = {"LIK_OK",         "LIK_EINVAL", "LIK_EUNSUPPORTED",
                                        "LIK_EWORKSPACE", "LIK_ENOMEM", "LIK_EDEVICE"};
    return status <= 0 && status >= LIK_EDEVICE ? names[-status] : "?";
}

size_t lik_dtype_bytes(int32_t dtype)
{
    switch (dtype) {
    case LIK_F32: case LIK_I32: return 4;
    case LIK_F16: case LIK_BF16: case LIK_I16: return 2;
    case LIK_E4M3: case LIK_E5M2: case LIK_I8: return 1;
    case LIK_I64: return 8;
    default: return 0;
    }
}

const char *lik_dtype_name(int32_t dtype)
{
    static const char *const names[] = {"?", "f32", "f16", "bf16", "e4m3", "e5m2", "i8", "i16", "i32", "i64"};
    return dtype >= LIK_F32 && dtype <= LIK_I64 ? names[dtype] : "?";
}

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *lik_version(void)
{
    return TEXT(LIK_VERSION_MAJOR) "." TEXT(LIK_VERSION_MINOR) "." TEXT(LIK_VERSION_PATCH);
}

const char *lik_build_info(void)
{
#if defined(__clang__)
#define LIK_COMPILER "clang " __clang_version__
#else
#define LIK_COMPILER "gcc " __VERSION__
#endif
#ifdef LIK_WITH_CUDA
#define LIK_BACKENDS "ref cpu cuda"
#else
#define LIK_BACKENDS "ref cpu"
#endif
    return "lik " TEXT(LIK_VERSION_MAJOR) "." TEXT(LIK_VERSION_MINOR) "." TEXT(LIK_VERSION_PATCH) ", " LIK_COMPILER
           ", backends " LIK_BACKENDS;
}
