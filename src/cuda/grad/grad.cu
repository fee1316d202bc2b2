/* Gradients from the argmax: gathers of winning rows, every output row written once, by the
 * lanes that added it up.
 *
 *     grad_q[i, s] = sum over scores n of query i of g[n] w[i, s] d[n][argmax[n, s]]
 *         (query_row: a warp a row)
 *     grad_d[j, t] = sum over (n, s) of document j, argmax[n, s] = t, of g[n] w[i, s] q[i, s]
 *         (document_rows)
 *
 * A row of 128 halves is 256 bytes; the rows of a training batch lie in L2, which is the limit
 * of both: one row read a query token and score. A warp takes 32 entries at once, one a lane:
 * where its row is, what it is multiplied by. Then groups of lanes, eight elements a lane, read
 * and add the rows in turn, two a group under way.
 *
 * For grad_d a block owns a document's run of tokens. It walks the argmax entries of the
 * document in windows, lists those of its tokens and sorts them by token (counting sort: a warp
 * ranks its entries with __match_any_sync, integer counters do the rest), and gives each token
 * to a warp, or to a group of its lanes if it has few entries. No float atomics and no one-hot
 * products; the order of a token's sum follows from its own entries alone, in any
 * layout, unless the block's take several windows.
 *
 * The sums are f32. A row goes through its normalization's Jacobian and is rounded to the
 * operand's dtype once. Rows longer than a warp takes at once (256 elements), and those of
 * blocks with more entries than a window, stay in shared memory meanwhile. An explicit list of
 * pairs is first sorted by query and by document. Both gradients depend on the scores alone,
 * and are one launch where the rows that they read are stored alike. */
#include "cuda/grad/rows.cuh"
#include "cuda/kernels.cuh"
#include "cuda/sort.cuh"

#define APART       8         /* entries of a token that a group of lanes adds by itself */
#define BLOCKS_MOST (1 << 29) /* of either kind in one launch */
#ifdef __CUDA_ARCH__
#define COMPILED_ARCH (__CUDA_ARCH__ / 10)
#else
#define COMPILED_ARCH 0
#endif

/* grad_q and grad_weights: a warp a query token, `token` of [q.count, q.len_max]. */
template <int lanes, int kind>
LIK_DEVICE void query_row(const struct grad_args &a, int64_t token, float *kept)
{
    const struct lik_tokens &q = a.op.score.q, &d = a.op.score.d;
    int lane = (int)threadIdx.x & 31, k = (lane & (lanes - 1)) * 8;
    const int64_t tokens = q.count * q.len_max;
    if (token >= tokens)
        return;
    int64_t i = tokens <= UINT32_MAX ? (int64_t)((uint32_t)token / (uint32_t)q.len_max) : token / q.len_max;
    int s = (int)(token - i * q.len_max);
    if (s >= sequence_length(q, i))
        return;
    __shared__ struct incidence of_warps[GRAD_WARPS]; /* in shared memory to spare registers */
    struct incidence &in = of_warps[threadIdx.x / 32];
    if (lane == 0)
        in = scores_of(a, true, i);
    __syncwarp();
    bool met = false;
    float sum[8];
    for (int slice = 0; slice < a.slices_per_row; slice++) {
#pragma unroll
        for (int e = 0; e < 8; e++)
            sum[e] = 0.0f;
        for (int64_t n = 0; n < in.count; n += 32) {
            struct entry<kind> mine = entry<kind>::none();
            if (n + lane < in.count)
                mine = met_row<kind>(a, in, n + lane, s);
            if (!__any_sync(~0u, entry<kind>::is_row(mine.at)))
                continue;
            met = true;
            add_rows<kind>(d, a.d_vector, mine, lane / lanes, (int)min((int64_t)32, in.count - n), 32 / lanes,
                           slice * lanes * 8 + k, sum);
        }
        add_groups<lanes>(sum);
        if (a.slices_per_row > 1 && lane < lanes) {
            float4 *to = (float4 *)(kept + slice * lanes * 8 + k);
            to[0] = make_float4(sum[0], sum[1], sum[2], sum[3]);
            to[1] = make_float4(sum[4], sum[5], sum[6], sum[7]);
        }
    }
    __syncwarp();
    int64_t out = lik_tokens_row(&q, i) + s;
    float product = 0.0f;
    if (met) {
        float weight =
            q.weights ? q.weights[lik_tokens_base(&q, &q.weights_strides, i) + s * q.weights_strides.token]
                      : 1.0f;
        product = finish_row<lanes>(a, q, a.q_vector, a.q_factor, i, s, out, sum,
                                    a.slices_per_row > 1 ? kept : NULL, a.op.grad_q, weight,
                                    a.op.grad_weights != NULL, lane < lanes);
    } else if (a.op.grad_q && !a.op.accumulate) {
        store_zeros(a.op.grad_q, q.dtype, q.dim, out, lane, 32);
    }
    if (a.op.grad_weights && lane == 0)
        a.op.grad_weights[out] = (a.op.accumulate ? a.op.grad_weights[out] : 0.0f) + product;
}

