/* Few query rows against documents of 8 bits, on Hopper: a warp holds up to 32 rows as mma's B
 * operand and takes documents of its own, 32 tokens at a time, as its A operand: from a ring
 * that the copy engine fills as the warp itself asks, widened in registers. No warp waits for
 * another, but at the start, where all have the same rows.
 *
 * The order of a product's elements is free within 16 of them (a tensor core of Hopper adds 16
 * products at once, exactly but for what it cuts off), not beyond: lane t of four takes
 * elements 4 t to 4 t + 3 of each 16, and scores have the bits of the Hopper loop's, which
 * widens tokens to the same dtype. */
#include "cuda/kernels.cuh"
#include "cuda/mma.cuh"
#include "cuda/score.cuh"
#include "cuda/warp_tiles.cuh"
#include "cuda/widen.cuh"

static_assert(BYTES_TOKENS == TILE_TOKENS, "four tokens a lane");

#define BLOCKS 8                  /* of 16 elements, at most */
#define AHEAD  (BYTES_STAGES - 1) /* tiles that are asked for before they are multiplied */

#define STAGE_BYTES (BYTES_TOKENS * 128) /* rows of 128 bytes, swizzled such that 8 meet all banks */

struct bytes_args {
    CUtensorMap maps[2]; /* of 8 tokens of a document, and of a tile's */
    struct score_args score;
    int32_t blocks;     /* of 16 elements */
    int32_t items;      /* row tiles x documents */
    int32_t scaled;     /* documents have more than one scale */
    int32_t common;     /* all warps have the same rows */
    int32_t group_size; /* sequences of the maps' third axis */
};

#if __CUDA_ARCH__ >= 900

/* ---- The rows ---- */

/* Up to 32 query rows as a warp holds them, and of one, row_of_lane(lane), what it counts. */
struct held_rows {
    int tile;                 /* -1: none yet */
    uint32_t q[BLOCKS][4][2]; /* [block][8 rows]: elements 4 t ... 4 t + 3 of row lane / 4 */
    float weight;
    int token;        /* of its query */
    bool counts, bad; /* bad: the query is out of range */
};

/* Elements 4 t ... 4 t + 3 of each block of the query token at `at`, which may be LIK_NOWHERE,
 * times a sign, 32 entries of `to` from one block to the next. */
template <bool bf16>
LIK_DEVICE void load_row(const struct bytes_args &args, int64_t at, int t, float sign, uint2 *to)
{
    const struct lik_tokens &q = args.score.op.q;
    const bool wide = q.dtype == LIK_F16 || q.dtype == LIK_BF16;
    const int64_t step = q.dim_stride;
    uint2 raw[BLOCKS] = {}; /* all loads first, or each is waited for */
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        if (at == LIK_NOWHERE || b >= args.blocks)
            continue;
        const int64_t from = at + (b * 16 + t * 4) * step;
        const uint16_t *halves = (const uint16_t *)q.data + from;
        const uint8_t *bytes = (const uint8_t *)q.data + from;
        if (wide && args.score.q_vector)
            raw[b] = *(const uint2 *)halves;
        else if (args.score.q_vector)
            raw[b].x = *(const uint32_t *)bytes;
        else if (wide)
            raw[b] = make_uint2(halves[0] | (uint32_t)halves[step] << 16,
                                halves[2 * step] | (uint32_t)halves[3 * step] << 16);
        else
            raw[b].x = bytes[0] | (uint32_t)bytes[step] << 8 | (uint32_t)bytes[2 * step] << 16 |
                       (uint32_t)bytes[3 * step] << 24;
    }
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        float v[8] = {};
        if (wide)
            unpack_halves(make_uint4(raw[b].x, raw[b].y, 0, 0), q.dtype, v);
        else
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const uint8_t byte = (uint8_t)(raw[b].x >> 8 * e);
                v[e] = q.dtype == LIK_I8 ? (float)(int8_t)byte
                                         : __half2float(__nv_cvt_fp8_to_halfraw(
                                               byte, q.dtype == LIK_E4M3 ? __NV_E4M3 : __NV_E5M2));
            }
        uint32_t pair[2];
#pragma unroll
        for (int p = 0; p < 2; p++) {
            const float low = __fmul_rn(v[2 * p], sign), high = __fmul_rn(v[2 * p + 1], sign);
            if (bf16) {
                const __nv_bfloat162 x = __floats2bfloat162_rn(low, high);
                pair[p] = *(const uint32_t *)&x;
            } else {
                const __half2 x = __floats2half2_rn(low, high);
                pair[p] = *(const uint32_t *)&x;
            }
        }
        to[b * 32] = make_uint2(pair[0], pair[1]);
    }
}

