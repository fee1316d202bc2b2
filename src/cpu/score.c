/* Scoring: all panels of a block of packed queries pass over each stream of document rows (the
 * rows stay in L2), each folding into maxima[segment][lane]; then the segments whose document
 * ended are summed to scores. A document that does not end in its stream carries its maxima to
 * the first segment of the next. */
#include "cpu/stream.h"

#include <string.h>

/* One panel, all slices of its elements, past the stream. */
static void run_panel(const struct lik_cpu_job *job, lik_rows_kernel kernel, int64_t panel_stride,
                      const void *packed, struct lik_rows *rows, int64_t element_bytes)
{
    const struct lik_cpu_plan *plan = &job->plan;
    int64_t dim = job->op->q.dim;
    float *widened = rows->widened;
    for (int64_t k = 0; k < dim; k += plan->slice) {
        rows->first = k == 0;
        rows->last = k + plan->slice >= dim;
        rows->dim = lik_min_i64(plan->slice, dim - k);
        rows->skip = k * element_bytes;
        rows->packed = (const char *)packed + k * panel_stride * 4;
        rows->widened = widened + (rows->widened_rows > 2 * plan->geometry->tile_rows ? k : 0);
        kernel(rows);
    }
    rows->widened = widened;
}

/* Every panel of the block past the stream, into maxima and winners. */
static void run_stream(const struct lik_cpu_job *job, struct lik_cpu_stream *stream, int scaled,
                       struct lik_cpu_slot *slot)
{
    const struct lik_cpu_plan *plan = &job->plan;
    const struct lik_cpu_geometry *g = plan->geometry;
    const struct lik_cpu_block *block = &slot->block;
    struct lik_rows rows = {
        .rows = stream->rows, .count = stream->count, .index = stream->index, .ends = stream->ends};
    rows.row_scale = scaled ? stream->row_scale : NULL;
    rows.stride = plan->stride;
    rows.partial = plan->slice < job->op->q.dim ? slot->partial : NULL;
    rows.widened = slot->widened;
    rows.widened_stride = plan->widened_stride;
    rows.widened_rows = plan->widened_rows;
    rows.tiles = slot->tiles;
    rows.tile_stride = plan->tile_stride;
    rows.panels = (int32_t)plan->panels;
    struct lik_cpu_maker maker = {job, stream, slot};
    if (plan->loader->decode && plan->made_rows < plan->stream_rows)
        rows.make = lik_cpu_make_rows, rows.maker = &maker;
    else if (plan->loader->decode)
        lik_cpu_make_rows(&maker, stream->count);
    if (plan->loader->query_group == 0) {
        rows.maxima = slot->maxima;
        rows.winners = job->op->argmax ? slot->winners : NULL;
        rows.dim = block->lanes;
        job->kernels->look_up(&rows);
        return;
    }
    const lik_rows_kernel *kernels = plan->rows;
    const int f32 = lik_cpu_is_f32(plan->loader);
    int64_t group = plan->loader->query_group, element_bytes = plan->loader->element_bytes;
    int64_t depth = plan->depth, offset = 0, lane = 0;
    for (int p = 0; p < block->panels; p++) {
        int shape = lik_panel_shape(g, kernels, block->lanes - lane);
        const char *packed = (const char *)block->packed + offset * depth * (4 / group);
        rows.maxima = slot->maxima + lane;
        rows.winners = job->op->argmax ? slot->winners + lane : NULL;
        /* A panel with a part of a vector has tiles of its own form; it is the last. */
        rows.tiles_ready = p > 0 && lik_panel_lanes(g, shape) % g->vector_lanes == 0;
        if (group > 1) {
            rows.lane_bias = block->lane_bias + lane;
            rows.packed = packed;
            rows.dim = job->op->q.dim;
            kernels[shape](&rows);
        } else {
            run_panel(job, kernels[shape], lik_panel_stride(g, shape, f32), packed, &rows, element_bytes);
            /* the first panel left the rows widened */
            if (plan->loader->rows == LIK_ROWS_WIDENED && plan->widened_rows && p == 0 && block->panels > 1) {
                for (int64_t r = 0; r < stream->count + 2 * g->tile_rows; r++)
                    stream->rows[r] =
                        slot->widened + lik_min_i64(r, stream->count - 1) * plan->widened_stride;
                kernels = job->kernels->f32;
                element_bytes = sizeof(float);
            }
        }
        offset += lik_panel_stride(g, shape, f32);
        lane += lik_panel_lanes(g, shape);
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
static void finish_stream(struct lik_cpu_job *job, const struct lik_cpu_stream *stream, int64_t slot_number,
                          const struct lik_cpu_slot *slot)
{
    const struct lik_score *op = job->op;
    const struct lik_cpu_block *block = &slot->block;
    int64_t stride = job->plan.stride, columns = lik_score_columns(op);
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
    int64_t stride = job->plan.stride;
    struct lik_cpu_cursor at = {.column = column, .column_end = column_end};
    struct lik_cpu_stream stream;
    int carried = 0, kept = 0;
    while (at.column < at.column_end) {
        lik_cpu_fill_stream(job->op, row, &job->plan, &at, kept, &stream);
        int64_t start = 0;
        for (int64_t s = 0; s < stream.segments; s++) {
            int32_t first = stream.ends[s] > start ? stream.index[start] : -1;
            if (s > 0 || !kept) {
                float *maxima = slot->maxima + s * stride;
                memcpy(maxima, slot->block.lane_start, (size_t)slot->block.lanes * sizeof *maxima);
                for (int64_t l = slot->block.lanes; l < stride; l++)
                    maxima[l] = -INFINITY;
                for (int64_t l = 0; job->op->argmax && l < stride; l++)
                    slot->winners[s * stride + l] = first;
            }
            start = stream.ends[s];
        }
        if (stream.count > 0) {
            int scaled = lik_cpu_load_stream(job, row, &stream, slot);
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

static void slot_begin(const struct run *run, int64_t slot_number, struct lik_cpu_slot *slot)
{
    const struct lik_cpu_job *job = run->job;
    lik_cpu_slot_init(&job->plan, run->scratch + (size_t)slot_number * job->plan.slot_bytes, slot);
    lik_cpu_reader_init(&slot->queries, job->kernels, &job->op->q);
    lik_cpu_reader_init(&slot->documents, job->kernels, &job->op->d);
}

static void round_slot(void *arg, int64_t slot_number)
{
    struct lik_cpu_slot slot;
    slot_begin(arg, slot_number, &slot);
    lik_cpu_round_centroids(((struct run *)arg)->job, &slot);
}

static void run_slot(void *arg, int64_t slot_number)
{
    struct lik_cpu_job *job = ((struct run *)arg)->job;
    const struct lik_cpu_plan *plan = &job->plan;
    const struct lik_score *op = job->op;
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op),
            items = plan->item_rows * plan->item_columns;
    struct lik_cpu_slot slot;
    const int prepares = job->kernels->begin && plan->loader->query_group > 1;
    slot_begin(arg, slot_number, &slot);
    if (prepares)
        job->kernels->begin();
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (item >= items)
            break;
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
    if (prepares)
        job->kernels->end();
}

static void run_slots(struct run *run, void (*body)(void *, int64_t))
{
    struct lik_cpu_job *job = run->job;
    atomic_store_explicit(&job->next, 0, memory_order_relaxed);
    if (job->plan.slots == 1)
        body(run, 0);
    else
        job->exec->parallel_for(job->exec->pool, job->plan.slots, body, run);
}

void lik_cpu_run(struct lik_cpu_job *job, char *scratch)
{
    struct run run = {.job = job, .scratch = scratch};
    if (job->plan.rounds_all) {
        job->rounded = (struct lik_cpu_rounded *)(void *)(scratch + job->plan.rounded_all);
        run_slots(&run, round_slot);
    }
    run_slots(&run, run_slot);
}

int lik_cpu_score(const struct lik_context *ctx, const struct lik_score *op, struct lik_exec *exec,
                  struct lik_plan *plan)
{
    struct lik_cpu_job job = {.kernels = ctx->kernels, .op = op, .exec = exec};
    struct lik_layout layout = {0};
    char *scratch;
    int status = lik_cpu_plan_score(job.kernels, op, exec, &job.plan, &layout);
    if (status)
        return status;
    if (plan) {
        lik_cpu_name(job.kernels, "score", op, &job.plan, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    status = lik_workspace_take(ctx, exec, &layout, &scratch);
    if (status)
        return status;
    lik_cpu_run(&job, scratch);
    return LIK_OK;
}