/* grad_d: block (document, run of tokens); `few`: of a document with no more than GRAD_FEW
 * entries. Long because registers are what its windows, slices and groups are short of. */
template <int lanes, int kind, bool few>
LIK_DEVICE void document_rows(const struct grad_args &a, int64_t run, float *memory)
{
    const struct lik_tokens &q = a.op.score.q, &d = a.op.score.d;
    const int groups = 32 / lanes, row_floats = a.slices_per_row * lanes * 8, range = a.tokens_per_block;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x & 31, group = lane / lanes;
    const int k = (lane & (lanes - 1)) * 8;
    struct document_shared sm;
    sm.kept = memory;
    sm.counters = (int *)(memory + (a.keep_rows ? range * row_floats : 0));
    sm.start = sm.counters + GRAD_WARPS * GRAD_WARPS * GRAD_WARP_TOKENS(range);
    sm.hits = (uint32_t *)(sm.start + GRAD_WARPS * GRAD_WARP_TOKENS(range) + 1);
    sm.sorted = (uint16_t *)(sm.hits + a.hits_per_window);
    __shared__ struct incidence in; /* in shared memory to spare registers; so is the run of tokens */
    __shared__ int64_t document, first_row;
    __shared__ struct document_entries entries;
    __shared__ int first_token, here;
    if (threadIdx.x == 0) {
        document = run / a.blocks_per_document;
        first_token = (int)(run - document * a.blocks_per_document) * range;
        here = min(range, sequence_length(d, document) - first_token);
        in = scores_of(a, false, document);
        entries.count = in.count * q.len_max;
        for (int w = 0; w < GRAD_WARPS; w++)
            entries.next[w] = w * entries_of_warp(entries);
        first_row = lik_tokens_row(&d, document) + first_token;
    }
    __syncthreads();
    if (here <= 0)
        return;
    uint32_t met = 0; /* has won something so far: bit n is the warp's n-th token */
    for (;;) {
        if (few)
            sort_few(a, sm, in, (int)entries.count, first_token, here, range);
        else
            sort_window(a, sm, in, entries, first_token, here, range);
        auto last = [&]() { return few || entries.last; };
        auto keep = [&]() { return few ? a.keep_rows : entries.keep; };
        const int per = GRAD_WARP_TOKENS(range), first_slot = warp * per;
        auto end_of = [&](int slot) { return few ? sm.counters[slot] : sm.start[slot + 1]; };
        auto finish = [&](int n, float (&sum)[8], const float *kept, bool writes) {
            int t = warp + n * GRAD_WARPS;
            finish_row<lanes>(a, d, a.d_vector, a.d_factor, document, first_token + t, first_row + t, sum,
                              kept, a.op.grad_d, 1.0f, false, writes);
        };
        auto kept_row = [&](int n) { return sm.kept + (warp + n * GRAD_WARPS) * row_floats; };
        /* Zeros are stored by a group of lanes a row. */
        auto clear_rows = [&](uint32_t which) {
            for (int n = group, t; !a.op.accumulate && (t = warp + n * GRAD_WARPS) < here; n += groups)
                if (which >> n & 1)
                    store_zeros(a.op.grad_d, d.dtype, d.dim, first_row + t, lane & (lanes - 1), lanes);
        };
        uint32_t winners =
            __ballot_sync(~0u, lane < per && sm.start[first_slot + lane] < end_of(first_slot + lane));
        if (last())
            clear_rows(~(met | winners));
        const int begin = sm.start[first_slot], end = end_of(first_slot + per - 1);
        for (int slice = 0; slice < a.slices_per_row; slice++) {
            float sum[8] = {};
            bool begun = false; /* the groups have sums of the first token's entries before */
            /* 32 entries at once: of several tokens whole, or a part of those of one. */
            for (int e = begin; e < end;) {
                struct entry<kind> mine = entry<kind>::none();
                int count = min(32, end - e), slot = -1;
                if (lane < count) {
                    const int number = sm.sorted[e + lane];
                    const uint32_t hit = sm.hits[number];
                    const int64_t ahead = hit & ((1u << GRAD_ENTRY_BITS) - 1u);
                    slot = (int)(hit >> GRAD_ENTRY_BITS);
                    mine = winning_row<kind>(
                        a, in,
                        few ? ahead : entries.first[number / (a.hits_per_window / GRAD_WARPS)] + ahead);
                }
                int slot_before = __shfl_up_sync(~0u, slot, 1);
                uint32_t firsts = __ballot_sync(~0u, lane < count && slot != slot_before) | 1u;
                bool whole = end_of(__shfl_sync(~0u, slot, count - 1)) == e + count;
                if (!whole && firsts != 1u) { /* the last token comes next */
                    count = 31 - __clz(firsts);
                    firsts ^= 1u << count;
                    whole = true;
                }
                while (firsts) {
                    /* A group of lanes a token of few entries, or all of them for another. */
                    int from = __ffs(firsts) - 1, to = from, n = __shfl_sync(~0u, slot, from) - first_slot;
                    auto end_at = [&](uint32_t rest) { return rest ? __ffs(rest) - 1 : count; };
                    const bool apart = !begun && end_at(firsts & (firsts - 1)) - from <= APART;
                    bool writes = !apart && group == 0;
#pragma unroll
                    for (int g = 0; g < (apart ? groups : 1) && firsts; g++) {
                        const int at = __ffs(firsts) - 1, next = end_at(firsts & (firsts - 1));
                        if (apart && next - at > APART)
                            break;
                        firsts &= firsts - 1;
                        if (!apart || g == group) {
                            from = at + (apart ? 0 : group);
                            to = next;
                            writes |= apart;
                        }
                    }
                    add_rows<kind>(q, a.q_vector, mine, from, to, apart ? 1 : groups, slice * lanes * 8 + k,
                                   sum);
                    begun = !firsts && !whole;
                    if (begun)
                        break;
                    if (apart)
                        n = __shfl_sync(~0u, slot, from) - first_slot;
                    else
                        add_groups<lanes>(sum);
                    if (keep()) {
                        if (writes)
#pragma unroll
                            for (int i = 0; i < 8; i++) {
                                float &kept = kept_row(n)[slice * lanes * 8 + k + i];
                                kept = met >> n & 1 ? __fadd_rn(kept, sum[i]) : sum[i];
                            }
                    } else if (kind != ROWS_OF_ANY && a.plain) {
                        if (writes && k < (int)d.dim)
                            store_vector(a.op.grad_d, GRAD_ROW_DTYPE(kind),
                                         (first_row + warp + n * GRAD_WARPS) * d.dim + k, sum);
                    } else {
                        finish(n, sum, NULL, writes);
                    }
#pragma unroll
                    for (int i = 0; i < 8; i++)
                        sum[i] = 0.0f;
                }
                e += count;
            }
        }
        met |= winners;
        __syncwarp();
        for (uint32_t rows = keep() && last() ? met : 0u; rows; rows &= rows - 1) {
            float sum[8];
            finish(__ffs(rows) - 1, sum, kept_row(__ffs(rows) - 1), lane < lanes);
        }
        if (last())
            break;
    }
}

