/* The k best documents of each query, without the full score matrix: documents are scored a
 * chunk at a time into the workspace, and a chunk's scores are reduced to k keys a query before
 * the next.
 *
 * A key is 64 bits, the score as an ordered integer above the document's number: smaller is
 * better, ties go to the lower document, NaN comes last and what is no document after it, so
 * that plain integer order is the order of lik_topk; no two are equal. A block looks at a run
 * of 4096 keys, finds the k-th by digits of 8 bits from the first bit in which they differ, and
 * keeps those up to it, level by level; only the last k are sorted. k above half a run sorts in
 * device memory instead: rare, and bounded by the same chunk. */
#include "cuda/kernels.cuh"
#include "cuda/sort.cuh"
#include "shared/tokens.h"

#define RUN            TOPK_RUN
#define SELECT_THREADS 512
#define KEYS_A_THREAD  (RUN / SELECT_THREADS)
#define DIGIT_BITS     8
#define NO_KEY         0xffffffffffffffffull

LIK_DEVICE uint64_t key_of(float score, uint32_t document, int smallest)
{
    if (score != score)
        return 0xffffffffull << 32 | document;
    uint32_t bits = __float_as_uint(score + 0.0f), order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)(smallest ? order : ~order) << 32 | document;
}

LIK_DEVICE float score_of(uint64_t key, int smallest)
{
    uint32_t order = (uint32_t)(key >> 32);
    if (order == 0xffffffffu)
        return __uint_as_float(0x7fc00000u);
    order = smallest ? order : ~order;
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

/* Keys of one level, [queries, count]: scores of documents first_id ..., or keys, then `more`
 * keys of an earlier chunk. */
struct level {
    const float *scores;
    const uint64_t *keys, *more_keys;
    int64_t count, more, first_id;
    int64_t runs, keep; /* runs a query, keys kept of each */
    uint64_t *out;      /* [queries, runs, keep] */
    int32_t smallest, run;
};

LIK_DEVICE uint64_t key_at(const struct level &l, int64_t query, int64_t i)
{
    if (i < l.count)
        return l.scores ? key_of(l.scores[query * l.count + i], (uint32_t)(l.first_id + i), l.smallest)
                        : l.keys[query * l.count + i];
    return i - l.count < l.more ? l.more_keys[query * l.more + i - l.count] : NO_KEY;
}

/* What the threads of a block tell each other of a run. */
struct selection {
    unsigned long long every, some; /* and, or of all keys */
    uint32_t valid;                 /* keys that are documents */
    uint32_t taken;
    uint32_t digit, before, inside; /* that of the k-th key; keys of lower ones, keys that have it */
    uint32_t bins[1 << DIGIT_BITS];
    uint64_t keys[RUN / 2]; /* the last level's, to be sorted */
};

LIK_DEVICE void begin_selection(const uint64_t (&own)[KEYS_A_THREAD], struct selection *s)
{
    if (threadIdx.x == 0) {
        s->every = NO_KEY;
        s->some = 0;
        s->valid = s->taken = 0;
    }
    __syncthreads();
    uint64_t every = NO_KEY, some = 0;
    uint32_t valid = 0;
#pragma unroll
    for (int j = 0; j < KEYS_A_THREAD; j++) {
        every &= own[j];
        some |= own[j] == NO_KEY ? 0 : own[j];
        valid += own[j] != NO_KEY;
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        every &= __shfl_xor_sync(0xffffffffu, every, lanes);
        some |= __shfl_xor_sync(0xffffffffu, some, lanes);
        valid += __shfl_xor_sync(0xffffffffu, valid, lanes);
    }
    if (threadIdx.x % 32 == 0) {
        atomicAnd(&s->every, (unsigned long long)every);
        atomicOr(&s->some, (unsigned long long)some);
        atomicAdd(&s->valid, valid);
    }
    __syncthreads();
}

/* One warp: the digit at which the number of keys reaches `rank`. */
LIK_DEVICE void find_digit(uint32_t rank, struct selection *s)
{
    const int each = (1 << DIGIT_BITS) / 32, first = (int)threadIdx.x * each;
    uint32_t own = 0;
    for (int i = 0; i < each; i++)
        own += s->bins[first + i];
    uint32_t up_to = own;
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        uint32_t lower = __shfl_up_sync(0xffffffffu, up_to, lanes);
        up_to += (int)threadIdx.x >= lanes ? lower : 0;
    }
    uint32_t before = up_to - own;
    if (before >= rank || up_to < rank)
        return; /* it is another lane's */
    for (int i = 0; i < each; before += s->bins[first + i++])
        if (before + s->bins[first + i] >= rank) {
            s->digit = (uint32_t)(first + i);
            s->before = before;
            s->inside = s->bins[first + i];
            return;
        }
}

/* A number that `keep` of the block's keys do not exceed; all documents' where there are no
 * more. */
