/* The verbs of the codec: decoding and encoding of generated problems' operands against what
 * they hold in f64, in every storage and layout; ColBERT's bytes; codes as the argmax of
 * lik_score; the same bits for any number of threads; wrong arguments. Training is in
 * training.c. */
#include "check.h"

#include "base/dtype.h"

static const int32_t float_dtypes[] = {LIK_F32, LIK_F16, LIK_BF16};

static int64_t rows_of(const struct lik_tokens *x)
{
    return x->offsets ? x->total : x->count * x->len_max;
}

/* The decoded token (a row of `decoded`) of each row of a contiguous array; -1: none kept. */
static int64_t *tokens_of_rows(const struct lik_tokens *x, const struct decoded *decoded)
{
    int64_t rows = rows_of(x), *token = malloc((size_t)(rows + 1) * sizeof *token);
    for (int64_t row = 0; row < rows; row++)
        token[row] = -1;
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++)
            if (decoded->kept[i * decoded->len + t])
                token[problem_row(x, i, t)] = i * decoded->len + t;
    return token;
}

static double unit_of(int32_t dtype)
{
    return dtype == LIK_F32 ? 0x1p-24 : dtype == LIK_F16 ? 0x1p-11 : 0x1p-8;
}

/* ---- decode ---- */

static void expect_row(const struct lik_decode *op, const struct decoded *decoded, int64_t row, int64_t token)
{
    int64_t dim = op->x.dim;
    for (int64_t k = 0; k < dim; k++) {
        double got = (double)lik_load_f32(op->out, op->out_dtype, row * dim + k);
        if (token < 0) {
            check(got == 0, "row %lld, which is no token's, has %g", (long long)row, got);
            continue;
        }
        double want = decoded->vector[token * dim + k], unit = unit_of(op->out_dtype);
        if (op->out_dtype == LIK_F16 && fabs(want) > 65000) {
            check(fabs(got) > 64000 && (got > 0) == (want > 0), "row %lld has %g, not %g", (long long)row,
                  got, want);
            continue;
        }
        double tolerance = fabs(want) * (unit + UNIT_ROUNDOFF * (6 + 2 * sqrt((double)dim)));
        tolerance += op->out_dtype == LIK_F16 ? 0x1p-25 : 0x1p-133;
        tolerance += 0x1p-148 * fabs(decoded->factor[token]);
        check_close("decoded", row * dim + k, got, want, tolerance);
    }
}

static void decode_operand(const struct problem *p, const struct lik_tokens *operand,
                           const struct decoded *decoded, struct rng *rng)
{
    struct lik_decode op = {.struct_size = sizeof op, .x = *operand};
    op.x.weights = NULL;
    op.out_dtype = RNG_PICK(rng, float_dtypes);
    size_t size = lik_dtype_bytes(op.out_dtype), bytes = (size_t)(rows_of(&op.x) * op.x.dim) * size;
    int64_t *token = tokens_of_rows(&op.x, decoded);
    for (int64_t d = 0; d < device_count; d++) {
        unsigned char *first = malloc(bytes + 1);
        for (int threads = 1; threads <= 3 && devices[d].ctx; threads += 2) {
            struct buffer out = buffer_make(bytes, p->spec.placement, size);
            struct lik_exec exec = exec_of(threads);
            memset(out.data, 0xcb, bytes);
            op.out = out.data;
            if (check_ok(run_decode(devices[d].ctx, &op, &exec), devices[d].name) && threads == 1)
                for (int64_t row = 0; row < rows_of(&op.x); row++)
                    expect_row(&op, decoded, row, token[row]);
            if (threads == 1)
                memcpy(first, out.data, bytes);
            check(!memcmp(first, out.data, bytes), "%d threads give other bytes", threads);
            buffer_check(&out, "the decoded rows");
            buffer_free(&out);
        }
        free(first);
    }
    free(token);
}

/* ---- encode ---- */