/* A launch's blocks: `document_blocks` runs of documents, then, to fill what those leave, the
 * query tokens. */
template <int lanes, int kind, bool few>
static __global__ void __launch_bounds__(32 * GRAD_WARPS, GRAD_RESIDENT_BLOCKS(kind, COMPILED_ARCH))
    gradient_rows(const __grid_constant__ struct grad_args a)
{
    extern __shared__ __align__(16) float memory[];
    const int warp = (int)threadIdx.x / 32;
    let_next_kernel_begin();
    wait_for_kernels_before();
    if (blockIdx.x < a.document_blocks)
        document_rows<lanes, kind, few>(a, a.first_run + blockIdx.x, memory);
    else if (warp < a.query_warps)
        query_row<lanes, kind>(
            a, a.first_query_token + (int64_t)(blockIdx.x - a.document_blocks) * a.query_warps + warp,
            memory + warp * a.slices_per_row * lanes * 8);
}

/* Rows of a packed gradient that no sequence covers; a thread an element. */
static __global__ void clear_outside(const __grid_constant__ struct lik_tokens x, void *gradient, int dtype,
                                     int64_t row_elements)
{
    int64_t first = lik_offset_at(&x, 0), last = lik_offset_at(&x, x.count);
    first = first < 0 ? 0 : first > x.total ? x.total : first;
    last = last < first ? first : last > x.total ? x.total : last;
    int64_t count = (x.total - (last - first)) * row_elements, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count; n += step) {
        int64_t at = n < first * row_elements ? n : n + (last - first) * row_elements;
        if (dtype == LIK_F32)
            ((float *)gradient)[at] = 0.0f;
        else
            ((uint16_t *)gradient)[at] = 0;
    }
}

