/* What the Hopper loop (cuda/sm90) takes, and how it will run: the row and column
 * tiles, the ring between them, and which block of the grid scores what. */
#include "cuda/plan/plan.h"

#include "base/size.h"
#include "shared/tokens.h"

#include <stdio.h>

#define ASKED_BYTES        (64 * 1024)  /* that a block asks of memory at once */
#define ASKED_BYTES_PACKED (120 * 1024) /* the same where tiles are of packed documents, most not full */
#define OCTETS_BY_MEMORY   20           /* of a tile where memory is waited for */
#define OCTETS_ONE_WIDTH   16           /* of packed documents, all of whose pieces have one width then */
#define TOKENS_FEW         48           /* of packed documents of which a tile had better hold many */
#define DIM_BRIEF          96           /* of tokens that come faster than one band works through tiles */
#define SLOT_TOKENS        4            /* of an octet that packed documents have on average at the least */
#define COLUMNS_FEW        4            /* documents of a query whose rows are copied ahead */
#define DIM_AHEAD          128          /* of such rows: there is room for them twice */
#define STRIPS_AHEAD       8            /* of such a query: what one band takes */
#define ROWS_COST          8e6          /* products in the time that a block takes to change rows */

/* What the loop does with documents of a dtype: the planning side of cuda/sm90/stage_*.cuh. */
static const struct storage {
    int slab_elements;    /* of a token as it is stored, in 128 bytes */
    int octets_least;     /* of a column tile, where shared memory is short; one of each half anyway */
    int token_warpgroups; /* that convert tokens on their way to the second ring */
    int alone;            /* a stage of the ring is one slab */
    /* Row tiles that may be taken, the smallest first. */
    struct choice {
        int bands, warpgroups;
        double cost; /* of a row */
    } choices[3];
} stored = {64, 1, 0, 0, {{1, 1, 2.0}, {1, 2, 1.1}, {2, 2, 1.0}}},
  in_planes = {32, 3, 2, 0, {{1, 1, 1.1}, {2, 1, 1.0}}}, widened = {128, 8, 2, 1, {{1, 1, 1.1}, {1, 2, 1.0}}},
  as_i8 = {128, 1, 0, 0, {{1, 1, 2.0}, {1, 2, 1.1}, {2, 2, 1.0}}},
  decoded = {64, 1, 0, 0, {{1, 1, 2.0}, {1, 2, 1.1}, {1, 4, 1.0}}};

static const struct storage *storage_of(const struct sm90_regime *r)
{
    return r->slab_elements == 128 ? (r->planes ? &widened : &as_i8)
           : r->planes             ? &in_planes
           : r->narrow             ? &decoded
                                   : &stored;
}

static int has_bytes(const struct lik_tokens *x)
{
    return lik_dtype_bytes(x->dtype) == 1;
}

static int multiplied_as_i8(const struct lik_score *op)
{
    return op->q.dtype == LIK_I8 && op->d.dtype == LIK_I8 && !op->d.normalize;
}

static int slabs_per_stage(const struct sm90_regime *r, int bands)
{
    int most = storage_of(r)->alone ? 1 : SM90_SLABS_PER_STAGE(bands, r->planes);
    return r->slabs < most ? r->slabs : most;
}

static struct sm90_regime regime_of(const struct lik_score *op)
{
    const struct lik_tokens *q = &op->q, *d = &op->d;
    struct sm90_regime r = {.planes = d->dtype == LIK_F32 ? lik_f32_planes(op->precision) : 0};
    /* Slabs of 128 bytes: one of 64 elements, or pairs; the copy engine fills up with zeros. */
    r.slab_elements = has_bytes(d) ? 128 : storage_of(&r)->slab_elements;
    int elements = 2 * r.slab_elements;
    r.slabs = !r.planes && d->dim <= r.slab_elements ? 1 : (int32_t)((d->dim + elements - 1) / elements) * 2;
    r.row_slabs = r.planes ? r.slabs / 2 * r.planes : r.slabs;
    if (has_bytes(d) && !multiplied_as_i8(op)) {
        r.planes = d->dim <= 64 ? 1 : 2;
        r.slabs = (int32_t)((d->dim + 127) / 128);
        r.row_slabs = r.slabs * r.planes;
    }
    const int chunk = d->dtype != LIK_F32 && !has_bytes(d) && (q->dtype != d->dtype || q->scale || d->scale);
    r.narrow = r.planes || chunk;
    r.steps_per_stage = d->dim <= 48 ? 3 : d->dim <= 64 ? 4 : d->dim <= 96 ? 6 : 8;
    r.uniform = !d->mask && !d->offsets && op->pairing != LIK_LIST && d->len_max > 0 &&
                d->len_max < 1 << 24 && d->count <= INT32_MAX;
    r.column_factors = d->normalize || (d->scale && !lik_cuda_one_scale(d));
    /* One scale of all documents goes to the rows. */
    r.rows_in_memory = q->scale || (d->scale && !r.column_factors) || q->mask || q->offsets || q->weights ||
                       q->group_size > 0 || op->pairing == LIK_LIST;
    r.rows_ahead = r.uniform && storage_of(&r) == &stored && !r.rows_in_memory && !q->normalize &&
                   lik_cuda_vector_loads(q) && op->pairing != LIK_ALL && d->dim <= DIM_AHEAD &&
                   lik_score_columns(op) <= COLUMNS_FEW && lik_cuda_strips(op) <= STRIPS_AHEAD;
    r.group_size = (int32_t)(d->group_size > 0 ? d->group_size : d->count);
    return r;
}

