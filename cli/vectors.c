/* Problems of lik selftest, on a device and on the reference. See vectors.h.
 *
 * Everything a device reads or writes lies in memory that its context gives, so that this takes
 * the same way on every device. */
#include "vectors.h"

#include "base/dtype.h"
#include "base/size.h"
#include "shared/operand.h"
#include "shared/tokens.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define K       7 /* of top-k, more than some vectors have documents; MANY: more than half a run */
#define K_MANY  600
#define KEPT    64 /* pieces of memory of one operation */
#define ID_BASE 100

/* What a vector has besides its sizes. */
enum {
    MASK = 1,
    WEIGHTS = 2,
    NORMALIZE = 4,
    SCALE = 8,
    PACKED = 16, /* the documents; with it queries of half the length between */
    APART = 32,  /* tokens stand apart in memory */
    GRADIENTS = 64,
    TOPK = 128,
    MANY = 256,        /* of top-k K_MANY */
    SMALLEST = 512,    /* of top-k the lowest */
    ACCUMULATE = 1024, /* gradients are added to what is there */
    NARROW = 2048,     /* offsets of 32 bits, an argmax of 16 */
    SPECIAL = 4096,    /* NaN and infinities among the elements */
    ONE_HOT = 8192,    /* documents are numbers of elements, of 32 bits; NARROW: 16 */
    GROUPED = 16384,   /* candidates, the groups of which stand apart */
};

struct vector {
    int64_t queries, documents, query_tokens, document_tokens, dim;
    int32_t q_dtype, d_dtype; /* of compressed documents what they are decoded to */
    int32_t pairing, bits;    /* bits: compressed, with so many; 0: not */
    int with;
};