/* Keys to sort: sequence number above the score's number; sequences out of range and what pads
 * the keys come last. */
static __global__ void list_keys(const int64_t *list, int64_t count, int64_t n, int64_t padded,
                                 uint64_t *keys)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < padded;
         i += (int64_t)gridDim.x * blockDim.x) {
        int64_t sequence = i < n && list[i] >= 0 && list[i] < count ? list[i] : UINT32_MAX;
        keys[i] = (uint64_t)sequence << 32 | (uint64_t)i;
    }
}

/* ---- The host's side ---- */

static int sort_list(const int64_t *list, int64_t list_count, int64_t sequences, int64_t padded,
                     uint64_t *keys, struct sorted_list *out, cudaStream_t stream)
{
    out->count = list_count;
    out->keys = keys;
    list_keys<<<lik_cuda_blocks(padded), 256, 0, stream>>>(list, sequences, list_count, padded, keys);
    int status = lik_cuda_launched("list_keys");
    return status ? status : lik_cuda_sort(keys, padded, 1, stream);
}

typedef void (*grad_kernel)(struct grad_args);

#define KERNELS_OF(lanes, few)                                                        \
    {gradient_rows<lanes, ROWS_OF_F16, few>, gradient_rows<lanes, ROWS_OF_BF16, few>, \
     gradient_rows<lanes, ROWS_OF_F32, few>, gradient_rows<lanes, ROWS_OF_ANY, few>}
#define KERNELS(few) {KERNELS_OF(8, few), KERNELS_OF(16, few), KERNELS_OF(32, few)}

static grad_kernel kernel_of(int few, int lanes, int kind)
{
    static const grad_kernel kernels[2][3][ROW_KINDS] = {KERNELS(false), KERNELS(true)};
    return kernels[few][lanes / 16][kind];
}

int lik_cuda_grad_prepare(const struct lik_gpu *gpu)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 2 * 3 * ROW_KINDS && e == cudaSuccess; i++) {
        cudaFuncAttributes attributes;
        const void *kernel =
            (const void *)kernel_of(i / (3 * ROW_KINDS), 8 << i / ROW_KINDS % 3, i % ROW_KINDS);
        e = cudaFuncGetAttributes(&attributes, kernel);
        if (e == cudaSuccess)
            e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)(gpu->limits.shared_bytes - attributes.sharedSizeBytes));
    }
    return lik_cuda_status(e, "preparing the gradient's kernels");
}

static int clear(const struct lik_tokens *x, void *gradient, int dtype, int64_t row_elements,
                 cudaStream_t stream)
{
    if (!gradient || !x->offsets || x->total == 0)
        return LIK_OK;
    clear_outside<<<64, 256, 0, stream>>>(*x, gradient, dtype, row_elements);
    return lik_cuda_launched("clear_outside");
}