/* Rows 8 n to 8 n + 7 from where load_row wrote them. */
LIK_DEVICE void take_rows(struct held_rows &h, int n, const uint2 *from)
{
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        const uint2 pairs = from[b * 32];
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i == n) {
                h.q[b][i][0] = pairs.x;
                h.q[b][i][1] = pairs.y;
            }
    }
}

/* Makes the warp hold the rows of a tile. Scales and norms go to the weight as in the Hopper
 * loop (place_queries), a scale's sign to the elements. They pass `scratch` on their way to
 * registers, the warp's; or the block's, if all warps have the same and each loads some. */
template <bool bf16>
LIK_DEVICE void hold_rows(struct held_rows &h, struct held_places &places, uint2 *scratch,
                          const struct bytes_args &args, int tile)
{
    const struct score_args &a = args.score;
    const struct lik_tokens &q = a.op.q;
    const int lane = (int)threadIdx.x & 31, t = lane & 3;
    if (tile == h.tile)
        return;
    const bool first = h.tile < 0;
    h.tile = tile;
    const struct strip_place place = locate_strip(a.tiling, (uint32_t)tile, lane >> 4);
    if ((lane & 15) == 0)
        places.strips[lane >> 4] = place;
    __syncwarp();
    if (a.op.pairing == LIK_LIST) { /* one query after another, often the same */
        const int64_t query = lik_score_query(&a.op, tile / a.tiling.parts);
        const bool same = !first && query == places.query; /* any number may be asked for */
        __syncwarp();
        places.query = query;
        if (same)
            return;
    }
    const struct query_row own = locate_row(a, place, lane & 15);
    float weight = own.weight, scale = own.scale;
    if (own.at != LIK_NOWHERE) {
        if (a.op.d.scale && !args.scaled) /* one of all documents */
            scale = __fmul_rn(scale, *a.op.d.scale);
        weight = __fmul_rn(weight, fabsf(scale));
    }
#pragma unroll 1
    for (int r = 0; r < 32 && q.normalize; r += 4) { /* eight lanes a row */
        struct query_row row = own;
        row.scale = 1.0f;
        row.at = __shfl_sync(~0u, own.at, r + (lane >> 3));
        float factor = row_factor(a, row, lane & 7);
        factor = __shfl_sync(~0u, factor, (lane & 3) * 8);
        if ((lane & ~3) == r)
            weight = __fmul_rn(weight, factor);
    }
    const int warp = (int)threadIdx.x / 32;
#pragma unroll 1
    for (int n = 0; n < 4; n++) { /* one copy of that code, for a call begins with fetching it */
        if (args.common && n != warp)
            continue;
        const int row = n * 8 + (lane >> 2);
        const int64_t at = __shfl_sync(~0u, own.at, row);
        const float sign = __shfl_sync(~0u, scale, row) < 0.0f ? -1.0f : 1.0f;
        uint2 *rows = scratch + (args.common ? n : warp) * BLOCKS * 32 + lane;
        load_row<bf16>(args, at, t, sign, rows);
        if (!args.common)
            take_rows(h, n, rows); /* each lane what it wrote itself */
    }
    if (args.common) {
        __syncthreads();
#pragma unroll
        for (int n = 0; n < 4; n++)
            take_rows(h, n, scratch + n * BLOCKS * 32 + lane);
    }
    const int row = row_of_lane(lane);
    h.weight = __shfl_sync(~0u, weight, row);
    h.token = __shfl_sync(~0u, own.token, row);
    h.counts = __shfl_sync(~0u, (int)own.counts, row);
    h.bad = __shfl_sync(~0u, (int)(own.counts && own.at == LIK_NOWHERE), row);
}

LIK_DEVICE uint32_t load_shared(uint32_t at, int further)
{
    uint32_t x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at + further) : "memory");
    return x;
}

/* The mask's bytes of a lane's tokens, looked at where they are used: a load is under way until
 * then. */
struct raw_mask {
    uint32_t of[EACH];
};

/* What asks for tiles: where the document is in the tensor maps, and of the lane's tokens the
 * scale, of lane, and the mask. */
struct asker {
    struct way at;
    int row, sequence, group;
    const float *scales;
    const uint8_t *mask;

