#include "core/check.h"

#include "base/size.h"
#include "shared/argmax.h"
#include "shared/operand.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define DIM_MAX 65536 /* products of two i8 tokens fit an i32 up to 2^17 */

static const char *const pairing_names[] = {"LIK_ALL", "LIK_CANDIDATES", "LIK_PAIRS", "LIK_LIST"};

/* A struct of at least our size; what a newer header added must be zero. */
static int check_struct(const char *name, const void *in, size_t size)
{
    if (!in)
        return lik_fail(LIK_EINVAL, "%s is NULL", name);
    size_t given;
    memcpy(&given, in, sizeof given);
    if (given < size)
        return lik_fail(LIK_EINVAL, "%s.struct_size is %zu, must be at least %zu", name, given, size);
    if (given > size + 4096)
        return lik_fail(LIK_EINVAL, "%s.struct_size is %zu, this library knows %zu", name, given, size);
    for (size_t i = size; i < given; i++)
        if (((const char *)in)[i])
            return lik_fail(
                LIK_EUNSUPPORTED,
                "%s.struct_size is %zu and its fields past byte %zu, the size this library knows, are set",
                name, given, size);
    return LIK_OK;
}

static int check_aligned(const char *name, const char *field, const void *pointer, size_t bytes)
{
    if (bytes && (uintptr_t)pointer % bytes)
        return lik_fail(LIK_EINVAL, "%s%s is %p, must be aligned to %zu bytes", name, field, pointer, bytes);
    return LIK_OK;
}

/* The offset of the last entry, its index times |stride| summed over the axes, must stay one in
 * bytes. */
static int check_array(const char *name, const struct lik_tokens *x, const struct lik_operand_array *array)
{
    int64_t extents[4], reach = 0;
    const int64_t strides[4] = {array->strides.group, array->strides.sequence, array->strides.token,
                                array->inner_stride};
    lik_operand_extents(x, array, extents);
    for (int i = 0; i < 4; i++) {
        /* packed: an empty sequence may end at the last row */
        int64_t term, last = i == 2 && x->offsets ? x->total : extents[i] - 1;
        if (last <= 0)
            continue;
        if (strides[i] == INT64_MIN || lik_mul_i64(last, strides[i] < 0 ? -strides[i] : strides[i], &term) ||
            lik_add_i64(reach, term, &reach) || lik_mul_i64(reach, array->element_bytes, &term))
            return lik_fail(LIK_EINVAL, "%s.%s: stride %lld over %lld entries passes 2^63 bytes", name,
                            array->strides_name, (long long)strides[i], (long long)extents[i]);
    }
    return LIK_OK;
}

/* Addresses first: they tell more than strides. */
static int check_arrays(const char *name, const struct lik_tokens *x)
{
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        if ((uintptr_t)array.at % (size_t)array.element_bytes)
            return lik_fail(LIK_EINVAL, "%s.%s is %p, must be aligned to %lld bytes", name, array.name,
                            array.at, (long long)array.element_bytes);
    }
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        if ((array.at || n == 0) && check_array(name, x, &array))
            return LIK_EINVAL;
    }
    return LIK_OK;
}

static int check_offsets(const char *name, const struct lik_tokens *x)
{
    int64_t last = lik_offset_at(x, 0);
    if (last < 0)
        return lik_fail(LIK_EINVAL, "%s.offsets[0] is %lld, must not be negative", name, (long long)last);
    for (int64_t i = 1; i <= x->count; i++) {
        int64_t next = lik_offset_at(x, i);
        if (next < last)
            return lik_fail(LIK_EINVAL, "%s.offsets[%lld] is %lld, less than %s.offsets[%lld], which is %lld",
                            name, (long long)i, (long long)next, name, (long long)(i - 1), (long long)last);
        if (next - last > x->len_max)
            return lik_fail(LIK_EINVAL, "%s.len_max is %lld, sequence %lld has %lld tokens", name,
                            (long long)x->len_max, (long long)(i - 1), (long long)(next - last));
        last = next;
    }
    if (last > x->total)
        return lik_fail(LIK_EINVAL, "%s.offsets[%lld] is %lld, %s.total is %lld", name, (long long)x->count,
                        (long long)last, name, (long long)x->total);
    return LIK_OK;
}

