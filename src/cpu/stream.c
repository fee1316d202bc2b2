/* Row streams: walking over documents, and what becomes of their tokens. See stream.h. */
#include "cpu/stream.h"

#include "base/dtype.h"

#include <string.h>

static inline void enter_document(const struct lik_score *op, int64_t row, struct lik_cpu_cursor *at)
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
static int next_kept(const struct lik_tokens *d, struct lik_cpu_cursor *at)
{
    if (at->mask)
        while (at->token < at->length && !at->mask[at->token * d->mask_strides.token])
            at->token++;
    return at->token < at->length;
}

static const char *token_address(const struct lik_tokens *d, const struct lik_cpu_cursor *at)
{
    return (const char *)d->data +
           (at->base + at->token * d->strides.token) * (int64_t)lik_dtype_bytes(d->dtype);
}

/* Lists rows n ... n + take - 1: the tokens from the cursor's on, none of them masked. */
static void list_rows(const struct lik_tokens *d, const struct lik_cpu_cursor *at, int64_t n, int64_t take,
                      const void **rows)
{
    const int64_t step = take > 1 ? d->strides.token * (int64_t)lik_dtype_bytes(d->dtype) : 0;
    const char *row = take > 0 ? token_address(d, at) : NULL;
    for (int64_t r = 0; r < take; r++)
        rows[n + r] = row + r * step;
}

/* Fills what is past count, which kernels prefetch, widen or compute without using: where
 * documents store rows, with the tokens that come next, then the last one again. */
static void look_ahead(const struct lik_score *op, int64_t row, const struct lik_cpu_plan *plan,
                       struct lik_cpu_cursor at, struct lik_cpu_stream *stream)
{
    const int stored = !plan->loader->load && stream->count > 0;
    int64_t n = stream->count, end = n + 2 * plan->geometry->tile_rows;
    for (int64_t r = n; r < end; r++)
        stream->row_scale[r] = 0;
    while (stored && n < end) {
        if (!at.open) {
            if (at.column >= at.column_end)
                break;
            enter_document(op, row, &at);
        }
        if (next_kept(&op->d, &at)) {
            const int64_t take = at.mask ? 1 : lik_min_i64(end - n, at.length - at.token);
            list_rows(&op->d, &at, n, take, stream->rows);
            n += take;
            at.token += take;
        } else {
            at.open = 0;
            at.column++;
        }
    }
    for (; n < end; n++)
        stream->rows[n] = stored ? stream->rows[n - 1] : NULL;
}

void lik_cpu_fill_stream(const struct lik_score *op, int64_t row, const struct lik_cpu_plan *plan,
                         struct lik_cpu_cursor *at, int carried_kept, struct lik_cpu_stream *stream)
{
    const struct lik_tokens *d = &op->d;
    const int stored = !plan->loader->load;
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
            if (stored)
                list_rows(d, at, n, take, stream->rows);
            for (int64_t r = 0; r < take; r++)
                stream->index[n + r] = (int32_t)(at->token + r);
            kept |= take > 0;
            n += take;
            at->token += take;
        } else {
            for (; n < plan->stream_rows && next_kept(d, at); at->token++, n++) {
                if (stored)
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
    look_ahead(op, row, plan, *at, stream);
}

/* Norms of rows from ... to - 1. */
static void take_norms(const struct lik_cpu_job *job, int64_t from, int64_t to, struct lik_cpu_stream *stream,
                       struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    for (int64_t r = from; r < to; r++) {
        const float *token = stream->rows[r];
        if (job->plan.loader->query_group > 1) {
            job->kernels->widen(slot->token, stream->rows[r], d->dtype, d->dim);
            token = slot->token;
        }
        stream->norm[r] = lik_cpu_norm(job->kernels, token, d->dim);
    }
}

enum { SEVERAL = 5 }; /* so many scales are copied faster than one by one */

/* Scales of the segment's rows from ... to - 1 into row_scale. */
static void take_scales(const struct lik_tokens *d, int64_t j, int64_t from, int64_t to,
                        struct lik_cpu_stream *stream)
{
    const int64_t scales = from < to ? lik_tokens_base(d, &d->scale_strides, j) : 0;
    const float *floats = d->scale_dtype == LIK_F32 ? d->scale : NULL;
    if (floats && d->scale_strides.token == 1 && from + SEVERAL <= to &&
        stream->index[to - 1] - stream->index[from] == to - 1 - from) {
        memcpy(stream->row_scale + from, floats + scales + stream->index[from],
               (size_t)(to - from) * sizeof *floats);
        return;
    }
    for (int64_t r = from; r < to; r++) {
        const int64_t at = scales + stream->index[r] * d->scale_strides.token;
        stream->row_scale[r] = floats ? floats[at] : lik_load_f32(d->scale, d->scale_dtype, at);
    }
}

/* Factors of rows from ... to - 1: of their scales, norms and units. */
static void take_factors(const struct lik_cpu_job *job, int64_t from, int64_t to,
                         struct lik_cpu_stream *stream)
{
    const struct lik_tokens *d = &job->op->d;
    const int units = job->plan.loader->units;
    if (d->scale && !d->normalize && !units)
        return;
    for (int64_t r = from; r < to; r++) {
        float scale = d->scale ? stream->row_scale[r] : 1.0f;
        if (d->normalize)
            scale /= lik_clamp_norm(fabsf(scale) * stream->norm[r]);
        if (units)
            scale *= stream->unit[r];
        stream->row_scale[r] = scale;
    }
}

void lik_cpu_make_rows(void *opaque, int64_t to)
{
    const struct lik_cpu_maker *maker = opaque;
    struct lik_cpu_stream *stream = maker->stream;
    const int64_t from = stream->made;
    to = lik_min_i64(lik_round_up(to, LIK_CPU_MADE_AT_ONCE), stream->count);
    if (to <= from)
        return;
    maker->job->plan.loader->decode(maker->job, from, to, stream, maker->slot);
    take_factors(maker->job, from, to, stream);
    stream->made = to;
}

/* Rows that will be made, over and over in the same place. */
static void place_rows(struct lik_cpu_stream *stream, int8_t *place, int64_t bytes, int64_t room)
{
    for (int64_t r = 0; r < stream->count; r += room)
        for (int64_t i = 0; i < room && r + i < stream->count; i++)
            stream->rows[r + i] = place + i * bytes;
}

int lik_cpu_load_stream(const struct lik_cpu_job *job, int64_t row, struct lik_cpu_stream *stream,
                        struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    const struct lik_cpu_loader *loader = job->plan.loader;
    const int64_t count = stream->count;
    int64_t r = 0;
    if (!loader->load && !d->scale && !d->normalize)
        return 0;
    for (int64_t s = 0; s < stream->segments; r = stream->ends[s++]) {
        int64_t j = lik_score_document(job->op, row, stream->column[s]), end = stream->ends[s];
        if (loader->load && r < end)
            loader->load(job, j, r, end, stream, slot);
        if (d->normalize && !loader->units)
            take_norms(job, r, end, stream, slot);
        if (d->scale)
            take_scales(d, j, r, end, stream);
    }
    stream->made = 0;
    if (loader->decode)
        place_rows(stream, slot->gathered, d->dim, job->plan.made_rows);
    else
        take_factors(job, 0, count, stream);
    for (r = count; loader->load && r < count + 2 * job->plan.geometry->tile_rows; r++)
        stream->rows[r] = stream->rows[count - 1];
    return d->scale || d->normalize || loader->units;
}
