/* The forward pass over documents of LIK_ONE_HOT: products are looked up, in one of two ways.
 *
 * look_up: a warp scores a pair. Its lanes are the query tokens of two strips, so that where
 * all query tokens' elements lie together a document token is one load of 128 bytes, from L2
 * where the table is larger than L1. The document's codes are read 32 at a time, a lane each,
 * and handed round; eight rows are under way at once. Maxima do not mind a token that is taken
 * twice: lanes whose document token is dropped or past the end name the group's first kept one
 * again, and no load is conditional.
 *
 * look_up_quads: where four query tokens' elements fit shared memory, a block has them there,
 * in whatever order the table lies, and takes a run of documents past them; a lane has a
 * document token and looks up four products at once. The maxima go to the workspace, and
 * look_up adds them. Worth it where there are many more document tokens than elements.
 *
 * Both give the same bits: maxima are exact, and added in one order. A code out of range is
 * never read through; its product is NaN. */
#include "cuda/kernels.cuh"
#include "cuda/score.cuh"
#include "shared/residual.h"

#define WARPS       4  /* of a block of look_up */
#define AT_ONCE     8  /* rows */
#define QUAD_WARPS  32 /* of a block of look_up_quads */
#define QUAD_GROUPS 6  /* of 32 tokens, whose codes are read together */
#define QUIET_NAN   0x7fc00000u
#define NONE_KEPT   0xffffffffu /* the bits of a maximum over no tokens: no NaN of ours has them */

struct look_up_args {
    struct score_args score;
    int64_t pairs;
    float *maxima; /* [pairs, strips, 16], or NULL */
    int32_t quads, runs;
    int64_t documents_per_run;
};

/* Where look_up has its products from. */
enum source { NEAR_ROWS, FAR_ROWS, MAXIMA };

/* Up to 32 document tokens, a lane each. */
struct group {
    uint32_t code;    /* of a kept token, within range */
    int token;        /* whose code that is */
    int count;        /* of tokens, the last of which is kept; 0: none is */
    unsigned invalid; /* kept tokens whose codes are out of range */
};

LIK_DEVICE struct group load_group(const struct lik_tokens &d, int64_t codes, int64_t mask, int first,
                                   int length)
{
    struct group g = {0, first + ((int)threadIdx.x & 31), 0, 0};
    bool kept = g.token < length && token_kept(d, mask, g.token), valid = false;
    if (kept) {
        int64_t code = lik_code_at(&d, codes + g.token * d.codes_strides.token);
        valid = (uint64_t)code < (uint64_t)d.dim;
        g.code = valid ? (uint32_t)code : 0;
    }
    unsigned all = __ballot_sync(~0u, kept);
    g.invalid = __ballot_sync(~0u, kept && !valid);
    if (!all)
        return g;
    g.count = 32 - __clz((int)all);
    int from = kept ? (int)threadIdx.x & 31 : __ffs((int)all) - 1;
    g.code = __shfl_sync(~0u, g.code, from);
    g.token = __shfl_sync(~0u, g.token, from);
    return g;
}

/* One query token's maximum over the tokens so far; `at`: whose it is, -1: none yet. */
struct maximum {
    float best;
    int at;
};

/* Element `code` of a query token; near: one multiplication of 32 bits. */
template <bool near_rows> LIK_DEVICE const float *element(const float *table, uint32_t code, int64_t step)
{
    if (near_rows)
        return (const float *)((const char *)table + (uint64_t)code * (uint32_t)(step * 4));
    return table + code * step;
}

