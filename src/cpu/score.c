/* Streaming documents past packed queries.
 *
 * A stream is up to plan.stream_rows kept tokens of consecutive documents, as row pointers. All
 * panels of the block pass over it (the rows stay in L2), each folding into
 * maxima[segment][lane]; then the segments whose document ended are summed to scores. A
 * document that does not end in its stream carries its maxima to the first segment of the
 * next. */
#include "cpu/driver.h"

#include "base/size.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define STREAM_MAX 192

/* A walk over the tokens of documents column ... column_end - 1 of one row of the score
 * matrix. */
struct cursor {
    int64_t column, column_end;
    int64_t token, length; /* of the current document */
    int64_t base;
    const uint8_t *mask;
    int open; /* is the current document entered? */
};

struct stream {
    int64_t count, segments;
    const void *rows[STREAM_MAX + 2 * LIK_TILE_ROWS];
    int32_t index[STREAM_MAX + 2 * LIK_TILE_ROWS];
    float row_scale[STREAM_MAX + 2 * LIK_TILE_ROWS];
    int32_t ends[STREAM_MAX + 1];
    int64_t column[STREAM_MAX + 1];
    int8_t kept[STREAM_MAX + 1]; /* has the segment's document kept a token, in this stream or before? */
    int last_complete;           /* did the last segment's document end? */
};

static inline void enter_document(const struct lik_score *op, int64_t row, struct cursor *at)
{
    const struct lik_tokens *d = &op->d;
    int64_t j = lik_score_document(op, row, at->column);
    at->token = 0;
    at->length = lik_tokens_length(d, j);
    at->base = lik_tokens_base(d, &d->strides, j);
    at->mask = NULL;
    /* what no token stands at may lie outside of the array, or there is none */
    if (d->mask && at->length > 0)
        at->mask = d->mask + lik_tokens_base(d, &d->mask_strides, j);
    at->open = 1;
}

/* Moves to the next kept token of the current document; 0 if there is none. */
static int next_kept(const struct lik_tokens *d, struct cursor *at)
{
    if (at->mask)
        while (at->token < at->length && !at->mask[at->token * d->mask_strides.token])
            at->token++;
    return at->token < at->length;
}

static const char *token_address(const struct lik_tokens *d, const struct cursor *at)
{
    return (const char *)d->data +
           (at->base + at->token * d->strides.token) * (int64_t)lik_dtype_bytes(d->dtype);
}

/* Fills the pointers past count that kernels prefetch, widen or compute without using: the
 * tokens that come next, then the last one again. */
static void look_ahead(const struct lik_score *op, int64_t row, struct cursor at, struct stream *stream)
{
    const void *row_pointer = stream->count ? stream->rows[stream->count - 1] : NULL;
    int more = stream->count > 0;
    for (int64_t n = stream->count; n < stream->count + 2 * LIK_TILE_ROWS; n++) {
        while (more) {
            if (!at.open) {
                if (at.column >= at.column_end) {
                    more = 0;
                    break;
                }
                enter_document(op, row, &at);
            }
            if (next_kept(&op->d, &at)) {
                row_pointer = token_address(&op->d, &at);
                at.token++;
                break;
            }
            at.open = 0;
            at.column++;
        }
        stream->rows[n] = row_pointer;
        stream->row_scale[n] = 0;
    }
}

/* Lists the next rows of the walk. `carried`: the first segment continues a document that has
 * kept a token or not. */
static void fill_stream(const struct lik_score *op, int64_t row, const struct lik_cpu_plan *plan,
                        struct cursor *at, int carried_kept, struct stream *stream)
{
    const struct lik_tokens *d = &op->d;
    int64_t n = 0, segment = 0;
    int kept = carried_kept;
    for (;;) {
        if (!at->open) {
            enter_document(op, row, at);
            kept = 0;
        }
        const int64_t room = plan->stream_rows - n;
        if (!at->mask) {
            int64_t take = lik_min_i64(room, at->length - at->token);
            const char *address = take > 0 ? token_address(d, at) : NULL;
            int64_t step = take > 1 ? d->strides.token * (int64_t)lik_dtype_bytes(d->dtype) : 0;
            for (int64_t r = 0; r < take; r++) {
                stream->rows[n + r] = address + r * step;
                stream->index[n + r] = (int32_t)(at->token + r);
            }
            kept |= take > 0;
            n += take;
            at->token += take;
        } else {
            for (; n < plan->stream_rows && next_kept(d, at); at->token++, n++) {
                stream->rows[n] = token_address(d, at);
                stream->index[n] = (int32_t)at->token;
                kept = 1;
            }
        }
        stream->ends[segment] = (int32_t)n;
        stream->column[segment] = at->column;
        stream->kept[segment] = (int8_t)kept;
        segment++;
        stream->last_complete = !next_kept(d, at);
        if (!stream->last_complete)
            break;
        at->open = 0;
        at->column++;
        if (at->column >= at->column_end || segment == plan->segments || n == plan->stream_rows)
            break;
    }
    stream->count = n;
    stream->segments = segment;
    look_ahead(op, row, *at, stream);
}