/* A codec and outputs of exactly their size. */
struct encoding {
    struct lik_encode op;
    struct lik_codec codec;
    struct buffer centroids, cutoffs, weights, codes, residuals, inv_norms;
    int64_t rows, token_bytes;
};

static float centroid_at(const struct encoding *e, int64_t c, int64_t k)
{
    int64_t stride = e->codec.centroid_stride ? e->codec.centroid_stride : e->op.x.dim;
    return lik_load_f32(e->codec.centroids, e->codec.centroids_dtype, c * stride + k);
}

static struct buffer floats(int64_t n, int32_t dtype, double unit, int exact, struct rng *rng)
{
    size_t size = lik_dtype_bytes(dtype);
    struct buffer b = buffer_make((size_t)n * size, rng_below(rng, 2) ? AT_BEGIN : AT_END, size);
    for (int64_t k = 0; k < n; k++)
        lik_store_f32(b.data, dtype, k,
                      (float)(exact ? (double)(rng_below(rng, 7) - 3) : rng_normal(rng) * unit));
    return b;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Buffers for `op.x`, of random dtypes; `exact`: small whole numbers, so that nothing is
 * rounded. */
static struct encoding encoding_make(const struct lik_tokens *x, int exact, struct rng *rng)
{
    static const int32_t bit_counts[] = {0, 1, 2, 4, 8}, code_dtypes[] = {LIK_I16, LIK_I32, LIK_I64};
    struct encoding e = {.op = {.struct_size = sizeof e.op, .x = *x}, .rows = rows_of(x)};
    struct lik_codec *codec = &e.codec;
    double unit = 1 / sqrt((double)x->dim);
    int64_t stride = x->dim + rng_below(rng, 2) * rng_below(rng, 9);
    *codec = (struct lik_codec){.struct_size = sizeof *codec, .bits = RNG_PICK(rng, bit_counts)};
    e.op.x.weights = NULL;
    codec->bit_order = (int32_t)rng_below(rng, 2);
    codec->centroid_count = 1 + rng_below(rng, rng_below(rng, 4) ? 40 : 300);
    codec->centroid_stride = stride > x->dim ? stride : 0;
    codec->centroids_dtype = RNG_PICK(rng, float_dtypes);
    codec->weights_dtype = RNG_PICK(rng, float_dtypes);
    int64_t entries = (codec->centroid_count - 1) * stride + x->dim;
    e.centroids = floats(entries, codec->centroids_dtype, unit, exact, rng);
    codec->centroids = e.centroids.data;
    e.weights = floats(codec->bits ? 1 << codec->bits : 0, codec->weights_dtype, unit / 4, exact, rng);
    e.cutoffs = floats((1 << codec->bits) - 1, LIK_F32, unit / 4, exact, rng);
    qsort(e.cutoffs.data, e.cutoffs.bytes / 4, 4, by_value);
    codec->weights = codec->bits ? e.weights.data : NULL;
    e.op.cutoffs = codec->bits ? (const float *)(const void *)e.cutoffs.data : NULL;
    buffer_lock(&e.centroids);
    buffer_lock(&e.weights);
    buffer_lock(&e.cutoffs);
    e.op.codes_dtype = RNG_PICK(rng, code_dtypes);
    e.op.inv_norms_dtype = rng_below(rng, 2) ? LIK_F16 : rng_below(rng, 2) ? LIK_F32 : 0;
    e.token_bytes = (x->dim * codec->bits + 7) / 8;
    size_t size = lik_dtype_bytes(e.op.codes_dtype);
    e.codes = buffer_make((size_t)e.rows * size, AT_END, size);
    e.residuals = buffer_make((size_t)(e.rows * e.token_bytes), AT_END, 1);
    size = e.op.inv_norms_dtype == LIK_F16 ? 2 : 4;
    e.inv_norms = buffer_make((size_t)e.rows * size * (size_t)(rng_below(rng, 3) > 0), AT_END, size);
    e.op.codes = e.codes.data;
    e.op.residuals = codec->bits ? e.residuals.data : NULL;
    e.op.inv_norms = e.inv_norms.bytes ? e.inv_norms.data : NULL;
    return e;
}

static int encoding_run(struct encoding *e, const struct lik_context *ctx, const struct lik_exec *exec)
{
    struct buffer *outputs[] = {&e->codes, &e->residuals, &e->inv_norms};
    e->op.codec = &e->codec; /* the struct may have moved */
    for (int o = 0; o < 3; o++)
        memset(outputs[o]->data, 0xcb, outputs[o]->bytes);
    int status = run_encode(ctx, &e->op, exec);
    buffer_check(&e->codes, "the codes");
    buffer_check(&e->residuals, "the residuals");
    buffer_check(&e->inv_norms, "the inverse norms");
    return status;
}

static void encoding_free(struct encoding *e)
{
    struct buffer *all[] = {&e->centroids, &e->cutoffs, &e->weights, &e->codes, &e->residuals, &e->inv_norms};
    for (int64_t b = 0; b < COUNT(all); b++)
        buffer_free(all[b]);
}

static int64_t code_at(const struct encoding *e, int64_t row)
{
    int64_t code = 0;
    size_t size = lik_dtype_bytes(e->op.codes_dtype);
    memcpy(&code, e->codes.data + (size_t)row * size, size);
    return code;
}

/* No centroid may be nearer than the one that is named; none before it as near. */
static void expect_code(const struct encoding *e, int64_t row, int64_t code, const double *vector,
                        double norm, int exact)
{
    double own = 0, longest = 0, most = -INFINITY;
    int64_t first = 0;
    for (int64_t c = 0; c < e->codec.centroid_count; c++) {
        double product = 0, squares = 0;
        for (int64_t k = 0; k < e->op.x.dim; k++) {
            double element = (double)centroid_at(e, c, k);
            product += vector[k] * element;
            squares += element * element;
        }
        longest = fmax(longest, sqrt(squares));
        own = c == code ? product : own;
        first = product > most ? c : first;
        most = fmax(product, most);
    }
    double dim = (double)e->op.x.dim;
    double tolerance = 2 * UNIT_ROUNDOFF * norm * longest * (6 * sqrt(dim) + 8) + 0x1p-120;
    if (totals.gpu) /* as problem_product_tolerance has it */
        tolerance += 2 * norm * longest * (2e-6 + 2e-8 * dim) + 2 * dim * 0x1p-126 * (norm + longest + 1);
    check(own >= most - (exact ? 0 : tolerance),
          "row %lld has code %lld, of product %.9g; centroid %lld has %.9g", (long long)row, (long long)code,
          own, (long long)first, most);
    check(!exact || code == first, "row %lld has code %lld, centroid %lld is as near", (long long)row,
          (long long)code, (long long)first);
}

/* Buckets lie where the residual is, and the inverse norm is the decoded token's. */
static void expect_residual(const struct encoding *e, int64_t row, int64_t code, const double *vector,
                            double norm)
{
    const struct lik_codec *codec = &e->codec;
    const unsigned char *bytes = e->residuals.data + row * e->token_bytes;
    const float *cutoffs = e->op.cutoffs;
    int64_t dim = e->op.x.dim;
    double squares = 0;
    for (int64_t k = 0; k < dim; k++) {
        float decoded = centroid_at(e, code, k);
        if (codec->bits) {
            int bucket = compressed_bucket(codec, bytes, k);
            double r = vector[k] - (double)centroid_at(e, code, k);
            double tolerance = UNIT_ROUNDOFF * (norm * (4 + 2 * sqrt((double)dim)) + 2 * fabs(r)) + 0x1p-140;
            if (isfinite(norm))
                check((bucket == 0 || (double)cutoffs[bucket - 1] < r + tolerance) &&
                          (bucket == (1 << codec->bits) - 1 || (double)cutoffs[bucket] >= r - tolerance),
                      "row %lld: element %lld, %.9g, is in bucket %d", (long long)row, (long long)k, r,
                      bucket);
            decoded += lik_load_f32(codec->weights, codec->weights_dtype, bucket);
        }
        squares += (double)decoded * (double)decoded;
    }
    for (int64_t n = dim * codec->bits; codec->bits && n < e->token_bytes * 8; n++)
        check(!(codec->bit_order == LIK_BITS_COLBERT ? bytes[n / 8] >> (7 - n % 8) & 1
                                                     : bytes[n / 8] >> n % 8 & 1),
              "row %lld: bit %lld, past the last element, is set", (long long)row, (long long)n);
    if (!e->op.inv_norms)
        return;
    int32_t dtype = e->op.inv_norms_dtype ? e->op.inv_norms_dtype : LIK_F32;
    double want = 1 / fmax(sqrt(squares), 1e-12), got = (double)lik_load_f32(e->op.inv_norms, dtype, row);
    want = dtype == LIK_F16 ? fmin(want, 65504) : want;
    check_close("inverse norm", row, got, want,
                want * (unit_of(dtype) + UNIT_ROUNDOFF * (8 + sqrt((double)dim))));
}

/* The codes are those of lik_score with the centroids as a document. (On a GPU, which copies
 * tokens first and scores the copies, but for near ties.) */
static void expect_argmax(const struct encoding *e, const struct lik_context *ctx)
{
    const struct lik_tokens *x = &e->op.x;
    if (x->storage != LIK_DENSE || x->count == 0 || x->len_max == 0 || totals.gpu)
        return;
    struct lik_score score = {.struct_size = sizeof score, .q = *x, .argmax_dtype = LIK_I32};
    score.d =
        lik_tokens_padded(e->codec.centroids, e->codec.centroids_dtype, 1, e->codec.centroid_count, x->dim);
    score.d.strides.token = e->codec.centroid_stride ? e->codec.centroid_stride : x->dim;
    score.d.strides.sequence = 0;
    score.scores = calloc((size_t)x->count, sizeof *score.scores);
    score.argmax = calloc((size_t)(x->count * x->len_max), 4);
    check_ok(run_score(ctx, &score, NULL), "lik_score_run");
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++) {
            int32_t want = ((int32_t *)score.argmax)[i * x->len_max + t];
            int64_t row = problem_row(x, i, t);
            check(code_at(e, row) == (want < 0 ? 0 : want), "row %lld has code %lld, the argmax is %d",
                  (long long)row, (long long)code_at(e, row), want);
        }
    free(score.scores);
    free(score.argmax);
}