static int check_layout(const struct lik_context *ctx, const char *name, const struct lik_tokens *x)
{
    int64_t rows;
    if (x->group_size < 0)
        return lik_fail(LIK_EINVAL, "%s.group_size is %lld, must not be negative", name,
                        (long long)x->group_size);
    if (x->offsets) {
        if (x->offsets_dtype != LIK_I32 && x->offsets_dtype != LIK_I64)
            return lik_fail(LIK_EINVAL, "%s.offsets_dtype is %d, must be LIK_I32 or LIK_I64", name,
                            x->offsets_dtype);
        if (x->total < 0)
            return lik_fail(LIK_EINVAL, "%s.total is %lld, must not be negative", name, (long long)x->total);
        if (x->group_size)
            return lik_fail(LIK_EINVAL, "%s.group_size is %lld, but %s is packed (offsets set)", name,
                            (long long)x->group_size, name);
        if (lik_mul_i64(x->count, lik_max_i64(x->len_max, 8), &rows)) /* 8: the bytes of an offset */
            return lik_fail(LIK_EINVAL, "%s.count is %lld and %s.len_max %lld: their product passes 2^63",
                            name, (long long)x->count, name, (long long)x->len_max);
        if (check_aligned(name, ".offsets", x->offsets, lik_dtype_bytes(x->offsets_dtype)))
            return LIK_EINVAL;
        if (ctx->backend->host_memory && check_offsets(name, x))
            return LIK_EINVAL;
        rows = x->total;
    } else {
        if (x->offsets_dtype)
            return lik_fail(LIK_EINVAL, "%s.offsets is NULL, %s.offsets_dtype is %d: 0 if %s is padded", name,
                            name, x->offsets_dtype, name);
        if (x->group_size && x->count % x->group_size)
            return lik_fail(LIK_EINVAL, "%s.count is %lld, no multiple of %s.group_size, which is %lld", name,
                            (long long)x->count, name, (long long)x->group_size);
        if (lik_mul_i64(x->count, x->len_max, &rows))
            return lik_fail(LIK_EINVAL, "%s.count is %lld and %s.len_max %lld: their product passes 2^63",
                            name, (long long)x->count, name, (long long)x->len_max);
    }
    int64_t bytes;
    if (lik_mul_i64(rows, x->dim * 4, &bytes))
        return lik_fail(LIK_EINVAL, "%s has %lld tokens of dim %lld: its size passes 2^63 bytes", name,
                        (long long)rows, (long long)x->dim);
    if (rows > 0 && !x->data)
        return lik_fail(LIK_EINVAL, "%s.data is NULL, %s has %lld tokens", name, name, (long long)rows);
    return LIK_OK;
}

static int check_tokens(const struct lik_context *ctx, const char *name, const struct lik_tokens *x)
{
    if (x->struct_size != sizeof *x)
        return lik_fail(LIK_EINVAL, "%s.struct_size is %zu, must be %zu", name, x->struct_size, sizeof *x);
    for (size_t i = 0; i < sizeof x->reserved / sizeof *x->reserved; i++)
        if (x->reserved[i])
            return lik_fail(LIK_EUNSUPPORTED, "%s.reserved[%zu] is set, must be zero", name, i);
    if (x->storage != LIK_DENSE)
        return lik_fail(LIK_EINVAL, "%s.storage is %d, must be LIK_DENSE (0)", name, x->storage);
    if (x->dtype < LIK_F32 || x->dtype > LIK_I8)
        return lik_fail(LIK_EINVAL, "%s.dtype is %d (%s), must be f32, f16, bf16, e4m3, e5m2 or i8", name,
                        x->dtype, lik_dtype_name(x->dtype));
    if (x->count < 0)
        return lik_fail(LIK_EINVAL, "%s.count is %lld, must not be negative", name, (long long)x->count);
    if (x->len_max < 0)
        return lik_fail(LIK_EINVAL, "%s.len_max is %lld, must not be negative", name, (long long)x->len_max);
    if (x->len_max > INT32_MAX)
        return lik_fail(LIK_EINVAL, "%s.len_max is %lld, must be at most %d", name, (long long)x->len_max,
                        INT32_MAX);
    if (x->dim < 1 || x->dim > DIM_MAX)
        return lik_fail(LIK_EINVAL, "%s.dim is %lld, must be 1 to %d", name, (long long)x->dim, DIM_MAX);
    if (check_layout(ctx, name, x))
        return LIK_EINVAL;
    return check_arrays(name, x);
}

