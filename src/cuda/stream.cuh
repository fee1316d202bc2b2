/* The Hopper loop's stream of column tiles: what its warps share, and the producer warp, which walks the documents,
 * plans tiles and copies them. It is the only one that knows of layouts, masks, lists and offsets. See score_sm90.cu.
 */
#ifndef LIK_CUDA_STREAM_CUH
#define LIK_CUDA_STREAM_CUH

#include "cuda/kernels.cuh"
#include "cuda/score.cuh"

#define SLAB_ROWS_BYTES 8192 /* 64 query rows x 64 elements of 16 bits */
#define BLOCK_BYTES     1024 /* 8 columns x 128 bytes */
#define MAX_BLOCKS      32   /* of a tile, of 8 columns each */
#define MAX_BANDS       4    /* of 64 query rows */
#define HEADS           16
#define TOGETHER        8 /* documents that may share a tile, at most */
#define MAX_STAGES      12
#define PLANE_STAGES    2 /* of the second ring, which f32 tokens pass as planes */
#define SUMS            4
#define BOXES           6 /* tensor maps with boxes of 8, 16 ... 256 rows */

/* Most columns of a tile. */
static constexpr __host__ __device__ int most_columns(int dtype, int bands)
{
    return bands == 2 || dtype == LIK_F32 ? MAX_BLOCKS * 4 : MAX_BLOCKS * 8;
}

static_assert(
    HEADS >= MAX_STAGES + 3,
    "a head must outlive its tile's slabs: one tile is planned ahead, one not yet taken (f32: two stages a tile)");

struct sm90_args {
    CUtensorMap maps[BOXES]; /* a uniform stream has one, whose box is the tile */
    struct score_args score;
    int32_t slabs;         /* of 128 bytes a token: one or an even number */
    int32_t row_slabs;     /* of a band of query rows: the same, of f32 in all planes */
    int32_t slab_elements; /* 64, of f32 32 */
    int32_t planes;        /* of f32: an element is the sum of so many bf16; 0: multiplied as stored */
    int32_t stages, warpgroups;
    int32_t deep;                    /* slabs of a stage: two of 16 bits, if the dim has two */
    int32_t slab_bytes, stage_bytes; /* most that a slab of a tile takes, and a stage */
    int32_t blocks;                  /* most of a tile */
    int32_t together;                /* most documents of a tile */
    int32_t chunks;                  /* blocks that share each row tile; 0: a block may go on to the next */
    int32_t in_turn;                 /* uniform: they take the documents of a tile each in turn */
    int32_t rest;                    /* pairs beyond their shares: one, or a tile, for each of the first */
    int64_t least;                   /* pairs (row tile, document) of every block */
    int32_t rows_in_memory; /* where query rows lie and what they count is not known from their strides alone */
    int32_t group_size;     /* sequences of the third axis of the maps */
    int32_t normalize;      /* the documents: their norms are taken as they pass through the ring */
    int32_t token_groups;   /* warpgroups that split tokens or take their norms, and nothing else */
    int32_t norm_warps;     /* by so many warps: of those groups, or two of the producer's; 0: not */
    int32_t uniform;        /* documents of one length, none masked or listed: produce_uniform */
    int32_t piece;          /* uniform: blocks of a piece of a document, or of each document of a tile */
};

/* What a column tile holds: a piece of one document, all of whose tokens count, or ("mixed") one with dropped tokens or
 * several whole documents. */
struct __align__(16) head {
    int32_t columns;     /* of a piece: that count; the rest of the last block doesn't */
    int32_t shape;       /* blocks | documents that end here << 8 | mixed << 16 */
    int32_t row_tile;    /* -1: there are no more */
    int32_t token;       /* index in its document of column 0 */
    uint32_t counts[8];  /* mixed: columns that count, a bit each */
    uint32_t ends;       /* mixed; bit j: a document ends with block j */
    uint32_t empty, bad; /* bit i: the i-th document that ends here has no kept token; is out of range */
    int64_t column;      /* of the scores: the first document that ends here */
};

/* Sums of 16 rows, for the warp that adds them up; several, so that the next documents' can be written meanwhile. */
struct sums {
    int64_t column; /* of the scores: the first document */
    int32_t row_tile, documents;
    float of[TOGETHER][4 * MAX_BANDS]; /* [document][block] */
};