static void expect_rows(const struct encoding *e, const struct decoded *decoded, const int64_t *token,
                        int exact)
{
    int64_t dim = e->op.x.dim;
    for (int64_t row = 0; row < e->rows; row++) {
        int64_t code = code_at(e, row);
        if (token[row] < 0) {
            int zero = code == 0;
            for (int64_t b = 0; b < e->token_bytes; b++)
                zero &= e->residuals.data[row * e->token_bytes + b] == 0;
            if (e->op.inv_norms)
                zero &= lik_load_f32(e->op.inv_norms, e->op.inv_norms_dtype == LIK_F16 ? LIK_F16 : LIK_F32,
                                     row) == 0;
            check(zero, "row %lld, which is no token's, is not 0", (long long)row);
            continue;
        }
        if (!check(code >= 0 && code < e->codec.centroid_count, "row %lld has code %lld of %lld",
                   (long long)row, (long long)code, (long long)e->codec.centroid_count))
            continue;
        const double *vector = decoded->vector + token[row] * dim;
        double norm = decoded->norm[token[row]];
        if (norm <= 1e18) /* products stay in range; neither an infinity nor a NaN */
            expect_code(e, row, code, vector, norm, exact);
        expect_residual(e, row, code, vector, norm);
    }
}

static void encode_operand(const struct lik_tokens *operand, const struct side_spec *side,
                           const struct decoded *decoded, struct rng *rng)
{
    int exact = (side->values == INTEGERS || side->values == TIES || side->values == ZEROS) &&
                !side->normalize && side->scale == UNSCALED && !side->compressed;
    struct encoding e = encoding_make(operand, exact, rng);
    int64_t *token = tokens_of_rows(&e.op.x, decoded);
    for (int64_t d = 0; d < device_count; d++) {
        struct buffer *outputs[] = {&e.codes, &e.residuals, &e.inv_norms};
        unsigned char *first[3] = {NULL, NULL, NULL};
        if (!devices[d].ctx || !check_ok(encoding_run(&e, devices[d].ctx, NULL), devices[d].name))
            continue;
        expect_rows(&e, decoded, token, exact);
        expect_argmax(&e, devices[d].ctx);
        for (int o = 0; o < 3; o++) {
            first[o] = malloc(outputs[o]->bytes + 1);
            memcpy(first[o], outputs[o]->data, outputs[o]->bytes);
        }
        for (int threads = 2; threads <= (totals.gpu ? 2 : 8); threads += threads == 2 ? 1 : 5) {
            struct lik_exec exec = exec_of(threads);
            check_ok(encoding_run(&e, devices[d].ctx, &exec), devices[d].name);
            for (int o = 0; o < 3; o++)
                check(!memcmp(first[o], outputs[o]->data, outputs[o]->bytes),
                      "%d threads give other bytes in output %d", threads, o);
        }
        for (int o = 0; o < 3; o++)
            free(first[o]);
    }
    free(token);
    encoding_free(&e);
}

