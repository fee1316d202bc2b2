/* How a forward pass will run: which kernel, in which row tiles, with what beside it. */
#include "cuda/plan/plan.h"

#include "base/error.h"
#include "base/size.h"
#include "shared/tokens.h"

#include <stdarg.h>
#include <stdio.h>

int lik_cuda_vector_loads(const struct lik_tokens *x)
{
    int64_t bytes = (int64_t)lik_dtype_bytes(x->dtype), unit = bytes == 1 ? 8 : 16;
    int64_t strides = x->strides.token | (x->offsets ? 0 : x->strides.sequence | x->strides.group);
    return x->dim_stride == 1 && (int64_t)(uintptr_t)x->data % unit == 0 && strides % (unit / bytes) == 0;
}

struct row_tiling lik_row_tiling(const struct lik_score *op, int strips_per_tile)
{
    struct row_tiling t = {.rows = lik_score_rows(op), .strips_per_tile = strips_per_tile};
    t.strips_per_query = (int32_t)((op->q.len_max + LIK_STRIP_ROWS - 1) / LIK_STRIP_ROWS);
    if (op->pairing != LIK_ALL || (t.rows == 1 && t.strips_per_query <= strips_per_tile)) {
        t.parts = (t.strips_per_query + strips_per_tile - 1) / strips_per_tile;
        t.tiles = t.rows * t.parts;
    } else {
        t.tiles = (t.rows * t.strips_per_query + strips_per_tile - 1) / strips_per_tile;
    }
    return t;
}

int lik_cuda_plan_score(const struct gpu_limits *gpu, const struct lik_score *op, struct lik_layout *layout,
                        struct score_plan *p)
{
    *p = (struct score_plan){.path = SCORE_MMA, .columns = lik_score_columns(op)};
    p->q_vector = lik_cuda_vector_loads(&op->q);
    p->d_vector = lik_cuda_vector_loads(&op->d);
    mma_plan_products(gpu, op, &p->mma);
    const int64_t rows = lik_score_rows(op);
    p->scores = rows * p->columns;
    if (p->scores == 0 || op->q.len_max == 0)
        return LIK_OK;
    const int64_t strips = (op->q.len_max + LIK_STRIP_ROWS - 1) / LIK_STRIP_ROWS;
    const int64_t together = op->pairing == LIK_ALL ? rows * strips : strips;
    int whole = together <= 2 ? 2 : 8; /* strips of a row tile */
    if (sm90_takes(gpu, op)) {
        p->path = SCORE_SM90;
        sm90_plan_tile(gpu, op, together, &p->sm90);
        whole = 4 * p->sm90.tile.bands * p->sm90.tile.warpgroups;
    } else {
        p->factor_count = op->d.normalize ? lik_tokens_rows(&op->d) : 0;
    }
    p->tiling = lik_row_tiling(op, whole);
    if (p->tiling.tiles > INT32_MAX)
        return lik_fail(LIK_EUNSUPPORTED, "%lld tiles of queries, the CUDA backend takes %d",
                        (long long)p->tiling.tiles, INT32_MAX);
    if (p->tiling.parts ? strips > whole : whole % strips != 0)
        p->partial_count = p->scores * strips;
    p->factor = lik_cuda_take(layout, p->factor_count, 4);
    p->partial = lik_cuda_take(layout, p->partial_count, 4);
    if (p->path == SCORE_SM90)
        sm90_plan_schedule(gpu, op, &p->tiling, &p->sm90);
    else
        mma_plan_runs(gpu, p->columns, &p->tiling, &p->mma);
    return LIK_OK;
}

