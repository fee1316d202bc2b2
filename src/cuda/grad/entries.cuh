/* The entries of a gradient: the argmax of the scores that a query or a document takes part in,
 * and how a block sorts those of its document by token. See grad.cu. */
#ifndef LIK_CUDA_GRAD_ENTRIES_CUH
#define LIK_CUDA_GRAD_ENTRIES_CUH

#include "cuda/codec.cuh"

extern "C" {
#include "cuda/plan/plan.h"
}

static_assert(GRAD_TOKENS <= 32 * GRAD_WARPS, "a thread a slot in the prefix sum, a bit a token of a warp's");
static_assert(GRAD_TOKENS <= 1 << (32 - GRAD_ENTRY_BITS), "a hit is a slot and an entry");
static_assert(GRAD_HITS <= 65536, "hits are sorted as 16-bit numbers");
static_assert(GRAD_FEW * GRAD_WARPS <= GRAD_HITS, "each warp has a list of few entries");
static_assert(GRAD_FEW <= 32 * GRAD_AHEAD, "few entries are looked at in one round");
static_assert((1 << GRAD_ENTRY_BITS) % (32 * GRAD_AHEAD) == 0, "rounds are whole");

/* Numbers of scores below those of the query or the document that they belong to, ascending
 * (LIK_LIST). */
struct sorted_list {
    uint64_t *keys;
    int64_t count;
};

struct grad_args {
    struct lik_grad op;
    int64_t columns;                  /* documents of a score row */
    const float *q_factor, *d_factor; /* what normalizes the tokens, one a row of their array; NULL without */
    struct sorted_list by_q, by_d;
    int32_t q_vector, d_vector, argmax_vector, plain; /* struct grad_plan; so are the next */
    int32_t slices_per_row, keep_rows, hits_per_window, tokens_per_block, query_warps;
    uint32_t document_blocks; /* of this launch */
    int64_t blocks_per_document;
    int64_t first_run, first_query_token; /* of this launch */
};

/* The scores that one sequence takes part in: n = 0 ... count - 1. */
struct incidence {
    int64_t count, row, column;
    int32_t row_step, column_step;
    const uint64_t *order;
    int64_t winners,
        winners_step; /* without an order: element of the argmax where score 0 begins; from one to the next */
};