static void check_operands(void)
{
    struct rng rng = {.state = 77};
    for (int64_t n = 0; n < 1200; n++) {
        struct spec spec = spec_random(&rng, 20000);
        if (!check_wanted(n, 12))
            continue;
        char text[600];
        spec_describe(&spec, text, sizeof text);
        check_describe("codec: operands of case %lld: %s", (long long)n, text);
        struct problem *p = problem_make(&spec);
        struct rng own = {.state = spec.seed};
        int vectors = p->op.d.storage != LIK_ONE_HOT;
        if (vectors)
            decode_operand(p, &p->op.d, &p->d, &own);
        decode_operand(p, &p->op.q, &p->q, &own);
        if (vectors)
            encode_operand(&p->op.d, &p->spec.d, &p->d, &own);
        encode_operand(&p->op.q, &p->spec.q, &p->q, &own);
        problem_free(p);
    }
}

/* ---- ColBERT's bytes ---- */

/* Whole numbers that fall into buckets 0, 1, 2, ..., each at its bucket's upper end: equal to a
 * cutoff is not above it. */
static void check_bytes(void)
{
    static const unsigned char golden[2][5][8] = {{{0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa},
                                                   {0xe4, 0xe4, 0xe4, 0xe4, 0xe4, 0xe4, 0xe4, 0xe4},
                                                   {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe},
                                                   {0, 1, 2, 3, 4, 5, 6, 7}},
                                                  {{85, 85, 85, 85, 85, 85, 85, 85},
                                                   {39, 39, 39, 39, 39, 39, 39, 39},
                                                   {8, 76, 42, 110, 25, 93, 59, 127},
                                                   {0, 128, 64, 192, 32, 160, 96, 224}}};
    static float token[64], zeros[64], cutoffs[255], numbers[256], out[64];
    for (int i = 0; i < 255; i++)
        cutoffs[i] = (float)i;
    for (int i = 0; i < 256; i++)
        numbers[i] = (float)i;
    for (int order = 0; order < 2; order++)
        for (int b = 0; b < 4; b++)
            for (int64_t d = 0; d < device_count; d++) {
                int bits = 1 << b;
                int64_t dim = 64 / bits;
                unsigned char bytes[8];
                int32_t code;
                struct lik_codec codec = {.struct_size = sizeof codec, .bits = bits, .bit_order = order};
                codec.centroids = zeros;
                codec.centroid_count = 1;
                codec.centroids_dtype = codec.weights_dtype = LIK_F32;
                codec.weights = numbers;
                for (int64_t k = 0; k < dim; k++)
                    token[k] = (float)(k % (1 << bits));
                struct lik_encode op = {.struct_size = sizeof op, .codec = &codec, .cutoffs = cutoffs};
                op.x = lik_tokens_padded(token, LIK_F32, 1, 1, dim);
                op.codes_dtype = LIK_I32;
                op.codes = &code;
                op.residuals = bytes;
                check_describe("codec: bytes of %d bits, order %d on %s", bits, order, devices[d].name);
                if (!devices[d].ctx || !check_ok(run_encode(devices[d].ctx, &op, NULL), "lik_encode_run"))
                    continue;
                check(!memcmp(bytes, golden[order][b], 8), "they are %d %d %d %d %d %d %d %d", bytes[0],
                      bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]);
                struct lik_decode decode = {.struct_size = sizeof decode, .out_dtype = LIK_F32, .out = out};
                decode.x = lik_tokens_compressed(lik_tokens_padded(bytes, LIK_F32, 1, 1, dim), &codec, &code,
                                                 LIK_I32);
                check_ok(run_decode(devices[d].ctx, &decode, NULL), "lik_decode_run");
                check(!memcmp(out, token, (size_t)dim * 4), "they do not decode to what they were");
            }
}