static const struct vector vectors[] = {
    /* one token, one element; then around the sizes of tiles and simdgroups */
    {1, 1, 1, 1, 1, LIK_F32, LIK_F32, LIK_ALL, 0, GRADIENTS | TOPK},
    {1, 1, 1, 1, 8, LIK_F16, LIK_F16, LIK_ALL, 0, GRADIENTS | TOPK},
    {2, 3, 7, 9, 16, LIK_F16, LIK_F16, LIK_ALL, 0, GRADIENTS | TOPK},
    {2, 3, 8, 8, 32, LIK_BF16, LIK_BF16, LIK_ALL, 0, GRADIENTS | TOPK},
    {3, 5, 31, 33, 64, LIK_F16, LIK_F16, LIK_ALL, 0, MASK | GRADIENTS | TOPK},
    {3, 5, 33, 31, 64, LIK_F32, LIK_F32, LIK_ALL, 0, MASK | GRADIENTS},
    {2, 9, 32, 64, 128, LIK_F16, LIK_F16, LIK_ALL, 0, TOPK},
    {2, 9, 32, 65, 128, LIK_BF16, LIK_BF16, LIK_ALL, 0, NORMALIZE | GRADIENTS},
    {2, 9, 32, 63, 128, LIK_F32, LIK_F32, LIK_ALL, 0, NORMALIZE | MASK | GRADIENTS | TOPK},
    /* any dim */
    {2, 4, 5, 11, 3, LIK_F16, LIK_F16, LIK_ALL, 0, GRADIENTS},
    {2, 4, 5, 11, 48, LIK_BF16, LIK_BF16, LIK_ALL, 0, WEIGHTS | GRADIENTS},
    {2, 4, 5, 11, 96, LIK_F16, LIK_F16, LIK_ALL, 0, WEIGHTS | MASK | GRADIENTS},
    {2, 4, 5, 11, 129, LIK_F32, LIK_F32, LIK_ALL, 0, GRADIENTS},
    {2, 4, 5, 11, 300, LIK_F16, LIK_F16, LIK_ALL, 0, NORMALIZE | GRADIENTS},
    {1, 4, 9, 17, 768, LIK_BF16, LIK_BF16, LIK_ALL, 0, GRADIENTS},
    {1, 3, 9, 17, 1024, LIK_F16, LIK_F16, LIK_ALL, 0, MASK | GRADIENTS | TOPK},
    /* mixtures */
    {2, 4, 9, 20, 64, LIK_F32, LIK_F16, LIK_ALL, 0, GRADIENTS},
    {2, 4, 9, 20, 64, LIK_F16, LIK_BF16, LIK_ALL, 0, GRADIENTS},
    {2, 4, 9, 20, 64, LIK_BF16, LIK_F32, LIK_ALL, 0, NORMALIZE},
    /* long ones */
    {1, 2, 300, 40, 64, LIK_F16, LIK_F16, LIK_ALL, 0, GRADIENTS},
    {1, 2, 9, 700, 64, LIK_F16, LIK_F16, LIK_ALL, 0, MASK | GRADIENTS},
    {1, 900, 4, 3, 16, LIK_F32, LIK_F32, LIK_ALL, 0, TOPK},
    {2, 900, 4, 3, 16, LIK_F32, LIK_F32, LIK_ALL, 0, TOPK | MANY},
    {2, 90, 4, 3, 16, LIK_F16, LIK_F16, LIK_ALL, 0, TOPK | MANY | SMALLEST},
    /* what fast mathematics would lose */
    {3, 9, 9, 20, 64, LIK_F32, LIK_F32, LIK_ALL, 0, SPECIAL | TOPK | GRADIENTS},
    {3, 9, 9, 20, 64, LIK_F16, LIK_F16, LIK_ALL, 0, SPECIAL | MASK | TOPK | SMALLEST},
    {3, 9, 40, 40, 200, LIK_BF16, LIK_BF16, LIK_ALL, 0, SPECIAL | WEIGHTS | GRADIENTS},
    /* pairings */
    {3, 12, 9, 20, 64, LIK_F16, LIK_F16, LIK_CANDIDATES, 0, MASK | GRADIENTS | TOPK},
    {3, 6, 9, 20, 96, LIK_F32, LIK_F32, LIK_CANDIDATES, 0, NORMALIZE | GRADIENTS | TOPK},
    {5, 5, 9, 20, 64, LIK_BF16, LIK_BF16, LIK_PAIRS, 0, MASK | WEIGHTS | GRADIENTS},
    {4, 6, 9, 20, 64, LIK_F16, LIK_F16, LIK_LIST, 0, MASK | GRADIENTS},
    {3, 12, 9, 20, 64, LIK_F16, LIK_F16, LIK_CANDIDATES, 0, GROUPED | MASK | GRADIENTS | ACCUMULATE},
    {4, 6, 9, 20, 64, LIK_F32, LIK_F32, LIK_LIST, 0, WEIGHTS | GRADIENTS | ACCUMULATE | NARROW},
    /* layouts */
    {3, 7, 12, 20, 64, LIK_F16, LIK_F16, LIK_ALL, 0, PACKED | GRADIENTS | TOPK},
    {3, 7, 12, 20, 128, LIK_F32, LIK_F32, LIK_ALL, 0, PACKED | MASK | NORMALIZE | GRADIENTS},
    {3, 7, 12, 20, 40, LIK_BF16, LIK_BF16, LIK_LIST, 0, PACKED | WEIGHTS | GRADIENTS},
    {3, 7, 12, 20, 64, LIK_F16, LIK_F16, LIK_ALL, 0, PACKED | NARROW | GRADIENTS | ACCUMULATE | TOPK},
    {3, 4, 12, 20, 50, LIK_F16, LIK_F16, LIK_ALL, 0, APART | MASK | GRADIENTS},
    {3, 4, 12, 20, 130, LIK_F32, LIK_F32, LIK_ALL, 0, APART | NORMALIZE | GRADIENTS},
    /* 8 bits, and compressed */
    {2, 6, 9, 20, 64, LIK_F32, LIK_I8, LIK_ALL, 0, SCALE | TOPK},
    {2, 6, 9, 20, 128, LIK_F16, LIK_E4M3, LIK_ALL, 0, SCALE | MASK},
    {2, 6, 9, 20, 96, LIK_BF16, LIK_E5M2, LIK_ALL, 0, SCALE | PACKED},
    {2, 6, 9, 20, 128, LIK_F32, LIK_F32, LIK_ALL, 4, NORMALIZE | TOPK},
    {2, 6, 9, 20, 128, LIK_F16, LIK_F16, LIK_ALL, 2, NORMALIZE | MASK},
    {2, 6, 9, 20, 96, LIK_BF16, LIK_BF16, LIK_LIST, 1, PACKED},
    {2, 6, 9, 20, 64, LIK_F16, LIK_F16, LIK_CANDIDATES, 8, 0},
    {2, 6, 9, 20, 128, LIK_F32, LIK_F32, LIK_ALL, 4, SCALE | TOPK},
    {2, 9, 9, 70, 300, LIK_F32, LIK_F32, LIK_ALL, 0, ONE_HOT | MASK | TOPK},
    {3, 7, 12, 20, 64, LIK_F32, LIK_F32, LIK_ALL, 0, ONE_HOT | PACKED | NARROW | SPECIAL},
};

