/* How an operation will run on a GPU, decided by integers alone: plain C without a CUDA header,
 * so that the decisions for any GPU can be looked at on any machine (tests/check/plans.txt).
 *
 * Words. A *row tile* is the query rows that a block of the grid multiplies at once; a *strip*
 * is 16 of them, all of one query. A *column tile* is the document tokens that pass through at
 * once; an *octet* is 8 of them. A document is cut into *pieces* of at most a column tile, or
 * several short documents have a *joint* one. A *slab* is 128 bytes of each token of a column
 * tile or row tile. A *pair* is a row tile and a document: what blocks of the grid have shares
 * of. */
#ifndef LIK_CUDA_PLAN_H
#define LIK_CUDA_PLAN_H

#include "base/layout.h"
#include "lik/lik.h"

#include <stddef.h>
#include <stdint.h>

#define LIK_STRIP_ROWS 16

/* What planning has to know of a GPU. */
struct gpu_limits {
    int arch; /* 10 major + minor, lowered by LIK_CUDA_ARCH: which kernels run */
    int processors;
    size_t shared_bytes;   /* most that a block may have */
    size_t resident_bytes; /* most that a block may have if two are to share a processor */
    int hopper;            /* this build and this GPU have wgmma, and the driver encodes tensor maps */
};

/* The offset of a workspace's next region: all begin at multiples of 256 bytes. */
static inline size_t lik_cuda_take(struct lik_layout *layout, int64_t count, int64_t size)
{
    return lik_layout_take(layout, count, size, 256);
}

/* How many bf16 planes an f32 element is split into. */
static inline int lik_f32_planes(int precision)
{
    return precision == LIK_HIGHEST ? 3 : precision == LIK_HIGH ? 2 : 1;
}

/* May the tokens of x be loaded in vectors of 16 bytes (8 where elements are bytes)? Not of
 * compressed ones. */
int lik_cuda_vector_loads(const struct lik_tokens *x);

/* Which strips a row tile holds. parts == 0: strips of all queries, one after another, so that
 * a tile may hold several queries or a piece of one. parts > 0: tile t holds strips of the one
 * query of score row t / parts. */
struct row_tiling {
    int64_t tiles;
    int64_t rows; /* score rows */
    int32_t strips_per_query;
    int32_t strips_per_tile;
    int32_t parts;
};

/* Row tiles of `strips_per_tile` strips: whole queries where they fit, pieces of the stream of
 * all queries' strips where they don't and one query a tile would waste more. */
int lik_cuda_tile_rows(const struct lik_score *op, int strips_per_tile, struct row_tiling *tiling);

/* Strips of all rows that meet the same documents. */
int64_t lik_cuda_strips(const struct lik_score *op);

/* Have all tokens of x one scale, if any? */
int lik_cuda_one_scale(const struct lik_tokens *x);

/* Appends to a text of `size` bytes of which `used` are taken; returns what is taken then. */
__attribute__((format(printf, 4, 5))) size_t lik_cuda_add_text(char *text, size_t size, size_t used,
                                                               const char *format, ...);

/* ---- The Hopper loop: sm90.c ---- */

#define SM90_ROWS_BYTES   8192 /* of a slab of a band, 64 query rows */
#define SM90_OCTET_BYTES  1024 /* of a slab of an octet */
#define SM90_OCTETS       32   /* of a column tile, at most: two halves */
#define SM90_BANDS        4    /* of 64 query rows a block, at most */
#define SM90_HEADS        16   /* column tiles planned and not yet done with */
#define SM90_DOCUMENTS    8    /* that may share a column tile, at most */
#define SM90_JOINT_OCTETS 15   /* of each of them, where lengths differ: no more than four boxes */
#define SM90_SHORT_TOKENS 128  /* of documents whose masks are read together */
#define SM90_STAGES       12
#define SM90_PLANE_STAGES 2     /* of the second ring, which converted tokens pass */
#define SM90_STATIC_BYTES 10464 /* of shared memory beside what a launch asks for: struct shared */
#define SM90_MAXIMA_BYTES 16    /* of a thread and band in the stash: struct maxima */