/* Row r of the stream as f32 where the loader or the normalization needs it so; NULL where
 * not. */
static const float *load_row(const struct lik_cpu_job *job, struct stream *stream, int64_t r,
                             struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    int64_t base =
        ((const char *)stream->rows[r] - (const char *)d->data) / (int64_t)lik_dtype_bytes(d->dtype);
    if (job->plan.loader == LIK_LOAD_GATHER) {
        float *row = slot->widened + r * job->plan.widened_stride;
        lik_cpu_load_token(job->kernels, d, base, row);
        stream->rows[r] = row;
        return row;
    }
    if (job->plan.loader >= LIK_LOAD_I8_Q16 && d->dim_stride != 1) {
        int8_t *row = slot->gathered + r * d->dim;
        for (int64_t k = 0; k < d->dim; k++)
            row[k] = ((const int8_t *)d->data)[base + k * d->dim_stride];
        stream->rows[r] = row;
    }
    if (!d->normalize)
        return NULL;
    if (d->dtype == LIK_F32)
        return stream->rows[r];
    lik_cpu_load_token(job->kernels, d, base, slot->token);
    return slot->token;
}

/* Converts or copies the stream's rows where the loader asks for it, and computes their
 * factors. Returns whether factors count. */
static int load_stream(const struct lik_cpu_job *job, int64_t row, struct stream *stream,
                       struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    int copied =
        job->plan.loader == LIK_LOAD_GATHER || (job->plan.loader >= LIK_LOAD_I8_Q16 && d->dim_stride != 1);
    if (copied || d->normalize) {
        for (int64_t r = 0; r < stream->count; r++) {
            const float *raw = load_row(job, stream, r, slot);
            if (d->normalize) /* the scale is applied below */
                stream->row_scale[r] = lik_cpu_norm(job->kernels, raw, d->dim);
        }
        for (int64_t r = stream->count; copied && r < stream->count + 2 * LIK_TILE_ROWS; r++)
            stream->rows[r] = stream->rows[stream->count - 1];
    }
    if (!d->scale && !d->normalize)
        return 0;
    int64_t r = 0;
    for (int64_t s = 0; s < stream->segments; s++) {
        int64_t j = lik_score_document(job->op, row, stream->column[s]);
        const float *scales = NULL;
        if (d->scale && r < stream->ends[s])
            scales = d->scale + lik_tokens_base(d, &d->scale_strides, j);
        for (; r < stream->ends[s]; r++) {
            float scale = scales ? scales[stream->index[r] * d->scale_strides.token] : 1.0f;
            if (d->normalize)
                scale /= lik_clamp_norm(fabsf(scale) * stream->row_scale[r]);
            stream->row_scale[r] = scale;
        }
    }
    return 1;
}

/* One panel, all slices of its elements, past the stream. */
static void run_panel(const struct lik_cpu_job *job, const lik_rows_kernel *kernels, int shape,
                      const void *packed, struct lik_rows *rows, int64_t element)
{
    const struct lik_cpu_plan *plan = &job->plan;
    int64_t dim = job->op->q.dim;
    float *widened = rows->widened;
    for (int64_t k = 0; k < dim; k += plan->slice) {
        rows->first = k == 0;
        rows->last = k + plan->slice >= dim;
        rows->dim = lik_min_i64(plan->slice, dim - k);
        rows->skip = k * element;
        rows->packed = (const char *)packed + k * lik_panel_stride(shape) * 4;
        rows->widened = widened + (rows->widened_rows > 2 * LIK_TILE_ROWS ? k : 0);
        kernels[shape](rows);
    }
    rows->widened = widened;
}