/* Packed documents, not all of one length. */
static int lengths_differ(const struct lik_tokens *d)
{
    return d->offsets && d->total != d->count * d->len_max;
}

/* Shared memory beside the rings: the rows, norms, and the stash, maxima of all threads for
 * each of several documents. */
static size_t fixed_bytes(const struct sm90_regime *r, int bands, int warpgroups, int documents)
{
    const int tiles = r->rows_ahead ? 2 : 1;
    size_t bytes =
        SM90_STATIC_BYTES + 1024 + (size_t)(tiles * warpgroups * bands * r->row_slabs) * SM90_ROWS_BYTES;
    if (r->column_factors)
        bytes += (size_t)(SM90_HEADS * SM90_HALVES(bands, r->narrow) * SM90_HALF_OCTETS * 8) * sizeof(float);
    if (documents > 1)
        bytes += (size_t)(warpgroups * documents * 128 * SM90_MAXIMA_BYTES * bands);
    return bytes;
}

/* ---- What can be taken ---- */

/* A stride of a tensor map: a positive multiple of 16 bytes, less than 2^40 of them. */
static int map_takes(const struct lik_tokens *d, int64_t stride)
{
    return stride > 0 && stride < 1ll << 38 && stride % (16 / (int64_t)lik_dtype_bytes(d->dtype)) == 0;
}

/* Are there documents' rows, for an empty document's copy is of the first, and are their
 * strides what a tensor map takes? Those that no second entry follows count as well: a slice of
 * a view, of one document too, then takes the kernel that the whole view takes, and has its
 * bits. */
static int map_strides(const struct lik_tokens *d)
{
    if ((uintptr_t)d->data % 16 || d->dim_stride != 1 || !(d->offsets ? d->total : d->len_max) || !d->count)
        return 0;
    if (d->offsets)
        return map_takes(d, d->strides.token) && d->total <= INT32_MAX - 4096;
    int64_t members = d->group_size > 0 ? d->group_size : d->count;
    return map_takes(d, d->strides.token) && map_takes(d, d->strides.sequence) &&
           (!d->group_size || map_takes(d, d->strides.group)) && members < INT32_MAX &&
           d->count / members < INT32_MAX;
}

/* Does the dim fit, whatever the documents? */
static int fits(const struct gpu_limits *gpu, const struct lik_score *op)
{
    struct sm90_regime r = regime_of(op);
    int slabs = slabs_per_stage(&r, 1);
    /* as many stages as fit_as wants at the least */
    int octets = r.planes ? SM90_PLANE_STAGES * r.planes + (4 - slabs) * slabs : 4 * 2 * slabs;
    if (r.planes)
        octets *= storage_of(&r)->octets_least;
    return fixed_bytes(&r, 1, 1, SM90_DOCUMENTS) + (size_t)octets * SM90_OCTET_BYTES <= gpu->shared_bytes;
}

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    const struct lik_tokens *q = &op->q, *d = &op->d;
    if (!gpu->hopper || d->storage != LIK_DENSE)
        return 0;
    if (has_bytes(d) ? q->dtype == LIK_F32 || (q->normalize && q->scale)
                     : q->dtype != d->dtype || q->scale || d->scale)
        return 0;
    return map_strides(d) && fits(gpu, op);
}

