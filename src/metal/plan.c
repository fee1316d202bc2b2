/* The kernels' table, and how a forward pass is cut. */
#include "metal/plan.h"

#include "base/error.h"
#include "metal/pass.h"
#include "shared/residual.h"

#include <stdio.h>
#include <string.h>

#define AT(n)         (1u << (n))
#define AT_Q          (AT(LIK_AT_Q_DATA) | AT(LIK_AT_Q_OFFSETS) | AT(LIK_AT_Q_MASK) | AT(LIK_AT_Q_FACTORS))
#define AT_TOKENS     (AT(LIK_AT_D_DATA) | AT(LIK_AT_D_OFFSETS) | AT(LIK_AT_D_MASK))
#define AT_CODEC      (AT(LIK_AT_D_CODES) | AT(LIK_AT_D_CENTROIDS) | AT(LIK_AT_D_BUCKETS))
#define AT_D          (AT_TOKENS | AT(LIK_AT_D_FACTORS) | AT_CODEC)
#define AT_LISTS      (AT(LIK_AT_LIST_Q) | AT(LIK_AT_LIST_D))
#define AT_SCORED     (AT(LIK_AT_SCORES) | AT(LIK_AT_ARGMAX))
#define SCORE_BUFFERS (AT(LIK_AT_ARGS) | AT_Q | AT(LIK_AT_Q_WEIGHTS) | AT_D | AT_LISTS | AT_SCORED)
#define GRAD_BUFFERS                                                                       \
    (AT(LIK_AT_ARGS) | AT_Q | AT(LIK_AT_Q_WEIGHTS) | AT_D | AT_LISTS | AT(LIK_AT_ARGMAX) | \
     AT(LIK_AT_GRAD_SCORES) | AT(LIK_AT_OUT) | AT(LIK_AT_KEYS))
#define SCORE(name, b) {name, sizeof(struct lik_metal_score), LIK_METAL_SHARED(b), SCORE_BUFFERS, AT_SCORED}

const struct lik_metal_kernel lik_metal_kernels[LIK_METAL_KERNELS] = {
    [LIK_METAL_FACTORS] = {"lik_factors", sizeof(struct lik_metal_factors), 0,
                           AT(LIK_AT_ARGS) | AT_TOKENS | AT_CODEC | AT(LIK_AT_SCALE) | AT(LIK_AT_OUT),
                           AT(LIK_AT_OUT)},
    [LIK_METAL_SCORE_HALF] = SCORE("lik_score_half", 2),
    [LIK_METAL_SCORE_F32] = SCORE("lik_score_f32", 4),
    [LIK_METAL_SCORE_F16] = SCORE("lik_score_f16", 4),
    [LIK_METAL_SCORE_BF16] = SCORE("lik_score_bf16", 4),
    [LIK_METAL_SCORE_E4M3] = SCORE("lik_score_e4m3", 4),
    [LIK_METAL_SCORE_E5M2] = SCORE("lik_score_e5m2", 4),
    [LIK_METAL_SCORE_I8] = SCORE("lik_score_i8", 4),
    [LIK_METAL_SCORE_RESIDUAL] = SCORE("lik_score_residual", 4),
    [LIK_METAL_SCORE_ONE_HOT] = SCORE("lik_score_one_hot", 2),
    [LIK_METAL_GRAD] = {"lik_grad", sizeof(struct lik_metal_grad), 0, GRAD_BUFFERS | AT(LIK_AT_SCALE),
                        AT(LIK_AT_OUT)},
    [LIK_METAL_GRAD_WEIGHTS] = {"lik_grad_weights", sizeof(struct lik_metal_grad), 0, GRAD_BUFFERS,
                                AT(LIK_AT_OUT)},
    [LIK_METAL_LIST_KEYS] = {"lik_list_keys", sizeof(struct lik_metal_list_keys), 0,
                             AT(LIK_AT_ARGS) | AT_LISTS | AT(LIK_AT_KEYS_OUT), AT(LIK_AT_KEYS_OUT)},
    [LIK_METAL_SELECT] = {"lik_select", sizeof(struct lik_metal_select), LIK_METAL_RUN * 8,
                          AT(LIK_AT_ARGS) | AT(LIK_AT_SCORES) | AT(LIK_AT_KEYS) | AT(LIK_AT_MORE_KEYS) |
                              AT(LIK_AT_KEYS_OUT),
                          AT(LIK_AT_KEYS_OUT)},
    [LIK_METAL_GATHER_KEYS] = {"lik_gather_keys", sizeof(struct lik_metal_select), 0,
                               AT(LIK_AT_ARGS) | AT(LIK_AT_SCORES) | AT(LIK_AT_KEYS) | AT(LIK_AT_MORE_KEYS) |
                                   AT(LIK_AT_KEYS_OUT),
                               AT(LIK_AT_KEYS_OUT)},
    [LIK_METAL_SORT_PASS] = {"lik_sort_pass", sizeof(struct lik_metal_sort), 0,
                             AT(LIK_AT_ARGS) | AT(LIK_AT_KEYS_OUT), AT(LIK_AT_KEYS_OUT)},
    [LIK_METAL_WRITE_BEST] = {"lik_write_best", sizeof(struct lik_metal_best), 0,
                              AT(LIK_AT_ARGS) | AT(LIK_AT_KEYS) | AT(LIK_AT_VALUES) | AT(LIK_AT_IDS),
                              AT(LIK_AT_VALUES) | AT(LIK_AT_IDS)},
};