LIK_DEVICE uint64_t bound_of(const uint64_t (&own)[KEYS_A_THREAD], int64_t keep, struct selection *s)
{
    if (s->valid <= keep)
        return NO_KEY - 1;
    int unknown = 64 - __clzll((long long)(s->every ^ s->some)); /* low bits that tell keys apart */
    uint64_t known = unknown == 64 ? 0 : s->some >> unknown << unknown;
    uint32_t rank = (uint32_t)keep;
    for (;;) {
        const int shift = unknown > DIGIT_BITS ? unknown - DIGIT_BITS : 0;
        if (threadIdx.x < 1 << DIGIT_BITS)
            s->bins[threadIdx.x] = 0;
        __syncthreads();
#pragma unroll
        for (int j = 0; j < KEYS_A_THREAD; j++) {
            uint64_t apart = own[j] ^ known;
            if (own[j] != NO_KEY && (unknown == 64 || apart >> unknown == 0))
                atomicAdd(&s->bins[apart >> shift], 1u);
        }
        __syncthreads();
        if (threadIdx.x < 32)
            find_digit(rank, s);
        __syncthreads();
        known |= (uint64_t)s->digit << shift;
        rank -= s->before;
        unknown = shift;
        if (s->inside == rank || unknown == 0)
            return known | ((1ull << unknown) - 1);
    }
}

/* The first `keep` of the keys that were taken, in order, to out. */
LIK_DEVICE void sort_taken(struct selection *s, int64_t keep, uint64_t *out)
{
    const int taken = (int)s->taken;
    int padded = 2;
    while (padded < taken)
        padded *= 2;
    for (int i = taken + (int)threadIdx.x; i < padded; i += SELECT_THREADS)
        s->keys[i] = NO_KEY;
    __syncthreads();
    for (int size = 2; size <= padded; size *= 2)
        for (int stride = size / 2; stride > 0; stride /= 2) {
            for (int p = (int)threadIdx.x; p < padded / 2; p += SELECT_THREADS)
                exchange(s->keys, p, 0, size, stride);
            __syncthreads();
        }
    for (int64_t i = threadIdx.x; i < keep; i += SELECT_THREADS)
        out[i] = i < taken ? s->keys[i] : NO_KEY;
}

static __global__ void __launch_bounds__(SELECT_THREADS) select_runs(const __grid_constant__ struct level l)
{
    __shared__ struct selection s;
    const bool last = l.runs == 1;
    for (int64_t run = blockIdx.x; run < l.runs; run += gridDim.x) {
        const int64_t query = blockIdx.y;
        uint64_t own[KEYS_A_THREAD], *out = l.out + (query * l.runs + run) * l.keep;
#pragma unroll
        for (int j = 0; j < KEYS_A_THREAD; j++) {
            int i = (int)threadIdx.x + j * SELECT_THREADS;
            own[j] = i < l.run ? key_at(l, query, run * l.run + i) : NO_KEY;
        }
        begin_selection(own, &s);
        const uint64_t bound = bound_of(own, l.keep, &s);
#pragma unroll
        for (int j = 0; j < KEYS_A_THREAD; j++) {
            const bool takes = own[j] <= bound;
            const uint32_t lanes = __ballot_sync(0xffffffffu, takes);
            uint32_t at = 0;
            if (threadIdx.x % 32 == 0 && lanes)
                at = atomicAdd(&s.taken, (uint32_t)__popc(lanes));
            at = __shfl_sync(0xffffffffu, at, 0) + (uint32_t)__popc(lanes & ((1u << threadIdx.x % 32) - 1));
            if (takes)
                (last ? s.keys : out)[at] = own[j];
        }
        __syncthreads();
        if (last)
            sort_taken(&s, l.keep, out);
        else
            for (int64_t i = s.taken + threadIdx.x; i < l.keep; i += SELECT_THREADS)
                out[i] = NO_KEY;
        __syncthreads();
    }
}

/* For large k: the keys of a level, padded to `padded`, a power of two a query. */
static __global__ void gather_keys(const __grid_constant__ struct level l, int64_t padded, int64_t queries)
{
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < padded * queries;
         n += (int64_t)gridDim.x * blockDim.x)
        l.out[n] = key_at(l, n / padded, n % padded);
}

static __global__ void keep_first(const uint64_t *keys, int64_t padded, int64_t k, int64_t queries,
                                  uint64_t *out)
{
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < k * queries;
         n += (int64_t)gridDim.x * blockDim.x)
        out[n] = keys[n / k * padded + n % k];
}

static __global__ void write_best(const uint64_t *keys, int64_t count, int64_t id_base, int smallest,
                                  float *values, int64_t *ids)
{
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count;
         n += (int64_t)gridDim.x * blockDim.x) {
        uint64_t key = keys ? keys[n] : NO_KEY;
        values[n] = score_of(key, smallest);
        ids[n] = key == NO_KEY ? -1 : id_base + (int64_t)(uint32_t)key;
    }
}

