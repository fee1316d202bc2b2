/* libFuzzer target for the arguments of the C API: every field of a problem of each verb, of
 * how it runs and of what is planned.
 *
 * Most fields get a sane value, any may get a wild one: the ends of its type, a neighbor of a
 * power of two, anything. Where the arrays that the problem names would have to be larger than
 * they are, which no library can see, the call is left out. Else plan and run must succeed or
 * refuse: a refusal says why and leaves plan and outputs as they were; a success keeps within
 * outputs of exactly the size that lik.h says and a workspace of exactly the plan's bytes,
 * gives the same bytes again, and is refused with one byte less. UndefinedBehaviorSanitizer
 * watches the arithmetic, AddressSanitizer the outputs and, with -DLIK_GUARD_WORKSPACE, the
 * gaps between the workspace's regions. */
// sources: src/base/*.c src/core/*.c src/ref/*.c src/cpu/*.c
// flags: -DLIK_GUARD_WORKSPACE -fsanitize=float-cast-overflow
#include "shared/operand.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(holds)                                                                              \
    do {                                                                                         \
        if (!(holds)) {                                                                          \
            fprintf(stderr, "%s:%d: %s; the last error is \"%s\"\n", __FILE__, __LINE__, #holds, \
                    lik_last_error());                                                           \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

enum { SCORE, TOPK, GRAD, DECODE, ENCODE, TRAIN, QUANTIZE, VERBS };
#define ARENA   (1 << 14) /* bytes on either side of where data, masks, scales and weights begin */
#define ENTRIES 40        /* of offsets and lists */
#define PAINT   0xcb

static _Alignas(64) unsigned char arena[2 * ARENA];

static struct input {
    const uint8_t *at, *end;
} in;

static int64_t next(int64_t n)
{
    return in.at < in.end ? *in.at++ % n : 0;
}

static int64_t wild(void)
{
    static const int64_t ends[] = {0,         1,         -1,    INT64_MAX, INT64_MIN,
                                   INT32_MAX, INT32_MIN, 65536, 4096,      INT16_MAX};
    uint64_t value = 0;
    switch (next(4)) {
    case 0: return ends[next(sizeof ends / sizeof *ends)];
    case 1: return (int64_t)((UINT64_C(1) << next(64)) + (uint64_t)next(5) - 2);
    case 2: return (int64_t)(0 - (UINT64_C(1) << next(64)) + (uint64_t)next(5) - 2);
    default:
        for (int i = 0; i < 8; i++)
            value = value << 8 | (uint64_t)next(256);
        return (int64_t)value;
    }
}

/* A sane value, or in one of 16 cases any. */
static int64_t maybe(int64_t sane)
{
    return next(16) == 15 ? wild() : sane;
}

static const void *place(size_t size)
{
    return arena + ARENA + (next(16) == 15 ? (size_t)next(8) : size * (size_t)next(4));
}

static struct lik_strides strides_of(int64_t group, int64_t sequence, int64_t token)
{
    struct lik_strides s = {maybe(group), maybe(sequence), maybe(token)};
    return s;
}

static struct lik_tokens tokens(int64_t dim, int64_t *offsets)
{
    struct lik_tokens x = {.struct_size = sizeof x};
    x.dtype = 1 + (int32_t)next(6);
    int64_t count = next(5), len = next(7);
    x.count = maybe(count);
    x.len_max = maybe(len);
    x.dim = maybe(dim);
    x.dim_stride = maybe(1);
    x.strides = strides_of(len * dim * 2, len * dim, dim);
    x.data = next(32) == 31 ? NULL : place(lik_dtype_bytes(x.dtype));
    x.normalize = (int32_t)next(3);
    if (next(3) == 2) {
        x.mask = place(1);
        x.mask_strides = strides_of(len * 2, len, 1);
    }
    if (next(3) == 2) {
        x.scale = place(4);
        x.scale_strides = strides_of(len * 2, len, 1);
    }
    switch (next(4)) {
    case 1: x.group_size = maybe(count ? count : 1); break;
    case 2:
        x.offsets = offsets;
        x.offsets_dtype = next(2) ? LIK_I64 : LIK_I32;
        x.total = maybe(count * len);
        for (int64_t i = 0; i < ENTRIES; i++) {
            int64_t at = maybe(i * len);
            if (x.offsets_dtype == LIK_I64)
                offsets[i] = at;
            else
                ((int32_t *)(void *)offsets)[i] = (int32_t)at;
        }
        break;
    default: break;
    }
    if (next(32) == 31) {
        x.struct_size = (size_t)maybe(8);
        x.storage = (int32_t)maybe(0);
        x.dtype = (int32_t)maybe(LIK_I64);
        x.offsets_dtype = (int32_t)maybe(LIK_I32);
        x.codes = next(2) ? arena : NULL;
        x.scale_dtype = (int32_t)maybe(LIK_F32);
    }
    return x;
}

/* ---- Is all memory there that the problem says there is? ---- */

typedef double wide; /* exact where it matters, which is below 2^53 */

static int reaches(const struct lik_tokens *x, const struct lik_operand_array *array)
{
    int64_t extents[4];
    const wide size = (wide)array->element_bytes;
    const int64_t steps[4] = {array->strides.group, array->strides.sequence, array->strides.token,
                              array->inner_stride};
    wide low = 0, high = 0, begin = (const unsigned char *)array->at - arena;
    lik_operand_extents(x, array, extents);
    for (int i = 0; i < 4; i++) {
        if (extents[i] <= 0)
            return 1;
        (steps[i] < 0 ? &low : &high)[0] += (wide)(extents[i] - 1) * (wide)steps[i];
    }
    return begin + low * size >= 0 && begin + (high + 1) * size <= (wide)sizeof arena;
}

static int present(const struct lik_tokens *x)
{
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        if ((array.at || n == 0) && !reaches(x, &array))
            return 0;
    }
    return 1;
}

/* Entries that plan and run look at before they can know better. */
static int listed(const struct lik_score *op)
{
    int ok = op->pairing != LIK_LIST || op->list_count <= ENTRIES;
    return ok && (!op->q.offsets || op->q.count < ENTRIES || op->q.count > INT64_MAX / 8) &&
           (!op->d.offsets || op->d.count < ENTRIES || op->d.count > INT64_MAX / 8);
}

/* ---- Outputs of exactly their size, painted ---- */

struct output {
    unsigned char *data;
    size_t bytes;
};

static struct output output_of(wide entries, wide size)
{
    struct output o = {NULL, 0};
    if (entries > 0 && size > 0 && entries * size < 1 << 20) {
        o.bytes = (size_t)(entries * size);
        o.data = malloc(o.bytes);
        memset(o.data, PAINT, o.bytes);
    }
    return o;
}

static int is_painted(const struct output *o)
{
    for (size_t i = 0; i < o->bytes; i++)
        if (o->data[i] != PAINT)
            return 0;
    return 1;
}

/* The struct in a block of as many bytes as it says that it has; what a later version added is
 * mostly zero. */
static void *in_block(const void *from, size_t known)
{
    size_t claimed;
    memcpy(&claimed, from, sizeof claimed);
    size_t bytes = claimed < sizeof claimed ? sizeof claimed
                   : claimed > known + 8192 ? known + 8192
                                            : claimed;
    unsigned char *block = calloc(1, bytes);
    memcpy(block, from, bytes < known ? bytes : known);
    if (bytes > known && next(4) == 3)
        block[known + (size_t)next(256) % (bytes - known)] = 1;
    return block;
}

static void backwards(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    (void)pool;
    for (int64_t i = n - 1; i >= 0; i--)
        task(arg, i);
}

static int plan_of(int verb, const struct lik_context *ctx, const void *op, const struct lik_exec *exec,
                   struct lik_plan *plan)
{
    switch (verb) {
    case SCORE: return lik_score_plan(ctx, op, exec, plan);
    case TOPK: return lik_topk_plan(ctx, op, exec, plan);
    case GRAD: return lik_grad_plan(ctx, op, exec, plan);
    case DECODE: return lik_decode_plan(ctx, op, exec, plan);
    case ENCODE: return lik_encode_plan(ctx, op, exec, plan);
    case TRAIN: return lik_train_plan(ctx, op, exec, plan);
    default: return lik_quantize_plan(ctx, op, exec, plan);
    }
}

static int run_of(int verb, const struct lik_context *ctx, const void *op, const struct lik_exec *exec)
{
    switch (verb) {
    case SCORE: return lik_score_run(ctx, op, exec);
    case TOPK: return lik_topk_run(ctx, op, exec);
    case GRAD: return lik_grad_run(ctx, op, exec);
    case DECODE: return lik_decode_run(ctx, op, exec);
    case ENCODE: return lik_encode_run(ctx, op, exec);
    case TRAIN: return lik_train_run(ctx, op, exec);
    default: return lik_quantize_run(ctx, op, exec);
    }
}

/* A refusal: a status of the list, a message, everything as it was. */
static void must_refuse(int status, const struct output *outputs)
{
    MUST(status <= LIK_EINVAL && status >= LIK_EDEVICE && lik_last_error()[0]);
    for (int i = 0; i < 3; i++)
        MUST(is_painted(&outputs[i]));
}

/* Runs in a workspace of `bytes`, all `fill` before. */
static int run_in(int verb, const struct lik_context *ctx, const void *op, const struct lik_exec *exec,
                  size_t bytes, int fill)
{
    struct lik_exec how = {
        .struct_size = sizeof how, .threads = exec ? exec->threads : 0, .workspace_bytes = bytes};
    void *workspace = NULL;
    MUST(!posix_memalign(&workspace, 64, bytes ? bytes : 1));
    memset(workspace, fill, bytes);
    how.parallel_for = exec ? exec->parallel_for : NULL;
    how.workspace = workspace;
    int status = run_of(verb, ctx, op, &how);
    free(workspace);
    return status;
}

static void run(int verb, const struct lik_context *ctx, const void *op, const struct lik_exec *exec,
                size_t bytes, const struct output *outputs)
{
    unsigned char *first[3] = {NULL, NULL, NULL};
    int status = run_in(verb, ctx, op, exec, bytes, 0);
    if (status) { /* what only a run looks at: an output that is missing, winners */
        MUST(status == LIK_EINVAL);
        must_refuse(status, outputs);
        return;
    }
    MUST(!lik_last_error()[0]);
    for (int i = 0; i < 3; i++)
        if (outputs[i].bytes) {
            first[i] = malloc(outputs[i].bytes);
            memcpy(first[i], outputs[i].data, outputs[i].bytes);
            memset(outputs[i].data, PAINT, outputs[i].bytes);
        }
    MUST(!run_in(verb, ctx, op, exec, bytes, 0xff));
    for (int i = 0; i < 3; i++)
        if (outputs[i].bytes) {
            MUST(!memcmp(first[i], outputs[i].data, outputs[i].bytes));
            memset(outputs[i].data, PAINT, outputs[i].bytes);
            free(first[i]);
        }
    if (bytes) {
        status = run_in(verb, ctx, op, exec, bytes - 1, 0);
        MUST(status == LIK_EWORKSPACE);
        must_refuse(status, outputs);
    }
}

static void fill_arena(void)
{
    uint32_t seed = (uint32_t)next(256), floats = (uint32_t)next(2);
    for (size_t i = 0; i < sizeof arena; i += 4) { /* small numbers, or any bits */
        seed = seed * 1664525u + 1013904223u;
        float small = (float)(int32_t)(seed >> 16) / 4096 - 8;
        if (floats)
            memcpy(arena + i, &small, 4);
        else
            memcpy(arena + i, &seed, 4);
    }
}

/* ---- One input ---- */

/* A problem without outputs, its offsets and lists in these arrays. */
static struct lik_score problem(int64_t (*offsets)[ENTRIES], int64_t (*list)[ENTRIES])
{
    int64_t dim = 1 + next(20);
    struct lik_score op = {
        .struct_size = sizeof op, .q = tokens(dim, offsets[0]), .d = tokens(dim, offsets[1])};
    op.pairing = (int32_t)maybe(next(4));
    op.precision = (int32_t)maybe(next(3));
    op.per_query = maybe(op.q.count > 0 ? op.d.count / op.q.count : 0);
    op.list_count = maybe(next(7));
    for (int i = 0; i < ENTRIES; i++) {
        list[0][i] = op.pairing == LIK_LIST ? maybe(op.q.count > 0 ? i % op.q.count : 0) : 0;
        list[1][i] = op.pairing == LIK_LIST ? maybe(op.d.count > 0 ? i % op.d.count : 0) : 0;
    }
    op.list_q = next(32) == 31 ? NULL : list[0];
    op.list_d = list[1];
    if (next(3) == 2) {
        op.q.weights = place(4);
        int64_t len = op.q.len_max >= 0 && op.q.len_max < 8 ? op.q.len_max : 0;
        op.q.weights_strides = strides_of(2 * len, len, 1);
    }
    if (op.pairing == LIK_PAIRS && next(4))
        op.d.count = op.q.count;
    if (op.pairing == LIK_CANDIDATES && next(4) && op.per_query >= 0 && op.per_query < 9 && op.q.count >= 0 &&
        op.q.count < 9)
        op.d.count = op.q.count * op.per_query;
    if (next(64) == 63)
        op.reserved[next(3)] = arena;
    return op;
}

struct call {
    int verb;
    struct lik_score op;
    struct lik_topk topk;
    struct lik_grad grad;
    struct lik_decode decode; /* of op.d, and so the other verbs */
    struct lik_encode encode;
    struct lik_codec codec;
    struct lik_train train;
    struct lik_quantize quantize;
    wide rows, columns, entries; /* of the scores; entries: with what lies between rows */
    wide row_q, row_d;           /* rows of the gradients */
    struct output outputs[3], winners;
    void *block; /* the struct that is passed */
};

/* How many scores there are, their stride being chosen, and rows of gradients. */
static void measure(struct call *c)
{
    struct lik_score *op = &c->op;
    int64_t width = op->pairing == LIK_ALL ? op->d.count : op->pairing == LIK_CANDIDATES ? op->per_query : 1;
    c->rows = op->pairing == LIK_LIST ? op->list_count : op->q.count;
    c->columns = (wide)width;
    c->row_q = op->q.offsets ? op->q.total : (wide)op->q.count * op->q.len_max;
    c->row_d = op->d.offsets ? op->d.total : (wide)op->d.count * op->d.len_max;
    int64_t gap = maybe(next(3) == 2 ? next(4) : 0);
    op->scores_stride = gap ? (int64_t)((uint64_t)gap + (uint64_t)width) : maybe(0);
    wide stride = op->scores_stride ? op->scores_stride : c->columns;
    c->entries = c->rows > 0 && c->columns > 0 ? (c->rows > 1 ? (c->rows - 1) * stride : 0) + c->columns : 0;
}

static wide winner_count(const struct call *c)
{
    return c->rows > 0 && c->columns > 0 && c->op.q.len_max > 0 ? c->rows * c->columns * c->op.q.len_max : 0;
}

static void make_score(struct call *c)
{
    c->outputs[0] = output_of(c->entries, 4);
    c->op.scores = (float *)(void *)c->outputs[0].data;
    if (next(2)) {
        c->outputs[1] = c->winners;
        c->op.argmax = c->winners.data;
    }
    c->op.struct_size = (size_t)maybe(sizeof c->op);
    c->block = in_block(&c->op, sizeof c->op);
}

static void make_topk(struct call *c)
{
    struct lik_topk *topk = &c->topk;
    topk->k = maybe(1 + next(9));
    topk->id_base = maybe(0);
    wide entries = c->op.q.count > 0 ? (wide)c->op.q.count * topk->k : 0;
    c->outputs[0] = output_of(entries, 4);
    c->outputs[1] = output_of(entries, 8);
    topk->values = (float *)(void *)c->outputs[0].data;
    topk->ids = (int64_t *)(void *)c->outputs[1].data;
    c->op.struct_size = (size_t)maybe(sizeof c->op);
    topk->score = c->op;
    topk->struct_size = (size_t)maybe(sizeof *topk);
    c->block = in_block(topk, sizeof *topk);
}

static void make_grad(struct call *c)
{
    struct lik_score *op = &c->op;
    struct lik_grad *grad = &c->grad;
    size_t each = lik_dtype_bytes(op->argmax_dtype);
    for (size_t i = 0; each && i < c->winners.bytes / each; i++) {
        int64_t t = maybe(op->d.len_max > 0 ? next(op->d.len_max < 9 ? op->d.len_max : 9) : -1);
        if (op->argmax_dtype == LIK_I16)
            ((int16_t *)(void *)c->winners.data)[i] = (int16_t)t;
        else if (op->argmax_dtype == LIK_I32)
            ((int32_t *)(void *)c->winners.data)[i] = (int32_t)t;
    }
    op->argmax = c->winners.data;
    grad->grad_scores = place(4);
    grad->grad_scores_stride = maybe(0);
    if (next(4))
        c->outputs[0] = output_of(c->row_q * op->q.dim, (wide)lik_dtype_bytes(op->q.dtype));
    if (next(4))
        c->outputs[1] = output_of(c->row_d * op->d.dim, (wide)lik_dtype_bytes(op->d.dtype));
    if (op->q.weights || next(8) == 7)
        c->outputs[2] = output_of(c->row_q, 4);
    grad->grad_q = c->outputs[0].data;
    grad->grad_d = c->outputs[1].data;
    grad->grad_weights = (float *)(void *)c->outputs[2].data;
    op->struct_size = (size_t)maybe(sizeof *op);
    grad->score = *op;
    grad->struct_size = (size_t)maybe(sizeof *grad);
    c->block = in_block(grad, sizeof *grad);
}

static void make_decode(struct call *c)
{
    struct lik_decode *decode = &c->decode;
    decode->x = c->op.d;
    decode->out_dtype = (int32_t)maybe(1 + next(3));
    c->outputs[0] = output_of(c->row_d * c->op.d.dim, (wide)lik_dtype_bytes(decode->out_dtype));
    decode->out = c->outputs[0].data;
    decode->struct_size = (size_t)maybe(sizeof *decode);
    c->block = in_block(decode, sizeof *decode);
}

static void make_quantize(struct call *c)
{
    struct lik_quantize *quantize = &c->quantize;
    quantize->x = c->op.d;
    quantize->values_dtype = (int32_t)maybe(LIK_E4M3 + next(3));
    quantize->one_scale = (int32_t)next(2);
    c->outputs[0] = output_of(c->row_d * c->op.d.dim, 1);
    c->outputs[1] = output_of(quantize->one_scale ? 1 : c->row_d, 4);
    quantize->values = c->outputs[0].data;
    quantize->scales = (float *)(void *)c->outputs[1].data;
    quantize->struct_size = (size_t)maybe(sizeof *quantize);
    c->block = in_block(quantize, sizeof *quantize);
}

static void make_encode(struct call *c)
{
    static const int bit_counts[] = {0, 1, 2, 4, 8};
    static float cutoffs[255];
    struct lik_encode *encode = &c->encode;
    struct lik_codec *codec = &c->codec;
    wide dim = (wide)c->op.d.dim;
    for (int i = 0; i < 255; i++)
        cutoffs[i] = (float)i / 32 - 4;
    *codec = (struct lik_codec){.struct_size = (size_t)maybe(sizeof *codec)};
    codec->bits = (int32_t)maybe(bit_counts[next(5)]);
    codec->bit_order = (int32_t)maybe(next(2));
    codec->centroid_count = maybe(1 + next(6));
    codec->centroid_stride = maybe(0);
    codec->centroids_dtype = (int32_t)maybe(1 + next(3));
    codec->weights_dtype = (int32_t)maybe(1 + next(3));
    codec->centroids = place(4);
    codec->weights = place(4);
    encode->x = c->op.d;
    encode->codec = codec;
    encode->cutoffs = next(16) == 15 ? place(4) : cutoffs;
    encode->precision = (int32_t)maybe(next(3));
    encode->codes_dtype = (int32_t)maybe(LIK_I16 + next(3));
    encode->inv_norms_dtype = (int32_t)maybe(next(2) ? LIK_F16 : LIK_F32);
    c->outputs[0] = output_of(c->row_d, (wide)lik_dtype_bytes(encode->codes_dtype));
    c->outputs[1] = output_of(c->row_d, floor((dim * codec->bits + 7) / 8));
    if (next(2))
        c->outputs[2] = output_of(c->row_d, encode->inv_norms_dtype == LIK_F16 ? 2 : 4);
    encode->codes = c->outputs[0].data;
    encode->residuals = c->outputs[1].data;
    encode->inv_norms = c->outputs[2].data;
    encode->struct_size = (size_t)maybe(sizeof *encode);
    c->block = in_block(encode, sizeof *encode);
}

static void make_train(struct call *c)
{
    static const int bit_counts[] = {0, 1, 2, 4, 8};
    struct lik_train *train = &c->train;
    train->x = c->op.d;
    train->centroid_count = maybe(1 + next(4));
    train->points_per_centroid = maybe(next(4));
    train->iterations = (int32_t)maybe(next(3));
    train->bits = (int32_t)maybe(bit_counts[next(5)]);
    train->precision = (int32_t)maybe(next(3));
    train->seed = (uint64_t)wild();
    wide buckets = train->bits > 0 && train->bits <= 8 ? (wide)(1 << train->bits) : 0;
    c->outputs[0] = output_of((wide)train->centroid_count * (wide)c->op.d.dim, 4);
    c->outputs[1] = output_of(buckets - 1, 4);
    c->outputs[2] = output_of(buckets, 4);
    train->centroids = (float *)(void *)c->outputs[0].data;
    train->cutoffs = (float *)(void *)c->outputs[1].data;
    train->weights = (float *)(void *)c->outputs[2].data;
    train->struct_size = (size_t)maybe(sizeof *train);
    c->block = in_block(train, sizeof *train);
}

/* Does the arena have the tables of a codec, and are they of a size that is done soon? */
static int has_codec(const struct call *c)
{
    const struct lik_codec *codec = &c->codec;
    wide dim = (wide)c->op.d.dim, stride = codec->centroid_stride ? (wide)codec->centroid_stride : dim;
    return c->verb != ENCODE ||
           (stride >= 0 && codec->centroid_count < 1000 &&
            ((wide)codec->centroid_count * stride + dim) * 4 < ARENA - 64 && c->row_d * dim < 20000);
}

/* Is all there that a run reads and writes, and is it done soon? */
static int can_run(const struct call *c, size_t workspace_bytes)
{
    if (!has_codec(c) || (c->verb == TRAIN && (c->train.iterations > 4 || c->train.centroid_count > 100)))
        return 0;
    const struct lik_score *op = &c->op;
    wide stride = c->grad.grad_scores_stride ? c->grad.grad_scores_stride : c->columns;
    wide grad_reach = c->rows > 0 && c->columns > 0 ? (c->rows - 1) * stride + c->columns : 0;
    wide products = (c->rows + 1) * (c->columns + 1) * (op->q.len_max + 1) * (op->d.len_max + 1) * op->d.dim;
    int small = c->rows < 1000 && c->columns < 1000 && products < 2000000 && op->q.count < 1000 &&
                op->d.count < 1000 && c->row_q * op->q.dim < 100000 && c->row_d * op->d.dim < 100000 &&
                workspace_bytes < 1 << 24;
    int held = c->entries * 4 < 1 << 20 && winner_count(c) * 4 < 1 << 20 && c->topk.k < 1000;
    return small && held && present(&op->q) && present(&op->d) &&
           (c->verb != GRAD || (grad_reach >= 0 && grad_reach < 1000));
}

static void plan_and_run(const struct call *c, const struct lik_context *ctx)
{
    struct lik_exec exec = {.threads = (int32_t)maybe(next(6))};
    struct lik_plan plan = {.struct_size = (size_t)maybe(sizeof plan)}, before = plan;
    exec.parallel_for = exec.threads > 1 && next(8) != 7 ? backwards : NULL;
    exec.struct_size = (size_t)maybe(sizeof exec);
    struct lik_exec *exec_block = next(8) == 7 ? NULL : in_block(&exec, sizeof exec);
    if (listed(&c->op) && has_codec(c)) {
        memset(before.variant, PAINT, sizeof before.variant);
        plan = before;
        int status = plan_of(c->verb, ctx, c->block, exec_block, &plan);
        if (status) {
            MUST(!memcmp(&plan, &before, sizeof plan));
            must_refuse(status, c->outputs);
        } else {
            MUST(!lik_last_error()[0] && memchr(plan.variant, 0, sizeof plan.variant) && plan.variant[0]);
            MUST(plan.struct_size == before.struct_size);
            if (can_run(c, plan.workspace_bytes))
                run(c->verb, ctx, c->block, exec_block ? &exec : NULL, plan.workspace_bytes, c->outputs);
        }
    }
    free(exec_block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"ref", "cpu:generic", "cpu:avx2", "cpu:avx512bf16", "cpu:amx"};
    static struct lik_context *contexts[5];
    static int64_t offsets[2][ENTRIES], list[2][ENTRIES];
    in = (struct input){data, data + size};
    int which = (int)next(5);
    struct call c = {.verb = (int)next(VERBS)};
    if (!contexts[which] && lik_context_create(names[which], &contexts[which]))
        return 0; /* this processor has no such level */
    fill_arena();
    c.op = problem(offsets, list);
    if (c.verb >= DECODE) { /* one operand, the documents */
        c.op.q = c.op.d;
        c.op.pairing = LIK_ALL;
        c.op.d.weights = next(32) == 31 ? (const float *)(const void *)arena : NULL;
    }
    measure(&c);
    c.topk = (struct lik_topk){.struct_size = sizeof c.topk, .smallest = (int32_t)next(2)};
    c.grad = (struct lik_grad){.struct_size = sizeof c.grad, .accumulate = (int32_t)next(2)};
    c.op.argmax_dtype = (int32_t)maybe(next(2) ? LIK_I32 : LIK_I16);
    c.winners = output_of(winner_count(&c), (wide)lik_dtype_bytes(c.op.argmax_dtype));
    if (c.verb == SCORE)
        make_score(&c);
    else if (c.verb == TOPK)
        make_topk(&c);
    else if (c.verb == GRAD)
        make_grad(&c);
    else if (c.verb == DECODE)
        make_decode(&c);
    else if (c.verb == ENCODE)
        make_encode(&c);
    else if (c.verb == TRAIN)
        make_train(&c);
    else
        make_quantize(&c);
    plan_and_run(&c, contexts[which]);
    for (int i = 0; i < 3; i++)
        if (c.outputs[i].data != c.winners.data)
            free(c.outputs[i].data);
    free(c.winners.data);
    free(c.block);
    return 0;
}