/* A thread has two halves of 64 accumulators: the columns of a tile are spread over so many of
 * them, up to 16 octets each. Two bands have one each; one band has both, or, where it is
 * narrow, one. */
#define SM90_HALVES(bands, narrow) ((bands) == 1 && !(narrow) ? 2 : 1)
#define SM90_HALF_OCTETS           16

/* Documents of so many octets, a half's at the most, that the halves of a tile hold whole. */
#define SM90_PER_HALF(bands, octets)                                                            \
    (SM90_HALF_OCTETS / (octets) < SM90_DOCUMENTS / (3 - (bands)) ? SM90_HALF_OCTETS / (octets) \
                                                                  : SM90_DOCUMENTS / (3 - (bands)))
#define SM90_TOGETHER(bands, octets) (SM90_PER_HALF(bands, octets) * (3 - (bands)))

/* Most slabs of a stage of the ring: where the rows and planes of f32 leave little room,
 * one. */
#define SM90_SLABS_PER_STAGE(bands, planes) ((bands) == 2 && (planes) == 3 ? 1 : 2)

/* What kind of problem it is. */
struct sm90_regime {
    /* slabs of the second ring that 64 elements of f32 take, each the sum of so many bf16, or
     * 128 of 8 bits, widened to f16 or bf16; 0: multiplied as stored */
    int32_t planes;
    /* one band leaves the second half alone: products of planes, and of documents from the
     * workspace, which four warpgroups of one half each multiply */
    int32_t narrow;
    int32_t slabs;         /* of a token: one, or an even number; of 8 bits any */
    int32_t row_slabs;     /* of a query row: the same; of f32 in all planes, of 8 bits widened */
    int32_t slab_elements; /* 64, of f32 32, of 8 bits 128 */
    /* of 16 elements that products of a tile's first stage take: 3, 4, 6 or 8; of f32 unused */
    int32_t steps_per_stage;
    int32_t uniform; /* documents of one length, none masked or listed */
    /* a column's products are multiplied by a factor: of normalized documents, whose norms are
     * taken as they pass through the ring; of 8 bits their scale */
    int32_t column_factors;
    /* where query rows lie and what they count is not known from their strides alone */
    int32_t rows_in_memory;
    /* each row tile holds a query of its own, whose rows are copied while the one before is
     * multiplied */
    int32_t rows_ahead;
    int32_t group_size; /* sequences of the third axis of the tensor maps */
};

/* What is multiplied at once. */
struct sm90_tile {
    int32_t bands;              /* of 64 query rows, each warpgroup's */
    int32_t warpgroups;         /* that multiply */
    int32_t octets_per_tile;    /* of a column tile, at most */
    int32_t octets_per_piece;   /* uniform: of a document's piece; or of each document of a tile */
    int32_t documents_per_tile; /* at most */
    /* a tile always holds so many documents, each whole in one half and in as many octets as
     * the longest has: kernels of their own */
    int32_t whole;
    int32_t loose;     /* pieces are multiplied in one of a few widths, where any token may be dropped */
    int32_t one_width; /* a last piece that lacks one octet is multiplied in the others' width */
};

/* What a column tile passes through in shared memory, and who looks at it there. */
struct sm90_ring {
    int32_t slabs_per_stage;
    int32_t stages;
    int32_t slab_bytes, stage_bytes; /* most that a slab of a tile takes, and a stage */
    int32_t token_warpgroups;        /* they convert tokens or take their norms, and do nothing else */
    /* by so many warps: of those, or of the producer's; 0: not, 1: it brings scales */
    int32_t norm_warps;
    int32_t norm_teams;   /* so many teams of them, which take the tiles in turn */
    int32_t shared_bytes; /* of the launch: the rings and all that is not SM90_STATIC_BYTES */
};

/* Who scores which pairs. */
struct sm90_schedule {
    int32_t blocks;              /* of the grid */
    int32_t blocks_per_row_tile; /* 0: a block may go on to the next row tile */
    int32_t in_turn;             /* uniform: blocks take the documents of a tile each in turn */
    int32_t by_tokens;           /* packed: blocks have as many tokens each, not documents */
    int32_t pairs_extra;         /* beyond pairs_each: one, or a tile, for each of the first blocks */
    int64_t pairs_each;
};