/* ---- Tile and ring ---- */

/* Length of the pieces that documents of so many octets are cut into: as long as can be,
 * evenly; if the loop waits for memory, no more than OCTETS_BY_MEMORY, and no fewer than 13 but
 * halves, so that the last piece lacks the least. */
static int piece_of(int waits, int64_t octets, int most)
{
    if (waits && most > OCTETS_BY_MEMORY && octets > OCTETS_BY_MEMORY) {
        int best = OCTETS_BY_MEMORY;
        for (int n = OCTETS_BY_MEMORY - 1; n >= 13 || 2 * n >= octets; n--)
            if ((n - octets % n) % n < (best - octets % best) % best)
                best = n;
        return best;
    }
    int64_t pieces = (octets + most - 1) / most;
    return (int)((octets + pieces - 1) / pieces);
}

/* Room for the ring, while its stages and the tile are weighed against each other. */
struct room {
    int octets; /* of one slab each, that the memory beside the fixed part holds */
    int planes; /* slabs of the ring of planes */
    int slabs_per_stage;
    int asked_bytes; /* that keep memory busy */
    int octet_bytes; /* that an octet asks for in a stage */
};

/* Stages that there is room for, of tiles of so many octets. */
static int stages_of(const struct room *room, int octets)
{
    return (room->octets - room->planes * octets) / (octets * room->slabs_per_stage);
}

/* Stages that keep memory busy. */
static int stages_enough(const struct room *room, int octets)
{
    return (room->asked_bytes - 1) / (octets * room->octet_bytes) + 1;
}

/* Documents that may share a column tile, before their lengths are looked at. */
static int joint_documents(const struct lik_score *op, const struct sm90_regime *r, int64_t octets, int most)
{
    int alone = r->uniform   ? octets > most / 2 || op->d.group_size > 0
                : op->d.mask ? op->d.len_max > SM90_SHORT_TOKENS
                             : !op->d.offsets && octets > SM90_JOINT_OCTETS;
    return alone ? 1 : (int)lik_min_i64(SM90_DOCUMENTS, lik_score_columns(op));
}

/* Do too few rows meet a tile for products to be what is waited for? */
static int has_few_rows(const struct sm90_tile *tile)
{
    return tile->bands == 1 && tile->warpgroups < 4;
}

/* Of documents that are whole in a half, as many as the halves hold; returns the tile's octets,
 * 0 if there are not so many documents, or no room for them. */
static int whole_tile(struct sm90_tile *tile, int64_t octets, int most)
{
    const int together = (int)SM90_TOGETHER(tile->bands, octets);
    if (tile->documents_per_tile < together || octets * together > most)
        return 0;
    tile->documents_per_tile = together;
    tile->octets_per_piece = (int)octets;
    return (int)octets * together;
}

/* Of documents of one length, whole ones or pieces; returns the tile's octets. */
static int uniform_tile(const struct lik_score *op, const struct sm90_regime *r, int waits,
                        struct sm90_tile *tile, int64_t octets, int most)
{
    if (tile->documents_per_tile > 1)
        tile->documents_per_tile = (int)(octets * tile->documents_per_tile <= most ? tile->documents_per_tile
                                         : octets * 2 <= most                      ? most / octets
                                                                                   : 1);
    const int brief = storage_of(r) == &as_i8 ? 2 * DIM_BRIEF : DIM_BRIEF;
    const int by_memory = waits && !op->argmax && !r->rows_ahead && op->d.dim > brief;
    tile->octets_per_piece = piece_of(by_memory, octets, most);
    return tile->octets_per_piece * tile->documents_per_tile;
}

/* Fits column tiles and a ring of three stages or more (four where a tile takes several; of f32
 * three of one slab, two of two), and the ring of planes, beside what else is needed; 0 if that
 * cannot be. A uniform stream that one band waits for has two stages, and more only as far as
 * they keep ASKED_BYTES coming: memory serves no more, and takes longer where it is asked for
 * more. Packed documents likewise. */
