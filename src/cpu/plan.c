/* Cutting a problem into items and laying out the scratch. Everything here is arithmetic on
 * sizes: no data is read but the offsets' last entry.
 *
 * The sizes, and why:
 * - a block of queries fills about a quarter of a megabyte packed, so that it stays in L2 while
 *   documents stream past it;
 * - an item has at least 2,048 document tokens where the problem has them: packing a query
 *   token again for an item costs about as much as 18 document tokens against it, so less than
 *   1 %;
 * - a stream of rows is at most 48 KB as f32 when several panels pass over it (it stays in L2),
 *   192 rows at most, or 384 that are made as kernels ask for them;
 * - more than 224 elements are taken in slices, so that a panel's slice and the rows of a tile
 *   stay in L1 (32 KB): the product sums wait in `partial` between slices, in the same order of
 *   addition. */
#include "cpu/stream.h"

#include <stdio.h>
#include <string.h>

#define BLOCK_BYTES     (256 << 10)
#define ITEM_TOKENS     2048
#define SERIAL_PRODUCTS 4000000 /* about 100 us of work: below it one thread is faster */

#define LOOK_UP_ELEMENTS 4 /* of a product that takes as long as one that is looked up */

/* Average tokens of a document, at least 1. */
static int64_t typical_length(const struct lik_tokens *d)
{
    if (!d->offsets || d->count == 0)
        return lik_max_i64(d->len_max, 1);
    return lik_max_i64((lik_offset_at(d, d->count) - lik_offset_at(d, 0)) / d->count, 1);
}

static void cut_items(const struct lik_score *op, const struct lik_exec *exec, struct lik_cpu_plan *plan)
{
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op), length = typical_length(&op->d);
    int64_t tokens = lik_max_i64(op->q.len_max, 1), dim = op->q.dim;
    int64_t block_tokens = lik_max_i64(BLOCK_BYTES / (4 * dim), plan->geometry->panel_lanes);
    const int looked_up = plan->loader->query_group == 0;
    plan->rows_per_item = op->pairing == LIK_ALL && !looked_up ? lik_max_i64(block_tokens / tokens, 1) : 1;
    plan->rows_per_item = lik_min_i64(plan->rows_per_item, lik_max_i64(rows, 1));
    int64_t block_queries = op->pairing == LIK_ALL ? plan->rows_per_item : 1;
    plan->lanes = lik_round_up(lik_max_i64(block_queries * op->q.len_max, 1), plan->geometry->vector_lanes);
    plan->stride = plan->lanes + plan->geometry->vector_lanes;

    /* Long enough items that packing does not show, short enough that every thread gets
     * several. */
    int64_t least = lik_divide_up(ITEM_TOKENS, length),
            all = lik_divide_up(rows, plan->rows_per_item) * columns;
    int64_t share = lik_divide_up(lik_max_i64(all, 1), 8 * exec->threads);
    plan->columns_per_item = lik_max_i64(lik_min_i64(lik_max_i64(share, least), columns), 1);
    if (op->pairing != LIK_ALL && columns < least) {
        share = lik_divide_up(lik_max_i64(rows, 1), 8 * exec->threads);
        plan->rows_per_item =
            lik_max_i64(lik_min_i64(lik_divide_up(least, lik_max_i64(columns, 1)), share), 1);
    }
    plan->item_rows = lik_divide_up(rows, plan->rows_per_item);
    plan->item_columns = lik_divide_up(columns, plan->columns_per_item);

    double products = (double)rows * (double)columns * (double)length * (double)tokens *
                      (double)(looked_up ? LOOK_UP_ELEMENTS : dim);
    int64_t items = plan->item_rows * plan->item_columns;
    plan->slots = products < SERIAL_PRODUCTS ? 1 : lik_max_i64(lik_min_i64(exec->threads, items), 1);
    if (plan->slots == 1 && op->pairing == LIK_ALL) { /* nothing to balance: longer streams */
        plan->columns_per_item = lik_max_i64(columns, 1);
        plan->item_columns = columns > 0;
    }
}

/* Tokens that are loaded, over all items. */
static double decoded_tokens(const struct lik_score *op, const struct lik_cpu_plan *plan)
{
    double rows = (double)(op->pairing == LIK_ALL ? plan->item_rows : lik_score_rows(op));
    return rows * (double)lik_score_columns(op) * (double)typical_length(&op->d);
}