/* Memory of one operation, the host's or a context's, let go together. */
struct keep {
    const struct lik_context *context; /* NULL: the host */
    void *at[KEPT];
    int count;
};

static void *take(struct keep *keep, int64_t bytes)
{
    void *at = NULL;
    if (keep->count == KEPT)
        die(EXIT_EXHAUSTED, "a vector takes more than %d arrays", KEPT);
    if (!keep->context)
        at = allocate(lik_max_i64(bytes, 1), 1, "vectors");
    else
        library_check(lik_memory_alloc(keep->context, (size_t)lik_max_i64(bytes, 1), &at));
    return keep->at[keep->count++] = at;
}

static void *copy(struct keep *keep, const void *from, int64_t bytes)
{
    void *at = from ? take(keep, bytes) : NULL;
    if (from)
        library_check(lik_memory_copy(keep->context, at, from, (size_t)bytes));
    return at;
}

static void let_go(struct keep *keep)
{
    for (int i = 0; i < keep->count; i++)
        if (keep->context)
            lik_memory_free(keep->context, keep->at[i]);
        else
            free(keep->at[i]);
    keep->count = 0;
}

/* ---- problems ---- */

static uint32_t random_bits(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static float uniform(uint64_t *state)
{
    return (float)((double)random_bits(state) * 0x1p-30 - 1);
}

/* A byte of i8, or of a float of 8 bits between 1/4 and 8. */
static uint8_t byte_of(int32_t dtype, uint32_t bits)
{
    uint32_t exponent = bits >> 8 & 3;
    if (dtype == LIK_E4M3)
        return (uint8_t)((bits & 0x87) | (5 + exponent) << 3);
    return (uint8_t)(dtype == LIK_E5M2 ? (bits & 0x83) | (13 + exponent) << 2 : bits % 255 - 127);
}

static void *numbers(struct keep *keep, int32_t dtype, int64_t n, float size, uint64_t *state)
{
    void *at = take(keep, n * (int64_t)lik_dtype_bytes(dtype));
    for (int64_t i = 0; i < n; i++)
        if (lik_dtype_bytes(dtype) == 1)
            ((uint8_t *)at)[i] = byte_of(dtype, random_bits(state));
        else
            lik_store_f32(at, dtype, i, uniform(state) * size);
    return at;
}

/* NaN, infinity and its negative take turns: one element of one token of all sequences but
 * those whose number is a multiple of four. Of f32 that is multiplied NaN alone: tensor cores
 * take it in parts, and make NaN of an infinity (docs/numerics.md). */
static void put_specials(void *data, const struct lik_tokens *x, int infinities, uint64_t *state)
{
    for (int64_t i = 0; i < x->count; i++) {
        const int64_t first = x->offsets ? ((const int64_t *)x->offsets)[i] : i * x->len_max;
        const int64_t end = x->offsets ? ((const int64_t *)x->offsets)[i + 1] : first + x->len_max;
        const float special[] = {0, NAN, INFINITY, -INFINITY};
        if (i % 4 == 0 || first == end || (i % 4 > 1 && !infinities))
            continue;
        const int64_t row = first + random_bits(state) % (uint32_t)(end - first);
        lik_store_f32(data, x->dtype, row * x->dim + random_bits(state) % (uint32_t)x->dim, special[i % 4]);
    }
}

/* Offsets of sequences whose lengths fall from `longest` to nothing and rise again. */
static int64_t *falling_offsets(struct keep *keep, int64_t count, int64_t longest)
{
    int64_t *offsets = take(keep, (count + 1) * 8);
    offsets[0] = 0;
    for (int64_t i = 0; i < count; i++)
        offsets[i + 1] = offsets[i] + (i % 4 == 2 ? 0 : longest - (i * 5) % longest);
    return offsets;
}

/* Numbers of centroids or elements, below `count`. */
static void *codes_of(struct keep *keep, int32_t dtype, int64_t rows, uint32_t count, uint64_t *state)
{
    const size_t bytes = lik_dtype_bytes(dtype);
    char *codes = take(keep, rows * (int64_t)bytes);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t code = random_bits(state) % count; /* little-endian: the lowest bytes come first */
        memcpy(codes + i * (int64_t)bytes, &code, bytes);
    }
    return codes;
}