/* Every panel of the block past the stream, into maxima and winners. */
static void run_stream(const struct lik_cpu_job *job, struct stream *stream, int scaled,
                       struct lik_cpu_slot *slot)
{
    const struct lik_cpu_plan *plan = &job->plan;
    const struct lik_cpu_kernels *kernels = job->kernels;
    const struct lik_cpu_block *block = &slot->block;
    struct lik_rows rows = {
        .rows = stream->rows, .count = stream->count, .index = stream->index, .ends = stream->ends};
    rows.row_scale = scaled ? stream->row_scale : NULL;
    rows.stride = plan->lanes + 8;
    rows.partial = plan->slice < job->op->q.dim ? slot->partial : NULL;
    rows.widened = slot->widened;
    rows.widened_stride = plan->widened_stride;
    rows.widened_rows = plan->widened_rows;
    const lik_rows_kernel *table[] = {kernels->f32, kernels->f16,    kernels->bf16,
                                      kernels->f32, kernels->i8_q16, kernels->i8_q7};
    const lik_rows_kernel *kernel = table[plan->loader];
    int integer = plan->loader >= LIK_LOAD_I8_Q16, group = plan->loader == LIK_LOAD_I8_Q7 ? 4
                                                           : integer                      ? 2
                                                                                          : 1;
    int64_t depth = lik_round_up(job->op->q.dim, group), offset = 0, lane = 0;
    int64_t element = plan->loader == LIK_LOAD_F16 || plan->loader == LIK_LOAD_BF16 ? 2 : 4;
    for (int p = 0; p < block->panels; p++) {
        int shape = lik_panel_shape((block->lanes - lane + 3) / 4);
        if (integer)
            shape += shape & 1;
        const char *packed = (const char *)block->packed + offset * depth * (4 / group);
        rows.maxima = slot->maxima + lane;
        rows.winners = job->op->argmax ? slot->winners + lane : NULL;
        if (integer) {
            rows.lane_bias = block->lane_bias + lane;
            rows.packed = packed;
            rows.dim = job->op->q.dim;
            kernel[shape](&rows);
        } else {
            run_panel(job, kernel, shape, packed, &rows, element);
            if (element == 2 && block->panels > 1) { /* the first panel left the rows widened */
                for (int64_t r = 0; r < stream->count + 2 * LIK_TILE_ROWS; r++)
                    stream->rows[r] =
                        slot->widened + lik_min_i64(r, stream->count - 1) * plan->widened_stride;
                kernel = kernels->f32;
                element = 4;
            }
        }
        offset += lik_panel_stride(shape);
        lane += 4 * shape;
    }
}

static void write_winners(const struct lik_score *op, int64_t score, int64_t lanes, const int32_t *token,
                          const int32_t *winners)
{
    int64_t length = op->q.len_max;
    if (op->argmax_dtype == LIK_I16) {
        int16_t *out = (int16_t *)op->argmax + score * length;
        if (lanes < length)
            memset(out, 0xff, (size_t)length * sizeof *out);
        for (int64_t l = 0; l < lanes; l++)
            out[token[l]] = (int16_t)winners[l];
    } else {
        int32_t *out = (int32_t *)op->argmax + score * length;
        if (lanes < length)
            memset(out, 0xff, (size_t)length * sizeof *out);
        for (int64_t l = 0; l < lanes; l++)
            out[token[l]] = winners[l];
    }
}

/* Sums the maxima of the segments whose document ended. */
static void finish_stream(struct lik_cpu_job *job, const struct stream *stream, int64_t slot_number,
                          const struct lik_cpu_slot *slot)
{
    const struct lik_score *op = job->op;
    const struct lik_cpu_block *block = &slot->block;
    int64_t stride = job->plan.lanes + 8, columns = lik_score_columns(op);
    for (int64_t s = 0; s < stream->segments - !stream->last_complete; s++) {
        const float *maxima = slot->maxima + s * stride;
        const int32_t *winners = op->argmax ? slot->winners + s * stride : NULL;
        int64_t column = stream->column[s];
        for (int64_t n = 0; n < block->queries; n++) {
            int64_t row = block->row + n, lane = block->query_lane[n],
                    lanes = block->query_lane[n + 1] - lane;
            float score = 0;
            if (stream->kept[s] && lanes > 0)
                score = job->kernels->sum(maxima + lane, block->weighted ? block->lane_weight + lane : NULL,
                                          lanes);
            if (job->topk) {
                struct lik_heap heap = {.k = job->heap_k, .smallest = job->topk->smallest};
                int64_t *count = job->heap_counts + slot_number * op->q.count + row;
                heap.count = *count;
                int64_t at = ((slot_number - 1) * op->q.count + row) * heap.k;
                heap.values = slot_number ? job->heap_values + at : job->topk->values + row * job->topk->k;
                heap.ids = slot_number ? job->heap_ids + at : job->topk->ids + row * job->topk->k;
                lik_heap_push(&heap, score, job->topk->id_base + column);
                *count = heap.count;
            } else {
                op->scores[row * op->scores_stride + column] = score;
            }
            if (op->argmax)
                write_winners(op, row * columns + column, lanes, block->lane_token + lane, winners + lane);
        }
    }
}