/* ---- wrong arguments ---- */

struct codec_call {
    struct lik_decode decode;
    struct lik_encode encode;
    struct lik_train train;
    struct lik_codec codec;
};

static struct {
    float x[30 * 8], centroids[4 * 8], cutoffs[16], weights[16];
} given;

static struct {
    float out[30 * 8], centroids[4 * 8], cutoffs[3], weights[4], inv_norms[30];
    int32_t codes[30];
    uint8_t residuals[30 * 4];
    struct lik_train_found found;
} made;

enum { DECODE = 1, ENCODE = 2, TRAIN = 4, ALL = 7, RUN_ONLY = 8 };

static void good_calls(struct codec_call *c)
{
    struct rng rng = {.state = 5};
    for (int64_t k = 0; k < COUNT(given.x); k++)
        given.x[k] = (float)rng_normal(&rng);
    for (int64_t k = 0; k < COUNT(given.cutoffs); k++)
        given.cutoffs[k] = given.weights[k] = (float)k;
    memset(c, 0, sizeof *c);
    memset(&made, 0xcb, sizeof made);
    struct lik_tokens x = lik_tokens_padded(given.x, LIK_F32, 6, 5, 8);
    c->codec = (struct lik_codec){.struct_size = sizeof c->codec, .bits = 2, .centroid_count = 4};
    c->codec.centroids = given.centroids;
    c->codec.centroids_dtype = c->codec.weights_dtype = LIK_F32;
    c->codec.weights = given.weights;
    c->decode = (struct lik_decode){.struct_size = sizeof c->decode, .x = x, .out_dtype = LIK_F32};
    c->decode.out = made.out;
    c->encode = (struct lik_encode){.struct_size = sizeof c->encode, .x = x, .codec = &c->codec};
    c->encode.cutoffs = given.cutoffs;
    c->encode.codes_dtype = LIK_I32;
    c->encode.codes = made.codes;
    c->encode.residuals = made.residuals;
    c->encode.inv_norms = made.inv_norms;
    c->train = (struct lik_train){.struct_size = sizeof c->train, .x = x, .centroid_count = 4, .bits = 2};
    c->train.centroids = made.centroids;
    c->train.cutoffs = made.cutoffs;
    c->train.weights = made.weights;
    c->train.found = &made.found;
}