/* Documents of codes alone. */
static void make_one_hot(struct keep *keep, struct lik_tokens *x, int narrow, uint64_t *state)
{
    const int32_t dtype = narrow ? LIK_I16 : LIK_I32;
    const void *codes = codes_of(keep, dtype, lik_tokens_rows(x), (uint32_t)x->dim, state);
    x->storage = LIK_ONE_HOT;
    x->codes = codes;
    x->codes_dtype = dtype;
    x->codes_strides = (struct lik_strides){0, x->offsets ? 0 : x->len_max, 1};
}

/* Compressed documents in place of dense ones. */
static void compress(struct keep *keep, struct lik_tokens *x, int32_t bits, uint64_t *state)
{
    enum { CENTROIDS = 19 };
    int64_t rows = lik_tokens_rows(x), bytes = lik_residual_bytes(x->dim, bits);
    struct lik_codec *codec = take(keep, sizeof *codec);
    const int32_t codes_dtype = bits == 1 ? LIK_I32 : bits == 2 ? LIK_I64 : LIK_I16;
    uint8_t *residuals = take(keep, rows * bytes);
    *codec = (struct lik_codec){.struct_size = sizeof *codec, .bits = bits, .centroid_count = CENTROIDS};
    codec->bit_order = bits == 4 ? LIK_BITS_COLBERT : LIK_BITS_LOW_FIRST;
    codec->centroids_dtype = codec->weights_dtype = LIK_F32;
    codec->centroids = numbers(keep, LIK_F32, CENTROIDS * x->dim, 0.5f, state);
    codec->weights = numbers(keep, LIK_F32, (int64_t)1 << bits, 0.1f, state);
    for (int64_t i = 0; i < rows * bytes; i++)
        residuals[i] = (uint8_t)random_bits(state);
    x->data = residuals;
    *x = lik_tokens_compressed(*x, codec, codes_of(keep, codes_dtype, rows, CENTROIDS, state), codes_dtype);
}

static struct lik_tokens operand(struct keep *keep, const struct vector *v, int queries, uint64_t *state)
{
    int64_t count = queries ? v->queries : v->documents;
    int64_t length = queries ? v->query_tokens : v->document_tokens;
    int64_t step = v->with & APART ? v->dim + 3 : v->dim;
    int32_t dtype = queries ? v->q_dtype : v->d_dtype;
    int64_t *offsets = v->with & PACKED ? falling_offsets(keep, count, length) : NULL;
    int64_t rows = offsets ? offsets[count] : count * length, groups = v->with & GROUPED ? v->queries : 0;
    int dense = queries || !(v->bits || v->with & ONE_HOT);

    void *data = dense ? numbers(keep, dtype, (rows + groups) * step, 0.5f, state) : NULL;
    struct lik_tokens x = lik_tokens_padded(data, dtype, count, length, v->dim);
    if (offsets)
        x = lik_tokens_packed(data, dtype, count, length, rows, v->dim, offsets, LIK_I64);