/* The packed block against columns [column, column_end) of score row `row`. */
static void run_documents(struct lik_cpu_job *job, int64_t row, int64_t column, int64_t column_end,
                          int64_t slot_number, struct lik_cpu_slot *slot)
{
    int64_t stride = job->plan.lanes + 8;
    struct cursor at = {.column = column, .column_end = column_end};
    struct stream stream;
    int carried = 0, kept = 0;
    while (at.column < at.column_end) {
        fill_stream(job->op, row, &job->plan, &at, kept, &stream);
        int64_t start = 0;
        for (int64_t s = 0; s < stream.segments; s++) {
            int32_t first = stream.ends[s] > start ? stream.index[start] : -1;
            if (s > 0 || !kept) {
                float *maxima = slot->maxima + s * stride;
                for (int64_t l = 0; l < stride; l++)
                    maxima[l] = -INFINITY;
                for (int64_t l = 0; job->op->argmax && l < stride; l++)
                    slot->winners[s * stride + l] = first;
            }
            start = stream.ends[s];
        }
        if (stream.count > 0) {
            int scaled = load_stream(job, row, &stream, slot);
            run_stream(job, &stream, scaled, slot);
        }
        finish_stream(job, &stream, slot_number, slot);
        carried = !stream.last_complete;
        kept = carried && stream.kept[stream.segments - 1];
        if (carried && stream.segments > 1) {
            memcpy(slot->maxima, slot->maxima + (stream.segments - 1) * stride,
                   (size_t)stride * sizeof *slot->maxima);
            if (job->op->argmax)
                memcpy(slot->winners, slot->winners + (stream.segments - 1) * stride,
                       (size_t)stride * sizeof *slot->winners);
        }
    }
}

struct run {
    struct lik_cpu_job *job;
    char *scratch;
};

static void run_slot(void *arg, int64_t slot_number)
{
    struct lik_cpu_job *job = ((struct run *)arg)->job;
    const struct lik_cpu_plan *plan = &job->plan;
    const struct lik_score *op = job->op;
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op),
            items = plan->item_rows * plan->item_columns;
    struct lik_cpu_slot slot;
    lik_cpu_slot_init(plan, ((struct run *)arg)->scratch + (size_t)slot_number * plan->slot_bytes, &slot);
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (item >= items)
            return;
        int64_t row = item / plan->item_columns * plan->rows_per_item,
                column = item % plan->item_columns * plan->columns_per_item;
        int64_t row_end = lik_min_i64(row + plan->rows_per_item, rows);
        int64_t column_end = lik_min_i64(column + plan->columns_per_item, columns);
        if (op->pairing == LIK_ALL) {
            if (slot.block.queries == 0 || slot.block.row != row)
                lik_cpu_pack(job->kernels, op, plan, row, row_end - row, &slot);
            run_documents(job, row, column, column_end, slot_number, &slot);
            continue;
        }
        for (; row < row_end; row++) {
            if (slot.block.queries == 0 || lik_score_query(op, slot.block.row) != lik_score_query(op, row))
                lik_cpu_pack(job->kernels, op, plan, row, 1, &slot);
            slot.block.row = row;
            run_documents(job, row, column, column_end, slot_number, &slot);
        }
    }
}

void lik_cpu_run(struct lik_cpu_job *job, char *scratch)
{
    struct run run = {.job = job, .scratch = scratch};
    atomic_store_explicit(&job->next, 0, memory_order_relaxed);
    if (job->plan.slots == 1)
        run_slot(&run, 0);
    else
        job->exec->parallel_for(job->exec->pool, job->plan.slots, run_slot, &run);
}

void lik_cpu_name(const struct lik_context *ctx, const char *verb, const struct lik_score *op,
                  const struct lik_cpu_plan *plan, char *variant, size_t size)
{
    const struct lik_cpu_kernels *kernels = ctx->kernels;
    snprintf(variant, size, "%s_%s%s_d%lld_%s", verb, lik_dtype_name(op->d.dtype),
             lik_cpu_loader_name(plan->loader), (long long)op->d.dim, kernels->level);
}

int lik_cpu_score(const struct lik_context *ctx, const struct lik_score *op, struct lik_exec *exec,
                  struct lik_plan *plan)
{
    struct lik_cpu_job job = {.kernels = ctx->kernels, .op = op, .exec = exec};
    struct lik_layout layout = {0};
    char *scratch;
    int status = lik_cpu_plan_score(op, exec, &job.plan, &layout);
    if (status)
        return status;
    if (plan) {
        lik_cpu_name(ctx, "score", op, &job.plan, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    status = lik_workspace_take(ctx, exec, &layout, &scratch);
    if (status)
        return status;
    lik_cpu_run(&job, scratch);
    return LIK_OK;
}