static int check_entries(const char *name, const int64_t *list, int64_t n, int64_t count)
{
    for (int64_t i = 0; i < n; i++)
        if (list[i] < 0 || list[i] >= count)
            return lik_fail(LIK_EINVAL, "%s[%lld] is %lld, must be 0 to %lld", name, (long long)i,
                            (long long)list[i], (long long)(count - 1));
    return LIK_OK;
}

static int check_list(const struct lik_context *ctx, const char *name, const int64_t *list, int64_t n,
                      int64_t count)
{
    if (n > 0 && !list)
        return lik_fail(LIK_EINVAL, "%s is NULL, list_count is %lld", name, (long long)n);
    if (check_aligned(name, "", list, sizeof *list))
        return LIK_EINVAL;
    return ctx->backend->host_memory ? check_entries(name, list, n, count) : LIK_OK;
}

static int check_pairing(const struct lik_context *ctx, const struct lik_score *op)
{
    switch (op->pairing) {
    case LIK_ALL: return LIK_OK;
    case LIK_CANDIDATES: {
        int64_t want;
        if (op->per_query < 0)
            return lik_fail(LIK_EINVAL, "per_query is %lld, must not be negative", (long long)op->per_query);
        if (lik_mul_i64(op->q.count, op->per_query, &want) || want != op->d.count)
            return lik_fail(LIK_EINVAL, "d.count is %lld, q.count x per_query is %lld x %lld",
                            (long long)op->d.count, (long long)op->q.count, (long long)op->per_query);
        return LIK_OK;
    }
    case LIK_PAIRS:
        if (op->q.count != op->d.count)
            return lik_fail(LIK_EINVAL,
                            "d.count is %lld, q.count is %lld; pairs need as many documents as queries",
                            (long long)op->d.count, (long long)op->q.count);
        return LIK_OK;
    case LIK_LIST:
        if (op->list_count < 0)
            return lik_fail(LIK_EINVAL, "list_count is %lld, must not be negative",
                            (long long)op->list_count);
        if (check_list(ctx, "list_q", op->list_q, op->list_count, op->q.count))
            return LIK_EINVAL;
        return check_list(ctx, "list_d", op->list_d, op->list_count, op->d.count);
    default: return lik_fail(LIK_EINVAL, "pairing is %d, must be 0 (LIK_ALL) to 3 (LIK_LIST)", op->pairing);
    }
}