    if (v->with & APART) {
        x.strides.token = step;
        x.strides.sequence = step * length;
    }
    if (groups && !queries) {
        x.group_size = count / groups;
        x.strides.group = (x.group_size * length + 1) * step;
        x.mask_strides.group = x.group_size * length;
    }
    if (v->with & SPECIAL && dense)
        put_specials(data, &x, dtype != LIK_F32 || v->with & ONE_HOT, state);
    if (!queries && v->bits)
        compress(keep, &x, v->bits, state);
    else if (!dense)
        make_one_hot(keep, &x, v->with & NARROW, state);
    if (offsets && v->with & NARROW) {
        int32_t *narrow = take(keep, (count + 1) * 4);
        for (int64_t i = 0; i <= count; i++)
            narrow[i] = (int32_t)offsets[i];
        x.offsets = narrow;
        x.offsets_dtype = LIK_I32;
    }
    if (v->with & MASK) {
        uint8_t *mask = take(keep, rows);
        for (int64_t i = 0; i < rows; i++) /* of the first sequence nothing is kept */
            mask[i] = (i >= length || count == 1) && random_bits(state) % 4 != 0;
        x.mask = mask;
    }
    if (v->with & SCALE && !queries) {
        x.scale_dtype = v->bits ? LIK_F16 : LIK_F32;
        void *scale = take(keep, rows * (int64_t)lik_dtype_bytes(x.scale_dtype));
        for (int64_t i = 0; i < rows; i++)
            lik_store_f32(scale, x.scale_dtype, i, 0.004f * (1 + uniform(state) / 2));
        x.scale = scale;
    }
    if (v->with & WEIGHTS && queries)
        x.weights = numbers(keep, LIK_F32, rows, 1, state);
    x.normalize = (v->with & NORMALIZE) != 0;
    return x;
}

static struct lik_score problem(struct keep *keep, const struct vector *v, uint64_t seed)
{
    struct lik_score op = LIK_SCORE_INIT;
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    op.q = operand(keep, v, 1, &state);
    op.d = operand(keep, v, 0, &state);
    op.pairing = v->pairing;
    op.argmax_dtype = v->with & NARROW ? LIK_I16 : LIK_I32;
    if (v->pairing == LIK_CANDIDATES)
        op.per_query = v->documents / v->queries;
    if (v->pairing == LIK_LIST) { /* some pairs more than once, some never */
        int64_t *list_q = take(keep, 11 * 8), *list_d = take(keep, 11 * 8);
        op.list_count = 11;
        for (int64_t i = 0; i < op.list_count; i++) {
            list_q[i] = random_bits(&state) % (uint32_t)v->queries;
            list_d[i] = random_bits(&state) % (uint32_t)v->documents;
        }
        op.list_q = list_q;
        op.list_d = list_d;
    }
    return op;
}

/* ---- a device ---- */

struct device {
    const struct lik_context *context;
    const struct library *library;
    void *stream;
};

/* Copies of an operand's arrays; `codec` is where its codec goes. */
static struct lik_tokens move(struct keep *keep, const struct lik_tokens *x, struct lik_codec *codec)
{
    struct lik_tokens moved = *x;
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        int64_t low, high;
        lik_operand_reach(x, &array, &low, &high);
        if (array.at)
            lik_operand_move(&moved, n, copy(keep, array.at, high));
    }
    if (x->offsets)
        moved.offsets = copy(keep, x->offsets, (x->count + 1) * (int64_t)lik_dtype_bytes(x->offsets_dtype));
    if (x->codec) {
        *codec = *x->codec;
        codec->centroids = copy(keep, codec->centroids, codec->centroid_count * x->dim * 4);
        codec->weights = copy(keep, codec->weights, 4ll << codec->bits);
        moved.codec = codec;
    }
    return moved;
}

static struct lik_score moved(struct keep *keep, const struct lik_score *op, struct lik_codec *codec)
{
    struct lik_score there = *op;
    there.q = move(keep, &op->q, codec);
    there.d = move(keep, &op->d, codec);
    there.list_q = copy(keep, op->list_q, op->list_count * 8);
    there.list_d = copy(keep, op->list_d, op->list_count * 8);
    return there;
}

struct results {
    int64_t scores, winners, q, d; /* elements */
    int64_t k;                     /* of top-k */
    int smallest, accumulate;      /* accumulate: gradients are added to what is there */
    float *score, *value;
    void *argmax; /* of the problem's dtype */
    int64_t *id;
    void *grad_q, *grad_d;
    float *grad_weights;
};

static void *lend(void *lender, size_t bytes)
{
    struct keep *keep = lender;
    return take(keep, (int64_t)bytes);
}

static struct lik_exec exec_of(const struct device *device, struct keep *keep)
{
    struct lik_exec exec = library_exec(device->library);
    exec.stream = device->stream;
    exec.get_workspace = lend;
    exec.lender = keep;
    return exec;
}

static void fetch(const struct device *device, void *to, const void *from, int64_t bytes)
{
    if (bytes)
        library_check(lik_memory_copy(device->context, to, from, (size_t)bytes));
}

