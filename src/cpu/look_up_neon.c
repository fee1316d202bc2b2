/* Maxima of rows that are products already, one a lane: those that LIK_ONE_HOT looks up. A
 * document's maxima stay in registers, 32 lanes at a time; what a row costs is its loads. */
#include "cpu/neon.h"

#include <arm_neon.h>
#include <string.h>

/* Vector v of V: the last may end within it, after `rest` lanes, and is not read past that. */
FORCE_INLINE float32x4_t load_products(const float *row, const int v, const int V, int rest)
{
    if (rest == 0 || v < V - 1)
        return vld1q_f32(row + 4 * v);
    float32x4_t x = vld1q_dup_f32(row + 4 * v);
    if (rest > 1)
        x = vld1q_lane_f32(row + 4 * v + 1, x, 1);
    if (rest > 2)
        x = vld1q_lane_f32(row + 4 * v + 2, x, 2);
    return x;
}

FORCE_INLINE void take_maxima(const float *const *rows, int64_t skip, int64_t count, const int V, int rest,
                              float *maxima)
{
    float32x4_t most[8];
    UNROLL
    for (int v = 0; v < V; v++)
        most[v] = vld1q_f32(maxima + 4 * v);
    for (int64_t r = 0; r < count; r++) {
        UNROLL
        for (int v = 0; v < V; v++) /* a NaN stays */
            most[v] = vmaxq_f32(most[v], load_products(rows[r] + skip, v, V, rest));
    }
    UNROLL
    for (int v = 0; v < V; v++)
        vst1q_f32(maxima + 4 * v, most[v]);
}

FORCE_INLINE void take_winners(const float *const *rows, int64_t skip, int64_t count, const int V, int rest,
                               float *maxima, int32_t *winners, const int32_t *index)
{
    float32x4_t best[8];
    int32x4_t at[8];
    UNROLL
    for (int v = 0; v < V; v++) {
        best[v] = vld1q_f32(maxima + 4 * v);
        at[v] = vld1q_s32(winners + 4 * v);
    }
    for (int64_t r = 0; r < count; r++) {
        int32x4_t number = vdupq_n_s32(index[r]);
        UNROLL
        for (int v = 0; v < V; v++) {
            float32x4_t x = load_products(rows[r] + skip, v, V, rest);
            uint32x4_t take = lik_neon_takes(x, best[v]);
            best[v] = vbslq_f32(take, x, best[v]);
            at[v] = vbslq_s32(take, number, at[v]);
        }
    }
    UNROLL
    for (int v = 0; v < V; v++) {
        vst1q_f32(maxima + 4 * v, best[v]);
        vst1q_s32(winners + 4 * v, at[v]);
    }
}

/* V vectors of lanes from `lane` on, past all rows. */
FORCE_INLINE void run_lanes(const struct lik_rows *job, int64_t lane, const int V, int rest)
{
    const float *const *rows = (const float *const *)(const void *)job->rows;
    for (int64_t at = 0, segment = 0; at < job->count; segment++) {
        int64_t count = job->ends[segment] - at;
        float *maxima = job->maxima + segment * job->stride + lane;
        if (job->winners)
            take_winners(rows + at, lane, count, V, rest, maxima, job->winners + segment * job->stride + lane,
                         job->index + at);
        else
            take_maxima(rows + at, lane, count, V, rest, maxima);
        at += count;
    }
}

void lik_neon_look_up(const struct lik_rows *job)
{
    int64_t lane = 0;
    for (; lane + 32 <= job->dim; lane += 32)
        run_lanes(job, lane, 8, 0);
    for (; lane + 8 <= job->dim; lane += 8)
        run_lanes(job, lane, 2, 0);
    for (; lane < job->dim; lane += 4)
        run_lanes(job, lane, 1, job->dim - lane < 4 ? (int)(job->dim - lane) : 0);
}
