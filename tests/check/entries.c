/* The entries of the C API beside the operations: devices, merges, names; what each refuses,
 * and in which words. */
#include "check.h"
#include "system.h"

#include <limits.h>

static void check_devices(void)
{
    static const struct {
        const char *device;
        int status;
        const char *piece;
    } bad[] = {
        {"", LIK_EINVAL, "\"\""},
        {"gpu", LIK_EINVAL, "gpu"},
        {"cpu:sse9", LIK_EINVAL, "sse9"},
        {"cpu:", LIK_EINVAL, "level"},
        {"CPU", LIK_EINVAL, "CPU"},
        {"ref:avx2", LIK_EINVAL, "avx2"},
        {"cpuavx2", LIK_EINVAL, "cpuavx2"},
        {":generic", LIK_EINVAL, ":gen"},
        {"cuda:x", 0, "cuda:x"},
        {"cuda:-1", 0, "cuda"},
        {"metal:x", 0, "etal"},
        {"metal-0", LIK_EINVAL, "metal-0"},
    };
    for (int64_t i = 0; i < COUNT(bad); i++) {
        struct lik_context *ctx = (struct lik_context *)(void *)&bad;
        int status = lik_context_create(bad[i].device, &ctx);
        check_describe("arguments: the device \"%s\"", bad[i].device);
        check(bad[i].status ? status == bad[i].status : status == LIK_EINVAL || status == LIK_EDEVICE,
              "the status is %s", lik_status_name(status));
        check(!ctx, "a context came back");
        check(strstr(lik_last_error(), bad[i].piece) != NULL, "the message is \"%s\"", lik_last_error());
    }
    char endless[5000];
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    memcpy(endless, "cpu:", 4);
    struct lik_context *ctx;
    check(lik_context_create(endless, &ctx) == LIK_EINVAL && strlen(lik_last_error()) < 1000,
          "an endless device name");

    int32_t highest = 0;
    while (lik_cpu_level(highest + 1, NULL))
        highest++;
    const char *const levels[] = {"generic", lik_cpu_level(highest > 0, NULL), "nonsense", "",
                                  lik_cpu_level(highest, NULL)};
    const char *kept = getenv("LIK_CPU");
    char *before = kept ? strdup(kept) : NULL;
    for (int64_t i = 0; i < COUNT(levels); i++) {
        environment_set("LIK_CPU", levels[i]);
        int status = lik_context_create("cpu", &ctx);
        check_describe("arguments: LIK_CPU=%s", levels[i]);
        if (i == 2) {
            check(status == LIK_EINVAL && strstr(lik_last_error(), "LIK_CPU") &&
                      strstr(lik_last_error(), "nonsense"),
                  "the status is %s: %s", lik_status_name(status), lik_last_error());
            continue;
        }
        if (!check_ok(status, "lik_context_create"))
            continue;
        check(i != 0 || !strcmp(lik_context_name(ctx), "cpu:generic"), "the context is %s",
              lik_context_name(ctx));
        check(!strncmp(lik_context_name(ctx), "cpu:", 4), "the context is %s", lik_context_name(ctx));
        lik_context_destroy(ctx);
    }
    environment_set("LIK_CPU", before);
    free(before);
}

/* Every level is named with a reason, one of them is taken, and it is the one that "cpu"
 * gets. */
static void check_levels(void)
{
    struct lik_context *ctx;
    const char *why, *level;
    check_describe("arguments: the levels");
    if (!check_ok(lik_context_create("cpu", &ctx), "lik_context_create"))
        return;
    int32_t taken = 0, n = 0;
    for (; (level = lik_cpu_level(n, &why)); n++) {
        int here = !strcmp(why, "here, taken");
        taken += here;
        check(here == !strcmp(lik_context_name(ctx) + 4, level), "\"cpu\" is %s, %s is said to be %s",
              lik_context_name(ctx), level, why);
        for (int64_t i = 0; i < device_count; i++)
            if (!strcmp(devices[i].level, level) && devices[i].ctx)
                check(!strncmp(why, "here", 4), "%s runs and is said to be %s", level, why);
    }
    check(n > 0 && taken == 1, "%d levels, %d of them taken", n, taken);
    check(!lik_cpu_level(-1, NULL) && !lik_cpu_level(n, NULL), "there are levels past the last");
    check(!strcmp(lik_cpu_level(0, NULL), "generic"), "the first level is %s", lik_cpu_level(0, NULL));
    lik_context_destroy(ctx);
}