    LIK_MEMBER void place(const struct bytes_args &args)
    {
        const struct lik_tokens &d = args.score.op.d;
        const int lane = (int)threadIdx.x & 31;
        if (at.length <= 0)
            return;
        row = d.offsets ? (int)lik_offset_at(&d, at.document) : 0;
        group = d.offsets || d.group_size <= 0 ? 0 : at.document / args.group_size;
        sequence = d.offsets ? 0 : at.document - group * args.group_size;
        if (args.scaled)
            scales =
                d.scale + lik_tokens_base(&d, &d.scale_strides, at.document) + lane * d.scale_strides.token;
        if (d.mask)
            mask = d.mask + lik_tokens_base(&d, &d.mask_strides, at.document) +
                   (lane >> 2) * d.mask_strides.token;
    }

    /* Asks for the tile, into a stage of the ring whose barrier it is, and for its part of the
     * mask; then goes on. */
    LIK_MEMBER void ask(const struct bytes_args &args, char *stage, float *stage_scales, uint64_t *full,
                        struct raw_mask &raw, int step)
    {
        const struct lik_tokens &d = args.score.op.d;
        const int lane = (int)threadIdx.x & 31;
        if (at.item >= args.items)
            return;
        const int count = min(at.length - at.token, BYTES_TOKENS); /* of no document 0 or less */
        if (lane == 0) {
            const int token = row + at.token;
            if (count > BYTES_TOKENS - 8) {
                mbarrier_arrive_expect(full, STAGE_BYTES);
                tensor_copy(stage, &args.maps[1], full, 0, token, sequence, group);
            } else {
                mbarrier_arrive_expect(full, (uint32_t)max(count + 7, 0) / 8 * 1024);
#pragma unroll 1
                for (int r = 0; r < count; r += 8)
                    tensor_copy(stage + r * 128, &args.maps[0], full, 0, token + r, sequence, group);
            }
        }
        if (d.mask)
#pragma unroll
            for (int r = 0; r < EACH; r++)
                raw.of[r] = load_byte_if((lane >> 2) + 8 * r < count, mask + 8 * r * d.mask_strides.token);
        if (args.scaled) {
            if (lane < count)
                copy_async(stage_scales + lane, scales, 4);
            copy_async_arrive(full);
        }
        scales += BYTES_TOKENS * d.scale_strides.token;
        mask += BYTES_TOKENS * d.mask_strides.token;
        if (advance(at, args.score, args.items, step))
            place(args);
    }
};

/* ---- Maxima ---- */

/* Ends a document: joins the lanes' maxima, writes the argmax and the scores. Each lane is left
 * with one row; the sum is that of score.cuh, row r with r + 8, then 1, 2 and 4 apart. */
template <bool want_argmax>
LIK_DEVICE void finish(struct row_maxima &m, const struct held_rows &h, const struct bytes_args &args,
                       const struct held_places &places, const struct way &w)
{
    const struct score_args &a = args.score;
    const int lane = (int)threadIdx.x & 31;
    float best;
    int at = -1;
    if (want_argmax) {
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int o = 4; o < 32; o *= 2) {
                float x = __shfl_xor_sync(~0u, m.best[i], o);
                keep_better(m.best[i], m.at[i], x, __shfl_xor_sync(~0u, m.at[i], o));
            }
        best = m.best[0];
        at = m.at[0];
        const int own = (lane >> 4 & 1) * 4 + (lane >> 3 & 1) * 2 + (lane >> 2 & 1);
#pragma unroll
        for (int i = 1; i < 8; i++) {
            best = own == i ? m.best[i] : best;
            at = own == i ? m.at[i] : at;
        }
    } else {
#pragma unroll
        for (int k = 4; k; k >>= 1)
#pragma unroll
            for (int i = 0; i < k; i++) {
                const bool upper = lane & k * 4;
                float theirs = __shfl_xor_sync(~0u, upper ? m.best[i] : m.best[i + k], k * 4);
                m.best[i] = max_nan(upper ? m.best[i + k] : m.best[i], theirs);
            }
        best = m.best[0];
    }
    const int64_t column = w.item - h.tile * (int)a.columns;
    const struct strip_place place = places.strips[lane >> 4];
    const bool counts = h.counts && m.any;
    if (want_argmax && place.row >= 0 && h.token < a.op.q.len_max)
        store_argmax(a.op, (place.row * a.columns + column) * a.op.q.len_max + h.token,
                     counts && !h.bad ? at : -1);
    float sum = counts ? __fmul_rn(h.weight, best) : 0.0f;
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 8));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 4));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
    if (h.bad || w.length < 0)
        sum = __uint_as_float(0x7fc00000u);
    const float second = __shfl_sync(~0u, sum, 16);
    if (a.tiling.strips_per_query == 2) {
        if (lane == 0)
            a.op.scores[place.row * a.op.scores_stride + column] = __fadd_rn(sum, second);
    } else if ((lane & 15) == 0 && place.row >= 0) {
        a.op.scores[place.row * a.op.scores_stride + column] = sum;
    }
    reset(m);
}