/* Sorts all keys of a level in device memory and keeps the first k of each query. */
static int sort_all(struct level *l, int64_t queries, int64_t padded, int64_t k, uint64_t *sorted,
                    uint64_t *out, cudaStream_t stream)
{
    l->out = sorted;
    gather_keys<<<lik_cuda_blocks(queries * padded), 256, 0, stream>>>(*l, padded, queries);
    int status = lik_cuda_sort(sorted, padded, queries, stream);
    if (status)
        return status;
    keep_first<<<lik_cuda_blocks(queries * k), 256, 0, stream>>>(sorted, padded, k, queries, out);
    return lik_cuda_launched("sort_all");
}

static int select_level(struct level *l, int64_t queries, cudaStream_t stream)
{
    for (int64_t from = 0; from < queries; from += 32768) { /* a grid has 65535 rows */
        struct level part = *l;
        int64_t count = queries - from < 32768 ? queries - from : 32768;
        part.scores = l->scores ? l->scores + from * l->count : NULL;
        part.keys = l->keys ? l->keys + from * l->count : NULL;
        part.more_keys = l->more_keys + from * l->more;
        part.out = l->out + from * l->runs * l->keep;
        select_runs<<<dim3((unsigned)l->runs, (unsigned)count), SELECT_THREADS, 0, stream>>>(part);
    }
    return lik_cuda_launched("select_runs");
}

/* The k best of a chunk's scores and of `before`, the best so far, to `after`. */
static int select_chunk(const struct lik_topk *op, const struct topk_plan *p, int64_t queries,
                        int64_t columns, int64_t first_id, const float *scores, const uint64_t *before,
                        uint64_t *after, uint64_t *keys[2], cudaStream_t stream)
{
    struct level l = {};
    l.scores = scores;
    l.count = columns;
    l.more_keys = before;
    l.more = before ? op->k : 0;
    l.first_id = first_id;
    l.smallest = op->smallest;
    if (p->sorted_keys)
        return sort_all(&l, queries, p->sorted_keys, op->k, keys[0], after, stream);
    for (int turn = 0;; turn ^= 1) {
        int64_t n = l.count + l.more;
        l.keep = op->k;
        l.run = RUN;
        while (l.run > 64 && l.run / 2 >= n)
            l.run /= 2;
        l.runs = (n + l.run - 1) / l.run;
        l.out = l.runs == 1 ? after : keys[turn];
        int status = select_level(&l, queries, stream);
        if (status || l.runs == 1)
            return status;
        l.scores = NULL;
        l.keys = keys[turn];
        l.count = l.runs * l.keep;
        l.more = 0;
    }
}

static int run_rows(const struct lik_gpu *gpu, const struct lik_topk *op, const struct topk_plan *p,
                    int64_t row, int64_t rows, char *workspace, cudaStream_t stream)
{
    int64_t columns = lik_score_columns(&op->score);
    float *scores = (float *)(workspace + p->scores);
    uint64_t *keys[2] = {(uint64_t *)(workspace + p->keys[0]), (uint64_t *)(workspace + p->keys[1])};
    uint64_t *best[2] = {(uint64_t *)(workspace + p->best[0]), (uint64_t *)(workspace + p->best[1])};
    uint64_t *before = NULL;
    int turn = 0;
    for (int64_t column = 0; column < columns; column += p->documents_per_chunk) {
        int64_t n = lik_min_i64(columns - column, p->documents_per_chunk);
        int whole = rows == p->queries_per_chunk && n == p->documents_per_chunk;
        struct lik_score chunk;
        int status = lik_cuda_topk_chunk(&op->score, row, rows, column, n, scores, &chunk);
        if (!status)
            status = lik_cuda_score_run(gpu, &chunk, whole ? &p->score : &p->last_score,
                                        workspace + p->score_workspace, stream);
        if (!status)
            status = select_chunk(op, p, rows, n, column, scores, before, best[turn], keys, stream);
        if (status)
            return status;
        before = best[turn];
        turn ^= 1;
    }
    write_best<<<lik_cuda_blocks(rows * op->k), 256, 0, stream>>>(
        before, rows * op->k, op->id_base, op->smallest, op->values + row * op->k, op->ids + row * op->k);
    return lik_cuda_launched("write_best");
}

int lik_cuda_topk_run(const struct lik_gpu *gpu, const struct lik_topk *op, const struct topk_plan *p,
                      char *workspace, cudaStream_t stream)
{
    int status = LIK_OK;
    for (int64_t row = 0; !status && row < op->score.q.count; row += p->queries_per_chunk) {
        int64_t rows = lik_min_i64(op->score.q.count - row, p->queries_per_chunk);
        status = run_rows(gpu, op, p, row, rows, workspace, stream);
    }
    return status;
}