void lik_cuda_name_score(const struct score_plan *p, const struct lik_score *op, char *text, size_t size)
{
    static const char *const products[] = {"mma_bf16", "mma_f16", "mma_f16_sm75", "f32"};
    const char *q = lik_dtype_name(op->q.dtype), *d = lik_dtype_name(op->d.dtype);
    if (p->path == SCORE_SM90)
        snprintf(text, size, "score_%s_d%lld_sm90_%dx%d", d, (long long)op->d.dim,
                 64 * p->sm90.tile.bands * p->sm90.tile.warpgroups, 8 * p->sm90.tile.octets_per_tile);
    else
        snprintf(text, size, "score_%s_%s_d%lld_%s", q, d, (long long)op->d.dim, products[p->mma.products]);
}

/* Appends to a text of `size` bytes of which `used` are taken; returns what is taken then. */
__attribute__((format(printf, 4, 5))) static size_t add(char *text, size_t size, size_t used,
                                                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text + used, size - used, format, args);
    va_end(args);
    used += n > 0 ? (size_t)n : 0;
    return used < size ? used : size - 1;
}

static size_t print_sm90(const struct sm90_plan *p, char *text, size_t size, size_t n)
{
    const struct sm90_regime *r = &p->regime;
    const struct sm90_tile *t = &p->tile;
    const struct sm90_ring *g = &p->ring;
    const struct sm90_schedule *s = &p->schedule;
    n = add(text, size, n, "%s%s%s, %d slabs of %d elements", r->uniform ? "uniform" : "walked",
            r->normalize ? " normalized" : "", r->rows_in_memory ? " rows in memory" : "", r->slabs,
            r->slab_elements);
    if (r->planes)
        n = add(text, size, n, " in %d planes", r->planes);
    n = add(text, size, n, "; tile %d x %d rows, %d octets", t->warpgroups, 64 * t->bands,
            t->octets_per_tile);
    if (t->octets_per_piece)
        n = add(text, size, n, " in pieces of %d", t->octets_per_piece);
    n = add(text, size, n, ", %d document%s%s%s", t->documents_per_tile,
            t->documents_per_tile == 1 ? "" : "s", t->loose ? " loose" : "",
            t->one_width ? " one width" : "");
    n = add(text, size, n, "; ring %d stages of %d x %d bytes", g->stages, g->slabs_per_stage, g->slab_bytes);
    if (g->token_groups || g->norm_warps)
        n = add(text, size, n, " through %d groups, %d norm warps in %d teams", g->token_groups,
                g->norm_warps, g->norm_teams);
    n = add(text, size, n, ", %d bytes; %d blocks", g->shared_bytes, s->blocks);
    if (s->blocks_per_row_tile)
        n = add(text, size, n, ", %d a row tile%s%s", s->blocks_per_row_tile, s->in_turn ? " in turn" : "",
                s->by_tokens ? " by tokens" : "");
    return add(text, size, n, ", %lld pairs each and %d more", (long long)s->pairs_each, s->pairs_extra);
}

static size_t print_mma(const struct mma_plan *p, char *text, size_t size, size_t n)
{
    return add(text, size, n, "planes %d x %d in %d orders%s%s; %lld runs of %lld documents", p->q_planes,
               p->d_planes, p->orders, p->q_raw ? ", q as it is" : "", p->d_raw ? ", d as it is" : "",
               (long long)p->runs, (long long)p->run_documents);
}

void lik_cuda_print_score(const struct score_plan *p, char *text, size_t size)
{
    if (!p->scores || !p->tiling.tiles) {
        snprintf(text, size, "nothing to multiply");
        return;
    }
    size_t n = add(text, size, 0, "%lld row tiles of %d strips, %d a query%s; ", (long long)p->tiling.tiles,
                   p->tiling.strips_per_tile, p->tiling.strips_per_query, p->tiling.parts ? " each" : "");
    n = p->path == SCORE_SM90 ? print_sm90(&p->sm90, text, size, n) : print_mma(&p->mma, text, size, n);
    if (p->factor_count)
        n = add(text, size, n, "; %lld factors", (long long)p->factor_count);
    if (p->partial_count)
        add(text, size, n, "; %lld partial sums", (long long)p->partial_count);
}
