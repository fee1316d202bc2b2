/* What the Hopper loop takes, and in what shape: rows of a tile, columns, stages of the ring
 * and what else a block's shared memory holds. See score_sm90.cu. */
#include "cuda/maxima.cuh"

#define IN_FLIGHT  (64 * 1024)  /* bytes that a block asks of memory at once */
#define MOST_ASKED (120 * 1024) /* the same where tiles are of packed documents, most of them not full */
#define LONGEST    20           /* blocks of a tile where memory is waited for */
#define ONE_WIDTH  16           /* of packed documents: their pieces are all multiplied in one width then */
#define FEW_TOKENS 48           /* of packed documents of which a tile had better hold many */
#define BRIEF      96 /* elements of tokens that come faster than the tiles of one band are worked through */
#define NARROWEST  3  /* blocks of a tile of f32 columns, where shared memory is short */

/* Planes of the tokens; 0: they are multiplied as they are stored. */
static int planes_of(const struct lik_score *op)
{
    return op->d.dtype == LIK_F32 ? lik_f32_planes(op->precision) : 0;
}

/* Slabs of 128 bytes: one of 64 elements, or pairs; the copy engine fills up with zeros. */
static int slabs_of(const struct lik_score *op)
{
    int elements = op->d.dtype == LIK_F32 ? 64 : 128;
    return op->d.dtype != LIK_F32 && op->d.dim <= 64 ? 1 : (int)((op->d.dim + elements - 1) / elements) * 2;
}

/* Slabs of a band of query rows. */
static int row_slabs_of(const struct lik_score *op)
{
    int planes = planes_of(op);
    return planes ? slabs_of(op) / 2 * planes : slabs_of(op);
}

/* Slabs of a stage of the ring. */
static int deep_of(const struct lik_score *op, int bands)
{
    return min(slabs_of(op), most_deep(bands, planes_of(op)));
}

/* Are there documents' rows, for an empty document's copy is of the first, and are their
 * strides what a tensor map takes: positive multiples of 16 bytes? Those that no second entry
 * follows count as well: a slice of a view, of one document too, then takes the kernel that the
 * whole view takes, and has its bits. */
static int map_strides(const struct lik_tokens *d)
{
    if ((uintptr_t)d->data % 16 || d->dim_stride != 1 || !(d->offsets ? d->total : d->len_max) || !d->count)
        return 0;
    const int64_t far = 1ll << 38, unit = 16 / (int)lik_dtype_bytes(d->dtype); /* far: 2^40 bytes */
    auto takes = [=](int64_t stride) { return stride > 0 && stride < far && stride % unit == 0; };
    if (d->offsets)
        return takes(d->strides.token) && d->total <= INT32_MAX - 4096;
    int64_t members = d->group_size > 0 ? d->group_size : d->count;
    return takes(d->strides.token) && takes(d->strides.sequence) &&
           (!d->group_size || takes(d->strides.group)) && members < INT32_MAX &&
           d->count / members < INT32_MAX;
}

/* Is the stream of documents uniform: of one length, none masked or listed? */
static int is_uniform(const struct lik_score *op)
{
    const struct lik_tokens *d = &op->d;
    return !d->mask && !d->offsets && op->pairing != LIK_LIST && d->len_max > 0 && d->len_max < 1 << 24 &&
           d->count <= INT32_MAX;
}

/* Length of the pieces that documents of so many blocks are cut into: as long as can be,
 * evenly; if the loop waits for memory, no more than LONGEST, and no fewer than 13 but halves,
 * so that the last piece lacks the least. */
static int piece_of(int waits, int64_t blocks, int most)
{
    if (waits && most > LONGEST && blocks > LONGEST) {
        int best = LONGEST;
        for (int n = LONGEST - 1; n >= 13 || 2 * n >= blocks; n--)
            if ((n - blocks % n) % n < (best - blocks % best) % best)
                best = n;
        return best;
    }
    int64_t pieces = (blocks + most - 1) / most;
    return (int)((blocks + pieces - 1) / pieces);
}

/* Shared memory beside the rings: the rows, norms, and the stash, maxima of all threads for
 * each of several documents. */
static size_t fixed_bytes(const struct lik_score *op, int bands, int warpgroups, int together)
{
    size_t bytes =
        sizeof(struct shared) + 1024 + (size_t)warpgroups * bands * row_slabs_of(op) * SLAB_ROWS_BYTES;
    if (op->d.normalize)
        bytes += (size_t)(HEADS * most_columns(op->d.dtype, bands)) * sizeof(float);
    if (together > 1)
        bytes += (size_t)warpgroups * together * 128 * sizeof(struct maxima<1>) * bands;
    return bytes;
}

/* Fits column tiles and a ring of three stages or more (four where a tile takes several; of f32
 * three of one slab, two of two), and the ring of planes, beside what else is needed; 0 if that
 * cannot be. A uniform stream that one band waits for has two stages, and more only as far as
 * they keep IN_FLIGHT bytes coming: memory serves no more, and takes longer where it is asked
 * for more. Packed documents likewise. */
