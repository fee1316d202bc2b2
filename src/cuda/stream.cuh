/* The Hopper loop's stream of column tiles: what its warps share, and the producer warp, which walks the documents,
 * plans tiles and copies them. It is the only one that knows of layouts, masks, lists and offsets. See score_sm90.cu.
 */
#ifndef LIK_CUDA_STREAM_CUH
#define LIK_CUDA_STREAM_CUH

#include "cuda/kernels.cuh"
#include "cuda/score.cuh"

#define COLUMNS         128   /* of a tile */
#define TILE_BLOCKS     16    /* blocks of 8 columns */
#define SLAB_BYTES      16384 /* 128 columns x 64 elements */
#define SLAB_ROWS_BYTES 8192  /* 64 query rows x 64 elements */
#define MAX_GROUPS      4     /* warpgroups that multiply */
#define HEADS           16
#define MAX_ENDS        8 /* documents that may end in one tile */
#define MAX_STAGES      12
#define BOXES           5 /* tensor maps with boxes of 8, 16, 32, 64 and 128 rows */

static_assert(HEADS >= MAX_STAGES + 3,
              "a head must outlive its tile's slabs: one tile is planned ahead, one not yet taken");

struct sm90_args {
    CUtensorMap maps[BOXES];
    struct score_args score;
    int32_t slabs; /* of 64 elements a token */
    int32_t stages, warpgroups;
    int32_t flat;       /* documents follow each other without a gap in whole blocks: rows are count x len_max */
    int32_t group_size; /* sequences of the third axis of the maps */
    int32_t normalize;  /* the documents: their norms are taken as they pass through the ring */

    int32_t uniform;      /* documents of one length, none masked or listed: plan_uniform_tile */
    float inverse_blocks; /* 1 / blocks of a document */
};

/* What a column tile holds. */
struct __align__(16) head {
    uint32_t counts[4];  /* columns that count, a bit each */
    uint32_t ends;       /* bit j: a document ends with block j */
    uint32_t empty, bad; /* bit i: the i-th document that ends here has no kept token; is out of range */
    int32_t row_tile;    /* -1: there are no more */
    int32_t token;       /* index in its document of column 0 */
    int32_t flags;  /* 1: the last document goes on in the next tile; 2: all columns count and no document ends before
                     * the last block */
    int64_t column; /* of the scores: the first document that ends here */
    float factor[COLUMNS]; /* what normalizes the columns, if the documents are to be */
};

/* The part of a head that every tile needs, in registers: read while the products run. */
struct brief {
    uint32_t counts[4], ends;
    int32_t token, flags; /* flags: 1 open, 2 whole */
};

/* Row maxima of one lane: rows lane / 4 and lane / 4 + 8 of its warp's block. */
struct maxima {
    float best0, best1;
    int at0, at1;
};

/* Sums of 16 rows, for the warp that adds them up; two, so that the next tile's can be written meanwhile. */
struct sums {
    int64_t column; /* of the scores: the first document */
    int32_t row_tile, documents;
    float of[MAX_ENDS][4 * MAX_GROUPS]; /* [document][block] */
};