static int enter(const struct lik_context *ctx, int verb, int run, const struct codec_call *c,
                 struct lik_plan *plan)
{
    static _Alignas(64) unsigned char workspace[8 << 20];
    struct lik_exec exec = {
        .struct_size = sizeof exec, .workspace = workspace, .workspace_bytes = sizeof workspace};
    switch (verb) {
    case DECODE:
        return run ? lik_decode_run(ctx, &c->decode, &exec) : lik_decode_plan(ctx, &c->decode, &exec, plan);
    case ENCODE:
        return run ? lik_encode_run(ctx, &c->encode, &exec) : lik_encode_plan(ctx, &c->encode, &exec, plan);
    default: return run ? lik_train_run(ctx, &c->train, &exec) : lik_train_plan(ctx, &c->train, &exec, plan);
    }
}

static void refused(const char *what, const struct codec_call *call, int verbs, int status, const char *a,
                    const char *b)
{
    static const char *const names[] = {"decode", "encode", "train"};
    unsigned char before[sizeof made];
    memcpy(before, &made, sizeof made);
    for (int64_t d = 0; d < device_count; d++)
        for (int way = 0; way < 6 && devices[d].ctx; way++) {
            int verb = 1 << way / 2, run = way % 2;
            if (!(verbs & verb) || (verbs & RUN_ONLY && !run))
                continue;
            struct lik_plan plan = {.struct_size = sizeof plan}, same = plan;
            check_describe("codec: %s, %s of %s on %s", what, run ? "run" : "plan", names[way / 2],
                           devices[d].name);
            int got = enter(devices[d].ctx, verb, run, call, &plan);
            check(got == status, "the status is %s", lik_status_name(got));
            check(strstr(lik_last_error(), a) && strstr(lik_last_error(), b),
                  "the message \"%s\" lacks \"%s\" or \"%s\"", lik_last_error(), a, b);
            check(!memcmp(before, &made, sizeof made) && !memcmp(&plan, &same, sizeof plan),
                  "something was written");
        }
}