/* Takes the products of a group's tokens with the query token whose element 0 is at `table`. */
template <bool want_argmax, bool near_rows>
LIK_DEVICE void take_group(struct maximum &m, const struct group &g, const float *table, int64_t step)
{
    int won = -1; /* which of the group */
    for (int first = 0; first < g.count; first += AT_ONCE) {
        float x[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            uint32_t code = __shfl_sync(~0u, g.code, first + i);
            x[i] =
                __ldg(near_rows ? (const float *)((const char *)table + (uint64_t)code * (uint32_t)(step * 4))
                                : table + code * step);
        }
        if (g.invalid) { /* hardly ever */
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                x[i] = g.invalid >> (first + i) & 1 ? __uint_as_float(QUIET_NAN) : x[i];
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (!want_argmax) {
                m.best = max_nan(m.best, x[i]);
            } else if ((m.at < 0 && won < 0) || x[i] > m.best || (x[i] != x[i] && m.best == m.best)) {
                m.best = x[i];
                won = first + i;
            }
        }
    }
    if (want_argmax) {
        int token = __shfl_sync(~0u, g.token, won & 31);
        m.at = won >= 0 ? token : m.at;
    }
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

template <bool want_argmax, source from>
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
            struct maximum m = {-INFINITY, -1};
            bool any = false;
            if (from == MAXIMA) {
                if (row.counts)
                    m.best = a.maxima[n * strips * LIK_STRIP_ROWS + strip * LIK_STRIP_ROWS + lane];
                any = __float_as_uint(m.best) != NONE_KEPT;
            } else {
                /* lanes without a token look up another's product */
                unsigned reading = __ballot_sync(~0u, row.at != LIK_NOWHERE);
                int other = row.at != LIK_NOWHERE ? lane : (__ffs((int)reading) - 1) & 31;
                int64_t at = __shfl_sync(~0u, row.at, other);
                for (int64_t first = 0; first < length; first += 32) {
                    struct group g = load_group(d, codes, mask, (int)first, length);
                    any = any || g.count;
                    if (reading)
                        take_group<want_argmax, from == NEAR_ROWS>(m, g, (const float *)op.q.data + at,
                                                                   op.q.dim_stride);
                }
            }
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

/* Of the four maxima that each lane has of its tokens, lane l ends with all lanes' number
 * l / 8. */
template <bool want_argmax> LIK_DEVICE struct maximum join_lanes(const struct maximum (&m)[4])
{
    const bool upper = threadIdx.x & 16, odd = threadIdx.x & 8;
    struct maximum low = pick(upper, m[2], m[0]), high = pick(upper, m[3], m[1]);
    meet<want_argmax>(low, pick(upper, m[0], m[2]), 16);
    meet<want_argmax>(high, pick(upper, m[1], m[3]), 16);
    struct maximum own = pick(odd, high, low);
    meet<want_argmax>(own, pick(odd, low, high), 8);
#pragma unroll
    for (int o = 4; o > 0; o /= 2) {
        struct maximum same = own;
        meet<want_argmax>(own, same, o);
    }
    return own;
}

template <bool want_argmax> LIK_DEVICE void take_product(struct maximum &m, float x, int t)
{
    if (!want_argmax) {
        m.best = max_nan(m.best, x);
    } else if (m.at < 0 || x > m.best || (x != x && m.best == m.best)) {
        m.best = x;
        m.at = t;
    }
}

/* Where products[] has the NaN of invalid codes, and what dropped tokens count. */
LIK_DEVICE uint32_t invalid_place(const struct lik_tokens &d)
{
    return (uint32_t)d.dim;
}

LIK_DEVICE uint32_t dropped_place(const struct lik_tokens &d)
{
    return (uint32_t)d.dim + 1;
}

/* A lane's tokens of one document, every 32nd, with four query tokens; were any kept? Lanes
 * past the end take the last token again. Few instructions: there is time for 200 a
 * document. */
template <bool want_argmax, bool masked, class code_type>
LIK_DEVICE bool take_tokens(struct maximum (&m)[4], const float4 *products, const struct lik_tokens &d,
                            int64_t j, int length)
{
    const code_type *codes = (const code_type *)d.codes + lik_tokens_base(&d, &d.codes_strides, j);
    const uint8_t *mask = masked ? d.mask + lik_tokens_base(&d, &d.mask_strides, j) : nullptr;
    const int lane = (int)threadIdx.x & 31;
    const int step = (int)d.codes_strides.token, mask_step = (int)d.mask_strides.token;

    bool any = !masked;
    for (int first = lane; first < length + lane; first += 32 * QUAD_GROUPS) {
        code_type code[QUAD_GROUPS];
        bool kept[QUAD_GROUPS];
#pragma unroll
        for (int i = 0; i < QUAD_GROUPS; i++) /* nothing here waits for a load but a mask's */
            kept[i] = !masked || mask[(int64_t)min(first + 32 * i, length - 1) * mask_step];
#pragma unroll
        for (int i = 0; i < QUAD_GROUPS; i++) {
            code[i] = 0;
            if (kept[i])
                code[i] = codes[(int64_t)min(first + 32 * i, length - 1) * step];
        }
#pragma unroll
        for (int i = 0; i < QUAD_GROUPS; i++) {
            if (first - lane + 32 * i >= length)
                continue;
            any = any || kept[i];
            uint32_t place = invalid_place(d);
            if (sizeof(code_type) < 4 || code[i] < (code_type)d.dim)
                place = min((uint32_t)code[i], place);
            if (!kept[i])
                place = dropped_place(d);
            if (want_argmax && !kept[i])
                continue;
            int t = min(first + 32 * i, length - 1);
            float4 x = products[place];
            take_product<want_argmax>(m[0], x.x, t);
            take_product<want_argmax>(m[1], x.y, t);
            take_product<want_argmax>(m[2], x.z, t);
            take_product<want_argmax>(m[3], x.w, t);
        }
    }
    return any;
}

template <bool want_argmax, class code_type>
LIK_DEVICE bool take_document(struct maximum (&m)[4], const float4 *products, const struct lik_tokens &d,
                              int64_t j, int length)
{
    return d.mask ? take_tokens<want_argmax, true, code_type>(m, products, d, j, length)
                  : take_tokens<want_argmax, false, code_type>(m, products, d, j, length);
}

template <bool want_argmax, class code_type>
static __global__ void __launch_bounds__(32 * QUAD_WARPS, 1)
    look_up_quads(const __grid_constant__ struct look_up_args a)
{
    extern __shared__ float4 products[]; /* [dim + 2] */
    const struct lik_score &op = a.score.op;
    const struct lik_tokens &d = op.d;
    const int lane = (int)threadIdx.x & 31, strips = a.score.tiling.strips_per_query;
    const int item = (int)(blockIdx.x / (unsigned)a.runs), run = (int)blockIdx.x - item * a.runs;
    const int r = item / a.quads, quad = item - r * a.quads, first_row = quad % 4 * 4;
    const struct query_row row = locate_row(a.score, strip_place{r, quad / 4}, lane & 15);
    const float *elements = (const float *)op.q.data;
    int64_t at[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        at[i] = __shfl_sync(~0u, row.at, first_row + i);
#pragma unroll 4
    for (int c = (int)threadIdx.x; c < (int)d.dim; c += 32 * QUAD_WARPS) {
        float x[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[i] = at[i] != LIK_NOWHERE ? __ldg(elements + at[i] + c * op.q.dim_stride) : 0.0f;
        products[c] = make_float4(x[0], x[1], x[2], x[3]);
    }
    if (threadIdx.x < 2) {
        float x = threadIdx.x ? -INFINITY : __uint_as_float(QUIET_NAN);
        products[threadIdx.x ? dropped_place(d) : invalid_place(d)] = make_float4(x, x, x, x);
    }
    /* the query token whose maximum the lane ends with */
    const int token = __shfl_sync(~0u, row.token, first_row + lane / 8);
    const bool counts = __shfl_sync(~0u, row.at, first_row + lane / 8) != LIK_NOWHERE;
    __syncthreads();
    const int64_t begin = run * a.documents_per_run, most = begin + a.documents_per_run;
    const int64_t end = most < a.score.columns ? most : a.score.columns;
    for (int64_t column = begin + threadIdx.x / 32; column < end; column += QUAD_WARPS) {
        int length = sequence_length(d, column);
        struct maximum m[4] = {{-INFINITY, -1}, {-INFINITY, -1}, {-INFINITY, -1}, {-INFINITY, -1}};
        bool any = length > 0 && take_document<want_argmax, code_type>(m, products, d, column, length);
        any = __any_sync(~0u, any);
        struct maximum best = join_lanes<want_argmax>(m);
        if (lane % 8)
            continue;
        int64_t n = r * a.score.columns + column;
        uint32_t bits = any ? __float_as_uint(best.best) : NONE_KEPT;
        if (isnan(best.best) || length < 0)
            bits = QUIET_NAN;
        a.maxima[n * strips * LIK_STRIP_ROWS + quad * 4 + lane / 8] = __uint_as_float(bits);
        if (want_argmax && token < op.q.len_max)
            store_argmax(op, n * op.q.len_max + token, counts && any ? best.at : -1);
    }
}

/* The kernel of quads for codes of this dtype. */
template <bool want_argmax> static void (*quads_kernel(int codes_dtype))(struct look_up_args)
{
    return codes_dtype == LIK_I16   ? look_up_quads<want_argmax, uint16_t>
           : codes_dtype == LIK_I32 ? look_up_quads<want_argmax, uint32_t>
                                    : look_up_quads<want_argmax, uint64_t>;
}

int lik_cuda_look_up_prepare(struct lik_gpu *gpu)
{
    cudaError_t e = cudaSuccess;
    for (int dtype = LIK_I16; dtype <= LIK_I64; dtype++) {
        const void *kernels[] = {(const void *)quads_kernel<false>(dtype),
                                 (const void *)quads_kernel<true>(dtype)};
        for (int i = 0; i < 2 && e == cudaSuccess; i++)
            e = cudaFuncSetAttribute(kernels[i], cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)gpu->limits.shared_bytes);
    }
    return lik_cuda_status(e, "cudaFuncSetAttribute");
}

template <bool want_argmax>
static void launch_look_up(const struct look_up_args &a, const struct look_up_plan *plan, cudaStream_t stream)
{
    int64_t blocks = (a.pairs + WARPS - 1) / WARPS;
    unsigned grid = (unsigned)(blocks < 1 << 30 ? blocks : 1 << 30), quads = (unsigned)plan->quad_blocks;
    if (quads) {
        auto quads_of = quads_kernel<want_argmax>(a.score.op.d.codes_dtype);
        quads_of<<<quads, 32 * QUAD_WARPS, (size_t)plan->quad_bytes, stream>>>(a);
        look_up<false, MAXIMA><<<grid, 32 * WARPS, 0, stream>>>(a);
    } else if (plan->near_rows) {
        look_up<want_argmax, NEAR_ROWS><<<grid, 32 * WARPS, 0, stream>>>(a);
    } else {
        look_up<want_argmax, FAR_ROWS><<<grid, 32 * WARPS, 0, stream>>>(a);
    }
}

int lik_cuda_look_up_launch(const struct lik_gpu *gpu, const struct score_args *score,
                            const struct score_plan *plan, char *workspace, cudaStream_t stream)
{
    (void)workspace;
    (void)gpu;
    const struct look_up_plan *p = &plan->look_up;
    struct look_up_args a = {*score, plan->scores, score->maxima, p->quads, p->runs, p->documents_per_run};
    if (score->op.argmax)
        launch_look_up<true>(a, p, stream);
    else
        launch_look_up<false>(a, p, stream);
    return lik_cuda_launched("look_up");
}