#endif

/* ---- The kernels ---- */

/* Of tokens of 128 elements; of any that are taken, without and with the argmax. */
enum bytes_way { BYTES_128, BYTES_ANY, BYTES_ARGMAX, BYTES_WAYS };

/* Long because a tile's loads, products and maxima stand together. */
template <int from, bool bf16, int how>
static __global__ void __launch_bounds__(32 * BYTES_WARPS, 1)
    score_bytes(const __grid_constant__ struct bytes_args args)
{
#if __CUDA_ARCH__ >= 900
    constexpr int blocks = how == BYTES_128 ? BLOCKS : 0;
    constexpr bool want_argmax = how == BYTES_ARGMAX;
    extern __shared__ char dynamic[];
    __shared__ struct held_places places[BYTES_WARPS];
    __shared__ uint64_t barriers[BYTES_WARPS][BYTES_STAGES];
    const struct lik_tokens &d = args.score.op.d;
    const int lane = (int)threadIdx.x & 31, warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0), g = lane >> 2,
              t = lane & 3;
    char *memory = dynamic + (-shared_address(dynamic) & 1023u); /* the swizzle counts from there */
    char *ring = memory + warp * BYTES_STAGES * STAGE_BYTES;
    float *ring_scales =
        (float *)(memory + BYTES_WARPS * BYTES_STAGES * STAGE_BYTES) + warp * BYTES_STAGES * BYTES_TOKENS;
    uint2 *scratch = (uint2 *)(memory + BYTES_WARPS * BYTES_STAGES * (STAGE_BYTES + BYTES_TOKENS * 4));
    uint64_t *full = barriers[warp];
    let_next_kernel_begin();
    if (lane < BYTES_STAGES)
        mbarrier_init(&full[lane], args.scaled ? 33 : 1);
    mbarrier_init_done();
    __syncwarp();
    wait_for_kernels_before();
    const int step = (int)(gridDim.x * BYTES_WARPS);
    struct way here = {(int)(warp * gridDim.x + blockIdx.x), 0, 0, 0};
    open_item(here, args.score, args.items);
    struct asker ahead = {here, 0, 0, 0, NULL, NULL};
    ahead.place(args);
    struct raw_mask asked[BYTES_STAGES] = {};
#pragma unroll 1
    for (int i = 0; i < AHEAD; i++) {
#pragma unroll
        for (int k = 0; k < AHEAD - 1; k++)
            asked[k] = asked[k + 1];
        ahead.ask(args, ring + i * STAGE_BYTES, ring_scales + i * BYTES_TOKENS, &full[i], asked[AHEAD - 1],
                  step);
    }
    struct held_rows h;
    h.tile = -1;
    struct row_maxima m;
    reset(m);
    uint32_t parity = 0;
    for (int stage = 0;;) {
        const bool more = here.item < args.items;
        if (here.token == 0 && (more || args.common))
            hold_rows<bf16>(h, places[warp], scratch, args, tile_of(args.score, here.item));
        if (!more)
            break;
        const int last = stage == 0 ? AHEAD : stage - 1;
        ahead.ask(args, ring + last * STAGE_BYTES, ring_scales + last * BYTES_TOKENS, &full[last],
                  asked[AHEAD], step);
        const struct raw_mask mask = asked[0];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            asked[i] = asked[i + 1];
        mbarrier_wait(&full[stage], parity);
        const uint32_t tokens = shared_address(ring + stage * STAGE_BYTES + g * 128 + g * 16 + t * 4);
        float acc[EACH / 2][4][4] = {};
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            if (!blocks && b >= args.blocks)
                break;
            uint32_t x[EACH][2];
#pragma unroll
            for (int r = 0; r < EACH; r++)
                widen_4<from, bf16>(load_shared(tokens ^ b * 16, r * 1024), x[r]);
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int r = 0; r < EACH; r += 2) {
                    const uint32_t f[4] = {x[r][0], x[r + 1][0], x[r][1], x[r + 1][1]};
                    if (bf16)
                        mma_bf16(acc[r / 2][n], f, h.q[b][n][0], h.q[b][n][1]);
                    else
                        mma_f16(acc[r / 2][n], f, h.q[b][n][0], h.q[b][n][1]);
                }
        }
        float factor[EACH] = {1.0f, 1.0f, 1.0f, 1.0f};
        int kept = 0;
        const int count = here.length - here.token;