static int fit_as(const struct gpu_limits *gpu, const struct lik_score *op, int whole, struct sm90_plan *p)
{
    const struct sm90_regime *r = &p->regime;
    struct sm90_tile *tile = &p->tile;
    const int planes = SM90_PLANE_STAGES * r->planes, unit = SM90_HALVES(tile->bands, r->narrow);
    const int widest = SM90_HALF_OCTETS * unit, octets_least = storage_of(r)->octets_least;
    const int narrowest = octets_least > unit ? octets_least : unit;
    const int64_t octets = op->d.len_max > 0 ? (op->d.len_max + 7) / 8 : 1; /* of a document */
    const int by_memory = has_few_rows(tile) && !op->d.normalize;           /* what it waits for */
    const int waits = by_memory && r->uniform, packed = by_memory && op->d.offsets && !planes;
    tile->documents_per_tile = r->rows_ahead ? 1 : joint_documents(op, r, octets, widest);
    tile->whole = whole;
    const int stashed = whole ? 1 : tile->documents_per_tile;
    size_t fixed = fixed_bytes(r, tile->bands, tile->warpgroups, stashed);
    if (fixed >= gpu->shared_bytes)
        return 0;
    struct room room = {.octets = (int)((gpu->shared_bytes - fixed) / SM90_OCTET_BYTES), .planes = planes};
    room.slabs_per_stage = slabs_per_stage(r, tile->bands);
    const int stages_least = planes ? 4 - room.slabs_per_stage : r->slabs > 2 ? 4 : 3 - waits;
    room.asked_bytes = packed ? ASKED_BYTES_PACKED : ASKED_BYTES;
    int token_bytes = (int)(op->d.dim * (int64_t)lik_dtype_bytes(op->d.dtype));
    if (op->d.dtype == LIK_F32)
        token_bytes = r->slabs * 128;
    room.octet_bytes = 8 * (token_bytes * room.slabs_per_stage / r->slabs);
    int most = widest;
    if (packed && !whole) {
        int wide = op->d.mask || op->d.total / TOKENS_FEW < op->d.count ? OCTETS_BY_MEMORY : OCTETS_ONE_WIDTH;
        most = (int)lik_min_i64(most, wide);
    }
    while (planes && waits && most > narrowest && stages_of(&room, most) < stages_enough(&room, most))
        most--; /* planes take half of the memory, and narrower tiles leave more of it in flight */
    if (planes && stages_of(&room, most) < stages_least)
        most = widest;
    while (most > narrowest && stages_of(&room, most) < stages_least)
        most -= unit;
    if (stages_of(&room, most) < stages_least)
        return 0;
    tile->octets_per_piece = 0;
    if (whole)
        most = whole_tile(tile, octets, most);
    else if (r->uniform)
        most = uniform_tile(op, r, waits, tile, octets, most);
    else
        most = (int)lik_min_i64(most, octets * tile->documents_per_tile);
    if (most == 0)
        return 0;
    tile->octets_per_tile = most;
    most += most % unit;
    int stages = stages_of(&room, most);
    if ((waits || packed) && stages > stages_enough(&room, most))
        stages = (int)lik_max_i64(stages_enough(&room, most), stages_least);
    stages = (int)lik_min_i64(stages, SM90_STAGES);
    struct sm90_ring *ring = &p->ring;
    ring->slabs_per_stage = room.slabs_per_stage;
    ring->slab_bytes = most * SM90_OCTET_BYTES;
    ring->stage_bytes = ring->slab_bytes * ring->slabs_per_stage;
    /* A joint tile is multiplied in full width, from wherever it begins in the ring; a loose
     * one nearly so. */
    int64_t rest = (int64_t)fixed - SM90_STATIC_BYTES,
            past = 1024 + widest * SM90_OCTET_BYTES - ring->slab_bytes;
    rest = lik_max_i64(rest, past);
    int64_t bytes;
    for (;; stages--) {
        bytes = (int64_t)(stages * ring->slabs_per_stage + planes) * ring->slab_bytes + rest;
        if (bytes + SM90_STATIC_BYTES <= (int64_t)gpu->shared_bytes)
            break;
    }
    ring->stages = stages;
    ring->shared_bytes = (int32_t)bytes;
    return stages >= stages_least;
}

/* Are documents of several lengths, or with masks, short enough to get as many octets of a tile
 * each, and packed ones most of them not much shorter than the longest? */
static int takes_slots(const struct lik_tokens *d, int64_t octets)
{
    return octets <= SM90_JOINT_OCTETS && d->len_max > 0 &&
           (!d->offsets || d->total / SLOT_TOKENS >= octets * d->count);
}