static int fit(const struct lik_gpu *gpu, const struct lik_score *op, struct sm90_shape *shape)
{
    int planes = PLANE_STAGES * shape->planes;
    const int widest = planes ? MAX_BLOCKS / 2 : MAX_BLOCKS / shape->bands;
    int most = widest;
    int64_t columns = lik_score_columns(op), blocks = op->d.len_max > 0 ? (op->d.len_max + 7) / 8 : 1;
    bool by_memory = shape->bands == 1 && !op->d.normalize; /* what it waits for */
    bool waits = by_memory && shape->uniform, packed = by_memory && op->d.offsets && !planes;
    bool alone = shape->uniform ? blocks > most / 2 || op->d.group_size > 0
                 : op->d.mask   ? op->d.len_max > SHORT
                                : !op->d.offsets && blocks > SHARED_BLOCKS;
    shape->together = alone ? 1 : TOGETHER;
    if (shape->together > columns)
        shape->together = (int)columns;
    size_t fixed = fixed_bytes(op, shape->bands, shape->warpgroups, shape->together);
    if (fixed >= gpu->shared_bytes)
        return 0;
    int deep = shape->deep = deep_of(op, shape->bands), unit = shape->bands == 1 && !planes ? 2 : 1,
        ring = (int)((gpu->shared_bytes - fixed) / BLOCK_BYTES), narrowest = planes ? NARROWEST : unit,
        least = planes             ? 4 - deep
                : shape->slabs > 2 ? 4
                                   : 3 - waits;
    auto stages = [&](int width) { return (ring - planes * width) / (width * deep); };
    int flight = packed ? MOST_ASKED : IN_FLIGHT;
    /* Bytes that a column asks for in a stage. */
    int row = planes ? deep * 128 : (int)op->d.dim * 2 * deep / shape->slabs;
    auto enough = [&](int width) { return (flight - 1) / (width * 8 * row) + 1; };
    if (packed)
        most = min(most, op->d.mask || op->d.total / FEW_TOKENS < op->d.count ? LONGEST : ONE_WIDTH);
    while (planes && waits && most > narrowest && stages(most) < enough(most))
        most--; /* planes take half of the memory, and narrower tiles leave more of it in flight */
    if (planes && stages(most) < least)
        most = widest;
    while (most > narrowest && stages(most) < least)
        most -= unit;
    if (stages(most) < least)
        return 0;
    if (shape->uniform && shape->together > 1) /* whole documents */
        shape->together = (int)(blocks * shape->together <= most ? shape->together
                                : blocks * 2 <= most             ? most / blocks
                                                                 : 1);
    if (shape->uniform) {
        shape->piece = piece_of(waits && !op->argmax && op->d.dim > BRIEF, blocks, most);
        most = shape->piece * shape->together;
    } else if (most > blocks * shape->together) {
        most = (int)(blocks * shape->together);
    }
    shape->blocks = most;
    shape->slab_bytes = (most + most % unit) * BLOCK_BYTES;
    most += most % unit;
    shape->stages = stages(most);
    if ((waits || packed) && shape->stages > enough(most))
        shape->stages = max(enough(most), least);
    if (shape->stages > MAX_STAGES)
        shape->stages = MAX_STAGES;
    /* A shared tile is multiplied in full width, from wherever it begins in the ring; a loose
     * one nearly so. */
    size_t rest = fixed - sizeof(struct shared),
           past = 1024 + (size_t)(widest * BLOCK_BYTES - shape->slab_bytes);
    rest = rest > past ? rest : past;
    auto bytes = [&]() { return (size_t)(shape->stages * deep + planes) * shape->slab_bytes + rest; };
    while (bytes() + sizeof(struct shared) > gpu->shared_bytes)
        shape->stages--;
    shape->bytes = bytes();
    return shape->stages >= least;
}

/* Does the dim fit, whatever the documents: bits may not depend on what else is scored? */
static int fits(const struct lik_gpu *gpu, const struct lik_score *op)
{
    int planes = planes_of(op), deep = deep_of(op, 1);
    int blocks = planes ? (PLANE_STAGES * planes + 2 * deep) * NARROWEST : 4 * 2 * deep;
    return fixed_bytes(op, 1, 1, TOGETHER) + (size_t)blocks * BLOCK_BYTES <= gpu->shared_bytes;
}

int lik_score_sm90_takes(const struct lik_gpu *gpu, const struct lik_score *op)
{
    const struct lik_tokens *q = &op->q, *d = &op->d;
    return gpu->hopper && q->dtype == d->dtype && d->dtype <= LIK_BF16 && !q->scale && !d->scale &&
           map_strides(d) && fits(gpu, op);
}

/* The rows of a tile: those that make the grid's longest share of products the shortest. One
 * warpgroup keeps the tensor cores busy half of the time, but that the products of planes leave
 * little else to do; two bands read the documents half as often. */
struct sm90_shape lik_score_sm90_shape(const struct lik_gpu *gpu, const struct lik_score *op, int64_t blocks)
{
    static const struct choice {
        int bands, warpgroups;
        double cost; /* of a row */
    } stored[] = {{1, 1, 2.0}, {1, 2, 1.1}, {2, 2, 1.0}}, split[] = {{1, 1, 1.1}, {2, 1, 1.0}};
    struct sm90_shape best = {}, shape = {};
    shape.slabs = slabs_of(op);
    shape.row_slabs = row_slabs_of(op);
    shape.planes = planes_of(op);
    shape.uniform = is_uniform(op);
    const struct choice *shapes = shape.planes ? split : stored, *end = shape.planes ? split + 2 : stored + 3;
    double least = 0.0;
    int64_t units = op->pairing == LIK_ALL ? op->d.count : lik_score_rows(op) * lik_score_columns(op);
    for (const struct choice *c = shapes; c < end; c++) {
        shape.bands = c->bands;
        shape.warpgroups = c->warpgroups;
        int rows = 4 * shape.bands * shape.warpgroups; /* in blocks */
        if ((c > shapes && blocks <= rows / 2) || !fit(gpu, op, &shape))
            continue;
        int64_t tiles = (blocks + rows - 1) / rows;
        double cost = (double)((tiles * units + gpu->processors - 1) / gpu->processors) * rows * c->cost;
        if (best.stages && cost >= least)
            continue;
        least = cost;
        best = shape;
    }
    return best;
}
