/* The forward pass over documents of LIK_ONE_HOT: products are looked up, in one of two ways. A
 * warp scores a pair; it reads the document's codes 32 at a time, a lane each, and hands them
 * round.
 *
 * By fours: where the products of four query tokens with one element lie together, aligned,
 * eight lanes look up one document token for two strips, 16 bytes a lane, and a load takes four
 * document tokens. The four groups of lanes have each seen every fourth token; their maxima
 * meet at the document's end. A table that lies otherwise is first brought into that order in
 * the workspace (lay_out_table), where there are enough codes to be worth it.
 *
 * By elements: the lanes are the query tokens of two strips, wherever their products lie.
 *
 * Maxima do not mind a token that is taken twice: lanes whose document token is dropped or past
 * the end name the group's first kept one again, and no load is conditional. Both ways give the
 * same bits: maxima are exact, and added in one order. A code out of range is never read
 * through; its product is NaN. */
#include "cuda/kernels.cuh"
#include "cuda/score.cuh"
#include "shared/residual.h"

#define WARPS     4 /* of a block */
#define AT_ONCE   8 /* loads under way */
#define TILE      32
#define QUIET_NAN 0x7fc00000u

struct look_up_args {
    struct score_args score;
    int64_t pairs;
    const float *table; /* [queries, dim, 16 strips] in the order of the rows; NULL: as it lies */
};

/* The document token that a lane has read, of the next group: no load waits for another. */
struct coming {
    int64_t code;
    bool kept;
};

/* Past L1, which the table has for itself. */
LIK_DEVICE int64_t load_code(const struct lik_tokens &d, int64_t at)
{
    switch (d.codes_dtype) {
    case LIK_I16: return __ldcg((const unsigned short *)d.codes + at);
    case LIK_I32: return __ldcg((const int *)d.codes + at);
    default: return __ldcg((const long long *)d.codes + at);
    }
}

LIK_DEVICE struct coming load_codes(const struct lik_tokens &d, int64_t codes, int64_t mask, int first,
                                    int length)
{
    const int token = first + ((int)threadIdx.x & 31);
    struct coming c = {0, false};
    if (token < length) {
        c.code = load_code(d, codes + token * d.codes_strides.token);
        c.kept = token_kept(d, mask, token);
    }
    return c;
}

/* Up to 32 document tokens, a lane each. */
struct group {
    uint32_t code;    /* of a kept token, within range */
    int token;        /* whose code that is */
    int count;        /* of tokens, the last of which is kept; 0: none is */
    unsigned invalid; /* kept tokens whose codes are out of range */
};

LIK_DEVICE struct group group_of(const struct lik_tokens &d, const struct coming &c, int first)
{
    const int lane = (int)threadIdx.x & 31;
    const bool valid = (uint64_t)c.code < (uint64_t)d.dim;
    struct group g = {c.kept && valid ? (uint32_t)c.code : 0, first + lane, 0, 0};
    unsigned all = __ballot_sync(~0u, c.kept);
    g.invalid = __ballot_sync(~0u, c.kept && !valid);
    if (!all)
        return g;
    g.count = 32 - __clz((int)all);
    int from = c.kept ? lane : __ffs((int)all) - 1;
    g.code = __shfl_sync(~0u, g.code, from);
    g.token = __shfl_sync(~0u, g.token, from);
    return g;
}

/* One query token's maximum over the tokens so far; `at`: whose it is, -1: none yet. */
struct maximum {
    float best;
    int at;
};

template <bool want_argmax> LIK_DEVICE void take_product(struct maximum &m, float x, int t)
{
    if (!want_argmax) {
        m.best = max_nan(m.best, x);
    } else if (m.at < 0 || x > m.best || (x != x && m.best == m.best)) {
        m.best = x;
        m.at = t;
    }
}