/* Rows of f32 scratch: see enum lik_cpu_rows. */
static int64_t widened_rows(const struct lik_cpu_plan *plan)
{
    int64_t ring = 2 * plan->geometry->tile_rows, all = plan->stream_rows + ring;
    if (plan->geometry->makes_tiles || plan->geometry->reads_halves)
        return plan->loader->rows == LIK_ROWS_LOADED ? all : 0;
    switch (plan->loader->rows) {
    case LIK_ROWS_READ: return 0;
    case LIK_ROWS_WIDENED: return plan->panels > 1 ? all : ring;
    case LIK_ROWS_RING: return ring;
    default: return all;
    }
}

int lik_cpu_plan_score(const struct lik_cpu_kernels *kernels, const struct lik_score *op,
                       const struct lik_exec *exec, struct lik_cpu_plan *plan, struct lik_layout *layout)
{
    const struct lik_cpu_geometry *g = &kernels->geometry;
    const struct lik_cpu_loader *loader = lik_cpu_find_loader(kernels, op);
    *plan = (struct lik_cpu_plan){.geometry = g, .loader = loader};
    plan->rows = (const lik_rows_kernel *)(const void *)((const char *)kernels + loader->kernels);
    cut_items(op, exec, plan);
    const int looked_up = loader->query_group == 0;
    int64_t dim = looked_up ? 0 : op->q.dim, row_elements = looked_up ? plan->lanes : dim;
    int64_t block_queries = op->pairing == LIK_ALL ? plan->rows_per_item : 1;
    int integer = loader->query_group > 1;
    plan->panels = lik_divide_up(plan->lanes, g->panel_lanes);
    const int split = g->splits_i16 && loader->query_group == 2 && !loader->bf16;
    plan->depth = integer ? lik_round_up(dim, (split ? 4 : loader->query_group) * g->integer_words) : dim;
    plan->slice = dim;
    if (!integer && dim > g->slice_elements)
        plan->slice =
            lik_round_up(lik_divide_up(dim, lik_divide_up(dim, g->slice_elements)), g->slice_unit_elements);
    plan->stream_rows = g->stream_rows;
    if (plan->panels > 1 || loader->rows == LIK_ROWS_LOADED) {
        int64_t units = lik_max_i64(g->stream_bytes / (4 * row_elements) / g->stream_unit_rows, 1);
        plan->stream_rows = lik_min_i64(units * g->stream_unit_rows, g->stream_rows);
    }
    plan->made_rows = plan->stream_rows;
    if (loader->decode && g->asks_rows && plan->panels == 1) {
        plan->stream_rows = LIK_STREAM_ROWS_MAX;
        plan->made_rows = 2 * LIK_CPU_MADE_AT_ONCE;
    }
    plan->segments = lik_min_i64(lik_max_i64(8192 / plan->lanes, 4), plan->stream_rows);
    plan->widened_stride = lik_round_up(row_elements, g->vector_lanes);
    plan->widened_rows = widened_rows(plan);
    if (g->makes_tiles && !looked_up) {
        plan->tile_rows = (plan->panels > 1 ? plan->stream_rows : 0) + 2 * g->tile_rows;
        plan->tile_stride = lik_round_up(lik_divide_up(dim, loader->query_group), g->vector_lanes);
    }

    struct lik_layout slot = {0};
    int64_t words = lik_divide_up(plan->depth, lik_max_i64(loader->query_group, 1));
    plan->packed = lik_layout_take(&slot, plan->lanes * words, 4, 64);
    lik_layout_spare(&slot, g->panel_lanes * words, 4);
    plan->lane_bias = lik_layout_take(&slot, plan->lanes, 4, 64);
    lik_layout_spare(&slot, g->panel_lanes, 4);
    plan->lane_token = lik_layout_take(&slot, plan->lanes, 4, 64);
    plan->lane_weight = lik_layout_take(&slot, plan->lanes, 4, 64);
    plan->lane_start = lik_layout_take(&slot, plan->lanes, 4, 64);
    plan->query_lane = lik_layout_take(&slot, block_queries + 1, 8, 64);
    plan->maxima = lik_layout_take(&slot, plan->segments * plan->stride, 4, 64);
    plan->winners = lik_layout_take(&slot, op->argmax ? plan->segments * plan->stride : 0, 4, 64);
    int64_t sliced = plan->slice < dim ? plan->stream_rows : 0;
    plan->partial = lik_layout_take(&slot, sliced * g->panel_lanes, 4, 64);
    lik_layout_spare(
        &slot, sliced ? sliced * g->vector_lanes + g->tile_rows * (g->panel_lanes + g->vector_lanes) : 0, 4);
    plan->widened = lik_layout_take(&slot, plan->widened_rows * plan->widened_stride, 4, 64);
    plan->tiles = lik_layout_take(&slot, plan->tile_rows * plan->tile_stride, 4, 64);
    plan->token = lik_layout_take(&slot, g->vector_lanes * dim, 4, 64);
    plan->integers = lik_layout_take(&slot, integer ? dim : 0, 4, 64);
    int64_t gathered = loader->gathered_bytes ? plan->made_rows : 0;
    plan->gathered = lik_layout_take(&slot, gathered * dim, loader->gathered_bytes, 64);
    lik_layout_spare(&slot, gathered ? 2 * g->tile_rows * dim : 0, loader->gathered_bytes);
    const int rounds = lik_cpu_rounds_centroids(loader);
    plan->rounds_all = rounds && decoded_tokens(op, plan) >= (double)op->d.codec->centroid_count;
    plan->rounded =
        lik_layout_take(&slot, rounds && !plan->rounds_all ? lik_cpu_rounded_bytes(dim) : 0, 1, 64);
    lik_layout_repeat(layout, &slot, plan->slots, 64, &plan->slot_bytes);
    plan->rounded_all = lik_layout_take(layout, plan->rounds_all ? op->d.codec->centroid_count : 0,
                                        lik_cpu_rounded_bytes(dim), 64);
    if (layout->failed)
        return lik_fail(LIK_EINVAL,
                        "the workspace of %lld threads for queries of %lld lanes passes 2^63 bytes",
                        (long long)plan->slots, (long long)plan->lanes);
    return LIK_OK;
}