struct sm90_plan {
    struct sm90_regime regime;
    struct sm90_tile tile;
    struct sm90_ring ring;
    struct sm90_schedule schedule;
};

/* ---- mma.sync: mma.c ---- */

/* What is multiplied: elements as one operand's dtype says, or as sums of bf16 planes. */
enum mma_products { MMA_BF16, MMA_F16, MMA_F16_SM75, MMA_F32 };

struct mma_plan {
    int32_t products;                /* enum mma_products */
    int32_t q_planes, d_planes;      /* of bf16 */
    int32_t orders;                  /* products of planes i and j count for i + j < orders */
    int32_t q_raw, d_raw;            /* elements are copied as they are */
    int64_t runs, documents_per_run; /* runs of a row tile's documents */
};

#define MMA_CHUNK 32 /* elements of the dim a stage */

void lik_cuda_mma_products(const struct gpu_limits *gpu, const struct lik_score *op, struct mma_plan *plan);

/* ---- Products that are looked up: look_up.c ---- */

struct look_up_plan {
    int32_t by_fours; /* products of four query tokens are one load; or each is one, where it lies */
};

/* ---- Few query rows against documents of 8 bits: bytes.c ---- */

#define BYTES_DIM    128 /* of tokens, at most */
#define BYTES_WARPS  8   /* of a block, one a processor */
#define BYTES_TOKENS 32  /* of a tile */
#define BYTES_STAGES 4   /* of a warp's ring, a tile each */

struct bytes_plan {
    int32_t blocks;       /* of the grid */
    int32_t scaled;       /* a tile's scales are brought with its tokens */
    int32_t shared_bytes; /* the warps' rings and scratch */
};

/* ---- One pass over compressed documents: scan.c ---- */

#define SCAN_DIM    128 /* of tokens, at most */
#define SCAN_WARPS  8   /* of a block, one a processor */
#define SCAN_TOKENS 32  /* of a tile */
#define SCAN_STAGES 3   /* of a warp's ring, a tile each */

/* Where documents meet the same queries in 128 elements: by warpgroups. */
#define GROUP_DIM         128
#define GROUP_TOKENS      32                      /* of a warp's tile */
#define GROUP_STAGES      3                       /* of a warp's ring, a tile each */
#define GROUP_WARPS(rows) ((rows) == 32 ? 12 : 8) /* of a block, one a processor */
#define GROUP_F32         96                      /* "rows" of f32: 32, each in three planes */
/* bytes of a token in a ring: such that 8 rows meet all banks */
#define GROUP_RING_ROW(bits) ((bits) == 0 ? 0 : (bits) == 1 ? 16 : 16 * (bits) + 16)
/* with codes and factors, and where the tile belongs */
#define GROUP_STAGE_BYTES(ring_row) (GROUP_TOKENS * ((ring_row) + 12) + 32)
#define GROUP_RING_BYTES(bits)      (GROUP_STAGES * GROUP_STAGE_BYTES(GROUP_RING_ROW(bits)))

/* Addresses in shared memory: of query rows, of the first ring behind them, what they count and
 * their maxima, and of the table of weights, which has 65,536 bytes; so many rings lie before
 * it. */
#define GROUP_QUERIES 1024
#define GROUP_RING(rows) \
    (GROUP_QUERIES + (rows) * (2 * GROUP_DIM + 20 + ((rows) > 96 ? 4 : 8) * GROUP_WARPS(rows)))
#define GROUP_TABLE(rows)           ((rows) == 256 ? 131072 : 65536)
#define GROUP_RINGS_LOW(rows, bits) ((GROUP_TABLE(rows) - GROUP_RING(rows)) / GROUP_RING_BYTES(bits))

/* The same of integers: a lane's words of a token are neighbors, so that rows need no gaps, and
 * weights stand beside each centroid, so that there is no table. Rings follow the maxima. */