LIK_DEVICE int64_t first_of(const struct sorted_list &l, int64_t sequence)
{
    int64_t from = 0, to = l.count;
    while (from < to) {
        int64_t middle = (from + to) / 2;
        if ((int64_t)(l.keys[middle] >> 32) < sequence)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

LIK_DEVICE struct incidence scores_of(const struct grad_args &a, bool of_query, int64_t i)
{
    const struct lik_score &op = a.op.score;
    struct incidence in = {1, i};
    if (op.pairing == LIK_LIST) {
        const struct sorted_list &l = of_query ? a.by_q : a.by_d;
        int64_t from = first_of(l, i);
        in.order = l.keys + from;
        in.count = first_of(l, i + 1) - from;
    } else if (of_query) {
        in.count = a.columns;
        in.column_step = 1;
    } else if (op.pairing == LIK_ALL) {
        in.count = op.q.count;
        in.row = 0;
        in.column = i;
        in.row_step = 1;
    } else if (op.pairing == LIK_CANDIDATES) {
        in.row = i / op.per_query;
        in.column = i - in.row * op.per_query;
    }
    in.winners = (in.row * a.columns + in.column) * op.q.len_max;
    in.winners_step = (in.row_step * a.columns + in.column_step) * op.q.len_max;
    return in;
}

LIK_DEVICE void incidence_at(const struct incidence &in, int64_t n, int64_t &row, int64_t &column)
{
    row = in.order ? (int64_t)(uint32_t)in.order[n] : in.row + n * in.row_step;
    column = in.column + n * in.column_step;
}

/* Element of the argmax where the n-th score's winners begin. */
LIK_DEVICE int64_t first_winner(const struct lik_score &op, const struct incidence &in, int64_t n)
{
    return in.order ? (int64_t)(uint32_t)in.order[n] * op.q.len_max : in.winners + n * in.winners_step;
}

/* The document token that query token s met in the n-th score. */
LIK_DEVICE int winner_at(const struct lik_score &op, const struct incidence &in, int64_t n, int s)
{
    int64_t at = first_winner(op, in, n) + s;
    return op.argmax_dtype == LIK_I16 ? ((const int16_t *)op.argmax)[at] : ((const int32_t *)op.argmax)[at];
}

/* The block's shared memory: sizes by the arguments. */
struct document_shared {
    float *kept;      /* [range][slices * lanes * 8] */
    int *counters;    /* [GRAD_WARPS][slots] */
    int *start;       /* [slots + 1] */
    uint32_t *hits;   /* [window]: slot << GRAD_ENTRY_BITS | number of the entry */
    uint16_t *sorted; /* [window]: numbers of hits, by slot */
};

/* The slot of token t of the run: in the order of the warps, so that each has its entries in
 * one piece. */
LIK_DEVICE uint32_t slot_of(uint32_t t, int range)
{
    return t % GRAD_WARPS * (uint32_t)GRAD_WARP_TOKENS(range) + t / GRAD_WARPS;
}

/* GRAD_AHEAD winners, of query tokens s ... of the n-th score. */
LIK_DEVICE void winners_at(const struct lik_score &op, const struct incidence &in, int64_t n, int s,
                           int (&winner)[GRAD_AHEAD])
{
    int64_t at = first_winner(op, in, n) + s;
    if (op.argmax_dtype == LIK_I16) {
        short4 w = *(const short4 *)((const int16_t *)op.argmax + at);
        winner[0] = w.x, winner[1] = w.y, winner[2] = w.z, winner[3] = w.w;
    } else {
        int4 w = *(const int4 *)((const int32_t *)op.argmax + at);
        winner[0] = w.x, winner[1] = w.y, winner[2] = w.z, winner[3] = w.w;
    }
}

/* A warp looks at the entries base ... base + end - 1, in rounds of GRAD_AHEAD a lane, and
 * lists those of the run's tokens, of all or of its own: their slots, and their numbers from
 * `base` on. It counts them by slot. Stops where there might be more than `most`; `from`
 * becomes how many it has looked at. Returns how many it has listed. */
template <bool own>
LIK_DEVICE int find_hits(const struct grad_args &a, const struct incidence &in, int64_t base, int end,
                         int most, int first_token, int here, int range, uint32_t *hits, int *counters,
                         int &from)
{
    const struct lik_score &op = a.op.score;
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x / 32, len = max((int)op.q.len_max, 1);
    int count = 0, winner[GRAD_AHEAD];
    int64_t n = (base + lane * GRAD_AHEAD) / len; /* entry n len + s is read next */
    int s = (int)((base + lane * GRAD_AHEAD) % len);
    auto read = [&](int e) {
        if (a.argmax_vector) {
            if (e < end)
                winners_at(op, in, n, s, winner);
        } else {
            int64_t m = n;
            for (int u = 0, t = s; u < GRAD_AHEAD; u++) {
                if (e + u < end)
                    winner[u] = winner_at(op, in, m, t);
                if (++t == len) {
                    t = 0;
                    m++;
                }
            }
        }
        n += 32 * GRAD_AHEAD / len;
        s += 32 * GRAD_AHEAD % len;
        if (s >= len) {
            n++;
            s -= len;
        }
    };
    read(lane * GRAD_AHEAD);
#pragma unroll 1
    for (from = 0; from < end && count + 32 * GRAD_AHEAD <= most; from += 32 * GRAD_AHEAD) {
        int e = from + lane * GRAD_AHEAD, at_hand[GRAD_AHEAD];
#pragma unroll
        for (int u = 0; u < GRAD_AHEAD; u++)
            at_hand[u] = winner[u];
        read(e + 32 * GRAD_AHEAD); /* meanwhile */
        uint32_t before = (1u << lane) - 1u;
        int number = count; /* of the lane's next hit: they stay in the order of the entries */
        bool hit[GRAD_AHEAD];
#pragma unroll
        for (int u = 0; u < GRAD_AHEAD; u++) {
            uint32_t token = (uint32_t)at_hand[u] - (uint32_t)first_token;
            hit[u] = e + u < end && token < (uint32_t)here && (!own || token % GRAD_WARPS == (uint32_t)warp);
            uint32_t which = __ballot_sync(~0u, hit[u]);
            number += __popc(which & before);
            count += __popc(which);
        }
#pragma unroll
        for (int u = 0; u < GRAD_AHEAD; u++)
            if (hit[u]) {
                uint32_t slot = slot_of((uint32_t)at_hand[u] - (uint32_t)first_token, range);
                atomicAdd(&counters[slot], 1);
                hits[number++] = slot << GRAD_ENTRY_BITS | (uint32_t)(e + u);
            }
    }
    __syncwarp();
    return count;
}

/* A warp gives `count` hits, whose numbers begin with `first`, their places: those of slot i
 * from next[i] on. */
LIK_DEVICE void place_hits(const struct document_shared &sm, int *next, int first, int count)
{
    int lane = (int)threadIdx.x & 31;
#pragma unroll 1
    for (int from = 0; from < count; from += 32) {
        int number = first + from + lane;
        bool is_hit = from + lane < count;
        uint32_t slot = is_hit ? sm.hits[number] >> GRAD_ENTRY_BITS : UINT32_MAX;
        unsigned peers = __match_any_sync(~0u, slot);
        int rank = __popc(peers & ((1u << lane) - 1u));
        if (is_hit)
            sm.sorted[next[slot] + rank] = (uint16_t)number;
        __syncwarp();
        if (is_hit && rank == 0)
            next[slot] += __popc(peers);
        __syncwarp();
    }
}

/* The sum over the warp's lanes up to this one. */
LIK_DEVICE int sum_to_lane(int own)
{
    int lane = (int)threadIdx.x & 31, sum = own;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        int before = __shfl_up_sync(~0u, sum, o);
        sum += lane >= o ? before : 0;
    }
    return sum;
}

/* Where the warps are: each has a part of the document's entries. */
struct document_entries {
    int64_t count; /* of all */
    /* of each warp's entries: the first of the window, of the next window */
    int64_t first[GRAD_WARPS], next[GRAD_WARPS];
    /* the window is the last; sums are kept for windows or slices to come */
    int last, keep;
};

LIK_DEVICE int64_t entries_of_warp(const struct document_entries &entries)
{
    return (entries.count + GRAD_WARPS * GRAD_AHEAD - 1) / (GRAD_WARPS * GRAD_AHEAD) * GRAD_AHEAD;
}

/* Sorts the next window of hits by slot: sorted[start[i] ... start[i + 1]) are those of slot
 * i. */
LIK_DEVICE void sort_window(const struct grad_args &a, const struct document_shared &sm,
                            const struct incidence &in, struct document_entries &entries, int first_token,
                            int here, int range)
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x & 31, most = a.hits_per_window / GRAD_WARPS;
    const int slots = GRAD_WARPS * GRAD_WARP_TOKENS(range);
    int *mine = sm.counters + warp * slots, from;
    __shared__ int warp_sums[GRAD_WARPS], hits[GRAD_WARPS]; /* in shared memory to spare registers */
    __syncthreads();                                        /* the window before has been worked up */
    for (int i = lane; i < slots; i += 32)
        mine[i] = 0;
    __syncwarp();
    const int64_t first = entries.next[warp];
    const int64_t left = min((warp + 1) * entries_of_warp(entries), entries.count) - first;
    int count = find_hits<false>(a, in, first, (int)min(left, (int64_t)1 << GRAD_ENTRY_BITS), most,
                                 first_token, here, range, sm.hits + warp * most, mine, from);
    if (lane == 0) {
        hits[warp] = count;
        entries.first[warp] = first;
        entries.next[warp] = first + from;
    }
    const bool last = __syncthreads_and(from >= left);
    if (threadIdx.x == 0) {
        entries.last = last;
        entries.keep = a.keep_rows && !(last && first == 0 && a.slices_per_row == 1);
    }
    /* A thread a slot: its hits in all warps, then their sum over the slots before. */
    int slot = (int)threadIdx.x, own = 0;
    for (int w = 0; w < GRAD_WARPS; w++)
        own += slot < slots ? sm.counters[w * slots + slot] : 0;
    int sum = sum_to_lane(own);
    if (lane == 31)
        warp_sums[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; w++)
        sum += warp_sums[w];
    if (slot < slots) {
        int at = sum - own;
        sm.start[slot] = at;
        if (slot == slots - 1)
            sm.start[slots] = sum;
        for (int w = 0; w < GRAD_WARPS; w++) {
            int here = sm.counters[w * slots + slot];
            sm.counters[w * slots + slot] = at;
            at += here;
        }
    }
    __syncthreads();
    place_hits(sm, mine, warp * most, hits[warp]);
    __syncthreads();
}

/* The same for a document of few entries, without a barrier: each warp reads all of them and
 * sorts those of its own tokens into its own part of the lists, sorted[start[i] ...
 * counters[i]) for slot i. */
LIK_DEVICE void sort_few(const struct grad_args &a, const struct document_shared &sm,
                         const struct incidence &in, int entries, int first_token, int here, int range)
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x & 31;
    int own = warp * GRAD_WARP_TOKENS(range) + lane, first = warp * (a.hits_per_window / GRAD_WARPS),
        *ends = sm.counters;
    bool has_own = lane < GRAD_WARP_TOKENS(range);
    if (has_own)
        ends[own] = 0;
    __syncwarp();
    int from, hits = find_hits<true>(a, in, 0, entries, GRAD_FEW, first_token, here, range, sm.hits + first,
                                     ends, from);
    int count = has_own ? ends[own] : 0, sum = sum_to_lane(count);
    if (has_own)
        sm.start[own] = ends[own] = first + sum - count;
    __syncwarp();
    place_hits(sm, ends, first, hits);
}

#endif