static struct lik_metal_strides strides_of(const struct lik_strides *s)
{
    return (struct lik_metal_strides){s->group, s->sequence, s->token};
}

/* May four elements of every token be read at once? They must be adjacent and begin where four
 * do. */
static int in_quads(const struct lik_tokens *x)
{
    int64_t bytes = (int64_t)lik_dtype_bytes(x->dtype), quad = 4 * bytes;
    if (x->storage != LIK_DENSE || x->dim_stride != 1 || (intptr_t)x->data % quad)
        return 0;
    if (x->strides.token % 4)
        return 0;
    return x->offsets || (x->strides.sequence % 4 == 0 && (!x->group_size || x->strides.group % 4 == 0));
}

int64_t lik_metal_factor_count(const struct lik_tokens *x)
{
    return x->scale || x->normalize ? lik_tokens_rows(x) : 0;
}

struct lik_metal_tokens lik_metal_tokens_of(const struct lik_tokens *x)
{
    const struct lik_codec *codec = x->storage == LIK_RESIDUAL ? x->codec : NULL;
    const int one_hot = x->storage == LIK_ONE_HOT;
    struct lik_metal_tokens t = {
        .kind = codec     ? LIK_KIND_RESIDUAL
                : one_hot ? LIK_KIND_ONE_HOT
                          : x->dtype,
        .dtype = x->dtype,
        .count = x->count,
        .len_max = x->len_max,
        .dim = x->dim,
        .total = x->total,
        .offset_bytes = x->offsets ? (int64_t)lik_dtype_bytes(x->offsets_dtype) : 0,
        .group_size = x->offsets ? 0 : x->group_size,
        .dim_stride = x->dim_stride,
        .quads = in_quads(x),
        .data = one_hot ? (struct lik_metal_strides){0, 0, 0} : strides_of(&x->strides), /* they may be any */
        .has_mask = x->mask != NULL,
        .mask = strides_of(&x->mask_strides),
        .scale_bytes = x->scale ? (x->scale_dtype == LIK_F16 ? 2 : 4) : 0,
        .scale = strides_of(&x->scale_strides),
        .has_weights = x->weights != NULL,
        .weights = strides_of(&x->weights_strides),
        .normalize = x->normalize != 0,
        .has_factors = x->scale || x->normalize,
    };
    if (x->storage == LIK_DENSE)
        return t;
    t.code_bytes = (int64_t)lik_dtype_bytes(x->codes_dtype);
    t.codes = strides_of(&x->codes_strides);
    t.code_count = lik_code_count(x);
    if (!codec)
        return t;
    t.bits = codec->bits;
    t.bit_order = codec->bit_order;
    t.centroid_stride = lik_centroid_stride(x);
    t.centroids_dtype = codec->centroids_dtype;
    t.buckets_dtype = codec->weights_dtype;
    return t;
}