/* The same; documents lie whole in a half of the accumulators where they are short. */
static int fit(const struct gpu_limits *gpu, const struct lik_score *op, struct sm90_plan *p)
{
    const struct sm90_regime *r = &p->regime;
    const int64_t octets = (op->d.len_max + 7) / 8;
    const int whole = storage_of(r) == &stored && !op->argmax && !r->rows_ahead &&
                      (r->uniform ? octets <= SM90_HALF_OCTETS : takes_slots(&op->d, octets));
    return (whole && fit_as(gpu, op, 1, p)) || fit_as(gpu, op, 0, p);
}

/* Who looks at tokens in the ring. Four warps that take norms are two teams where the two tiles
 * that they hold leave as much of the ring to others. A stage has the tiles of one team only: a
 * wait tells the filling of a stage by its parity, and one that a team does not wait for could
 * be taken for the next. */
static void plan_token_warps(const struct lik_score *op, struct sm90_plan *p)
{
    const struct sm90_regime *r = &p->regime;
    struct sm90_ring *ring = &p->ring;
    int stages_per_tile = r->slabs / ring->slabs_per_stage;
    ring->token_warpgroups = storage_of(r)->token_warpgroups;
    if (!r->planes) /* norms alone */
        ring->token_warpgroups = op->d.normalize && p->tile.warpgroups == 1;
    ring->norm_teams =
        r->column_factors && ring->token_warpgroups == 1 && ring->stages >= 4 * stages_per_tile ? 2 : 1;
    if (ring->norm_teams == 2)
        ring->stages -= ring->stages % (2 * stages_per_tile);
    ring->norm_warps = !r->column_factors       ? 0
                       : !op->d.normalize       ? 1 /* the producer brings scales */
                       : ring->token_warpgroups ? 4 * ring->token_warpgroups / ring->norm_teams
                                                : 2;
}

/* Chooses regime, tile and ring. The rows of a tile: those that make the grid's longest share
 * of products the shortest. One warpgroup keeps the tensor cores busy half of the time, but
 * that the products of planes leave little else to do; two bands read the documents half as
 * often. Rows that the plan has beforehand stay: a last chunk's tiles are those of all others,
 * by which query rows are found and sums of strips laid out. */
static void plan_tile(const struct gpu_limits *gpu, const struct lik_score *op, struct sm90_plan *plan)
{
    const int64_t strips = lik_cuda_strips(op);
    const struct sm90_tile given = plan->tile;
    struct sm90_plan p = {.regime = regime_of(op)};
    const struct choice *choices = storage_of(&p.regime)->choices;
    int64_t units = op->pairing == LIK_ALL ? op->d.count : lik_score_rows(op) * lik_score_columns(op);
    double least = 0.0;
    *plan = p;
    for (const struct choice *c = choices; c < choices + 3 && c->bands; c++) {
        p.tile.bands = c->bands;
        p.tile.warpgroups = c->warpgroups;
        int tile_strips = 4 * c->bands * c->warpgroups;
        if (given.bands ? c->bands != given.bands || c->warpgroups != given.warpgroups
                        : c > choices && strips <= tile_strips / 2)
            continue;
        if ((p.regime.rows_ahead && strips > tile_strips) || !fit(gpu, op, &p)) /* a query a tile */
            continue;
        int64_t tiles = (strips + tile_strips - 1) / tile_strips;
        double cost =
            (double)((tiles * units + gpu->processors - 1) / gpu->processors) * tile_strips * c->cost;
        if (plan->ring.stages && cost >= least)
            continue;
        least = cost;
        *plan = p;
    }
    plan->tile.one_width = !has_few_rows(&plan->tile); /* who waits for memory does not for code */
    /* Packed documents of several lengths: one band has time for products that no one looks at,
     * but not for the code of many widths. */
    plan->tile.loose =
        lengths_differ(&op->d) && has_few_rows(&plan->tile) && !plan->regime.planes && !plan->tile.whole;
    plan_token_warps(op, plan);
}

/* ---- Schedule ---- */