struct shared {
    uint64_t full[MAX_STAGES], empty[MAX_STAGES], sums_full[SUMS], sums_empty[SUMS];
    uint64_t normed[HEADS], planes_full[PLANE_STAGES], planes_empty[PLANE_STAGES];
    struct head heads[HEADS];
    struct sums sums[SUMS];
    int64_t row_at[MAX_BANDS][64]; /* [band][row]: struct query_row */
    int row_token[MAX_BANDS][64];
    float row_weight[MAX_BANDS][64];
    int row_counts[MAX_BANDS][64]; /* 0, 1, or 2 where the query is out of range */
    struct block_place blocks[4 * MAX_BANDS];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* A place in the ring, and the parity of the barrier that is waited for there: a consumer begins with {0, 0}, the
 * producer with {0, 1}, for the first pass finds every stage free. */
struct place {
    int stage;
    uint32_t parity;
};

LIK_DEVICE void advance(struct place &at, int stages)
{
    if (++at.stage == stages) {
        at.stage = 0;
        at.parity ^= 1;
    }
}

/* What a block scores: `count` (row tile, document) pairs in a row; in turn, every so many-th document. */
struct share {
    int row_tile; /* of the first */
    int64_t column, count;
};

LIK_DEVICE struct share share_of(const struct sm90_args &a)
{
    struct share s;
    unsigned parts = a.chunks ? (unsigned)a.chunks : gridDim.x;
    int part = (int)(blockIdx.x % parts), unit = a.in_turn ? a.together : 1;
    s.row_tile = (int)(blockIdx.x / parts);
    s.count = a.least + min(max(a.rest - part * unit, 0), unit);
    s.column = a.in_turn ? part * unit : a.least * part + min(part, a.rest);
    if (!a.chunks) {
        s.row_tile = (int)(s.column / a.score.columns);
        s.column -= s.row_tile * a.score.columns;
    }
    return s;
}

/* Its place in the stream, the same in all lanes but for what is said to be of a lane. */
struct walk {
    int64_t left; /* documents still to open */
    int row_tile;
    int64_t column;
    bool open;                            /* in the midst of a document */
    int length, done, piece, blocks_left; /* done: tokens; blocks of a piece */
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
    } else if (!d.offsets) {
        w.group = d.group_size > 0 ? (int)(w.index / a.group_size) : 0;
        w.sequence = (int)(w.index - (int64_t)w.group * a.group_size);
    }
    if (d.mask && w.length > 0)
        w.length = kept_length(d, w.index, w.length, lane, w.holes);
    w.none = w.length == 0;
    w.blocks_left = w.none ? 1 : (w.length + 7) / 8;
    int pieces = (w.blocks_left + a.blocks - 1) / a.blocks;
    w.piece = (w.blocks_left + pieces - 1) / pieces;
}

/* Bits of columns from ... to - 1 in the word of columns first ... first + 31. */
LIK_DEVICE uint32_t column_bits(int first, int from, int to)
{
    from = max(from - first, 0);
    to = min(to - first, 32);
    return from >= to ? 0u : (~0u >> (32 - (to - from))) << from;
}

/* Plans the next tile: fills the head and each lane's box; returns its blocks, 0 at the end of the stream. */
LIK_DEVICE int plan_tile(struct walk &w, const struct sm90_args &a, struct head &head, struct box &box, int lane)
{
    const struct lik_tokens &d = a.score.op.d;
    int used = 0, columns = 0, documents = 0, token = 0, row_tile = -1, boxes = 0;
    uint32_t ends = 0, empty = 0, bad = 0, counts = 0;
    int64_t column = 0;
    bool mixed = false;
    for (;;) {
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
        if (used && used + w.blocks_left > a.blocks)
            break; /* documents share a tile whole or not at all */
        if (used == 0) {
            token = w.done;
            column = w.column;
            row_tile = w.row_tile;
        }
        int take = min(w.piece, w.blocks_left), from = used * 8;
        columns = min(take * 8, w.length - w.done);
        cut_boxes(a, {NULL, used, w.row + w.done, w.sequence, w.group}, take, box, boxes, lane);
        if (!w.holes) {
            counts |= column_bits(lane * 32, from, from + columns); /* lanes 0 to 7 hold the eight words */
        } else {
            mixed = true;
            int64_t base = lik_tokens_base(&d, &d.mask_strides, w.index);
            for (int i = 0; i < columns; i += 32) {
                bool keep = i + lane < columns && d.mask[base + (w.done + i + lane) * d.mask_strides.token];
                uint64_t kept = (uint64_t)__ballot_sync(~0u, keep) << (from & 31);
                if (lane == (from + i) / 32)
                    counts |= (uint32_t)kept;
                if (lane == (from + i) / 32 + 1)
                    counts |= (uint32_t)(kept >> 32);
            }
        }
        used += take;
        w.done += take * 8;
        w.blocks_left -= take;
        if (w.blocks_left)
            break; /* a piece has its tile for itself */
        ends |= 1u << (used - 1);
        empty |= (uint32_t)w.none << documents;
        bad |= (uint32_t)w.bad << documents;
        documents++;
        w.open = false;
        w.column++;
        w.left--;
        if (token || documents == a.together || used == a.blocks)
            break;
    }
    mixed |= documents > 1;
    if (mixed && lane < 8)
        head.counts[lane] = counts;
    if (lane == 0) {
        head.columns = columns;
        head.shape = used | documents << 8 | (int)mixed << 16;
        head.row_tile = row_tile;
        head.token = token;
        head.ends = ends;
        head.empty = empty;
        head.bad = bad;
        head.column = column;
    }
    __syncwarp();
    return used;
}

