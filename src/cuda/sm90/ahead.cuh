/* The Hopper loop where every document or so meets other query rows: pairs. All row tiles hold
 * a query each, at the same places of its own, so that the next one's rows are copied while
 * this one's document is multiplied. Memory is waited for: pieces are multiplied in one of a
 * few widths, which is less code. */
#ifndef LIK_CUDA_SM90_AHEAD_CUH
#define LIK_CUDA_SM90_AHEAD_CUH

#include "cuda/sm90/queries.cuh"
#include "cuda/sm90/scores.cuh"
#include "cuda/wgmma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* -inf for a half's products with columns from `columns` on. */
template <int octets> LIK_DEVICE void cut_any_columns(float (&c)[64], int columns)
{
    const int left = columns - ((int)threadIdx.x & 3) * 2;
    if (columns >= octets * 8)
        return;
#pragma unroll
    for (int j = 0; j < octets; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (j * 8 + i % 2 >= left)
                c[j * 4 + i] = -INFINITY;
}

/* The pieces of a row tile's documents, two halves of `octets` octets. */
template <class Stage, bool want_argmax, int octets>
LIK_DEVICE void take_pieces_ahead(const struct sm90_args &a, struct shared &sm, struct consumer<1> &me,
                                  uint32_t ring, const float *factors, struct tile &t)
{
    const int row_tile = t.head.z;
    do {
        halves c;
        Stage::template multiply<1, octets, true>(a, sm, me, ring, c, t.at);
        const float *factor = factors + t.index * columns_most(1, 0);
        if (a.column_factors)
            mbarrier_wait(&sm.factors_ready[t.index], t.pass);
        wgmma_wait<1>();
#pragma unroll
        for (int h = 0; h < 2; h++) {
            if (h) {
                wgmma_wait<0>();
                Stage::give_back(a, sm, me.lane, t.at);
            }
            if (a.column_factors)
                scale_products<octets, 1>(&c[h], factor + h * octets * 8);
            cut_any_columns<octets>(c[h], t.head.x - h * octets * 8);
            take_half<want_argmax, octets>(c[h], t.head.w + h * octets * 8, me.m.best, me.m.at);
        }
        if (documents_of(t))
            finish_rows<1, want_argmax>(a, sm, me, sm.heads[t.index], 1, NULL);
        next<Stage>(sm, t);
    } while (__any_sync(~0u, t.head.z == row_tile));
}

/* Starts the copies of a query's rows to `to`; at: elements from the query's first, of rows
 * thread / 8, 16 more, ... */
LIK_DEVICE void copy_rows(const struct sm90_args &a, char *to, int64_t query, const int64_t (&at)[4])
{
    const struct lik_tokens &q = a.score.op.q;
    const int thread = (int)threadIdx.x & 127, chunk = thread & 7;
    to += thread / 8 * 128 + ((chunk ^ (thread / 8 & 7)) << 4);
    for (int slab = 0, k = chunk * 8; slab < a.row_slabs; slab++, k += 64, to += SM90_ROWS_BYTES) {
        const int bytes = 2 * min(max((int)q.dim - k, 0), 8);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool some = at[i] != LIK_NOWHERE && bytes;
            copy_async_16(to + i * 16 * 128,
                          (const uint16_t *)q.data + (some ? query * q.strides.sequence + at[i] + k : 0),
                          some ? bytes : 0);
        }
    }
    copy_async_commit();
}

/* Long because rows are copied between the pieces of two documents. */
template <class Stage, bool want_argmax>
LIK_DEVICE void consume_ahead(const struct sm90_args &a, struct shared &sm, struct consumer<1> &me,
                              uint32_t ring, const float *factors, int row_tile)
{
    const int thread = (int)threadIdx.x & 127, rows_bytes = a.row_slabs * SM90_ROWS_BYTES;
    char *const rows = me.rows;
    struct tile t = {};
    t.index = -1;
    t.head.z = row_tile;
    registers_take<208>();
    reset(me.m);
    place_queries<Stage>(a, sm, me, row_tile);
    int64_t at[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        at[i] = sm.row_at[me.warpgroup][thread / 8 + 16 * i];
        if (at[i] != LIK_NOWHERE)
            at[i] -= row_tile * a.score.op.q.strides.sequence;
    }
    wait_for_kernels_before();
    copy_rows(a, rows, row_tile, at);
    next<Stage>(sm, t);
    for (int n = 1; t.head.z >= 0; n ^= 1) {
        me.first = me.first < 0 ? -1 : t.head.z * a.score.op.per_query;
        me.rows = rows + (n ^ 1) * rows_bytes;
        copy_async_wait<0>();
        fence_async_shared();
        named_barrier(1 + me.warpgroup, 128); /* and the rows before these are done with */
        if (t.head.z + 1 < a.score.tiling.tiles)
            copy_rows(a, rows + n * rows_bytes, t.head.z + 1, at);
        const int half = (a.octets_per_tile + 1) / 2;
        if (half <= 4)
            take_pieces_ahead<Stage, want_argmax, 4>(a, sm, me, ring, factors, t);
        else if (half <= 8)
            take_pieces_ahead<Stage, want_argmax, 8>(a, sm, me, ring, factors, t);
        else if (half <= 12)
            take_pieces_ahead<Stage, want_argmax, 12>(a, sm, me, ring, factors, t);
        else
            take_pieces_ahead<Stage, want_argmax, 16>(a, sm, me, ring, factors, t);
    }
    copy_async_wait<0>();
}

#endif

#endif