/* Names the buffers of the documents, or, where factors are taken, of any operand. */
static void name_documents(const struct lik_tokens *d, const void *factors,
                           struct lik_metal_dispatch *dispatch)
{
    const void **at = dispatch->buffers;
    at[LIK_AT_D_DATA] = d->data;
    at[LIK_AT_D_OFFSETS] = d->offsets;
    at[LIK_AT_D_MASK] = d->mask;
    at[LIK_AT_D_FACTORS] = factors;
    if (d->storage == LIK_DENSE)
        return;
    at[LIK_AT_D_CODES] = d->codes;
    if (d->storage == LIK_ONE_HOT)
        return;
    at[LIK_AT_D_CENTROIDS] = d->codec->centroids;
    at[LIK_AT_D_BUCKETS] = d->codec->bits ? d->codec->weights : NULL;
}

void lik_metal_name_operands(const struct lik_score *op, const void *q_factors, const void *d_factors,
                             struct lik_metal_dispatch *dispatch)
{
    const void **at = dispatch->buffers;
    name_documents(&op->d, d_factors, dispatch);
    at[LIK_AT_Q_DATA] = op->q.data;
    at[LIK_AT_Q_OFFSETS] = op->q.offsets;
    at[LIK_AT_Q_MASK] = op->q.mask;
    at[LIK_AT_Q_FACTORS] = q_factors;
    at[LIK_AT_Q_WEIGHTS] = op->q.weights;
    if (op->pairing == LIK_LIST) {
        at[LIK_AT_LIST_Q] = op->list_q;
        at[LIK_AT_LIST_D] = op->list_d;
    }
    at[LIK_AT_ARGMAX] = op->argmax;
}

int64_t lik_metal_groups(int64_t items, int64_t each)
{
    return lik_min_i64(lik_divide_up(items, each), LIK_METAL_GROUPS_MAX);
}

int lik_metal_run_factors(const struct lik_tokens *x, float *out, const struct lik_metal_queue *queue)
{
    int64_t rows = lik_metal_factor_count(x);
    if (rows == 0)
        return LIK_OK;
    struct lik_metal_dispatch dispatch = {.kernel = LIK_METAL_FACTORS};
    struct lik_metal_factors args = {.x = lik_metal_tokens_of(x), .rows = rows};
    args.threadgroups = dispatch.threadgroups = lik_metal_groups(rows, LIK_METAL_SIMDS);
    dispatch.args = &args;
    name_documents(x, NULL, &dispatch);
    dispatch.buffers[LIK_AT_SCALE] = x->scale;
    dispatch.buffers[LIK_AT_OUT] = out;
    return queue->dispatch(queue->host, &dispatch);
}

/* What the kernels' 32-bit arithmetic takes: tokens of a sequence and queries of a tile. */
int lik_metal_check(const struct lik_score *op)
{
    if (op->d.len_max > 1 << 30 || op->q.len_max > 1 << 30)
        return lik_fail(LIK_EUNSUPPORTED,
                        "q.len_max is %lld and d.len_max is %lld, the Metal kernels take 2^30",
                        (long long)op->q.len_max, (long long)op->d.len_max);
    if (op->d.dim > INT32_MAX)
        return lik_fail(LIK_EUNSUPPORTED, "dim is %lld, the Metal kernels take 2^31 - 1",
                        (long long)op->d.dim);
    return LIK_OK;
}

static enum lik_metal_kernel_number kernel_of(const struct lik_score *op)
{
    if (op->d.storage != LIK_DENSE)
        return op->d.storage == LIK_RESIDUAL ? LIK_METAL_SCORE_RESIDUAL : LIK_METAL_SCORE_ONE_HOT;
    if (op->q.dtype == LIK_F16 && op->d.dtype == LIK_F16)
        return LIK_METAL_SCORE_HALF;
    return (enum lik_metal_kernel_number)((int)LIK_METAL_SCORE_F32 + op->d.dtype - LIK_F32);
}

void lik_metal_cut_score(int64_t rows, int64_t columns, struct lik_metal_score_plan *p)
{
    int64_t tiles = lik_divide_up(rows, p->queries_per_tile);
    int64_t runs = lik_min_i64(lik_divide_up(LIK_METAL_ENOUGH_GROUPS, tiles), columns);
    p->columns_per_run = lik_divide_up(columns, runs);
    p->runs = lik_divide_up(columns, p->columns_per_run);
    p->items = tiles * p->runs;
}