#define REFUSED(change, verbs, status, a, b)       \
    do {                                           \
        struct codec_call c;                       \
        good_calls(&c);                            \
        change;                                    \
        refused(#change, &c, verbs, status, a, b); \
    } while (0)
#define INVALID(change, verbs, a, b) REFUSED(change, verbs, LIK_EINVAL, a, b)

static void check_refusals(void)
{
    static uint8_t none[30];
    static char odd[8];
    void *crooked = odd + 1;
    for (int64_t d = 0; d < device_count; d++)
        for (int verb = DECODE; verb <= TRAIN && devices[d].ctx; verb *= 2) {
            struct codec_call c;
            struct lik_plan plan = {.struct_size = sizeof plan};
            good_calls(&c);
            check_describe("codec: good arguments on %s", devices[d].name);
            check_ok(enter(devices[d].ctx, verb, 0, &c, &plan), "plan");
            check_ok(enter(devices[d].ctx, verb, 1, &c, &plan), "run");
            check(enter(NULL, verb, 1, &c, &plan) == LIK_EINVAL && strstr(lik_last_error(), "ctx"),
                  "no context is taken");
        }
    INVALID(c.decode.struct_size = 3, DECODE, "decode.struct_size is 3", "at least");
    INVALID(c.encode.struct_size = 3, ENCODE, "encode.struct_size is 3", "at least");
    INVALID(c.train.struct_size = 3, TRAIN, "train.struct_size is 3", "at least");
    INVALID((c.decode.x.dim = 0, c.encode.x.dim = 0, c.train.x.dim = 0), ALL, "x.dim is 0", "1 to");
    INVALID((c.decode.x.weights = c.encode.x.weights = c.train.x.weights = given.weights), ALL, "x.weights",
            "set");
    INVALID(c.decode.out_dtype = LIK_I8, DECODE, "out_dtype is 6 (i8)", "f32");
    INVALID(c.decode.out = NULL, DECODE | RUN_ONLY, "out is NULL", "240");
    INVALID(c.decode.out = crooked, DECODE, "out is", "4 bytes");
    INVALID(c.encode.codec = NULL, ENCODE, "codec is NULL", "");
    INVALID(c.codec.struct_size = 5, ENCODE, "codec.struct_size is 5", "must be");
    INVALID(c.codec.bits = 3, ENCODE, "codec.bits is 3", "0, 1, 2, 4 or 8");
    INVALID(c.codec.bit_order = 2, ENCODE, "codec.bit_order is 2", "LIK_BITS_COLBERT");
    INVALID(c.codec.centroids_dtype = LIK_I8, ENCODE, "codec.centroids_dtype is 6 (i8)", "f32");
    INVALID(c.codec.centroid_count = 0, ENCODE, "codec.centroid_count is 0", "30 tokens");
    INVALID(c.codec.centroid_stride = 7, ENCODE, "codec.centroid_stride is 7", "8");
    INVALID(c.codec.centroids = NULL, ENCODE, "codec.centroids is NULL", "4");
    INVALID(c.codec.weights = NULL, ENCODE, "codec.weights is NULL", "2 bits have 4");
    REFUSED(c.codec.reserved[1] = given.x, ENCODE, LIK_EUNSUPPORTED, "codec.reserved[1]", "zero");
    INVALID(c.encode.cutoffs = NULL, ENCODE, "cutoffs is NULL", "2 bits have 3");
    INVALID(c.encode.cutoffs = crooked, ENCODE, "cutoffs is", "4 bytes");
    INVALID(given.cutoffs[2] = 0, ENCODE, "cutoffs[2] is 0", "1: they must ascend");
    INVALID(given.cutoffs[0] = NAN, ENCODE, "cutoffs[0] is", "ascend");
    INVALID(c.encode.precision = c.train.precision = 3, ENCODE | TRAIN, "precision is 3", "LIK_MEDIUM");
    INVALID(c.encode.codes_dtype = LIK_F32, ENCODE, "codes_dtype is 1 (f32)", "i16");
    INVALID((c.encode.codes_dtype = LIK_I16, c.codec.centroid_count = 65537), ENCODE, "65537", "65536");
    INVALID(c.encode.inv_norms_dtype = LIK_BF16, ENCODE, "inv_norms_dtype is 3 (bf16)", "f16");
    INVALID(c.encode.codes = NULL, ENCODE | RUN_ONLY, "codes is NULL", "30");
    INVALID(c.encode.codes = crooked, ENCODE, "codes is", "4 bytes");
    INVALID(c.encode.residuals = NULL, ENCODE | RUN_ONLY, "residuals is NULL", "60");
    INVALID(c.encode.inv_norms = crooked, ENCODE, "inv_norms is", "4 bytes");
    INVALID(c.train.bits = 5, TRAIN, "bits is 5", "0, 1, 2, 4 or 8");
    INVALID(c.train.centroid_count = 0, TRAIN, "centroid_count is 0", "1 to");
    INVALID(c.train.centroid_count = 31, TRAIN, "centroid_count is 31", "keeps 30 tokens");
    INVALID((c.train.x.mask = none), TRAIN | RUN_ONLY, "centroid_count is 4", "keeps 0 tokens");
    INVALID(c.train.centroid_count = INT64_MAX, TRAIN, "centroid_count is 9223372036854775807", "1 to");
    INVALID(c.train.points_per_centroid = -1, TRAIN, "points_per_centroid is -1", "negative");
    INVALID(c.train.iterations = -1, TRAIN, "iterations is -1", "negative");
    INVALID(c.train.centroids = NULL, TRAIN | RUN_ONLY, "centroids is NULL", "32");
    INVALID(c.train.cutoffs = NULL, TRAIN | RUN_ONLY, "cutoffs is NULL", "3");
    INVALID(c.train.weights = NULL, TRAIN | RUN_ONLY, "weights is NULL", "4");
    INVALID(c.train.centroids = crooked, TRAIN, "centroids is", "4 bytes");
    INVALID(c.train.found = crooked, TRAIN, "found is", "8 bytes");
}

void check_codec(void)
{
    check_bytes();
    check_operands();
    if (!totals.gpu) /* what is refused lies in host memory */
        check_refusals();
    check_training();
}
