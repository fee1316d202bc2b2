/* Cases that a random problem does not reach: arrays past 2^31 elements, dropped tokens that
 * cannot be read, one NaN among many pairs, documents of one repeated token, products that are
 * all negative, and nothing at all. */
#include "check.h"
#include "system.h"

#define FOR_EACH_DEVICE(device)                                                            \
    for (const struct device *device = devices; device < devices + device_count; device++) \
        if (device->ctx)

static float bits_to_f32(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Token t of document j is t + 10 * j + 1 in its first element: the score of an all-ones query
 * of one token tells which tokens were read. */
static void put_token(unsigned char *data, int32_t dtype, int64_t at, int64_t value)
{
    if (dtype == LIK_I8)
        ((int8_t *)data)[at] = (int8_t)value;
    else
        ((float *)(void *)data)[at] = (float)value;
}

static void check_large_arrays(int32_t dtype, int packed)
{
    int64_t dim = 128, far = (int64_t)1 << 31, rows = far / dim, len = 3;
    uint64_t bytes = (uint64_t)(2 * far + 4096) * lik_dtype_bytes(dtype);
    unsigned char *data = bytes > PTRDIFF_MAX ? NULL : pages_map((size_t)bytes);
    check_describe("special: %s documents past 2^31 elements, %s", lik_dtype_name(dtype),
                   packed ? "packed" : "padded");
    totals.cases++;
    if (!data) {
        printf("no address space for %llu bytes, skipped\n", (unsigned long long)bytes);
        totals.skipped++;
        return;
    }
    int64_t offsets64[4]; /* packed: three documents of 3 tokens, across element 2^31 */
    int32_t offsets32[4];
    for (int i = 0; i < 4; i++) {
        offsets64[i] = rows - 4 + 3 * i;
        offsets32[i] = (int32_t)offsets64[i];
    }
    float query[128], scores[3];
    int32_t argmax[3];
    for (int64_t k = 0; k < dim; k++)
        query[k] = 1;
    struct lik_score op = {.struct_size = sizeof op};
    op.q = lik_tokens_padded(query, LIK_F32, 1, 1, dim);
    op.d = lik_tokens_padded(data, dtype, 3, len, dim);
    op.d.strides.sequence = far; /* documents 0, 1, 2 at elements 0, 2^31, 2^32 */
    op.scores = scores;
    op.argmax = argmax;
    op.argmax_dtype = LIK_I32;
    for (int wide = 0; wide <= packed; wide++) {
        if (packed)
            op.d = lik_tokens_packed(data, dtype, 3, len, 2 * rows, dim,
                                     wide ? (void *)offsets64 : (void *)offsets32, wide ? LIK_I64 : LIK_I32);
        for (int64_t j = 0; j < 3; j++)
            for (int64_t t = 0; t < len; t++)
                put_token(data, dtype, packed ? (offsets64[j] + t) * dim : j * far + t * dim, t + 10 * j + 1);
        FOR_EACH_DEVICE(device)
        {
            memset(scores, 0xcb, sizeof scores);
            if (!check_ok(run_score(device->ctx, &op, NULL), "lik_score_run"))
                continue;
            for (int j = 0; j < 3; j++) {
                check_close("scores", j, (double)scores[j], 10 * j + 3, 0.001);
                check(argmax[j] == 2, "argmax[%d] is %d on %s", j, argmax[j], device->name);
            }
        }
    }
    pages_unmap(data, (size_t)bytes);
}

/* Each token on a page of its own; the pages of dropped tokens are unmapped. */
static void check_dropped_unread(int32_t dtype)
{
    enum { TOKENS = 23 };
    int64_t page = (int64_t)page_bytes(), dim = page / (int64_t)lik_dtype_bytes(dtype);
    unsigned char *data = pages_map((size_t)(page * TOKENS));
    uint8_t mask[TOKENS];
    float *query = calloc((size_t)(5 * dim), sizeof(float)), score = 0;
    check_describe("special: dropped %s tokens on unreadable pages", lik_dtype_name(dtype));
    totals.cases++;
    for (int64_t k = 0; k < 5 * dim; k++)
        query[k] = 1;
    for (int64_t t = 0; t < TOKENS; t++) {
        mask[t] = t % 3 == 1 || t == 5 || t == TOKENS - 3;
        if (mask[t] && dtype == LIK_I8)
            data[page * t] = (unsigned char)t;
        else if (mask[t] && dtype == LIK_F32)
            *(float *)(void *)(data + page * t) = (float)t;
        else if (mask[t])
            data[page * t + 1] = (unsigned char)(0x30 + t); /* the high byte of an f16 or bf16 */
        if (!mask[t])
            pages_protect(data + page * t, (size_t)page, PAGES_NONE);
    }
    struct lik_score op = {.struct_size = sizeof op, .scores = &score};
    op.q = lik_tokens_padded(query, LIK_F32, 1, 5, dim);
    op.d = lik_tokens_padded(data, dtype, 1, TOKENS, dim);
    op.d.mask = mask;
    FOR_EACH_DEVICE(device)
    {
        op.d.normalize = 0;
        check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
        float last = dtype == LIK_F32 || dtype == LIK_I8 ? 22.0f : 0;
        if (last > 0)
            check_close("scores", 0, (double)score, 5 * (double)last, 0.01);
        op.d.normalize = 1;
        check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
    }
    pages_unmap(data, (size_t)(page * TOKENS));
    free(query);
}

/* A NaN in one token makes the scores of its pairs NaN and leaves every bit of the others. */
static void check_one_nan(int32_t dtype, int64_t q_len, int64_t d_len, int64_t dim, uint64_t seed)
{
    enum { QUERIES = 3, DOCUMENTS = 5 };
    struct rng rng = {.state = seed};
    float *q = calloc((size_t)(QUERIES * q_len * dim), sizeof(float)),
          *d = calloc((size_t)(DOCUMENTS * d_len * dim), sizeof(float));
    unsigned char *stored = calloc((size_t)(DOCUMENTS * d_len * dim), 4);
    float clean[QUERIES * DOCUMENTS], dirty[QUERIES * DOCUMENTS];
    int32_t *argmax = calloc((size_t)(QUERIES * DOCUMENTS * q_len), sizeof *argmax);
    size_t size = lik_dtype_bytes(dtype);
    for (int64_t k = 0; k < QUERIES * q_len * dim; k++)
        q[k] = (float)rng_normal(&rng);
    for (int64_t k = 0; k < DOCUMENTS * d_len * dim; k++) { /* any finite bits will do */
        uint64_t bits = rng_next(&rng);
        if (dtype == LIK_F32)
            d[k] = (float)rng_normal(&rng);
        if (dtype == LIK_F16 || dtype == LIK_BF16)
            bits &= 0xbbff;
        if (dtype == LIK_E4M3 || dtype == LIK_E5M2)
            bits &= 0xbb;
        memcpy(stored + (size_t)k * size, dtype == LIK_F32 ? (void *)&d[k] : (void *)&bits, size);
    }
    struct lik_score op = {.struct_size = sizeof op};
    op.q = lik_tokens_padded(q, LIK_F32, QUERIES, q_len, dim);
    op.d = lik_tokens_padded(stored, dtype, DOCUMENTS, d_len, dim);
    op.argmax_dtype = LIK_I32;
    int64_t bad_q = rng_below(&rng, QUERIES), bad_s = rng_below(&rng, q_len),
            bad_d = rng_below(&rng, DOCUMENTS), bad_t = rng_below(&rng, d_len),
            at_q = (bad_q * q_len + bad_s) * dim + rng_below(&rng, dim),
            at_d = (bad_d * d_len + bad_t) * dim + rng_below(&rng, dim);
    totals.cases++;
    check_describe("special: NaN in token %lld of query %lld and (but for i8) %lld of document %lld, %s "
                   "[%lld, %lld, %lld]",
                   (long long)bad_s, (long long)bad_q, (long long)bad_t, (long long)bad_d,
                   lik_dtype_name(dtype), (long long)q_len, (long long)d_len, (long long)dim);
    static const unsigned char nan_f32[] = {0, 0, 0xc0, 0x7f}, nan_half[] = {0xff, 0xff}, nan_byte[] = {0x7f};
    unsigned char kept[4];
    float kept_q = q[at_q];
    memcpy(kept, stored + (size_t)at_d * size, size);
    FOR_EACH_DEVICE(device)
    {
        op.scores = clean;
        op.argmax = NULL;
        check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
        q[at_q] = bits_to_f32(0xffc12345);
        if (dtype != LIK_I8)
            memcpy(stored + (size_t)at_d * size, size == 4 ? nan_f32 : size == 2 ? nan_half : nan_byte, size);
        op.scores = dirty;
        op.argmax = argmax;
        check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
        for (int64_t n = 0; n < QUERIES * DOCUMENTS; n++) {
            int64_t i = n / DOCUMENTS, j = n % DOCUMENTS;
            int nan_d = j == bad_d && dtype != LIK_I8;
            if (i != bad_q && !nan_d) {
                check(!memcmp(&clean[n], &dirty[n], 4), "scores[%lld] went from %.9g to %.9g on %s",
                      (long long)n, (double)clean[n], (double)dirty[n], device->name);
                continue;
            }
            check(isnan(dirty[n]), "scores[%lld] is %g on %s", (long long)n, (double)dirty[n], device->name);
            if (i == bad_q)
                check(argmax[n * q_len + bad_s] == 0, "argmax of the NaN query token is %d on %s",
                      argmax[n * q_len + bad_s], device->name);
            for (int64_t s = 0; s < q_len && nan_d; s++)
                if (i != bad_q || s != bad_s)
                    check(argmax[n * q_len + s] == bad_t, "argmax[%lld, %lld] is %d, the NaN is token %lld",
                          (long long)n, (long long)s, argmax[n * q_len + s], (long long)bad_t);
        }
        q[at_q] = kept_q;
        memcpy(stored + (size_t)at_d * size, kept, size);
    }
    free(q);
    free(d);
    free(stored);
    free(argmax);
}

/* A document of one token again and again: the winner is token 0. Products all negative:
 * nothing padded may win. */
static void check_repeated(int32_t dtype, int64_t q_len, int64_t d_len, int64_t dim)
{
    float *q = calloc((size_t)(q_len * dim), sizeof(float)), score;
    unsigned char *d = calloc((size_t)dim, 4);
    int16_t *argmax = calloc((size_t)q_len, sizeof *argmax);
    check_describe("special: %s document of %lld equal tokens, query of %lld, dim %lld",
                   lik_dtype_name(dtype), (long long)d_len, (long long)q_len, (long long)dim);
    totals.cases++;
    for (int64_t k = 0; k < q_len * dim; k++)
        q[k] = 1.0f + (float)(k % 5);
    static const unsigned char minus_one[][4] = {
        {0}, {0, 0, 0x80, 0xbf}, {0, 0xbc}, {0x80, 0xbf}, {0xb8}, {0xbc}, {0xff}};
    for (int64_t k = 0; k < dim; k++)
        memcpy(d + (size_t)k * lik_dtype_bytes(dtype), minus_one[dtype], lik_dtype_bytes(dtype));
    struct lik_score op = {
        .struct_size = sizeof op, .scores = &score, .argmax = argmax, .argmax_dtype = LIK_I16};
    op.q = lik_tokens_padded(q, LIK_F32, 1, q_len, dim);
    op.d = lik_tokens_padded(d, dtype, 1, d_len, dim);
    op.d.strides = (struct lik_strides){0, 0, 0};
    double want = 0;
    for (int64_t k = 0; k < q_len * dim; k++)
        want -= (double)q[k];
    FOR_EACH_DEVICE(device)
    {
        memset(argmax, 0xcb, (size_t)q_len * sizeof *argmax);
        check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
        check_close("scores", 0, (double)score, want, fabs(want) * (dtype == LIK_I8 ? 1e-4 : 0));
        for (int64_t s = 0; s < q_len; s++)
            check(argmax[s] == 0, "argmax[%lld] is %d on %s", (long long)s, argmax[s], device->name);
    }
    free(q);
    free(d);
    free(argmax);
}

/* Every product is -inf (the query has one infinite element, the documents are positive): the
 * first token wins. */
static void check_all_infinite(int32_t dtype, int64_t q_len, int64_t d_len, int64_t dim)
{
    static const unsigned char one[][4] = {{0}, {0, 0, 0x80, 0x3f}, {0, 0x3c}, {0x80, 0x3f}, {0x38}, {0x3c}};
    float *q = calloc((size_t)(q_len * dim), sizeof(float)), score = 0;
    int32_t *argmax = calloc((size_t)q_len, sizeof *argmax);
    size_t size = lik_dtype_bytes(dtype);
    unsigned char *d = calloc((size_t)(d_len * dim), size);
    check_describe("special: all products -inf, %s [%lld, %lld, %lld]", lik_dtype_name(dtype),
                   (long long)q_len, (long long)d_len, (long long)dim);
    totals.cases++;
    for (int64_t k = 0; k < q_len * dim; k++)
        q[k] = k % dim == dim / 2 ? -INFINITY : 1.0f;
    for (int64_t k = 0; k < d_len * dim; k++)
        memcpy(d + (size_t)k * size, one[dtype], size);
    struct lik_score op = {
        .struct_size = sizeof op, .scores = &score, .argmax = argmax, .argmax_dtype = LIK_I32};
    op.q = lik_tokens_padded(q, LIK_F32, 1, q_len, dim);
    op.d = lik_tokens_padded(d, dtype, 1, d_len, dim);
    FOR_EACH_DEVICE(device)
    {
        memset(argmax, 0xcb, (size_t)q_len * sizeof *argmax);
        check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
        check(score == -INFINITY, "the score is %g on %s", (double)score, device->name);
        for (int64_t s = 0; s < q_len; s++)
            check(argmax[s] == 0, "argmax[%lld] is %d on %s", (long long)s, argmax[s], device->name);
    }
    free(q);
    free(d);
    free(argmax);
}

/* The largest integers: flat queries (every element at the limit) against documents of -128 and
 * 127, where an i32 sum of 16-bit products could wrap, or a 16-bit sum of 7-bit ones
 * saturate. */
static void check_extreme_integers(int32_t q_dtype, int32_t precision, int64_t dim)
{
    enum { TOKENS = 4 };
    unsigned char *q = calloc((size_t)dim, 4);
    int8_t *d = calloc((size_t)(TOKENS * dim), 1);
    check_describe("special: extreme integers, q %s, dim %lld, precision %d", lik_dtype_name(q_dtype),
                   (long long)dim, precision);
    totals.cases++;
    for (int64_t k = 0; k < dim; k++) {
        if (q_dtype == LIK_F32)
            ((float *)(void *)q)[k] = k % 7 == 3 ? -3.0f : 3.0f;
        else
            ((int8_t *)q)[k] = k % 7 == 3 ? -128 : 127;
        int negative = k % 7 == 3;
        int8_t each[TOKENS] = {negative ? 127 : -128, negative ? -128 : 127, -128, 127};
        for (int t = 0; t < TOKENS; t++)
            d[t * dim + k] = each[t];
    }
    FOR_EACH_DEVICE(device)
    {
        for (int t = 0; t < TOKENS; t++) {
            float score = 0;
            double want = 0, scale = 0;
            struct lik_score op = {.struct_size = sizeof op, .scores = &score, .precision = precision};
            op.q = lik_tokens_padded(q, q_dtype, 1, 1, dim);
            op.d = lik_tokens_padded(d + t * dim, LIK_I8, 1, 1, dim);
            for (int64_t k = 0; k < dim; k++) {
                double value = q_dtype == LIK_F32 ? (double)((float *)(void *)q)[k] : ((int8_t *)q)[k];
                want += value * d[t * dim + k];
                scale += fabs(value * d[t * dim + k]);
            }
            check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
            /* Metal's sums are f32: exact as long as they stay below 2^24 */
            int exact = q_dtype == LIK_I8 && (dim <= 1024 || strcmp(device->level, "metal"));
            check_close("scores", t, (double)score, want, scale * (exact ? UNIT_ROUNDOFF : 1e-4));
        }
    }
    free(q);
    free(d);
}

/* Normalized tokens times a power of two, stored or as their scale, have the same direction:
 * the same bits, also where their squares leave the range of f32 and the norm has to be taken
 * in another way. */
static void check_powers_of_two(int64_t dim)
{
    enum { TOKENS = 9, WAYS = 5 };
    static const int powers[WAYS] = {0, 0, 70, -60, -75}, scale_powers[WAYS] = {0, 20, 0, 60, 75};
    struct rng rng = {.state = (uint64_t)dim};
    size_t count = (size_t)(TOKENS * dim);
    float *q = calloc(count, sizeof(float)), *d = calloc(count, sizeof(float)),
          *x = calloc(count, sizeof(float));
    check_describe("special: powers of two, dim %lld", (long long)dim);
    totals.cases++;
    for (size_t k = 0; k < count; k++) {
        q[k] = (float)rng_normal(&rng);
        d[k] = (float)rng_normal(&rng);
    }
    FOR_EACH_DEVICE(device)
    {
        float scores[2][WAYS];
        for (int way = 0; way < 2 * WAYS && !totals.gpu; way++) {
            int power = powers[way / 2], documents = way % 2;
            float scale = ldexpf(1, scale_powers[way / 2]);
            for (size_t k = 0; k < count; k++)
                x[k] = ldexpf(documents ? d[k] : q[k], power);
            struct lik_score op = {.struct_size = sizeof op, .scores = &scores[documents][way / 2]};
            op.q = lik_tokens_padded(documents ? q : x, LIK_F32, 1, TOKENS, dim);
            op.d = lik_tokens_padded(documents ? x : d, LIK_F32, 1, TOKENS, dim);
            struct lik_tokens *moved = documents ? &op.d : &op.q;
            moved->normalize = 1;
            moved->scale = &scale;
            moved->scale_strides = (struct lik_strides){0, 0, 0};
            check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
            check(!memcmp(&scores[documents][way / 2], &scores[documents][0], sizeof(float)),
                  "the score of %s times 2^%d goes from %.9g to %.9g on %s",
                  documents ? "documents" : "queries", power, (double)scores[documents][0],
                  (double)scores[documents][way / 2], device->name);
        }
    }
    free(q);
    free(d);
    free(x);
}

/* Zero of each size in each pairing, all pointers NULL where nothing can be read. */
static void check_nothing(void)
{
    static const int64_t sizes[] = {0, 2};
    for (int32_t pairing = LIK_ALL; pairing <= LIK_LIST; pairing++)
        for (int mix = 0; mix < 16; mix++) {
            int64_t q_count = sizes[mix & 1], d_count = sizes[mix >> 1 & 1], q_len = sizes[mix >> 2 & 1];
            int64_t d_len = sizes[mix >> 3];
            float q[2 * 2 * 3] = {1, 2, 3, 4, 5, 6, 1, 1, 1, 2, 2, 2},
                            d[2 * 2 * 3] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2};
            float scores[4] = {-7, -7, -7, -7};
            int32_t argmax[8];
            int64_t list[2] = {0, 1};
            if (pairing == LIK_PAIRS || pairing == LIK_CANDIDATES)
                d_count = q_count * (pairing == LIK_PAIRS ? 1 : d_count / 2);
            struct lik_score op = {.struct_size = sizeof op, .pairing = pairing, .scores = scores};
            op.argmax = argmax;
            op.argmax_dtype = LIK_I32;
            op.q = lik_tokens_padded(q_count && q_len ? q : NULL, LIK_F32, q_count, q_len, 3);
            op.d = lik_tokens_padded(d_count && d_len ? d : NULL, LIK_F32, d_count, d_len, 3);
            op.per_query = pairing == LIK_CANDIDATES && q_count ? d_count / q_count : 0;
            op.list_q = op.list_d = list;
            op.list_count = pairing == LIK_LIST && q_count && d_count ? 2 : 0;
            int64_t counts[] = {q_count * d_count, d_count, q_count, op.list_count}, n = counts[pairing];
            if (n == 0) {
                op.scores = NULL;
                op.argmax = NULL;
            }
            totals.cases++;
            FOR_EACH_DEVICE(device)
            {
                check_describe("special: nothing, pairing %d, q [%lld, %lld], d [%lld, %lld] on %s", pairing,
                               (long long)q_count, (long long)q_len, (long long)d_count, (long long)d_len,
                               device->name);
                memset(argmax, 0xcb, sizeof argmax);
                check_ok(run_score(device->ctx, &op, NULL), "lik_score_run");
                for (int64_t x = 0; x < n; x++) {
                    if (q_len == 0 || d_len == 0)
                        check(scores[x] == 0, "scores[%lld] is %g", (long long)x, (double)scores[x]);
                    for (int64_t s = 0; s < q_len && d_len == 0; s++)
                        check(argmax[x * q_len + s] == -1, "argmax[%lld] is %d", (long long)x,
                              argmax[x * q_len + s]);
                }
            }
        }
}