static void check_merges(void)
{
    static float values_in[12] = {0}, values[4];
    static int64_t ids_in[12] = {0}, ids[4];
    static const struct {
        int64_t parts, queries, k_in, k;
        int nothing; /* which pointer is NULL */
        const char *a, *b;
    } bad[] = {
        {-1, 1, 1, 1, 0, "parts", "-1"},
        {1, -2, 1, 1, 0, "queries", "-2"},
        {1, 1, -3, 1, 0, "k_in", "-3"},
        {1, 1, 1, 0, 0, "k is 0", "1"},
        {1, 1, 1, -9, 0, "k is -9", "1"},
        {INT64_MAX, 2, 2, 1, 0, "parts", "9223372036854775807"},
        {1, INT64_MAX, 0, 2, 0, "queries", "9223372036854775807"},
        {1, INT64_MAX / 4, 0, 1, 0, "queries", "2305843009213693951"},
        {2, INT64_MAX / 4, 4, 1, 0, "parts", "2305843009213693951"},
        {1, 2, INT64_MAX / 4, 1, 0, "k_in", "2305843009213693951"},
        {1, 1, 1, 1, 1, "values_in", "NULL"},
        {1, 1, 1, 1, 2, "ids_in", "NULL"},
        {1, 1, 1, 1, 3, "values", "NULL"},
        {1, 1, 1, 1, 4, "ids", "NULL"},
    };
    for (int64_t i = 0; i < COUNT(bad); i++) {
        memset(values, 0xcb, sizeof values);
        memset(ids, 0xcb, sizeof ids);
        int status =
            lik_merge_topk(bad[i].parts, bad[i].queries, bad[i].k_in, bad[i].nothing == 1 ? NULL : values_in,
                           bad[i].nothing == 2 ? NULL : ids_in, bad[i].k, 0,
                           bad[i].nothing == 3 ? NULL : values, bad[i].nothing == 4 ? NULL : ids);
        totals.cases++;
        check_describe("arguments: lik_merge_topk, case %lld", (long long)i);
        check(status == LIK_EINVAL && strstr(lik_last_error(), bad[i].a) &&
                  strstr(lik_last_error(), bad[i].b),
              "the status is %s: %s", lik_status_name(status), lik_last_error());
        unsigned char poison[sizeof ids];
        memset(poison, 0xcb, sizeof poison);
        check(!memcmp(values, poison, sizeof values) && !memcmp(ids, poison, sizeof ids),
              "something was written");
    }
    for (int which = 0; which < 4; which++) {
        check_describe("arguments: lik_merge_topk, pointer %d misaligned", which);
        int status =
            lik_merge_topk(1, 1, 1, which == 0 ? (const float *)((const char *)values_in + 1) : values_in,
                           which == 1 ? (const int64_t *)((const char *)ids_in + 4) : ids_in, 1, 0,
                           which == 2 ? (float *)((char *)values + 2) : values,
                           which == 3 ? (int64_t *)((char *)ids + 4) : ids);
        check(status == LIK_EINVAL && strstr(lik_last_error(), "aligned"), "the message is \"%s\"",
              lik_last_error());
    }
    check_describe("arguments: lik_merge_topk of nothing");
    check_ok(lik_merge_topk(0, 0, 0, NULL, NULL, 1, 0, NULL, NULL), "lik_merge_topk");
    check_ok(lik_merge_topk(0, 1, 0, NULL, NULL, 2, 0, values, ids), "lik_merge_topk");
    check(ids[0] == -1 && ids[1] == -1 && isnan(values[0]) && isnan(values[1]), "the filler");
}

static void check_names(void)
{
    struct lik_tokens endless = lik_tokens_padded(NULL, LIK_F32, 2, INT64_MAX, 8);
    check_describe("arguments: contiguous views");
    check(endless.strides.sequence == INT64_MAX && endless.strides.token == 8,
          "a stride that does not fit is %lld", (long long)endless.strides.sequence);
    static const char *const names[] = {"LIK_OK",         "LIK_EINVAL", "LIK_EUNSUPPORTED",
                                        "LIK_EWORKSPACE", "LIK_ENOMEM", "LIK_EDEVICE"};
    check_describe("arguments: names");
    for (int i = 0; i < 6; i++)
        check(!strcmp(lik_status_name(-i), names[i]), "status %d is called %s", -i, lik_status_name(-i));
    check(!strcmp(lik_status_name(1), "?") && !strcmp(lik_status_name(-6), "?") &&
              !strcmp(lik_status_name(INT_MIN), "?"),
          "a status that is none has a name");
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", LIK_VERSION_MAJOR, LIK_VERSION_MINOR, LIK_VERSION_PATCH);
    check(!strcmp(lik_version(), version), "the version is %s, the header's %s", lik_version(), version);
    check(strstr(lik_build_info(), version) && strstr(lik_build_info(), "cpu") &&
              !strchr(lik_build_info(), '\n'),
          "the build is \"%s\"", lik_build_info());
}

void check_entries(void)
{
    check_devices();
    check_levels();
    check_merges();
    check_names();
}