#define GROUP_I8_WARPS(rows)      ((rows) == 32 ? 16 : 8)
#define GROUP_I8_ROW(bits)        (16 * (bits))
#define GROUP_I8_RING_BYTES(bits) (GROUP_STAGES * GROUP_STAGE_BYTES(GROUP_I8_ROW(bits)))
#define GROUP_I8_RING(rows) \
    (GROUP_QUERIES + (rows) * (GROUP_DIM + 20 + ((rows) > 96 ? 4 : 8) * GROUP_I8_WARPS(rows)))
#define GROUP_I8_CENTROID 160 /* bytes of a centroid: elements, weights, unit */

struct scan_plan {
    int32_t group_rows;   /* query rows of a tile, where all documents meet the same; else 0 */
    int32_t integers;     /* products are of 8-bit integers */
    int32_t blocks;       /* of the grid */
    int32_t copy_bytes;   /* that a copy of residuals takes */
    int32_t ring_row;     /* bytes of a token in a ring */
    int32_t shared_bytes; /* the table of weights, and the warps' rings */
};

/* Bytes that a copy of residuals may take. */
int64_t lik_cuda_scan_copy_bytes(const struct lik_tokens *d);

/* Will a scan be by warpgroups? */
int lik_cuda_scan_in_groups(const struct lik_score *op);

/* And of integers? */
int lik_cuda_scan_in_integers(const struct lik_score *op);

/* ---- Documents that are decoded or widened, a chunk at a time: decoded.c ---- */

struct decoded_plan {
    int64_t documents_per_chunk;
    int64_t token_bytes;   /* of a chunk's tokens; factors of decoded ones follow */
    struct sm90_plan last; /* of a last chunk that is smaller, in the same row tiles; else zeros */
};

/* ---- The forward pass: score.c ---- */

/* The ways to score, in the order in which they are asked whether they take a problem. Each has
 * an entry in two lists: what plans it, in score.c, and what launches it, in cuda/score.cu. */
enum {
    SCORE_LOOK_UP,
    SCORE_BYTES,
    SCORE_WIDENED,
    SCORE_SM90,
    SCORE_DECODED,
    SCORE_SCAN,
    SCORE_MMA,
    SCORE_PATHS,
};

/* How a forward pass runs: the factors that normalize the documents, the path's kernel, and the
 * sum of a query's strips; the first and the last where they are needed. */
struct score_plan {
    int32_t path; /* SCORE_LOOK_UP ... */
    struct row_tiling tiling;
    int64_t columns;            /* documents of a score row */
    int64_t scores;             /* of the problem; 0: there is nothing to do */
    int32_t q_vector, d_vector; /* lik_cuda_vector_loads */
    int64_t factor_count;       /* of documents' tokens: where the path does not take norms itself */
    /* sums of strips, [rows, columns, strips], where a query's are spread over row tiles */
    int64_t partial_count;
    int64_t table_count;                      /* of products, where they are laid out to be looked up */
    int64_t centroid_bytes;                   /* of the centroids as the scan reads them */
    size_t factor, partial, table, centroids; /* where those stand in the workspace */
    struct sm90_plan sm90;
    struct scan_plan scan;
    struct mma_plan mma;
    struct look_up_plan look_up;
    struct decoded_plan decoded;
    int64_t token_bytes; /* of decoded or widened tokens, and factors */
    size_t tokens;       /* where those stand in the workspace */
    struct bytes_plan bytes;
};

/* What plans a path. */
struct score_planner {
    /* Can it take these operands? By their dtypes, dim and strides alone: the bits of a pair's
     * score may not depend on what else is scored. */
    int (*takes)(const struct gpu_limits *gpu, const struct lik_score *op);
    /* Completes a plan of columns, scores and vectors, but for the workspace. */
    int (*plan)(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan);
    /* The variant's name: what lik_plan shows. */
    void (*name)(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size);
    /* The path's own part of the plan in words, as lik_cuda_add_text. */
    size_t (*print)(const struct score_plan *plan, char *text, size_t size, size_t used);
};

extern const struct score_planner lik_cuda_plans_look_up, lik_cuda_plans_bytes, lik_cuda_plans_widened,
    lik_cuda_plans_sm90, lik_cuda_plans_decoded, lik_cuda_plans_scan, lik_cuda_plans_mma;

