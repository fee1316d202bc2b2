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

/* Norms of rows from ... to - 1 into row_scale. */
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
        stream->row_scale[r] = lik_cpu_norm(job->kernels, token, d->dim);
    }
}

enum { SEVERAL = 5 }; /* so many scales are copied faster than one by one */

int lik_cpu_load_stream(const struct lik_cpu_job *job, int64_t row, struct lik_cpu_stream *stream,
                        struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    const struct lik_cpu_loader *loader = job->plan.loader;
    const float *floats = d->scale && d->scale_dtype == LIK_F32 ? d->scale : NULL;
    const int as_stored = floats && d->scale_strides.token == 1 && !d->normalize && !loader->units;
    int64_t r = 0;
    for (int64_t s = 0; s < stream->segments && (loader->load || d->scale || d->normalize); s++) {
        int64_t j = lik_score_document(job->op, row, stream->column[s]), end = stream->ends[s];
        if (loader->load && r < end)
            loader->load(job, j, r, end, stream, slot);
        if (d->normalize && !loader->units)
            take_norms(job, r, end, stream, slot);
        int64_t scales = d->scale && r < end ? lik_tokens_base(d, &d->scale_strides, j) : 0;
        if (as_stored && r + SEVERAL <= end && stream->index[end - 1] - stream->index[r] == end - 1 - r) {
            memcpy(stream->row_scale + r, floats + scales + stream->index[r],
                   (size_t)(end - r) * sizeof *floats);
            r = end;
        }
        for (; r < end; r++) {
            float scale = 1.0f;
            const int64_t place = scales + stream->index[r] * d->scale_strides.token;
            if (floats)
                scale = floats[place];
            else if (d->scale)
                scale = lik_load_f32(d->scale, d->scale_dtype, place);
            if (d->normalize)
                scale /= lik_clamp_norm(fabsf(scale) * stream->row_scale[r]);
            if (loader->units)
                scale *= stream->unit[r];
            stream->row_scale[r] = scale;
        }
    }
    for (; loader->load && r < stream->count + 2 * job->plan.geometry->tile_rows; r++)
        stream->rows[r] = stream->rows[stream->count - 1];
    return d->scale || d->normalize || loader->units;
}