/* Waits for a run of this status. */
static int settle(const struct device *device, int status)
{
    return status ? status : lik_stream_synchronize(device->context, device->stream);
}

static int run_score(const struct device *device, const struct lik_score *op, struct results *r)
{
    struct keep keep = {.context = device->context};
    struct lik_codec codec;
    struct lik_exec exec = exec_of(device, &keep);
    struct lik_score there = moved(&keep, op, &codec);
    there.scores = take(&keep, r->scores * 4);
    const int64_t argmax_bytes = r->winners * (int64_t)lik_dtype_bytes(op->argmax_dtype);
    there.argmax = take(&keep, argmax_bytes);
    int status = settle(device, lik_score_run(device->context, &there, &exec));
    if (!status) {
        fetch(device, r->score, there.scores, r->scores * 4);
        fetch(device, r->argmax, there.argmax, argmax_bytes);
    }
    let_go(&keep);
    return status;
}

static int run_topk(const struct device *device, const struct lik_score *op, struct results *r)
{
    struct keep keep = {.context = device->context};
    struct lik_codec codec;
    struct lik_exec exec = exec_of(device, &keep);
    struct lik_topk best = LIK_TOPK_INIT;
    int64_t entries = op->q.count * r->k;
    best.score = moved(&keep, op, &codec);
    best.k = r->k;
    best.smallest = r->smallest;
    best.id_base = ID_BASE;
    best.values = take(&keep, entries * 4);
    best.ids = take(&keep, entries * 8);
    int status = settle(device, lik_topk_run(device->context, &best, &exec));
    if (!status) {
        fetch(device, r->value, best.values, entries * 4);
        fetch(device, r->id, best.ids, entries * 8);
    }
    let_go(&keep);
    return status;
}

/* Memory for a gradient: what is added to is brought there. */
static void *gradient(struct keep *keep, const struct results *r, const void *from, int64_t bytes)
{
    return r->accumulate ? copy(keep, from, bytes) : take(keep, bytes);
}

static int run_grad(const struct device *device, const struct lik_score *op, const float *grad_scores,
                    const void *argmax, struct results *r)
{
    struct keep keep = {.context = device->context};
    struct lik_codec codec;
    struct lik_exec exec = exec_of(device, &keep);
    struct lik_grad grad = LIK_GRAD_INIT;
    int64_t q_bytes = r->q * (int64_t)lik_dtype_bytes(op->q.dtype), rows = lik_tokens_rows(&op->q);
    int64_t d_bytes = r->d * (int64_t)lik_dtype_bytes(op->d.dtype);
    grad.score = moved(&keep, op, &codec);
    grad.score.argmax = copy(&keep, argmax, r->winners * (int64_t)lik_dtype_bytes(op->argmax_dtype));
    grad.grad_scores = copy(&keep, grad_scores, r->scores * 4);
    grad.accumulate = r->accumulate;
    grad.grad_q = gradient(&keep, r, r->grad_q, q_bytes);
    grad.grad_d = gradient(&keep, r, r->grad_d, d_bytes);
    grad.grad_weights = op->q.weights ? gradient(&keep, r, r->grad_weights, rows * 4) : NULL;
    int status = settle(device, lik_grad_run(device->context, &grad, &exec));
    if (!status) {
        fetch(device, r->grad_q, grad.grad_q, q_bytes);
        fetch(device, r->grad_d, grad.grad_d, d_bytes);
        fetch(device, r->grad_weights, grad.grad_weights, op->q.weights ? rows * 4 : 0);
    }
    let_go(&keep);
    return status;
}

/* ---- comparing ---- */

__attribute__((format(printf, 2, 3))) static void tell_wrong(struct vectors_found *found, const char *format,
                                                             ...)
{
    va_list args;
    found->wrong++;
    if (found->first_wrong[0])
        return;
    va_start(args, format);
    vsnprintf(found->first_wrong, sizeof found->first_wrong, format, args);
    va_end(args);
}

/* The first of n floats that is further from what it should be than `allowed` and what its
 * dtype rounds, or is another infinity or NaN, or -1. */