/* Launches the blocks of the next of both, no more than there may be in a launch. */
static int launch_rows(const struct lik_gpu *gpu, const struct grad_plan *p, struct grad_args *a, int kind,
                       size_t bytes, int64_t runs, int64_t tokens, cudaStream_t stream)
{
    int status = LIK_OK;
    while (!status && (runs || tokens)) {
        int64_t documents = runs < BLOCKS_MOST ? runs : BLOCKS_MOST;
        int64_t queries = (tokens + p->query_warps - 1) / p->query_warps;
        queries = queries < BLOCKS_MOST ? queries : BLOCKS_MOST;
        int64_t taken = queries * p->query_warps < tokens ? queries * p->query_warps : tokens;
        a->document_blocks = (uint32_t)documents;
        status = lik_cuda_launch_early(gpu, (const void *)kernel_of(p->few, p->lanes_per_row, kind),
                                       "gradient_rows", (unsigned)(documents + queries), 32 * GRAD_WARPS,
                                       bytes, stream, a);
        a->first_run += documents;
        a->first_query_token += taken;
        runs -= documents;
        tokens -= taken;
    }
    return status;
}

/* Everything before the gradients' own launch. */
static int prepare_inputs(const struct grad_plan *p, struct grad_args *a, char *workspace,
                          cudaStream_t stream)
{
    const struct lik_grad *op = &a->op;
    const struct lik_score *score = &op->score;
    const struct lik_tokens *q = &score->q, *d = &score->d;
    int status = LIK_OK;
    if (!op->accumulate && ((status = clear(q, op->grad_q, q->dtype, q->dim, stream)) ||
                            (status = clear(d, op->grad_d, d->dtype, d->dim, stream)) ||
                            (status = clear(q, op->grad_weights, LIK_F32, 1, stream))))
        return status;
    float *q_factor = (float *)(workspace + p->q_factor), *d_factor = (float *)(workspace + p->d_factor);
    if (p->q_factors && (status = lik_cuda_unit_factors(q, p->q_vector, q_factor, p->q_factors, stream)))
        return status;
    if (p->d_factors && (status = lik_cuda_unit_factors(d, p->d_vector, d_factor, p->d_factors, stream)))
        return status;
    a->q_factor = p->q_factors ? q_factor : NULL;
    a->d_factor = p->d_factors ? d_factor : NULL;
    if (p->list_keys && ((status = sort_list(score->list_q, score->list_count, q->count, p->list_keys,
                                             (uint64_t *)(workspace + p->by_q), &a->by_q, stream)) ||
                         (status = sort_list(score->list_d, score->list_count, d->count, p->list_keys,
                                             (uint64_t *)(workspace + p->by_d), &a->by_d, stream))))
        return status;
    return LIK_OK;
}

static void take_plan(struct grad_args *a, const struct grad_plan *p)
{
    a->columns = p->columns;
    a->q_vector = p->q_vector;
    a->d_vector = p->d_vector;
    a->argmax_vector = p->argmax_vector;
    a->plain = p->plain;
    a->slices_per_row = p->slices_per_row;
    a->keep_rows = p->keep_rows;
    a->hits_per_window = p->hits_per_window;
    a->tokens_per_block = p->tokens_per_block;
    a->query_warps = p->query_warps;
    a->blocks_per_document = p->blocks_per_document;
}

int lik_cuda_grad_run(const struct lik_gpu *gpu, const struct lik_grad *op, const struct grad_plan *p,
                      char *workspace, cudaStream_t stream)
{
    struct grad_args a = {};
    a.op = *op;
    take_plan(&a, p);
    int status = prepare_inputs(p, &a, workspace, stream);
    if (status)
        return status;
    int64_t runs = op->grad_d ? op->score.d.count * p->blocks_per_document : 0;
    int64_t tokens = op->grad_q || op->grad_weights ? op->score.q.count * op->score.q.len_max : 0;
    if (op->score.d.storage == LIK_RESIDUAL)
        return tokens ? lik_cuda_grad_compressed(&a, p, workspace, stream) : LIK_OK;
    if (!runs || !p->one_launch) {
        if ((status = launch_rows(gpu, p, &a, p->d_kind, p->query_bytes, 0, tokens, stream)))
            return status;
        tokens = 0;
    }
    return launch_rows(gpu, p, &a, p->q_kind, p->document_bytes, runs, tokens, stream);
}