/* Takes the products of a group's tokens with the query token whose element 0 is at `table`. */
template <bool want_argmax>
LIK_DEVICE void take_elements(struct maximum &m, const struct group &g, const float *table, int64_t step)
{
    for (int first = 0; first < g.count; first += AT_ONCE) {
        float x[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            x[i] = __ldg(table + __shfl_sync(~0u, g.code, first + i) * step);
        if (g.invalid) { /* hardly ever */
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                x[i] = g.invalid >> (first + i) & 1 ? __uint_as_float(QUIET_NAN) : x[i];
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            take_product<want_argmax>(m, x[i], want_argmax ? __shfl_sync(~0u, g.token, first + i) : 0);
    }
}

/* The same with four query tokens, whose elements 0 are at `table`: a lane takes every fourth
 * document token. `step` in bytes. */
template <bool want_argmax>
LIK_DEVICE void take_fours(struct maximum (&m)[4], const struct group &g, const char *table, uint32_t step)
{
    for (int base = 0; base < g.count; base += 4 * AT_ONCE) {
        const int first = base + ((int)threadIdx.x & 31) / 8;
        float4 x[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            x[i] = __ldg((const float4 *)(table + (uint64_t)__shfl_sync(~0u, g.code, first + 4 * i) * step));
        if (g.invalid) {
            const float nan = __uint_as_float(QUIET_NAN);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                if (g.invalid >> (first + 4 * i) & 1)
                    x[i] = make_float4(nan, nan, nan, nan);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int t = want_argmax ? __shfl_sync(~0u, g.token, first + 4 * i) : 0;
            take_product<want_argmax>(m[0], x[i].x, t);
            take_product<want_argmax>(m[1], x[i].y, t);
            take_product<want_argmax>(m[2], x[i].z, t);
            take_product<want_argmax>(m[3], x[i].w, t);
        }
    }
}

template <bool want_argmax> LIK_DEVICE void meet(struct maximum &m, const struct maximum &sent, int apart)
{
    float best = __shfl_xor_sync(~0u, sent.best, apart);
    if (want_argmax)
        keep_better(m.best, m.at, best, __shfl_xor_sync(~0u, sent.at, apart));
    else
        m.best = max_nan(m.best, best);
}

/* By fields: a struct that is chosen goes through local memory. */
LIK_DEVICE struct maximum pick(bool first, const struct maximum &a, const struct maximum &b)
{
    return {first ? a.best : b.best, first ? a.at : b.at};
}

/* Lane l has maxima of rows 4 (l % 8) ... + 3 over its tokens, and ends with that of row l over
 * all tokens. */
template <bool want_argmax> LIK_DEVICE struct maximum join_groups(const struct maximum (&m)[4])
{
    const int lane = (int)threadIdx.x & 31, from = lane % 4 * 8 + lane / 4;
    const bool upper = lane & 16, odd = lane & 8;
    struct maximum low = pick(upper, m[2], m[0]), high = pick(upper, m[3], m[1]);
    meet<want_argmax>(low, pick(upper, m[0], m[2]), 16);
    meet<want_argmax>(high, pick(upper, m[1], m[3]), 16);
    struct maximum own = pick(odd, high, low);
    meet<want_argmax>(own, pick(odd, low, high), 8);
    own.best = __shfl_sync(~0u, own.best, from);
    own.at = want_argmax ? __shfl_sync(~0u, own.at, from) : -1;
    return own;
}

/* Adds the 16 rows of a strip, a lane each, in the order of add_strip. */
LIK_DEVICE float add_lanes(float v)
{
    v = __fadd_rn(v, __shfl_xor_sync(~0u, v, 8));
#pragma unroll
    for (int o = 1; o < 8; o *= 2)
        v = __fadd_rn(v, __shfl_xor_sync(~0u, v, o));
    return v;
}

/* The maxima of two strips, whose first is `strip`, of the query of score row r: the lane's row
 * (of `row`) has its own. `any`: the document keeps a token. The caller's lanes have all
 * converged. */
template <bool want_argmax, bool by_fours>
LIK_DEVICE struct maximum look_at_document(const struct look_up_args &a, int64_t r, int strip,
                                           const struct query_row &row, int64_t codes, int64_t mask,
                                           int length, bool &any)
{
    const struct lik_score &op = a.score.op;
    const int lane = (int)threadIdx.x & 31;
    /* lanes without a token look up another's product */
    const unsigned reading = __ballot_sync(~0u, row.at != LIK_NOWHERE);
    struct maximum m[by_fours ? 4 : 1];
#pragma unroll
    for (int i = 0; i < (by_fours ? 4 : 1); i++)
        m[i] = {-INFINITY, -1};
    const float *table = (const float *)op.q.data;
    int64_t step = op.q.dim_stride;
    if (by_fours && a.table) {
        step = a.score.tiling.strips_per_query * LIK_STRIP_ROWS;
        const int first = strip * LIK_STRIP_ROWS, own = first + lane % 8 * 4;
        table = a.table + lik_score_query(&op, r) * op.q.dim * step + (own < step ? own : first);
    } else {
        const int other = by_fours ? lane % 8 * 4 : lane, least = (__ffs((int)reading) - 1) & 31;
        table += __shfl_sync(~0u, row.at, reading >> other & 1 ? other : least);
    }
    struct coming next = load_codes(op.d, codes, mask, 0, length);
    for (int64_t first = 0; first < length; first += 32) {
        const struct group g = group_of(op.d, next, (int)first);
        if (first + 32 < length)
            next = load_codes(op.d, codes, mask, (int)first + 32, length);
        any = any || g.count;
        if (!reading || !g.count)
            continue;
        if constexpr (by_fours)
            take_fours<want_argmax>(m, g, (const char *)table, (uint32_t)step * 4);
        else
            take_elements<want_argmax>(m[0], g, table, step);
    }
    if constexpr (by_fours)
        return join_groups<want_argmax>(m);
    else
        return m[0];
}

template <bool want_argmax, bool by_fours>
static __global__ void __launch_bounds__(32 * WARPS) look_up(const __grid_constant__ struct look_up_args a)
{
    const struct lik_score &op = a.score.op;
    const struct lik_tokens &d = op.d;
    const int lane = (int)threadIdx.x & 31, strips = a.score.tiling.strips_per_query;
    int64_t held = -1;
    struct query_row row;
    for (int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32; n < a.pairs;
         n += (int64_t)gridDim.x * WARPS) {
        int64_t r = n / a.score.columns, column = n - r * a.score.columns;
        int64_t j = lik_score_document(&op, r, column);
        int length = sequence_length(d, j);
        int64_t codes = length > 0 ? lik_tokens_base(&d, &d.codes_strides, j) : 0;
        int64_t mask = length > 0 ? lik_tokens_base(&d, &d.mask_strides, j) : 0;
        float score = 0.0f;
        for (int strip = 0; strip < strips; strip += 2) {
            if (r != held || strips > 2) {
                int own = strip + lane / 16;
                struct strip_place place = {own < strips ? r : -1, own};
                row = locate_row(a.score, place, lane & 15);
                held = r;
            }
            bool any = false;
            const struct maximum m =
                look_at_document<want_argmax, by_fours>(a, r, strip, row, codes, mask, length, any);
            float v = row.counts && any ? __fmul_rn(row.weight, m.best) : 0.0f;
            if ((row.counts && row.at == LIK_NOWHERE) ||
                length < 0) /* the query, the document is out of range */
                v = __uint_as_float(QUIET_NAN);
            if (want_argmax && strip + lane / 16 < strips && row.token < op.q.len_max)
                store_argmax(op, n * op.q.len_max + row.token,
                             row.counts && any && row.at != LIK_NOWHERE ? m.at : -1);
            v = add_lanes(v);
            float next = __shfl_sync(~0u, v, 16);
            score = strip ? __fadd_rn(score, v) : v;
            score = strip + 1 < strips ? __fadd_rn(score, next) : score;
        }
        if (lane == 0)
            op.scores[r * op.scores_stride + column] = score;
    }
}

/* The table by fours: a block brings TILE elements of two strips through shared memory, read
 * along whichever axis lies together. Rows without a token are zeros. The pairing is LIK_ALL,
 * so that score rows are queries. */
static __global__ void __launch_bounds__(256)
    lay_out_table(const __grid_constant__ struct score_args a, float *out, int64_t blocks)
{
    __shared__ float tile[TILE][TILE + 1]; /* [element][row] */
    const struct lik_tokens &q = a.op.q;
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x / 32, strips = a.tiling.strips_per_query;
    const int64_t tiles = (q.dim + TILE - 1) / TILE;
    const int doubles = (strips + 1) / 2;
    for (int64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
        const int64_t i = b / (tiles * doubles), rest = b - i * tiles * doubles;
        const int strip = (int)(rest / tiles) * 2, own = strip + lane / 16;
        const int64_t first = rest % tiles * TILE;
        const struct strip_place place = {own < strips ? i : -1, own};
        const struct query_row row = locate_row(a, place, lane & 15);
        for (int n = warp; n < TILE; n += 8) { /* the n-th row, or element */
            const bool along = q.dim_stride == 1;
            const int64_t of_row = __shfl_sync(~0u, row.at, n), at = along ? of_row : row.at;
            const int element = along ? lane : n;
            float x = 0.0f;
            if (at != LIK_NOWHERE && first + element < q.dim)
                x = __ldg((const float *)q.data + at + (first + element) * q.dim_stride);
            tile[element][along ? n : lane] = x;
        }
        __syncthreads();
        for (int n = warp; n < TILE; n += 8)
            if (own < strips && first + n < q.dim)
                out[((i * q.dim + first + n) * strips + strip) * LIK_STRIP_ROWS + lane] = tile[n][lane];
        __syncthreads();
    }
}

int lik_cuda_look_up_prepare(struct lik_gpu *)
{
    return LIK_OK;
}

int lik_cuda_look_up_launch(const struct lik_gpu *, const struct score_args *score,
                            const struct score_plan *plan, char *workspace, cudaStream_t stream)
{
    struct look_up_args a = {*score, plan->scores, NULL};
    if (plan->table_count) {
        float *table = (float *)(workspace + plan->table);
        struct score_args b = *score;
        b.op.pairing = LIK_ALL;
        const int64_t blocks =
            b.op.q.count * ((b.op.q.dim + TILE - 1) / TILE) * ((b.tiling.strips_per_query + 1) / 2);
        lay_out_table<<<(unsigned)(blocks < 1 << 30 ? blocks : 1 << 30), 256, 0, stream>>>(b, table, blocks);
        int status = lik_cuda_launched("lay_out_table");
        if (status)
            return status;
        a.table = table;
    }
    const int64_t blocks = (a.pairs + WARPS - 1) / WARPS;
    static void (*const kernels[2][2])(struct look_up_args) = {{look_up<false, false>, look_up<false, true>},
                                                               {look_up<true, false>, look_up<true, true>}};
    auto kernel = kernels[score->op.argmax != NULL][plan->look_up.by_fours];
    kernel<<<(unsigned)(blocks < 1 << 30 ? blocks : 1 << 30), 32 * WARPS, 0, stream>>>(a);
    return lik_cuda_launched("look_up");
}