static int64_t first_off(const void *got, const void *want, int32_t dtype, int64_t n, double allowed,
                         double *worst)
{
    double rounds = dtype == LIK_F16 ? 0x1p-9 : dtype == LIK_BF16 ? 0x1p-6 : 0;
    for (int64_t i = 0; i < n; i++) {
        double a = (double)lik_load_f32(got, dtype, i), b = (double)lik_load_f32(want, dtype, i);
        double error = fabs(a - b) / (allowed + rounds * fabs(b));
        if (a == b || (isnan(a) && isnan(b)))
            continue;
        if (!(error <= 1)) /* NaN, too: of an infinity */
            return i;
        *worst = error > *worst ? error : *worst;
    }
    return -1;
}

static void put_vector(const struct vector *v, char text[160])
{
    static const char *const pairings[] = {"all", "candidates", "pairs", "list"};
    static const char *const with[] = {"mask",       "weights", "normalize", "scale",   "packed",
                                       "apart",      NULL,      NULL,        "k 600",   "smallest",
                                       "accumulate", "narrow",  "special",   "one-hot", "grouped"};
    char bits[16] = "";
    if (v->bits)
        snprintf(bits, sizeof bits, " of %d bits", (int)v->bits);
    int n = snprintf(text, 160, "%lldx%lld %s . %lldx%lld %s%s d%lld, %s", (long long)v->queries,
                     (long long)v->query_tokens, lik_dtype_name(v->q_dtype), (long long)v->documents,
                     (long long)v->document_tokens, lik_dtype_name(v->d_dtype), bits, (long long)v->dim,
                     pairings[v->pairing]);
    for (int i = 0; i < (int)(sizeof with / sizeof *with); i++)
        if (with[i] && v->with >> i & 1)
            n += snprintf(text + n, 160 - (size_t)n, " %s", with[i]);
}

/* Is a status that of something the device does not do? Else what is wrong is told. */
static int refuses(int status, const char *verb, const char *what, struct vectors_found *found)
{
    if (status == LIK_EUNSUPPORTED)
        found->refused++;
    else if (status)
        tell_wrong(found, "%s of %s: %.120s", verb, what, lik_last_error());
    return status != LIK_OK;
}

static int winner_at(const struct lik_score *op, const struct results *r, int64_t i)
{
    return op->argmax_dtype == LIK_I16 ? ((const int16_t *)r->argmax)[i] : ((const int32_t *)r->argmax)[i];
}

static void look_at_scores(const struct lik_score *op, const struct results *got, const struct results *want,
                           double allowed, const char *what, struct vectors_found *found)
{
    double *worst = &found->worst_error;
    int64_t at = first_off(got->score, want->score, LIK_F32, want->scores, allowed, worst), w = 0;
    while (w < want->winners && winner_at(op, got, w) == winner_at(op, want, w))
        w++;
    if (at >= 0)
        tell_wrong(found, "score %lld of %s is %.9g, must be %.9g", (long long)at, what,
                   (double)got->score[at], (double)want->score[at]);
    else if (w < want->winners && op->d.dtype != LIK_I8) /* whose queries may be rounded */
        tell_wrong(found, "argmax %lld of %s is %d, must be %d", (long long)w, what, winner_at(op, got, w),
                   winner_at(op, want, w));
    else
        found->right++;
}

static void look_at_topk(const struct lik_score *op, const struct results *got, const struct results *want,
                         double allowed, const char *what, struct vectors_found *found)
{
    int64_t n = op->q.count * want->k, w = 0;
    int64_t at = first_off(got->value, want->value, LIK_F32, n, allowed, &found->worst_error);
    while (w < n && got->id[w] == want->id[w])
        w++;
    if (at >= 0 || w < n)
        tell_wrong(found, "top-k entry %lld of %s is %.9g of %lld, must be %.9g of %lld",
                   (long long)(at >= 0 ? at : w), what, (double)got->value[at >= 0 ? at : w],
                   (long long)got->id[at >= 0 ? at : w], (double)want->value[at >= 0 ? at : w],
                   (long long)want->id[at >= 0 ? at : w]);
    else
        found->right++;
}