#pragma unroll
        for (int r = 0; r < EACH; r++) {
            if (args.scaled)
                factor[r] = ring_scales[stage * BYTES_TOKENS + g + 8 * r];
            kept |= (g + 8 * r < count && (!d.mask || mask.of[r])) << r;
        }
        if (count >= BYTES_TOKENS && !d.mask) {
            m.any = true;
            take_tile<want_argmax, true>(m, acc, factor, kept, here.token);
        } else {
            m.any |= __any_sync(~0u, kept != 0);
            take_tile<want_argmax, false>(m, acc, factor, kept, here.token);
        }
        if (count <= BYTES_TOKENS)
            finish<want_argmax>(m, h, args, places[warp], here);
        advance(here, args.score, args.items, step);
        __syncwarp(); /* the stage is filled anew */
        if (++stage == BYTES_STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
#else
    __trap(); /* the driver never launches this elsewhere */
#endif
}

typedef void (*bytes_kernel)(struct bytes_args);

template <int from> static bytes_kernel kernel_from(int bf16, int how)
{
    static const bytes_kernel kernels[2][BYTES_WAYS] = {
        {score_bytes<from, false, BYTES_128>, score_bytes<from, false, BYTES_ANY>,
         score_bytes<from, false, BYTES_ARGMAX>},
        {score_bytes<from, true, BYTES_128>, score_bytes<from, true, BYTES_ANY>,
         score_bytes<from, true, BYTES_ARGMAX>}};
    return kernels[bf16][how];
}

static bytes_kernel kernel_of(int dtype, int bf16, int how)
{
    switch (dtype) {
    case LIK_E4M3: return kernel_from<LIK_E4M3>(bf16, how);
    case LIK_E5M2: return kernel_from<LIK_E5M2>(bf16, how);
    default: return kernel_from<LIK_I8>(bf16, how);
    }
}

int lik_cuda_bytes_prepare(struct lik_gpu *gpu)
{
    static const int dtypes[] = {LIK_E4M3, LIK_E5M2, LIK_I8};
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 6 * BYTES_WAYS && e == cudaSuccess && gpu->limits.hopper; i++) {
        bytes_kernel kernel = kernel_of(dtypes[i / 2 / BYTES_WAYS], i / BYTES_WAYS % 2, i % BYTES_WAYS);
        e = cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)gpu->limits.shared_bytes - 1024); /* what it has itself */
    }
    return lik_cuda_status(e, "preparing the kernels of 8 bits");
}

int lik_cuda_bytes_launch(const struct lik_gpu *gpu, const struct score_args *score,
                          const struct score_plan *plan, char *, cudaStream_t stream)
{
    const struct bytes_plan *p = &plan->bytes;
    const struct lik_score *op = &score->op;
    struct bytes_args a = {};
    a.score = *score;
    a.blocks = (int32_t)(op->d.dim / 16);
    a.group_size = (int32_t)(op->d.group_size > 0 ? op->d.group_size : op->d.count);
    a.common = plan->tiling.tiles == 1 && op->pairing != LIK_LIST;
    for (int i = 0; i < 2; i++) {
        int status = lik_cuda_sm90_map(gpu, &op->d, 128, i ? BYTES_TOKENS : 8, 1, &a.maps[i]);
        if (status)
            return status;
    }
    a.items = (int32_t)(plan->tiling.tiles * plan->columns);
    a.scaled = p->scaled;
    const int how = op->argmax ? BYTES_ARGMAX : a.blocks == BLOCKS ? BYTES_128 : BYTES_ANY;
    const void *kernel = (const void *)kernel_of(op->d.dtype, op->q.dtype == LIK_BF16, how);
    return lik_cuda_launch_early(gpu, kernel, "score_bytes", (unsigned)p->blocks, 32 * BYTES_WARPS,
                                 (size_t)p->shared_bytes, stream, &a);
}