/* Everything but the outputs' pointers. */
static int check_problem(const struct lik_context *ctx, struct lik_score *op)
{
    int status = check_tokens(ctx, "q", &op->q);
    if (!status)
        status = check_tokens(ctx, "d", &op->d);
    if (status)
        return status;
    if (!(ctx->backend->storages >> op->d.storage & 1))
        return lik_fail(LIK_EUNSUPPORTED, "d.storage is %d, which %s does not take", op->d.storage,
                        ctx->name);
    if (op->d.dim != op->q.dim)
        return lik_fail(LIK_EINVAL, "d.dim is %lld, q.dim is %lld", (long long)op->d.dim,
                        (long long)op->q.dim);
    if (op->d.weights)
        return lik_fail(LIK_EINVAL, "d.weights is set, weights belong to q");
    if (op->reserved_i32 || op->reserved[0] || op->reserved[1] || op->reserved[2])
        return lik_fail(LIK_EUNSUPPORTED, "score.reserved is set, must be zero");
    if (op->precision < LIK_HIGHEST || op->precision > LIK_MEDIUM)
        return lik_fail(LIK_EINVAL, "precision is %d, must be 0 (LIK_HIGHEST) to 2 (LIK_MEDIUM)",
                        op->precision);
    if (check_pairing(ctx, op))
        return LIK_EINVAL;
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op), entries;
    if (op->scores_stride == 0)
        op->scores_stride = columns;
    if (rows > 1 && op->scores_stride < columns)
        return lik_fail(LIK_EINVAL, "scores_stride is %lld, a row has %lld scores",
                        (long long)op->scores_stride, (long long)columns);
    if (lik_mul_i64(rows, lik_max_i64(op->scores_stride, columns), &entries) ||
        lik_mul_i64(entries, 4, &entries))
        return lik_fail(LIK_EINVAL, "scores_stride is %lld: %lld rows of it pass 2^63 bytes",
                        (long long)op->scores_stride, (long long)rows);
    if (lik_mul_i64(rows, columns, &entries) ||
        lik_mul_i64(entries, 4 * lik_max_i64(op->q.len_max, 1), &entries))
        return lik_fail(LIK_EINVAL, "%lld x %lld scores of %lld query tokens: their argmax passes 2^63 bytes",
                        (long long)rows, (long long)columns, (long long)op->q.len_max);
    if (op->argmax) {
        if (op->argmax_dtype != LIK_I32 && op->argmax_dtype != LIK_I16)
            return lik_fail(LIK_EINVAL, "argmax_dtype is %d, must be LIK_I32 or LIK_I16", op->argmax_dtype);
        if (op->argmax_dtype == LIK_I16 && op->d.len_max > INT16_MAX)
            return lik_fail(LIK_EINVAL, "argmax_dtype is LIK_I16, d.len_max is %lld, must be at most %d",
                            (long long)op->d.len_max, INT16_MAX);
        if (check_aligned("argmax", "", op->argmax, lik_dtype_bytes(op->argmax_dtype)))
            return LIK_EINVAL;
    }
    return LIK_OK;
}