int lik_cuda_plan_score(const struct gpu_limits *gpu, const struct lik_score *op, struct lik_layout *layout,
                        struct score_plan *plan);

void lik_cuda_name_score(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size);

/* The whole plan in words, on one line. */
void lik_cuda_print_score(const struct score_plan *plan, char *text, size_t size);

/* ---- Gradients: grad.c ---- */

#define GRAD_WARPS  8
#define GRAD_HITS   8192 /* entries of its tokens that a block sorts at once, at most */
#define GRAD_AHEAD  4    /* entries that a lane reads at once */
#define GRAD_FEW    128  /* entries of a document that every warp reads, for no barrier to be needed */
#define GRAD_TOKENS 256  /* document tokens a block, at most */
/* of the number of an entry, counted from the first that its warp looked at in a window */
#define GRAD_ENTRY_BITS 24
#define GRAD_NO_ROW     0xffffffffu

/* How rows are stored, as the innermost loop needs it. */
enum row_kind {
    ROWS_OF_F16, /* aligned vectors of 8, dim a multiple of 8; so are the next two */
    ROWS_OF_BF16,
    ROWS_OF_F32,
    ROWS_OF_ANY,
    ROW_KINDS,
};

/* Blocks that a processor holds at once: as far as the kernels' registers are concerned. Four
 * take what ptxas makes of them for Hopper and later; for earlier ones it does not get by
 * without local memory. */
#define GRAD_RESIDENT_BLOCKS(kind, arch) \
    ((kind) <= ROWS_OF_BF16 ? ((arch) >= 90 ? 4 : 3) : (kind) == ROWS_OF_F32 ? 3 : 2)

#define GRAD_ROW_DTYPE(kind) ((kind) == ROWS_OF_F32 ? LIK_F32 : (kind) == ROWS_OF_BF16 ? LIK_BF16 : LIK_F16)

/* A warp's tokens of a block's run are every GRAD_WARPS-th; so many at the most. */
#define GRAD_WARP_TOKENS(tokens) (((tokens) + GRAD_WARPS - 1) / GRAD_WARPS)

/* Against compressed documents the scores of a query are cut into parts, whose sums stand in
 * the workspace. */
struct compressed_plan {
    int32_t parts;      /* of every query */
    int32_t row_floats; /* of a sum: the dim, and zeros up to a multiple of eight */
    int32_t whole_bits; /* the bits of eight elements may be loaded at once */
    /* of the centroids as rows of so many elements; 0: they are read where they lie */
    int64_t centroid_bytes;
    size_t centroids, partial; /* where those and the sums stand in the workspace */
};

struct grad_plan {
    int64_t columns;              /* documents of a score row */
    int64_t q_factors, d_factors; /* of normalized tokens, in the workspace */
    int64_t list_keys;            /* of a list of pairs, sorted by query and by document: a power of two */
    size_t q_factor, d_factor, by_q, by_d; /* where they stand in the workspace */
    int32_t q_vector, d_vector;            /* lik_cuda_vector_loads */
    /* enum row_kind of the rows that are gathered: q's for grad_d, d's for grad_q */
    int32_t q_kind, d_kind;
    int32_t argmax_vector; /* GRAD_AHEAD winners are aligned, and of one query */
    /* rows of grad_d are the sums as they are, rounded to the dtype of the rows added */
    int32_t plain;
    int32_t lanes_per_row;    /* 8, 16 or 32, with eight elements each */
    int32_t slices_per_row;   /* of what the lanes take at once */
    int32_t keep_rows;        /* the block's sums stand in shared memory between slices or windows */
    int32_t hits_per_window;  /* entries that a block sorts at once */
    int32_t tokens_per_block; /* of a document */
    int32_t query_warps;      /* of a block, each with a query token */
    int32_t few;              /* no document has more than GRAD_FEW entries */
    int32_t one_launch;       /* for both gradients */
    int64_t blocks_per_document;
    size_t query_bytes, document_bytes; /* of shared memory */
    /* where documents are compressed: of the above the lanes, factors and keys count then */
    struct compressed_plan compressed;
};

