/* The Hopper loop: what a launch gives a block, and what its warps have in common.
 *
 * A column tile passes through the ring in stages of a slab or two. Beside its slabs goes its
 * *head*: how many columns count, which documents end. Words are those of cuda/plan/plan.h; of
 * this room are:
 *
 * - band: 64 query rows, what wgmma multiplies at once; a warpgroup has one or two
 * - half: 64 accumulators of a thread: of one band, or of the left or right columns of one
 * - joint tile: a column tile of several documents, whole; else it is a piece of one
 * - loose piece: one of which any columns may be dropped, multiplied in one of a few widths
 * - stage policy: what the loop does with documents as they are stored (stage_stored.cuh,
 *   stage_planes.cuh, stage_widened.cuh): what a stage of the ring holds, what is multiplied
 * - factor: what a column's products are multiplied by, the inverse of its token's norm, or its
 *   scale, which the producer brings
 *
 * The roles of a block's warps: warpgroups that multiply (loop.cuh), those that look at tokens
 * on their way (the stage policies), and in one more a producer (producer.cuh) and a warp that
 * finishes scores (scores.cuh). */
#ifndef LIK_CUDA_SM90_BLOCK_CUH
#define LIK_CUDA_SM90_BLOCK_CUH

#include "cuda/kernels.cuh"
#include "cuda/score.cuh"

#define SUMS  4
#define BOXES 6 /* tensor maps with boxes of 8, 16 ... 256 rows */

/* Most columns of a tile; `narrow`: as the plan's. */
static constexpr __host__ __device__ int columns_most(int bands, int narrow)
{
    return SM90_HALVES(bands, narrow) * SM90_HALF_OCTETS * 8;
}

static_assert(SM90_HEADS >= SM90_STAGES + SM90_PLANE_STAGES + 2,
              "a head must outlive its tile's slabs and planes: one tile is "
              "planned ahead, one not yet taken");

struct sm90_args {
    CUtensorMap maps[BOXES]; /* a uniform stream has one, whose box is the tile */
    struct score_args score;
    /* Of struct sm90_plan, whose fields say more. Flat and in this order: the code that ptxas
     * makes depends on it. */
    int32_t slabs, row_slabs, steps_per_stage, slab_elements, planes;
    int32_t stages, warpgroups, slabs_per_stage, slab_bytes, stage_bytes;
    int32_t octets_per_tile, documents_per_tile;
    int32_t blocks_per_row_tile, in_turn, by_tokens;
    int32_t loose, one_width;
    int32_t pairs_extra;
    int64_t pairs_each;
    int32_t rows_in_memory, group_size, column_factors;
    int32_t token_warpgroups, norm_warps, norm_teams;
    int32_t uniform, octets_per_piece;
};

#define JOINT (1 << 16)
#define LOOSE (1 << 17)

/* What a column tile holds: a piece of one document, or (JOINT) several whole documents. A
 * piece is multiplied in just its width, but that a last one may be an octet wider (one_width),
 * or (LOOSE) in one of a few, where any of its tokens may be dropped. A block's pieces stay
 * loose once one was, for code that changes has to be fetched anew. */
struct __align__(16) head {
    int32_t columns;     /* of a piece; the rest of its octets doesn't count */
    int32_t shape;       /* octets to multiply | documents that end here << 8 | JOINT, LOOSE */
    int32_t row_tile;    /* -1: there are no more */
    int32_t token;       /* index in its document of column 0 */
    uint32_t counts[8];  /* JOINT, LOOSE: columns that count, a bit each */
    uint32_t ends;       /* JOINT; bit j: a document ends with octet j */
    uint32_t empty, bad; /* bit i: the i-th document that ends here has no kept token; is out of range */
    int32_t first;       /* LOOSE: the document's first kept token */
    int64_t column;      /* of the scores: the first document that ends here */
    /* of a piece, if its scales are wanted: where its document lies, as in struct batch */
    int32_t row, group;
};

/* Sums of 16 rows, for the warp that adds them up; several, so that the next documents' can be
 * written meanwhile. */
struct sums {
    int64_t column; /* of the scores: the first document */
    int32_t row_tile, documents;
    float of[SM90_DOCUMENTS][4 * SM90_BANDS]; /* [document][strip] */
};

/* The next documents, for the producer. */
struct batch {
    int64_t mask[32]; /* where each lies in the mask */
    /* -1: out of range; of short documents, up to the last kept token */
    int32_t length[32];
    /* where each lies in the tensor maps; 0 if it is out of range */
    int32_t row[32], sequence[32], group[32];
    uint32_t kept[32][SM90_SHORT_TOKENS / 32]; /* short documents with a mask: tokens kept */
};

struct shared {
    uint64_t full[SM90_STAGES], empty[SM90_STAGES], sums_full[SUMS], sums_empty[SUMS];
    uint64_t factors_ready[SM90_HEADS], planes_full[SM90_PLANE_STAGES], planes_empty[SM90_PLANE_STAGES];
    struct head heads[SM90_HEADS];
    struct sums sums[SUMS];
    int64_t row_at[SM90_BANDS][64]; /* [band][row]: struct query_row */
    int row_token[SM90_BANDS][64];
    float row_weight[SM90_BANDS][64];
    /* 0, 1, 2 where the query is out of range, or 3 where its scale is negative */
    int row_counts[SM90_BANDS][64];
    struct strip_place strips[4 * SM90_BANDS];
    struct batch batch;
};

static_assert(sizeof(struct shared) == SM90_STATIC_BYTES, "what the plan leaves for it");
static_assert(SM90_DOCUMENTS * 4 <= 32 && SM90_JOINT_OCTETS < 16,
              "plan_joint: four lanes a document, a box each");

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* A place in the ring, and the parity of the barrier that is waited for there: a consumer
 * begins with {0, 0}, the producer with {0, 1}, for the first pass finds every stage free. */
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

#endif

#endif