int lik_check_score(const struct lik_context *ctx, const struct lik_score *in, enum lik_check_mode mode,
                    struct lik_score *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = check_struct("score", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    status = check_problem(ctx, out);
    if (status)
        return status;
    int64_t rows = lik_score_rows(out), columns = lik_score_columns(out);
    if (mode == LIK_CHECK_RUN && rows > 0 && columns > 0 && !out->scores)
        return lik_fail(LIK_EINVAL, "scores is NULL, %lld x %lld scores are to be written", (long long)rows,
                        (long long)columns);
    return check_aligned("scores", "", out->scores, sizeof(float));
}

int lik_check_topk(const struct lik_context *ctx, const struct lik_topk *in, enum lik_check_mode mode,
                   struct lik_topk *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = check_struct("topk", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    if (out->score.struct_size != sizeof out->score)
        return lik_fail(LIK_EINVAL, "topk.score.struct_size is %zu, must be %zu", out->score.struct_size,
                        sizeof out->score);
    if (out->score.pairing != LIK_ALL && out->score.pairing != LIK_CANDIDATES)
        return lik_fail(LIK_EINVAL, "pairing is %s, top-k needs LIK_ALL or LIK_CANDIDATES",
                        out->score.pairing == LIK_PAIRS || out->score.pairing == LIK_LIST
                            ? pairing_names[out->score.pairing]
                            : "unknown");
    out->score.scores = NULL;
    out->score.scores_stride = 0;
    out->score.argmax = NULL;
    status = check_problem(ctx, &out->score);
    if (status)
        return status;
    int64_t entries;
    if (out->k < 1)
        return lik_fail(LIK_EINVAL, "k is %lld, must be at least 1", (long long)out->k);
    if (lik_mul_i64(out->score.q.count, out->k, &entries) || lik_mul_i64(entries, 16, &entries))
        return lik_fail(LIK_EINVAL, "q.count is %lld and k %lld: their product passes 2^59",
                        (long long)out->score.q.count, (long long)out->k);
    if (out->id_base < 0 || lik_add_i64(out->id_base, lik_score_columns(&out->score), &entries))
        return lik_fail(LIK_EINVAL, "id_base is %lld, must be 0 to 2^63 less the %lld documents",
                        (long long)out->id_base, (long long)lik_score_columns(&out->score));
    if (mode == LIK_CHECK_RUN && out->score.q.count > 0 && (!out->values || !out->ids))
        return lik_fail(LIK_EINVAL, "%s is NULL, %lld x %lld entries are to be written",
                        out->values ? "ids" : "values", (long long)out->score.q.count, (long long)out->k);
    if (check_aligned("values", "", out->values, sizeof(float)))
        return LIK_EINVAL;
    return check_aligned("ids", "", out->ids, sizeof(int64_t));
}

/* A gradient of an operand: in a float dtype, aligned. */
static int check_gradient(const char *name, const void *gradient, const struct lik_tokens *x,
                          const char *operand)
{
    if (!gradient)
        return LIK_OK;
    if (x->dtype > LIK_BF16)
        return lik_fail(LIK_EINVAL, "%s is wanted, %s.dtype is %s, must be f32, f16 or bf16", name, operand,
                        lik_dtype_name(x->dtype));
    return check_aligned(name, "", gradient, lik_dtype_bytes(x->dtype));
}

/* Winners are used as indices: each must be a token of its document, or -1. */
static int check_winners(const struct lik_score *op)
{
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op);
    for (int64_t n = 0; n < rows * columns; n++) {
        int64_t row = n / columns, column = n % columns;
        int64_t tokens = lik_tokens_length(&op->q, lik_score_query(op, row));
        int64_t length = lik_tokens_length(&op->d, lik_score_document(op, row, column));
        for (int64_t s = 0; s < tokens; s++) {
            int64_t t = lik_argmax_at(op, n, s);
            if (t < -1 || t >= length)
                return lik_fail(
                    LIK_EINVAL,
                    "argmax of score [%lld, %lld], query token %lld is %lld, the document has %lld tokens",
                    (long long)row, (long long)column, (long long)s, (long long)t, (long long)length);
        }
    }
    return LIK_OK;
}

int lik_check_grad(const struct lik_context *ctx, const struct lik_grad *in, enum lik_check_mode mode,
                   struct lik_grad *out)
{
    if (!ctx)
        return lik_fail(LIK_EINVAL, "ctx is NULL");
    int status = check_struct("grad", in, sizeof *in);
    if (status)
        return status;
    *out = *in;
    if (out->score.struct_size != sizeof out->score)
        return lik_fail(LIK_EINVAL, "grad.score.struct_size is %zu, must be %zu", out->score.struct_size,
                        sizeof out->score);
    out->score.scores = NULL;
    status = check_problem(ctx, &out->score);
    if (status)
        return status;
    if (check_gradient("grad_q", out->grad_q, &out->score.q, "q") ||
        check_gradient("grad_d", out->grad_d, &out->score.d, "d") ||
        check_aligned("grad_weights", "", out->grad_weights, sizeof(float)) ||
        check_aligned("grad_scores", "", out->grad_scores, sizeof(float)))
        return LIK_EINVAL;
    if (out->grad_weights && !out->score.q.weights)
        return lik_fail(LIK_EINVAL, "grad_weights is wanted, q.weights is NULL");
    int64_t rows = lik_score_rows(&out->score), columns = lik_score_columns(&out->score);
    if (out->grad_scores_stride == 0)
        out->grad_scores_stride = columns;
    if (rows > 1 && out->grad_scores_stride < columns)
        return lik_fail(LIK_EINVAL, "grad_scores_stride is %lld, a row has %lld scores",
                        (long long)out->grad_scores_stride, (long long)columns);
    int64_t reach;
    if (lik_mul_i64(rows, lik_max_i64(out->grad_scores_stride, columns), &reach) ||
        lik_mul_i64(reach, 4, &reach))
        return lik_fail(LIK_EINVAL, "grad_scores_stride is %lld: %lld rows of it pass 2^63 bytes",
                        (long long)out->grad_scores_stride, (long long)rows);
    if (mode == LIK_CHECK_RUN && rows > 0 && columns > 0) {
        if (!out->grad_scores)
            return lik_fail(LIK_EINVAL, "grad_scores is NULL, %lld x %lld are read", (long long)rows,
                            (long long)columns);
        if (!out->score.argmax && out->score.q.len_max > 0)
            return lik_fail(LIK_EINVAL, "argmax is NULL, the gradient needs the one lik_score_run wrote");
        if (out->score.argmax && ctx->backend->host_memory)
            return check_winners(&out->score);
    }
    return LIK_OK;
}

/* A copy of what lies on the device; the caller frees it. */
static int fetch(const struct lik_context *ctx, const void *from, int64_t count, size_t size, void **out)
{
    size_t bytes = (size_t)count * size;
    *out = malloc(bytes ? bytes : 1);
    if (!*out)
        return lik_fail(LIK_ENOMEM, "LIK_CHECK: no memory for %lld entries", (long long)count);
    return bytes ? ctx->backend->memory_copy(ctx, *out, from, bytes) : LIK_OK;
}

static int check_device_offsets(const struct lik_context *ctx, const char *name, const struct lik_tokens *x)
{
    void *copy = NULL;
    if (!x->offsets)
        return LIK_OK;
    int status = fetch(ctx, x->offsets, x->count + 1, lik_dtype_bytes(x->offsets_dtype), &copy);
    if (!status) {
        struct lik_tokens host = *x;
        host.offsets = copy;
        status = check_offsets(name, &host);
    }
    free(copy);
    return status;
}

static int check_device_list(const struct lik_context *ctx, const char *name, const int64_t *list, int64_t n,
                             int64_t count)
{
    void *copy = NULL;
    int status = fetch(ctx, list, n, sizeof *list, &copy);
    if (!status)
        status = check_entries(name, copy, n, count);
    free(copy);
    return status;
}

int lik_check_device(const struct lik_context *ctx, const struct lik_score *op, const struct lik_exec *exec)
{
    int status = ctx->backend->stream_synchronize(ctx, exec->stream);
    if (!status)
        status = check_device_offsets(ctx, "q", &op->q);
    if (!status)
        status = check_device_offsets(ctx, "d", &op->d);
    if (!status && op->pairing == LIK_LIST)
        status = check_device_list(ctx, "list_q", op->list_q, op->list_count, op->q.count);
    if (!status && op->pairing == LIK_LIST)
        status = check_device_list(ctx, "list_d", op->list_d, op->list_count, op->d.count);
    return status;
}

static void run_serially(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    (void)pool;
    for (int64_t i = 0; i < n; i++)
        task(arg, i);
}

int lik_check_exec(const struct lik_exec *in, struct lik_exec *out)
{
    *out = (struct lik_exec){0};
    if (in) {
        size_t first_version = offsetof(struct lik_exec, get_workspace);
        int short_one = in->struct_size == first_version; /* of a caller built with that version's header */
        int status = short_one ? LIK_OK : check_struct("exec", in, sizeof *in);
        if (status)
            return status;
        memcpy(out, in, short_one ? first_version : sizeof *out);
    }
    if (out->threads < 0 || out->threads > 4096)
        return lik_fail(LIK_EINVAL, "exec.threads is %d, must be 0 to 4096", out->threads);
    if (out->threads > 1 && !out->parallel_for)
        return lik_fail(LIK_EINVAL, "exec.threads is %d, but exec.parallel_for is NULL", out->threads);
    if (out->threads <= 1 || !out->parallel_for) {
        out->threads = 1;
        out->parallel_for = run_serially;
    }
    return LIK_OK;
}