void lik_cpu_slot_init(const struct lik_cpu_plan *plan, char *scratch, struct lik_cpu_slot *slot)
{
    memset(&slot->block, 0, sizeof slot->block);
    slot->block.packed = scratch + plan->packed;
    slot->block.lane_bias = (int32_t *)(void *)(scratch + plan->lane_bias);
    slot->block.lane_token = (int32_t *)(void *)(scratch + plan->lane_token);
    slot->block.lane_weight = (float *)(void *)(scratch + plan->lane_weight);
    slot->block.lane_start = (float *)(void *)(scratch + plan->lane_start);
    slot->block.query_lane = (int64_t *)(void *)(scratch + plan->query_lane);
    slot->maxima = (float *)(void *)(scratch + plan->maxima);
    slot->winners = (int32_t *)(void *)(scratch + plan->winners);
    slot->partial = (float *)(void *)(scratch + plan->partial);
    slot->widened = (float *)(void *)(scratch + plan->widened);
    slot->tiles = (int32_t *)(void *)(scratch + plan->tiles);
    slot->gathered = (int8_t *)(void *)(scratch + plan->gathered);
    slot->token = (float *)(void *)(scratch + plan->token);
    slot->integers = (int32_t *)(void *)(scratch + plan->integers);
    slot->rounded = (struct lik_cpu_rounded *)(void *)(scratch + plan->rounded);
}

void lik_cpu_name_tokens(const struct lik_cpu_kernels *kernels, const char *verb, const struct lik_tokens *x,
                         const char *suffix, char *variant, size_t size)
{
    char storage[24] = "";
    if (x->storage == LIK_RESIDUAL)
        snprintf(storage, sizeof storage, "_residual%d", x->codec->bits);
    snprintf(variant, size, "%s_%s%s%s_d%lld_%s", verb, lik_dtype_name(x->dtype), storage, suffix,
             (long long)x->dim, kernels->level);
}

void lik_cpu_name(const struct lik_cpu_kernels *kernels, const char *verb, const struct lik_score *op,
                  const struct lik_cpu_plan *plan, char *variant, size_t size)
{
    lik_cpu_name_tokens(kernels, verb, &op->d, plan->loader->suffix, variant, size);
}