struct shared {
    uint64_t full[MAX_STAGES], empty[MAX_STAGES], sums_full[2], sums_empty[2];
    uint64_t normed[HEADS];
    struct head heads[HEADS];
    struct sums sums[2];
    int64_t row_at[MAX_GROUPS][64]; /* [warpgroup][row]: struct query_row */
    float row_weight[MAX_GROUPS][64];
    int row_counts[MAX_GROUPS][64]; /* 0, 1, or 2 where the query is out of range */
    int64_t first[MAX_GROUPS][4]; /* [warpgroup][warp]: number of its block's score with the first document, -1: none */
    int block[MAX_GROUPS][4];     /* of the query */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Its place in the stream, the same in all lanes but for what is said to be of a lane. */
struct walk {
    int64_t left; /* documents still to open */
    int row_tile;
    int64_t column;
    bool open;                     /* in the midst of a document */
    int length, done, blocks_left; /* done: tokens; blocks in plan_uniform_tile */
    bool holes, bad, none;
    int64_t index;                /* the open document */
    int row, sequence, group;     /* its place in the tensor maps */
    int64_t batch;                /* score column of lane 0's document in the batch */
    int64_t lane_index, lane_row; /* of a lane: one document of the batch */
    int lane_length;
};

/* One copy of 8 << map rows; lane i holds the i-th of the tile. */
struct box {
    const CUtensorMap *map;
    int block, row, sequence, group;
};

/* Cuts `blocks` blocks of rows from the one `at` begins with into boxes, the largest first. */
LIK_DEVICE void cut_boxes(const struct sm90_args &a, struct box at, int blocks, struct box &box, int &boxes, int lane)
{
#pragma unroll
    for (int b = BOXES - 1; b >= 0; b--)
        if (blocks >> b & 1) {
            if (lane == boxes) {
                box = at;
                box.map = &a.maps[b];
            }
            boxes++;
            at.block += 1 << b;
            at.row += 8 << b;
        }
}

LIK_DEVICE void read_batch(struct walk &w, const struct score_args &a, int64_t row, int lane)
{
    const struct lik_tokens &d = a.op.d;
    w.batch = w.column;
    int64_t column = w.column + lane;
    w.lane_length = 0;
    w.lane_row = w.lane_index = 0;
    if (column < a.columns) {
        w.lane_index = lik_score_document(&a.op, row, column);
        w.lane_length = sequence_length(d, w.lane_index);
        if (d.offsets && w.lane_length >= 0)
            w.lane_row = lik_offset_at(&d, w.lane_index);
    }
}

/* Tokens up to the last kept one, and whether some before it are dropped. */
LIK_DEVICE int kept_length(const struct lik_tokens &d, int64_t i, int length, int lane, bool &holes)
{
    int64_t base = lik_tokens_base(&d, &d.mask_strides, i);
    int last = 0, kept = 0;
    for (int t = 0; t < length; t += 32) {
        bool keep = t + lane < length && d.mask[base + (t + lane) * d.mask_strides.token];
        unsigned ballot = __ballot_sync(~0u, keep);
        kept += __popc(ballot);
        if (ballot)
            last = t + 32 - __clz(ballot);
    }
    holes = kept != last;
    return last;
}

LIK_DEVICE void open_document(struct walk &w, const struct sm90_args &a, int lane)
{
    const struct lik_tokens &d = a.score.op.d;
    const struct tiling &t = a.score.tiling;
    if (w.column < w.batch || w.column >= w.batch + 32)
        read_batch(w, a.score, t.parts ? w.row_tile / t.parts : 0, lane);
    int from = (int)(w.column - w.batch);
    w.index = __shfl_sync(~0u, w.lane_index, from);
    w.length = __shfl_sync(~0u, w.lane_length, from);
    int64_t row = __shfl_sync(~0u, w.lane_row, from);
    w.bad = w.length < 0;
    w.holes = false;
    w.done = 0;
    w.open = true;
    w.row = (int)row;
    w.sequence = w.group = 0;
    if (w.bad) {
        w.length = 0;
        w.row = 0;
    } else if (a.flat) {
        w.row = (int)(w.index * d.len_max);
    } else if (!d.offsets) {
        w.group = d.group_size > 0 ? (int)(w.index / a.group_size) : 0;
        w.sequence = (int)(w.index - (int64_t)w.group * a.group_size);
    }
    if (d.mask && w.length > 0)
        w.length = kept_length(d, w.index, w.length, lane, w.holes);
    w.none = w.length == 0;
    w.blocks_left = w.none ? 1 : (w.length + 7) / 8;
}

/* Bits of columns from ... to - 1 in the word of columns first ... first + 31. */
LIK_DEVICE uint32_t column_bits(int first, int from, int to)
{
    from = max(from - first, 0);
    to = min(to - first, 32);
    return from >= to ? 0u : (~0u >> (32 - (to - from))) << from;
}

/* A tile within one document whose tokens all count: most tiles of long documents. */
LIK_DEVICE void plan_inner_tile(struct walk &w, const struct sm90_args &a, struct head &head, struct box &box, int lane)
{
    bool ends = w.blocks_left == TILE_BLOCKS;
    if (lane < 4)
        head.counts[lane] = ~0u;
    if (lane == 0) {
        head.ends = ends ? 1u << (TILE_BLOCKS - 1) : 0;
        head.empty = head.bad = 0;
        head.row_tile = w.row_tile;
        head.token = w.done;
        head.column = w.column;
        head.flags = ends ? 2 : 3;
        box.map = &a.maps[BOXES - 1];
        box.block = 0;
        box.row = w.row + w.done;
        box.sequence = w.sequence;
        box.group = w.group;
    }
    w.done += COLUMNS;
    w.blocks_left -= TILE_BLOCKS;
    if (ends) {
        w.open = false;
        w.column++;
        w.left--;
    }
    __syncwarp();
}

/* Plans the next tile: fills the head and each lane's box; returns its blocks, 0 at the end of the stream. */
LIK_DEVICE int plan_tile(struct walk &w, const struct sm90_args &a, struct head &head, struct box &box, int lane)
{
    const struct lik_tokens &d = a.score.op.d;
    if (w.open && !w.holes && w.length - w.done >= COLUMNS) {
        plan_inner_tile(w, a, head, box, lane);
        return TILE_BLOCKS;
    }
    int used = 0, documents = 0, token = 0, run = 0; /* blocks of the run of rows that is being gathered */
    uint32_t ends = 0, empty = 0, bad = 0, counts = 0;
    int64_t column = 0;
    int row_tile = 0;
    struct box from_here = {};
    int boxes = 0;
    while (used < TILE_BLOCKS && documents < MAX_ENDS) {
        if (!w.open) {
            if (w.left == 0)
                break;
            if (w.column == a.score.columns) {
                if (used)
                    break; /* a tile is of one row tile */
                w.column = 0;
                w.row_tile++;
                if (a.score.tiling.parts)
                    w.batch = -64;
            }
            open_document(w, a, lane);
        }
        if (used == 0) {
            token = w.done;
            column = w.column;
            row_tile = w.row_tile;
        }
        int take = min(w.blocks_left, TILE_BLOCKS - used), row = w.row + w.done;
        if (run &&
            !(row == from_here.row + run * 8 && w.sequence == from_here.sequence && w.group == from_here.group)) {
            cut_boxes(a, from_here, run, box, boxes, lane);
            run = 0;
        }
        if (run == 0) {
            from_here.block = used;
            from_here.row = row;
            from_here.sequence = w.sequence;
            from_here.group = w.group;
        }
        run += take;
        int from = used * 8, to = from + min(take * 8, w.length - w.done);
        if (!w.holes) {
            counts |= column_bits(lane * 32, from, to); /* lanes 0 to 3 hold the four words */
        } else {
            int64_t base = lik_tokens_base(&d, &d.mask_strides, w.index);
            for (int i = 0; i < 4; i++) {
                int c = i * 32 + lane;
                bool keep = c >= from && c < to && d.mask[base + (w.done + c - from) * d.mask_strides.token];
                unsigned ballot = __ballot_sync(~0u, keep);
                if (lane == i)
                    counts |= ballot;
            }
        }
        used += take;
        w.done += take * 8;
        w.blocks_left -= take;
        if (w.blocks_left == 0) {
            ends |= 1u << (used - 1);
            empty |= (uint32_t)w.none << documents;
            bad |= (uint32_t)w.bad << documents;
            documents++;
            w.open = false;
            w.column++;
            w.left--;
        }
    }
    if (run)
        cut_boxes(a, from_here, run, box, boxes, lane);
    bool all = (__ballot_sync(~0u, counts == ~0u) & 15u) == 15u;
    if (lane < 4)
        head.counts[lane] = counts;
    if (lane == 0) {
        head.ends = ends;
        head.empty = empty;
        head.bad = bad;
        head.row_tile = used ? row_tile : -1;
        head.token = token;
        head.column = column;
        head.flags = (w.open ? 1 : 0) | (all && (ends & 0x7fffu) == 0 ? 2 : 0);
    }
    __syncwarp();
    return used;
}

/* plan_tile where every document has d.len_max tokens, all of which count: a lane a block, without loops, since one
 * warp must plan tiles as fast as all others multiply them. */
LIK_DEVICE int plan_uniform_tile(struct walk &w, const struct sm90_args &a, struct head &head, struct box &box,
                                 int lane)
{
    const struct lik_score &op = a.score.op;
    int length = (int)op.d.len_max, blocks = (length + 7) / 8;
    if (w.left > 0 && w.column == a.score.columns) {
        w.column = 0;
        w.row_tile++;
    }
    int documents = (int)min(min(w.left, a.score.columns - w.column), (int64_t)MAX_ENDS);
    int used = min(TILE_BLOCKS, documents * blocks - w.done);
    bool here = lane < used;
    int passed = (int)(((float)(w.done + lane) + 0.5f) * a.inverse_blocks); /* documents that end before this block */
    int block = w.done + lane - passed * blocks, tokens = min(8, length - block * 8);
    uint32_t ends = __ballot_sync(~0u, here && block == blocks - 1);
    bool all = __all_sync(~0u, lane >= TILE_BLOCKS || (here && tokens == 8));
    uint32_t bits = here ? (0xffu >> (8 - tokens)) << (lane & 3) * 8 : 0;
    bits |= __shfl_xor_sync(~0u, bits, 1);
    bits |= __shfl_xor_sync(~0u, bits, 2);
    /* Blocks whose rows follow each other are a run of n from block `first` on; it is cut into boxes by the bits of n,
     * the highest first, and a lane whose block begins one copies it. */
    int first = a.flat ? 0 : max(lane - block, 0);
    int n = a.flat ? used : min(used - first, first ? blocks : blocks - w.done);
    int at = lane - first, high = 31 - __clz(max(n - at, 1));
    if (here && n >> (high + 1) << (high + 1) == at) {
        int64_t row = a.score.tiling.parts ? w.row_tile / a.score.tiling.parts : 0;
        int document = (int)lik_score_document(&op, row, w.column + passed);
        box.map = &a.maps[high];
        box.block = lane;
        box.row = block * 8 + (a.flat ? document * length : 0);
        box.group = !a.flat && op.d.group_size > 0 ? document / a.group_size : 0;
        box.sequence = a.flat ? 0 : document - box.group * a.group_size;
    }
    if (lane < TILE_BLOCKS && (lane & 3) == 0)
        head.counts[lane / 4] = bits;
    if (lane == 0) {
        head.ends = ends;
        head.empty = head.bad = 0;
        head.row_tile = used > 0 ? w.row_tile : -1;
        head.token = w.done * 8;
        head.column = w.column;
        head.flags = (used > 0 && !(ends >> (used - 1) & 1) ? 1 : 0) | (all && (ends & 0x7fffu) == 0 ? 2 : 0);
    }
    int ended = __popc(ends);
    w.column += ended;
    w.left -= ended;
    w.done += used - ended * blocks;
    __syncwarp();
    return used;
}

LIK_DEVICE void produce(const struct sm90_args &a, struct shared &sm, char *ring, int64_t first, int64_t count)
{
    int lane = (int)threadIdx.x & 31, stage = 0;
    uint32_t parity = 1; /* the first pass finds every stage free */
    struct walk w = {};
    w.left = count;
    w.row_tile = (int)(first / a.score.columns);
    w.column = first - (int64_t)w.row_tile * a.score.columns;
    w.batch = -64;
    if (lane < BOXES)
        tensor_map_prefetch(&a.maps[lane]);
    for (int tile = 0;; tile = (tile + 1) % HEADS) {
        struct box box = {};
        int used =
            a.uniform ? plan_uniform_tile(w, a, sm.heads[tile], box, lane) : plan_tile(w, a, sm.heads[tile], box, lane);
        if (used == 0)
            break;
        for (int slab = 0; slab < a.slabs; slab++) {
            mbarrier_wait(&sm.empty[stage], parity);
            if (lane == 0)
                mbarrier_arrive_expect(&sm.full[stage], (uint32_t)used * 1024u);
            __syncwarp();
            if (box.map)
                tensor_copy(ring + stage * SLAB_BYTES + box.block * 1024, box.map, &sm.full[stage], slab * 64, box.row,
                            box.sequence, box.group);
            __syncwarp();
            if (++stage == a.stages) {
                stage = 0;
                parity ^= 1;
            }
        }
    }
    mbarrier_wait(&sm.empty[stage], parity);
    if (lane == 0)
        mbarrier_arrive(&sm.full[stage]);
}

#endif

#endif
