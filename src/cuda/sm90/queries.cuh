/* The Hopper loop's query rows: where they lie, what they count, and how they come to shared
 * memory. */
#ifndef LIK_CUDA_SM90_QUERIES_CUH
#define LIK_CUDA_SM90_QUERIES_CUH

#include "cuda/sm90/consumer.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Where the warpgroup's rows of a row tile lie and what they count, and what belongs to the
 * lane's row. */
template <class Stage, int bands>
LIK_DEVICE void place_queries(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                              int row_tile)
{
    int thread = (int)threadIdx.x & 127, first_band = me.warpgroup * bands;
    named_barrier(1 + me.warpgroup, 128);
    if (thread < 64 * bands) {
        int strip = first_band * 4 + thread / 16;
        struct strip_place place = locate_strip(a.score.tiling, row_tile, strip);
        struct query_row row = a.rows_in_memory ? locate_row(a.score, place, thread & 15)
                                                : locate_plain_row(a.score, place, thread & 15);
        sm.row_at[first_band][thread] = row.at;
        sm.row_token[first_band][thread] = row.token;
        sm.row_weight[first_band][thread] = row.weight;
        sm.row_counts[first_band][thread] = row.counts ? (row.at != LIK_NOWHERE ? 1 : 2) : 0;
        if (Stage::scales && row.at != LIK_NOWHERE) {
            if (a.score.op.d.scale && !a.column_factors) /* one of all documents */
                row.scale = __fmul_rn(row.scale, *a.score.op.d.scale);
            sm.row_weight[first_band][thread] = __fmul_rn(row.weight, fabsf(row.scale));
            if (row.scale < 0.0f)
                sm.row_counts[first_band][thread] = 3;
        }
        if (thread % 16 == 0)
            sm.strips[strip] = place;
    }
    named_barrier(1 + me.warpgroup, 128);
    struct strip_place place = sm.strips[(first_band + (me.lane >> 1) % bands) * 4 + me.warp];
    me.first = place.row < 0 ? -1 : place.row * a.score.op.per_query;
    me.strip = place.strip;
    if constexpr (Stage::integers) {
        me.negative = 0;
#pragma unroll
        for (int i = 0; i < 2 * bands; i++)
            if (sm.row_counts[first_band + i / 2][me.warp * 16 + me.lane / 4 + i % 2 * 8] == 3)
                me.negative |= 1u << i;
    }
}

/* Are query rows multiplied as they are stored, beside documents whose scales are taken? */
LIK_DEVICE bool rows_stand(const struct sm90_args &a)
{
    const struct lik_score &op = a.score.op;
    return op.q.dtype == op.d.dtype && !op.q.scale && (a.column_factors || !op.d.scale);
}

/* The rows so placed to shared memory, as wgmma wants them. */
template <class Stage, int bands>
LIK_DEVICE void load_queries(const struct sm90_args &a, struct shared &sm, const struct consumer<bands> &me)
{
    const struct lik_tokens &q = a.score.op.q;
    const int thread = (int)threadIdx.x & 127, chunk = thread & 7, first_band = me.warpgroup * bands;
    const int slabs = a.row_slabs, planes = Stage::row_planes(a);
    int64_t at[4 * bands]; /* of rows thread / 8, 16 more, ...: in registers for the quick copies */
#pragma unroll
    for (int i = 0; i < 4 * bands; i++)
        at[i] = sm.row_at[first_band][thread / 8 + 16 * i];
    constexpr int elements = Stage::row_elements;
    for (int slab = 0, k = chunk * elements; slab < slabs; slab += planes, k += 8 * elements) {
        int n = min(max((int)q.dim - k, 0), elements);
        char *to = me.rows + slab * SM90_ROWS_BYTES + thread / 8 * 128 + ((chunk ^ (thread / 8 & 7)) << 4);
        auto place = [&](int i) { return to + i / 4 * slabs * SM90_ROWS_BYTES + i % 4 * 16 * 128; };
        if (elements == 16 && a.score.q_vector) { /* of 8 bits, aligned to as many bytes */
#pragma unroll
            for (int i = 0; i < 8 * bands; i++) {
                const int64_t row = at[i / 2];
                const int bytes = row == LIK_NOWHERE ? 0 : min(max(n - i % 2 * 8, 0), 8);
                copy_async_8(place(i / 2) + i % 2 * 8,
                             (const uint8_t *)q.data + (bytes ? row + k + i % 2 * 8 : 0), bytes);
            }
            continue;
        }
        if (!Stage::converts && elements == 8 && a.score.q_vector && (!Stage::scales || rows_stand(a))) {
#pragma unroll
            for (int i = 0; i < 4 * bands; i++)
                copy_async_16(place(i), (const uint16_t *)q.data + (at[i] == LIK_NOWHERE ? 0 : at[i] + k),
                              at[i] == LIK_NOWHERE ? 0 : 2 * n);
            continue;
        }
#pragma unroll 1
        for (int i = 0; i < 4 * bands; i++) {
            int64_t row = sm.row_at[first_band][thread / 8 + 16 * i];
            float sign = sm.row_counts[first_band][thread / 8 + 16 * i] == 3 ? -1.0f : 1.0f;
            Stage::store_row(a, row, sign, k, n, place, i);
        }
    }
    copy_async_commit();
    if (q.normalize) {
        for (int r = thread / 8; r < 64 * bands; r += 16) {
            struct query_row row = {sm.row_at[first_band][r], 0, 1.0f, 1.0f, true};
            float factor = row_factor(a.score, row, chunk);
            if (chunk == 0)
                sm.row_weight[first_band][r] = __fmul_rn(sm.row_weight[first_band][r], factor);
        }
    }
    copy_async_wait<0>();
    fence_async_shared();
    named_barrier(1 + me.warpgroup, 128);
}

#endif

#endif