/* Starts the copies of one box of the stage that begins with `slab`. */
LIK_DEVICE void copy_box(const struct sm90_args &a, struct shared &sm, char *ring, const struct place &at,
                         const struct box &box, int slab)
{
    char *to = ring + at.stage * a.stage_bytes + box.block * BLOCK_BYTES;
    for (int i = 0; i < a.deep; i++)
        tensor_copy(to + i * a.slab_bytes, box.map, &sm.full[at.stage], (slab + i) * a.slab_elements, box.row,
                    box.sequence, box.group);
}

/* All documents have d.len_max tokens, all of which count: no walk, and a tile is one box. One thread does it. */
LIK_DEVICE void produce_uniform(const struct sm90_args &a, struct shared &sm, char *ring, const struct share &mine)
{
    if (threadIdx.x & 31)
        return;
    const struct lik_score &op = a.score.op;
    const int length = (int)op.d.len_max, piece = a.piece, together = a.together;
    const uint32_t bytes = (uint32_t)(piece * together * a.deep) * BLOCK_BYTES;
    uint32_t counts[MAX_BLOCKS / 4] = {}, ends = 0;
    if (together > 1)
#pragma unroll
        for (int j = 0; j < MAX_BLOCKS; j++) {
            bool last = j % piece == piece - 1;
            counts[j / 4] |= (last ? 0xffu >> (-length & 7) : 0xffu) << j % 4 * 8;
            ends |= (uint32_t)last << j;
        }
    struct place at = {0, 1};
    struct box box = {&a.maps[0]}; /* its row is the token */
    int row_tile = mine.row_tile;
    int64_t column = mine.column, left = mine.count;
    auto locate = [&]() {
        int64_t row = a.score.tiling.parts ? row_tile / a.score.tiling.parts : 0;
        int document = (int)lik_score_document(&op, row, column);
        box.group = op.d.group_size > 0 ? document / a.group_size : 0;
        box.sequence = document - box.group * a.group_size;
    };
    locate();
    tensor_map_prefetch(&a.maps[0]);
    wait_for_kernels_before();
    for (int tile = 0;; tile = (tile + 1) % HEADS) {
        struct head &head = sm.heads[tile];
        if (left == 0) {
            head.row_tile = -1;
            break;
        }
        if (column == a.score.columns) {
            column = 0;
            row_tile++;
            locate();
        }
        int token = box.row;
        int columns = min(piece * 8, length - token), documents = token + columns == length, blocks = (columns + 7) / 8;
        if (together > 1) {
            documents = (int)min((int64_t)together, min(left, a.score.columns - column));
            blocks = documents * piece;
        }
        mbarrier_wait(&sm.empty[at.stage], at.parity);
        *(int4 *)&head = make_int4(columns, blocks | documents << 8 | (documents > 1) << 16, row_tile, token);
        if (documents) {
            head.ends = blocks == 32 ? ends : ends & ((1u << blocks) - 1u);
            head.empty = head.bad = 0;
            head.column = column;
            if (documents > 1) {
                *(uint4 *)&head.counts[0] = make_uint4(counts[0], counts[1], counts[2], counts[3]);
                *(uint4 *)&head.counts[4] = make_uint4(counts[4], counts[5], counts[6], counts[7]);
            }
        }
        for (int slab = 0; slab < a.slabs; slab += a.deep) {
            if (slab)
                mbarrier_wait(&sm.empty[at.stage], at.parity);
            mbarrier_arrive_expect(&sm.full[at.stage], bytes);
            copy_box(a, sm, ring, at, box, slab);
            advance(at, a.stages);
        }
        box.row += columns;
        if (documents) {
            box.row = 0;
            int64_t next = documents + (a.in_turn ? (int64_t)together * (a.chunks - 1) : 0);
            column += next;
            left -= documents;
            box.sequence += (int)next;
            if (op.d.group_size > 0)
                locate();
        }
    }
    mbarrier_wait(&sm.empty[at.stage], at.parity);
    mbarrier_arrive(&sm.full[at.stage]);
}

/* Any other documents; the whole warp walks them. */
LIK_DEVICE void produce(const struct sm90_args &a, struct shared &sm, char *ring, const struct share &mine)
{
    int lane = (int)threadIdx.x & 31;
    struct place at = {0, 1};
    struct walk w = {};
    w.left = mine.count;
    w.row_tile = mine.row_tile;
    w.column = mine.column;
    w.batch = -64;
    if (lane < BOXES)
        tensor_map_prefetch(&a.maps[lane]);
    wait_for_kernels_before();
    for (int tile = 0;; tile = (tile + 1) % HEADS) {
        struct box box = {};
        int used = plan_tile(w, a, sm.heads[tile], box, lane);
        if (used == 0)
            break;
        for (int slab = 0; slab < a.slabs; slab += a.deep) {
            mbarrier_wait(&sm.empty[at.stage], at.parity);
            if (lane == 0)
                mbarrier_arrive_expect(&sm.full[at.stage], (uint32_t)(used * a.deep) * BLOCK_BYTES);
            __syncwarp();
            if (box.map)
                copy_box(a, sm, ring, at, box, slab);
            __syncwarp();
            advance(at, a.stages);
        }
    }
    mbarrier_wait(&sm.empty[at.stage], at.parity);
    if (lane == 0)
        mbarrier_arrive(&sm.full[at.stage]);
}

#endif

#endif