void check_special(void)
{
    static const int32_t dtypes[] = {LIK_F32, LIK_F16, LIK_BF16, LIK_E4M3, LIK_E5M2, LIK_I8};
    static const int64_t lens[] = {1, 2, 7, 9, 20, 32, 33}, document_lens[] = {1, 2, 3, 5, 8, 40},
                         widths[] = {1, 5, 48, 128};
    struct rng rng = {.state = 5};
    check_nothing();
    static const int64_t flat[] = {1, 2, 31, 512, 513, 768, 4096};
    for (int64_t k = 0; k < COUNT(flat); k++) {
        check_extreme_integers(LIK_F32, LIK_HIGHEST, flat[k]);
        check_extreme_integers(LIK_F32, LIK_MEDIUM, flat[k]);
        check_extreme_integers(LIK_I8, LIK_HIGHEST, flat[k]);
    }
    for (int64_t dim = 1; dim < 140; dim += totals.quick ? 7 : 1)
        check_powers_of_two(dim);
    check_large_arrays(LIK_I8, 0);
    check_large_arrays(LIK_I8, 1);
    check_large_arrays(LIK_F32, 0);
    check_large_arrays(LIK_F32, 1);
    for (int64_t i = 0; i < COUNT(dtypes); i++) {
        if (dtypes[i] != LIK_E4M3 && dtypes[i] != LIK_E5M2)
            check_dropped_unread(dtypes[i]);
        for (int64_t a = 0; a < COUNT(lens); a += totals.quick ? 3 : 1)
            for (int64_t b = 0; b < COUNT(document_lens); b += totals.quick ? 3 : 1) {
                int64_t dim = RNG_PICK(&rng, widths);
                check_one_nan(dtypes[i], lens[a], document_lens[b], dim, rng_next(&rng));
                check_repeated(dtypes[i], lens[a], document_lens[b], dim);
                if (dtypes[i] != LIK_I8)
                    check_all_infinite(dtypes[i], lens[a], document_lens[b], dim);
            }
    }
}