int lik_metal_plan_score_part(const struct lik_score *op, int64_t rows, int64_t columns,
                              struct lik_metal_score_plan *p)
{
    *p = (struct lik_metal_score_plan){.kernel = kernel_of(op), .queries_per_tile = 1};
    int status = lik_metal_check(op);
    if (status || rows == 0 || columns == 0)
        return status;
    if (op->pairing == LIK_ALL && op->q.len_max > 0 && op->q.len_max <= LIK_METAL_ROWS / 2)
        p->queries_per_tile = lik_min_i64(LIK_METAL_ROWS / op->q.len_max, rows);
    lik_metal_cut_score(rows, columns, p);
    return LIK_OK;
}

void lik_metal_take_factors(const struct lik_score *op, struct lik_layout *layout,
                            struct lik_metal_score_plan *p)
{
    p->q_factor_count = lik_metal_factor_count(&op->q);
    p->d_factor_count = lik_metal_factor_count(&op->d);
    p->q_factors = lik_layout_take(layout, p->q_factor_count, 4, LIK_METAL_ALIGN);
    p->d_factors = lik_layout_take(layout, p->d_factor_count, 4, LIK_METAL_ALIGN);
}

int lik_metal_plan_score(const struct lik_score *op, struct lik_layout *layout,
                         struct lik_metal_score_plan *p)
{
    int status = lik_metal_plan_score_part(op, lik_score_rows(op), lik_score_columns(op), p);
    if (status == LIK_OK && p->items > 0)
        lik_metal_take_factors(op, layout, p);
    return status;
}

int lik_metal_run_score_factors(const struct lik_score *op, const struct lik_metal_score_plan *p,
                                char *workspace, const struct lik_metal_queue *queue)
{
    int status = LIK_OK;
    if (p->q_factor_count)
        status = lik_metal_run_factors(&op->q, (float *)(void *)(workspace + p->q_factors), queue);
    if (!status && p->d_factor_count)
        status = lik_metal_run_factors(&op->d, (float *)(void *)(workspace + p->d_factors), queue);
    return status;
}

int lik_metal_run_score_part(const struct lik_score *op, const struct lik_metal_score_plan *p,
                             char *workspace, const struct lik_metal_part *part,
                             const struct lik_metal_queue *queue)
{
    if (p->items == 0)
        return LIK_OK;
    struct lik_metal_dispatch dispatch = {.kernel = p->kernel};
    struct lik_metal_score args = {
        .q = lik_metal_tokens_of(&op->q),
        .d = lik_metal_tokens_of(&op->d),
        .pairing = op->pairing,
        .per_query = op->per_query,
        .list_count = op->list_count,
        .row_first = part->row,
        .rows = part->rows,
        .column_first = part->column,
        .columns = part->columns,
        .queries_per_tile = p->queries_per_tile,
        .columns_per_run = p->columns_per_run,
        .runs = p->runs,
        .items = p->items,
        .scores_stride = part->scores_stride,
        .argmax_bytes = op->argmax ? (int64_t)lik_dtype_bytes(op->argmax_dtype) : 0,
    };
    args.threadgroups = dispatch.threadgroups = lik_metal_groups(p->items, 1);
    dispatch.args = &args;
    lik_metal_name_operands(op, p->q_factor_count ? workspace + p->q_factors : NULL,
                            p->d_factor_count ? workspace + p->d_factors : NULL, &dispatch);
    dispatch.buffers[LIK_AT_SCORES] = part->scores;
    return queue->dispatch(queue->host, &dispatch);
}

int lik_metal_run_score(const struct lik_score *op, const struct lik_metal_score_plan *p, char *workspace,
                        const struct lik_metal_queue *queue)
{
    struct lik_metal_part all = {
        .rows = lik_score_rows(op),
        .columns = lik_score_columns(op),
        .scores = op->scores,
        .scores_stride = op->scores_stride,
    };
    int status = lik_metal_run_score_factors(op, p, workspace, queue);
    return status ? status : lik_metal_run_score_part(op, p, workspace, &all, queue);
}

void lik_metal_name_score(const struct lik_score *op, const struct lik_metal_score_plan *p, char *text,
                          size_t size)
{
    char bits[16] = "";
    if (op->d.storage == LIK_RESIDUAL)
        snprintf(bits, sizeof bits, "_%dbits", (int)op->d.codec->bits);
    snprintf(text, size, "score_%s_%s%s%s_d%lld_metal", lik_dtype_name(op->q.dtype),
             lik_dtype_name(op->d.dtype), bits, p->kernel == LIK_METAL_SCORE_HALF ? "_half" : "",
             (long long)op->d.dim);
}
