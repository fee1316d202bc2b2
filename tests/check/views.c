/* Slices of views: every array of the slice begins where its first sequence does, and its
 * scores have the bits of the whole's. Refusals leave the output alone. */
#include "check.h"

#include "shared/operand.h"

#include <string.h>

enum { GROUPS = 3, MEMBERS = 4, COUNT_OF = GROUPS * MEMBERS, LEN = 5, DIM = 8, QUERIES = 2 };

static float data[COUNT_OF * LEN * DIM], scale[COUNT_OF * LEN], query_data[QUERIES * LEN * DIM];
static uint8_t mask[COUNT_OF * LEN];
static int64_t offsets[COUNT_OF + 1];

static struct lik_tokens whole_view(int layout)
{
    struct lik_tokens x = lik_tokens_padded(data, LIK_F32, COUNT_OF, LEN, DIM);
    if (layout == 1)
        x = lik_tokens_packed(data, LIK_F32, COUNT_OF, LEN, COUNT_OF * LEN, DIM, offsets, LIK_I64);
    x.mask = mask;
    x.scale = scale;
    if (layout == 2) { /* groups that lie in descending order, as whole ones do in a reversed view */
        struct lik_strides down = {-MEMBERS * LEN, LEN, 1};
        x.group_size = MEMBERS;
        x.mask_strides = x.scale_strides = down;
        x.strides = (struct lik_strides){down.group * DIM, LEN * DIM, DIM};
        x.data = data + (GROUPS - 1) * MEMBERS * LEN * DIM;
        x.mask = mask + (GROUPS - 1) * MEMBERS * LEN;
        x.scale = scale + (GROUPS - 1) * MEMBERS * LEN;
    }
    return x;
}

static void fill(void)
{
    for (int n = 0; n < COUNT_OF * LEN * DIM; n++)
        data[n] = (float)((n * 7919) % 201 - 100) / 64;
    for (int n = 0; n < QUERIES * LEN * DIM; n++)
        query_data[n] = (float)((n * 104729) % 163 - 80) / 64;
    for (int n = 0; n < COUNT_OF * LEN; n++) {
        scale[n] = 0.5f + (float)(n % 7);
        mask[n] = n % 3 != 1;
    }
    for (int i = 0; i <= COUNT_OF; i++)
        offsets[i] = i * LEN - i * 2 / 3;
}

static void score(const struct device *device, const struct lik_tokens *d, float *scores)
{
    struct lik_score op = {.struct_size = sizeof op, .d = *d};
    op.q = lik_tokens_padded(query_data, LIK_F32, QUERIES, LEN, DIM);
    op.scores = scores;
    check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
}

static void check_bits(const char *layout, const struct lik_tokens *x, int64_t first, int64_t count)
{
    struct lik_tokens slice;
    check_describe("views: sequences %lld ... of %lld, %s", (long long)first, (long long)count, layout);
    if (!check_ok(lik_tokens_slice(x, first, count, &slice), "lik_tokens_slice") || count == 0)
        return;
    check(slice.count == count, "the slice has %lld sequences", (long long)slice.count);
    for (int i = 0; i < device_count; i++) {
        float all[QUERIES * COUNT_OF], some[QUERIES * COUNT_OF];
        if (!devices[i].ctx)
            continue;
        score(&devices[i], x, all);
        score(&devices[i], &slice, some);
        for (int64_t q = 0; q < QUERIES; q++)
            check(!memcmp(all + q * COUNT_OF + first, some + q * count, (size_t)count * sizeof *all),
                  "scores of query %lld differ on %s", (long long)q, devices[i].name);
    }
}

static void refused(const char *what, const struct lik_tokens *x, int64_t first, int64_t count,
                    struct lik_tokens *out, const char *a, const char *b)
{
    check_describe("views: %s", what);
    check(lik_tokens_slice(x, first, count, out) == LIK_EINVAL, "it was not refused");
    check(strstr(lik_last_error(), a) && strstr(lik_last_error(), b),
          "the message \"%s\" lacks \"%s\" or \"%s\"", lik_last_error(), a, b);
}

/* A len_max of 0 is the longest sequence, in plans and runs, of documents and of queries; an
 * argmax, whose size it is, asks for it. */