int lik_cuda_plan_grad(const struct gpu_limits *gpu, const struct lik_grad *op, struct lik_layout *layout,
                       struct grad_plan *plan);
void lik_cuda_name_grad(const struct grad_plan *plan, const struct lik_grad *op, char *text, size_t size);
void lik_cuda_print_grad(const struct grad_plan *plan, char *text, size_t size);

/* ---- The k best: topk.c ---- */

#define TOPK_RUN 4096 /* keys that a block selects from at once */

/* How a problem is cut into chunks: LIK_ALL by documents, LIK_CANDIDATES by queries. */
struct topk_plan {
    int64_t queries_per_chunk, documents_per_chunk; /* at most; of documents: a query's */
    /* large k: keys a query that are sorted, a power of two; else 0 */
    int64_t sorted_keys;
    size_t scores, score_workspace, keys[2], best[2]; /* where they stand in the workspace */
    struct score_plan score;                          /* of a whole chunk */
    struct score_plan last_score;                     /* of a last one that is smaller */
};

int lik_cuda_plan_topk(const struct gpu_limits *gpu, const struct lik_topk *op, struct lik_layout *layout,
                       struct topk_plan *plan);
void lik_cuda_name_topk(const struct topk_plan *plan, const struct lik_topk *op, char *text, size_t size);
void lik_cuda_print_topk(const struct topk_plan *plan, char *text, size_t size);

/* Queries `row` ... and documents `column` ... of the problem, whose scores go to `scores`. */
int lik_cuda_topk_chunk(const struct lik_score *op, int64_t row, int64_t rows, int64_t column,
                        int64_t columns, float *scores, struct lik_score *chunk);

/* ---- The codec: codec.c ---- */

#define COMPACT_BLOCK 1024 /* entries of a list that a block looks through */

/* How tokens get their centroids: a chunk at a time is copied into the workspace, the queries,
 * of a strip each, of a score whose one document is the centroids. The codes are its argmax;
 * nobody looks at its scores. */
struct assign_plan {
    int32_t dtype;       /* of the copies */
    int32_t precision;   /* of the products */
    int64_t dim, stride; /* elements of a row, and from one to the next */
    int64_t centroid_count, tokens;
    int64_t rows_per_chunk; /* a multiple of LIK_STRIP_ROWS */
    size_t rows, centroids, scores, score_workspace;
    struct score_plan score; /* of a whole chunk */
    struct score_plan last;  /* of a last one that is smaller */
};

/* The problem of a chunk of so many rows, a multiple of LIK_STRIP_ROWS. */
struct lik_score lik_cuda_assign_score(const struct assign_plan *plan, char *workspace, int64_t rows,
                                       int32_t *codes);

struct encode_plan {
    struct assign_plan assign;
    size_t codes; /* of a chunk */
};

int lik_cuda_plan_encode(const struct gpu_limits *gpu, const struct lik_encode *op, struct lik_layout *layout,
                         struct encode_plan *plan);

/* Upper bounds; what they are is known on the device alone. */
struct train_plan {
    int64_t rows, placed, points, bucket_tokens;
    int64_t point_keys, element_keys; /* that are sorted, powers of two */
    struct assign_plan assign;        /* k-means */
    struct assign_plan nearest;       /* the residuals: by products at full precision */
    size_t state, kept, blocks, row_of, point_rows, codes, sorted, sums, is_new, empty, squares;
    size_t assign_workspace; /* of either */
};

int lik_cuda_plan_train(const struct gpu_limits *gpu, const struct lik_train *op, struct lik_layout *layout,
                        struct train_plan *plan);

void lik_cuda_name_decode(const struct lik_decode *op, char *text, size_t size);
void lik_cuda_name_quantize(const struct lik_quantize *op, char *text, size_t size);
void lik_cuda_name_encode(const struct encode_plan *plan, char *text, size_t size);
void lik_cuda_name_train(const struct train_plan *plan, char *text, size_t size);
void lik_cuda_print_assign(const struct assign_plan *plan, char *text, size_t size);
void lik_cuda_print_train(const struct train_plan *plan, char *text, size_t size);

#endif
