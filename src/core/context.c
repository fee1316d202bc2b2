/* Contexts: which backend a device string means. */
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
#ifdef LIK_WITH_METAL
    &lik_backend_metal,
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
        const char *check = getenv("LIK_CHECK");
        ctx->backend = backend;
        ctx->check = !backend->host_memory && check && *check && strcmp(check, "0");
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
    if (length == 5 && !memcmp(device, "metal", 5))
        return lik_fail(LIK_EDEVICE, "device is \"%.40s\", this library was built without Metal", device);
    return lik_fail(LIK_EINVAL,
                    "device is \"%.40s\", must be \"cpu\", \"cpu:LEVEL\", \"ref\", \"cuda:N\" or \"metal:N\"",
                    device);
}

void lik_context_destroy(struct lik_context *ctx)
{
    free(ctx);
}

const char *lik_context_name(const struct lik_context *ctx)
{
    return ctx ? ctx->name : "";
}

const char *lik_context_hardware(const struct lik_context *ctx)
{
    return ctx ? ctx->hardware : "";
}

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

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
#define LIK_AND_CUDA " cuda"
#else
#define LIK_AND_CUDA ""
#endif
#ifdef LIK_WITH_METAL
#define LIK_AND_METAL " metal"
#else
#define LIK_AND_METAL ""
#endif
    return "lik " TEXT(LIK_VERSION_MAJOR) "." TEXT(LIK_VERSION_MINOR) "." TEXT(
        LIK_VERSION_PATCH) ", " LIK_COMPILER ", backends ref cpu" LIK_AND_CUDA LIK_AND_METAL;
}