static void check_found_length(const struct device *device)
{
    static const int64_t query_offsets[] = {0, 5, 7};
    static int32_t argmax[QUERIES * COUNT_OF * LEN];
    float given[QUERIES * COUNT_OF], found[QUERIES * COUNT_OF];
    check_describe("views: len_max 0 on %s", lik_context_name(device->ctx));
    for (int packed_queries = 0; packed_queries < 2; packed_queries++) {
        struct lik_score op = LIK_SCORE_INIT;
        op.q = lik_tokens_padded(query_data, LIK_F32, QUERIES, LEN, DIM);
        if (packed_queries)
            op.q = lik_tokens_packed(query_data, LIK_F32, QUERIES, LEN, 7, DIM, query_offsets, LIK_I64);
        op.d = whole_view(1);
        op.scores = given;
        check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
        op.d.len_max = 0;
        op.q.len_max = packed_queries ? 0 : LEN;
        op.scores = found;
        struct lik_plan plan = LIK_PLAN_INIT;
        check_ok(lik_score_plan(device->ctx, &op, NULL, &plan), "lik_score_plan");
        check_ok(run_score(device->ctx, &op, NULL), "lik_score_run without len_max");
        check(!memcmp(given, found, sizeof given), "the scores differ");
        op.argmax = argmax;
        op.argmax_dtype = LIK_I32;
        int status = lik_score_plan(device->ctx, &op, NULL, &plan);
        if (packed_queries)
            check(status == LIK_EINVAL && strstr(lik_last_error(), "the longest query has 5 tokens"),
                  "an argmax of unknown size: %s", lik_last_error());
        else
            check_ok(status, "an argmax of documents without len_max");
    }
}

void check_views(void)
{
    static const char *const names[] = {"padded", "packed", "in groups"};
    fill();
    for (int layout = 0; layout < 3; layout++) {
        struct lik_tokens x = whole_view(layout);
        for (int64_t first = 0; first <= COUNT_OF; first++)
            for (int64_t count = 0; count <= COUNT_OF - first; count++) {
                int whole = first % MEMBERS == 0 && count % MEMBERS == 0;
                if (layout < 2 || whole || first % MEMBERS + count <= MEMBERS)
                    check_bits(names[layout], &x, first, count);
            }
    }
    for (int i = 0; i < device_count; i++)
        if (devices[i].ctx && strncmp(devices[i].name, "cuda", 4))
            check_found_length(&devices[i]);
    struct lik_tokens x = whole_view(0), packed = whole_view(1), grouped = whole_view(2), out, before;
    memset(&out, 0xcb, sizeof out);
    before = out;
    refused("no view", NULL, 0, 1, &out, "x", "NULL");
    refused("no output", &x, 0, 1, NULL, "out", "NULL");
    refused("before the first", &x, -1, 1, &out, "first is -1", "12 sequences");
    refused("fewer than none", &x, 0, -1, &out, "count -1", "12 sequences");
    refused("past the last", &x, 11, 2, &out, "count 2", "12 sequences");
    refused("far past the last", &x, INT64_MAX, INT64_MAX, &out, "first is 9223372036854775807",
            "12 sequences");
    refused("across groups", &grouped, 2, 4, &out, "first is 2", "group_size is 4");
    packed.count = INT64_MAX; /* nobody has checked the view */
    refused("offsets that pass 2^63", &packed, INT64_MAX, 0, &out, "first is 9223372036854775807", "2^63");
    grouped.group_size = -1;
    refused("a negative group", &grouped, 2, 4, &out, "group_size is -1", "negative");
    x.scale_strides.sequence = INT64_MAX;
    refused("strides that pass 2^63", &x, 2, 4, &out, "first is 2", "2^63");
    check(!memcmp(&out, &before, sizeof out), "a refusal wrote to the output");
    x.scale = NULL; /* then its strides may be anything */
    check_ok(lik_tokens_slice(&x, 2, 4, &x), "a slice onto itself");
    check(x.count == 4 && x.data == data + 2 * LEN * DIM, "the slice is of %lld sequences",
          (long long)x.count);
}