static void look_at_gradients(const struct lik_score *op, const struct results *got,
                              const struct results *want, double allowed, const char *what,
                              struct vectors_found *found)
{
    double *worst = &found->worst_error;
    int64_t q = first_off(got->grad_q, want->grad_q, op->q.dtype, want->q, allowed, worst);
    int64_t d = first_off(got->grad_d, want->grad_d, op->d.dtype, want->d, allowed, worst);
    int64_t rows = op->q.weights ? lik_tokens_rows(&op->q) : 0;
    int64_t w = first_off(got->grad_weights, want->grad_weights, LIK_F32, rows, allowed, worst);
    if (q >= 0 || d >= 0 || w >= 0)
        tell_wrong(found, "gradient of %s of %s is wrong at element %lld",
                   q >= 0   ? "the queries"
                   : d >= 0 ? "the documents"
                            : "the weights",
                   what,
                   (long long)(q >= 0   ? q
                               : d >= 0 ? d
                                        : w));
    else
        found->right++;
}

static struct results results_of(struct keep *keep, const struct vector *v, const struct lik_score *op)
{
    struct results r = {.scores = lik_score_rows(op) * lik_score_columns(op)};
    uint64_t state = 1; /* of what gradients are added to, the same in all results */
    r.k = v->with & MANY ? K_MANY : K;
    r.smallest = (v->with & SMALLEST) != 0;
    r.accumulate = (v->with & ACCUMULATE) != 0;
    r.winners = r.scores * op->q.len_max;
    r.q = lik_tokens_rows(&op->q) * op->q.dim;
    r.d = lik_tokens_rows(&op->d) * op->d.dim;
    r.score = take(keep, r.scores * 4);
    r.argmax = take(keep, r.winners * 4);
    r.value = take(keep, op->q.count * r.k * 4);
    r.id = take(keep, op->q.count * r.k * 8);
    if (!(v->with & GRADIENTS))
        return r;
    r.grad_q = numbers(keep, op->q.dtype, r.q, 1, &state);
    r.grad_d = numbers(keep, op->d.dtype, r.d, 1, &state);
    r.grad_weights = numbers(keep, LIK_F32, lik_tokens_rows(&op->q), 1, &state);
    return r;
}

static void run_vector(const struct device *device, const struct device *ref, const struct vector *v,
                       uint64_t seed, struct vectors_found *found)
{
    struct keep keep = {0};
    struct lik_score op = problem(&keep, v, seed);
    struct results got = results_of(&keep, v, &op), want = results_of(&keep, v, &op);
    char what[160];
    /* sums of products in f32, in whatever order; i8 may meet a query of 16-bit integers */
    double allowed = v->d_dtype == LIK_I8 ? 1e-4 : 5e-6;
    allowed *= (double)v->query_tokens * (1 + sqrt((double)v->dim) / 8);
    put_vector(v, what);
    library_check(run_score(ref, &op, &want));
    if (!refuses(run_score(device, &op, &got), "score", what, found))
        look_at_scores(&op, &got, &want, allowed, what, found);
    if (v->with & TOPK) {
        library_check(run_topk(ref, &op, &want));
        if (!refuses(run_topk(device, &op, &got), "top-k", what, found))
            look_at_topk(&op, &got, &want, allowed, what, found);
    }
    if (v->with & GRADIENTS) {
        uint64_t state = seed;
        const float *grad_scores = numbers(&keep, LIK_F32, want.scores, 1, &state);
        library_check(run_grad(ref, &op, grad_scores, want.argmax, &want));
        if (!refuses(run_grad(device, &op, grad_scores, want.argmax, &got), "gradients", what, found))
            look_at_gradients(&op, &got, &want, allowed, what, found);
    }
    let_go(&keep);
}

void vectors_run(struct library *library, struct vectors_found *found)
{
    const int64_t count = (int64_t)(sizeof vectors / sizeof *vectors);
    struct device device = {.context = library->context, .library = library}, ref = {.library = library};
    struct lik_context *context;
    *found = (struct vectors_found){0};
    library_check(lik_context_create("ref", &context));
    library_check(lik_stream_create(library->context, &device.stream));
    ref.context = context;
    progress_begin("selftest", "vectors");
    for (int64_t i = 0; i < count; i++) {
        run_vector(&device, &ref, &vectors[i], (uint64_t)i + 1, found);
        progress_update((double)(i + 1) / (double)count, (double)(i + 1));
    }
    progress_end();
    lik_stream_destroy(library->context, device.stream);
    lik_context_destroy(context);
}