static void plan_schedule(const struct gpu_limits *gpu, const struct lik_score *op,
                          const struct row_tiling *tiling, struct sm90_plan *plan)
{
    const struct sm90_regime *r = &plan->regime;
    const struct sm90_tile *tile = &plan->tile;
    struct sm90_schedule s = {0};
    int64_t columns = lik_score_columns(op), tiles = tiling->tiles, total = tiles * columns;
    int64_t blocks = lik_min_i64(total, gpu->processors);
    if (tiles <= blocks) {
        int64_t each = blocks / tiles, longest = (columns + each - 1) / each - (total + blocks - 1) / blocks;
        double multiplied = 64.0 * tile->bands * tile->warpgroups * (double)op->d.len_max * 64.0 *
                            r->row_slabs * (op->d.dtype == LIK_F32 ? (r->planes + 1) / 2.0 : 1.0);
        if ((double)longest * multiplied < ROWS_COST) {
            s.blocks_per_row_tile = (int32_t)each;
            blocks = each * tiles;
        }
    }
    s.blocks = (int32_t)blocks;
    /* Memory is read faster where all blocks read from one region of it. */
    s.in_turn = s.blocks_per_row_tile && r->uniform &&
                (tile->documents_per_tile == 1 ||
                 columns >= (int64_t)4 * tile->documents_per_tile * s.blocks_per_row_tile);
    s.by_tokens = s.blocks_per_row_tile && lengths_differ(&op->d) && op->pairing == LIK_ALL;
    int64_t pairs = s.blocks_per_row_tile ? columns : total, unit = s.in_turn ? tile->documents_per_tile : 1;
    int64_t parts = s.blocks_per_row_tile ? s.blocks_per_row_tile : blocks;
    s.pairs_each = pairs / (parts * unit) * unit;
    s.pairs_extra = (int32_t)(pairs - s.pairs_each * parts);
    plan->schedule = s;
}

/* ---- The path ---- */

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    struct sm90_plan *p = &plan->sm90;
    plan_tile(gpu, op, p);
    int status = lik_cuda_tile_rows(op, 4 * p->tile.bands * p->tile.warpgroups, &plan->tiling);
    if (!status)
        plan_schedule(gpu, op, &plan->tiling, p);
    return status;
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    const struct sm90_tile *t = &plan->sm90.tile;
    snprintf(text, size, "score_%s_d%lld_sm90_%dx%d", lik_dtype_name(op->d.dtype), (long long)op->d.dim,
             64 * t->bands * t->warpgroups, 8 * t->octets_per_tile);
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    const struct sm90_plan *p = &plan->sm90;
    const struct sm90_regime *r = &p->regime;
    const struct sm90_tile *t = &p->tile;
    const struct sm90_ring *g = &p->ring;
    const struct sm90_schedule *s = &p->schedule;
    n = lik_cuda_add_text(text, size, n, "%s%s%s, %d slabs of %d elements", r->uniform ? "uniform" : "walked",
                          !r->column_factors   ? ""
                          : g->norm_warps == 1 ? " scaled"
                                               : " normalized",
                          r->rows_in_memory ? " rows in memory"
                          : r->rows_ahead   ? " rows ahead"
                                            : "",
                          r->slabs, r->slab_elements);
    if (storage_of(r) == &widened)
        n = lik_cuda_add_text(text, size, n, " widened to %d", r->planes);
    else if (r->planes)
        n = lik_cuda_add_text(text, size, n, " in %d planes", r->planes);
    n = lik_cuda_add_text(text, size, n, "; tile %d x %d rows, %d octets", t->warpgroups, 64 * t->bands,
                          t->octets_per_tile);
    if (t->octets_per_piece)
        n = lik_cuda_add_text(text, size, n, " in pieces of %d", t->octets_per_piece);
    n = lik_cuda_add_text(text, size, n, ", %d document%s%s%s%s", t->documents_per_tile,
                          t->documents_per_tile == 1 ? "" : "s", t->whole ? " whole" : "",
                          t->loose ? " loose" : "", t->one_width ? " one width" : "");
    n = lik_cuda_add_text(text, size, n, "; ring %d stages of %d x %d bytes", g->stages, g->slabs_per_stage,
                          g->slab_bytes);
    if (g->token_warpgroups || g->norm_warps)
        n = lik_cuda_add_text(text, size, n, " through %d groups, %d norm warps in %d teams",
                              g->token_warpgroups, g->norm_warps, g->norm_teams);
    n = lik_cuda_add_text(text, size, n, ", %d bytes; %d blocks", g->shared_bytes, s->blocks);
    if (s->blocks_per_row_tile)
        n = lik_cuda_add_text(text, size, n, ", %d a row tile%s%s", s->blocks_per_row_tile,
                              s->in_turn ? " in turn" : "", s->by_tokens ? " by tokens" : "");
    return lik_cuda_add_text(text, size, n, ", %lld pairs each and %d more", (long long)s->pairs_each,
                             s->pairs_extra);
}

const struct score_planner lik_cuda_plans_sm90 = {takes, plan, name, print};
