/* Scoring on a context that has memory of its own, from operands in the host's: the staged way.
 * See staged.h.
 *
 * The work is cut into pieces, consecutive documents or stretches of the list, that go in turn
 * through two slots, each with a stream and memory of the context. A mapped file is pageable,
 * so that a copy from it keeps this thread busy until it is done; what overlaps is the other
 * slot's kernels, which run meanwhile. Before a slot is used again its results are taken.
 * Scores depend on their pair alone, so the pieces do not show in them. */
#include "staged.h"

#include "base/size.h"
#include "io/text.h"
#include "shared/operand.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES \
    (256ll << 20)     /* copies are at full speed long before; larger pieces only delay the first kernel */
#define PIECE_SHARE 8 /* of the free memory: two slots and the queries, each also with results or workspace */
#define ENTRY_BYTES 16 /* what a sequence takes besides its rows: an offset and a place in a list */

/* Memory that grows and is kept from call to call, the context's or the host's. */
struct memory {
    void *at;
    size_t bytes;
};

/* Arrays of an operand, in the context's memory or gathered in the host's. */
struct operand {
    struct memory arrays[LIK_OPERAND_ARRAYS], offsets;
};

struct slot {
    void *stream;
    int busy;             /* a piece was launched and its results are not taken */
    int64_t first, count; /* documents of the piece, or entries of the list */
    struct operand q, d;  /* q: LIK_LIST */
    struct memory list_q, list_d, values, ids, workspace;
};

/* A codec and its tables in the context's memory. */
struct tables {
    const struct lik_codec *of; /* NULL: none yet */
    struct lik_codec codec;
    struct memory centroids, weights;
};

struct staged {
    struct library *library;
    int64_t piece_bytes;
    struct slot slots[2];
    struct operand queries;  /* LIK_ALL: those of the block, for both slots */
    struct tables tables;    /* of the codec that was met last */
    struct operand gathered; /* host memory, as all below */
    /* lists of a piece; results before they are merged or spread */
    struct memory which, position, scores, best, ids;
};

/* One call. */
struct job {
    struct staged *staged;
    struct library *library;     /* that of `staged` */
    struct lik_score score;      /* host memory. LIK_ALL: of one block of queries */
    const struct lik_topk *topk; /* NULL: the scores are wanted */
    float *values;               /* top-k: results of the block */
    int64_t *ids;
    struct lik_tokens q; /* LIK_ALL: the block's queries in the context's memory */
};

/* ---- memory ---- */

static int64_t positive(const char *text, const char *name)
{
    int64_t value;
    if (lik_text_whole(text, (int64_t)strlen(text), &value) || value < 1)
        die(EXIT_USAGE, "%s is '%s', must be a whole number of at least 1", name, text);
    return value;
}

struct staged *staged_open(struct library *library, const char *way)
{
    struct staged *s = allocate(1, sizeof *s, "the staged way");
    size_t available, all;
    library_check(lik_memory_info(library->context, &available, &all));
    s->library = library;
    s->piece_bytes = PIECE_BYTES;
    if (all)
        s->piece_bytes = lik_max_i64(lik_min_i64(PIECE_BYTES, (int64_t)(available / PIECE_SHARE)), 1);
    if (way && *way)
        s->piece_bytes = positive(way, "LIK_STAGED");
    for (int i = 0; i < 2; i++)
        library_check(lik_stream_create(library->context, &s->slots[i].stream));
    return s;
}

int64_t staged_piece_bytes(const struct staged *staged)
{
    return staged->piece_bytes;
}

static void drop(const struct library *library, struct memory *memory)
{
    lik_memory_free(library->context, memory->at);
}

static void drop_operand(const struct library *library, struct operand *x)
{
    for (int i = 0; i < LIK_OPERAND_ARRAYS; i++)
        drop(library, &x->arrays[i]);
    drop(library, &x->offsets);
}

void staged_close(struct staged *s)
{
    if (!s)
        return;
    const struct library *library = s->library;
    for (int i = 0; i < 2; i++) {
        struct slot *slot = &s->slots[i];
        struct memory *all[] = {&slot->list_q, &slot->list_d, &slot->values, &slot->ids, &slot->workspace};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            drop(library, all[j]);
        drop_operand(library, &slot->q);
        drop_operand(library, &slot->d);
        lik_stream_destroy(library->context, slot->stream);
    }
    drop_operand(library, &s->queries);
    drop(library, &s->tables.centroids);
    drop(library, &s->tables.weights);
    struct memory *host[] = {&s->which, &s->position, &s->scores, &s->best, &s->ids};
    for (size_t j = 0; j < sizeof host / sizeof *host; j++)
        free(host[j]->at);
    for (int i = 0; i < LIK_OPERAND_ARRAYS; i++)
        free(s->gathered.arrays[i].at);
    free(s->gathered.offsets.at);
    free(s);
}

/* Bytes to take where `needed` are: pieces grow from call to call up to piece_bytes, and every
 * growth waits for the device. */
static size_t roomy(const struct staged *s, const struct memory *memory, size_t needed)
{
    size_t twice = (size_t)lik_min_i64((int64_t)(2 * memory->bytes), s->piece_bytes);
    return needed > twice ? needed : twice;
}

/* Room for `bytes` in the context's memory; what was there is lost. */
static void *reserve(const struct job *job, struct memory *memory, size_t bytes)
{
    if (bytes <= memory->bytes)
        return memory->at;
    size_t wanted = roomy(job->staged, memory, bytes);
    drop(job->library, memory);
    *memory = (struct memory){0};
    int status = lik_memory_alloc(job->library->context, wanted, &memory->at);
    if (status == LIK_ENOMEM)
        die(EXIT_EXHAUSTED, "out of memory on %s: %s", lik_context_name(job->library->context),
            lik_last_error());
    library_check(status);
    memory->bytes = wanted;
    return memory->at;
}

/* The same in the host's memory. */
static void *reserve_host(const struct job *job, struct memory *memory, size_t bytes)
{
    if (bytes <= memory->bytes)
        return memory->at;
    memory->bytes = roomy(job->staged, memory, bytes);
    free(memory->at);
    memory->at = malloc(memory->bytes);
    if (!memory->at)
        die(EXIT_EXHAUSTED, "out of memory: %zu bytes between the files and the device", memory->bytes);
    return memory->at;
}

/* A copy of `bytes` in the context's memory. */
static void *put(const struct job *job, struct memory *memory, const void *from, size_t bytes)
{
    void *at = reserve(job, memory, bytes);
    library_check(lik_memory_copy(job->library->context, at, from, bytes));
    return at;
}

static void take(const struct job *job, void *to, const struct memory *memory, size_t bytes)
{
    library_check(lik_memory_copy(job->library->context, to, memory->at, bytes));
}

/* ---- operands ---- */

/* Bytes a row of an array with one entry a row; 0: the operand has none, or one entry for the
 * tensor. */
static size_t entry_bytes(const struct lik_operand_array *array)
{
    return array->at && !lik_operand_array_is_constant(array) ? (size_t)(array->inner * array->element_bytes)
                                                              : 0;
}

/* Bytes of sequence i in the context's memory, `more` with its results. */
static int64_t cost(const struct lik_tokens *x, int64_t i, int64_t more)
{
    size_t a_row = 0;
    for (int a = 0; a < LIK_OPERAND_ARRAYS; a++) {
        struct lik_operand_array array = lik_array_of(x, a);
        a_row += entry_bytes(&array);
    }
    return (lik_tokens_row(x, i + 1) - lik_tokens_row(x, i)) * (int64_t)a_row + ENTRY_BYTES + more;
}

/* The codec as the context reads it: its tables are copied once, not once a call. */
static const struct lik_codec *upload_codec(const struct job *job, const struct lik_codec *codec, int64_t dim)
{
    struct tables *tables = &job->staged->tables;
    if (tables->of == codec)
        return &tables->codec;
    size_t centroids = (size_t)codec->centroid_count * lik_dtype_bytes(codec->centroids_dtype),
           stride = (size_t)(codec->centroid_stride ? codec->centroid_stride : dim),
           weights = ((size_t)1 << codec->bits) * lik_dtype_bytes(codec->weights_dtype);
    tables->codec = *codec;
    tables->codec.centroids = put(job, &tables->centroids, codec->centroids, centroids * stride);
    if (codec->weights)
        tables->codec.weights = put(job, &tables->weights, codec->weights, weights);
    tables->of = codec;
    return &tables->codec;
}

/* Copies the sequences of x, which lie behind one another, to the context's memory. */
static struct lik_tokens upload(const struct job *job, const struct lik_tokens *x, struct operand *to)
{
    size_t begin = (size_t)lik_tokens_row(x, 0), count = (size_t)lik_tokens_row(x, x->count) - begin;
    struct lik_tokens y = *x;
    for (int a = 0; a < LIK_OPERAND_ARRAYS; a++) {
        struct lik_operand_array array = lik_array_of(x, a);
        size_t size = entry_bytes(&array);
        if (!array.at)
            continue;
        const char *from = (const char *)array.at + begin * size;
        size_t bytes = size ? count * size : (size_t)(array.inner * array.element_bytes);
        lik_operand_move(&y, a, put(job, &to->arrays[a], from, bytes));
    }
    if (x->codec)
        y.codec = upload_codec(job, x->codec, x->dim);
    if (!x->offsets)
        return y;
    size_t bytes = (size_t)(x->count + 1) * sizeof(int64_t);
    int64_t *offsets = reserve_host(job, &job->staged->gathered.offsets, bytes);
    for (int64_t i = 0; i <= x->count; i++) /* in place, if x was gathered */
        offsets[i] = lik_tokens_row(x, i) - (int64_t)begin;
    y.offsets = put(job, &to->offsets, offsets, bytes);
    y.total = (int64_t)count;
    return y;
}

struct gathering {
    const struct lik_tokens *x, *y;
    const int64_t *which;
    struct operand *to;
};

static void gather_one(void *arg, int64_t i)
{
    const struct gathering *g = arg;
    size_t from = (size_t)lik_tokens_row(g->x, g->which[i]), to = (size_t)lik_tokens_row(g->y, i),
           count = (size_t)lik_tokens_row(g->y, i + 1) - to;
    for (int a = 0; a < LIK_OPERAND_ARRAYS; a++) {
        struct lik_operand_array array = lik_array_of(g->x, a);
        size_t size = entry_bytes(&array);
        if (size && count)
            memcpy((char *)g->to->arrays[a].at + to * size, (const char *)array.at + from * size,
                   count * size);
    }
}

/* Sequences which[0 ... n - 1] of x behind one another, in host memory. */
static struct lik_tokens gather(const struct job *job, const struct lik_tokens *x, const int64_t *which,
                                int64_t n)
{
    struct operand *to = &job->staged->gathered;
    struct lik_tokens y = *x;
    y.count = n;
    if (x->offsets) {
        int64_t *offsets = reserve_host(job, &to->offsets, (size_t)(n + 1) * sizeof *offsets);
        offsets[0] = 0;
        for (int64_t i = 0; i < n; i++)
            offsets[i + 1] = offsets[i] + lik_tokens_row(x, which[i] + 1) - lik_tokens_row(x, which[i]);
        y.offsets = offsets;
        y.total = offsets[n];
    }
    size_t count = (size_t)lik_tokens_row(&y, n);
    for (int a = 0; a < LIK_OPERAND_ARRAYS; a++) {
        struct lik_operand_array array = lik_array_of(x, a);
        size_t size = entry_bytes(&array);
        if (size)
            lik_operand_move(&y, a, reserve_host(job, &to->arrays[a], count * size));
    }
    struct gathering g = {x, &y, which, to};
    lik_pool_parallel_for(job->library->pool, n, gather_one, &g);
    return y;
}

/* The sequences of x that list[0 ... n - 1] names, once a stretch of equal entries, in the
 * context's memory, and in *list_out where each entry's stands. */
static struct lik_tokens upload_list(const struct job *job, const struct lik_tokens *x, const int64_t *list,
                                     int64_t n, struct operand *to, struct memory *list_memory,
                                     const int64_t **list_out)
{
    size_t bytes = (size_t)n * sizeof *list;
    int64_t *which = reserve_host(job, &job->staged->which, bytes),
            *position = reserve_host(job, &job->staged->position, bytes), distinct = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || list[i] != list[i - 1])
            which[distinct++] = list[i];
        position[i] = distinct - 1;
    }
    *list_out = put(job, list_memory, position, bytes);
    struct lik_tokens y = gather(job, x, which, distinct);
    return upload(job, &y, to);
}

/* ---- a piece ---- */

static int64_t score_rows(const struct job *job)
{
    return job->score.pairing == LIK_LIST ? 1 : job->score.q.count;
}

/* Top-k: what the slot found is merged with the best so far. */
static void take_topk(const struct job *job, const struct slot *slot)
{
    int64_t k = job->topk->k, queries = score_rows(job);
    size_t size = (size_t)(queries * k);
    float *values = reserve_host(job, &job->staged->best, 2 * size * sizeof *values);
    int64_t *ids = reserve_host(job, &job->staged->ids, 2 * size * sizeof *ids);
    memcpy(values, job->values, size * sizeof *values);
    memcpy(ids, job->ids, size * sizeof *ids);
    take(job, values + size, &slot->values, size * sizeof *values);
    take(job, ids + size, &slot->ids, size * sizeof *ids);
    library_check(lik_merge_topk(2, queries, k, values, ids, k, job->topk->smallest, job->values, job->ids));
}

/* Scores: the piece's columns go to their place in the caller's rows. */
static void take_scores(const struct job *job, const struct slot *slot)
{
    int64_t rows = score_rows(job), columns = slot->count, stride = job->score.scores_stride;
    float *to = job->score.scores + slot->first;
    size_t bytes = (size_t)(rows * columns) * sizeof *to;
    if (rows == 1) {
        take(job, to, &slot->values, bytes);
        return;
    }
    float *scores = reserve_host(job, &job->staged->scores, bytes);
    take(job, scores, &slot->values, bytes);
    for (int64_t i = 0; i < rows; i++)
        memcpy(to + i * stride, scores + i * columns, (size_t)columns * sizeof *to);
}

/* Waits for the slot's piece and takes its results. */
static void finish(const struct job *job, struct slot *slot)
{
    if (!slot->busy)
        return;
    slot->busy = 0;
    library_check(lik_stream_synchronize(job->library->context, slot->stream));
    if (job->topk)
        take_topk(job, slot);
    else
        take_scores(job, slot);
}

static struct lik_exec exec_of(const struct job *job, struct slot *slot, const struct lik_plan *plan)
{
    struct lik_exec exec = library_exec(job->library);
    memcpy(job->library->variant, plan->variant, sizeof plan->variant);
    exec.stream = slot->stream;
    exec.workspace = reserve(job, &slot->workspace, plan->workspace_bytes);
    exec.workspace_bytes = plan->workspace_bytes;
    return exec;
}

/* Puts the piece, whose operands are in the context's memory, on the slot's stream. */
static void launch(const struct job *job, struct slot *slot, struct lik_score *piece)
{
    struct lik_context *context = job->library->context;
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = library_exec(job->library);
    piece->scores = NULL;
    piece->scores_stride = 0;
    if (job->topk) {
        struct lik_topk top = *job->topk;
        size_t size = (size_t)(score_rows(job) * top.k);
        top.score = *piece;
        top.id_base += slot->first;
        top.values = reserve(job, &slot->values, size * sizeof *top.values);
        top.ids = reserve(job, &slot->ids, size * sizeof *top.ids);
        library_check(lik_topk_plan(context, &top, &exec, &plan));
        exec = exec_of(job, slot, &plan);
        library_check(lik_topk_run(context, &top, &exec));
    } else {
        piece->scores =
            reserve(job, &slot->values, (size_t)(score_rows(job) * slot->count) * sizeof *piece->scores);
        library_check(lik_score_plan(context, piece, &exec, &plan));
        exec = exec_of(job, slot, &plan);
        library_check(lik_score_run(context, piece, &exec));
    }
    slot->busy = 1;
}

/* Where the piece that starts at `first` ends: at least one document, or entry of the list. */
static int64_t piece_end(const struct job *job, int64_t first)
{
    const struct lik_score *op = &job->score;
    int64_t n = op->pairing == LIK_LIST ? op->list_count : op->d.count, bytes = 0, i = first;
    int64_t result = job->topk ? 0 : score_rows(job) * (int64_t)sizeof(float);
    for (; i < n; i++) {
        if (op->pairing == LIK_LIST) {
            bytes += 2 * ENTRY_BYTES;
            if (i == first || op->list_q[i] != op->list_q[i - 1])
                bytes += cost(&op->q, op->list_q[i], 0);
            if (i == first || op->list_d[i] != op->list_d[i - 1])
                bytes += cost(&op->d, op->list_d[i], 0);
        } else {
            bytes += cost(&op->d, i, result);
        }
        if (bytes > job->staged->piece_bytes && i > first)
            break;
    }
    return i;
}

static void load_and_launch(const struct job *job, struct slot *slot)
{
    struct lik_score piece = job->score;
    if (piece.pairing == LIK_LIST) {
        piece.list_count = slot->count;
        piece.q = upload_list(job, &job->score.q, job->score.list_q + slot->first, slot->count, &slot->q,
                              &slot->list_q, &piece.list_q);
        piece.d = upload_list(job, &job->score.d, job->score.list_d + slot->first, slot->count, &slot->d,
                              &slot->list_d, &piece.list_d);
    } else {
        struct lik_tokens documents = tokens_slice(&job->score.d, slot->first, slot->count);
        piece.q = job->q;
        piece.d = upload(job, &documents, &slot->d);
    }
    launch(job, slot, &piece);
}

/* All pieces of a list, or of the documents for one block of queries. */
static void run_pieces(const struct job *job)
{
    struct slot *slots = job->staged->slots;
    int64_t n = job->score.pairing == LIK_LIST ? job->score.list_count : job->score.d.count;
    int turn = 0;
    for (int64_t first = 0, end; first < n; first = end, turn = !turn) {
        end = piece_end(job, first);
        finish(job, &slots[turn]);
        slots[turn].first = first;
        slots[turn].count = end - first;
        load_and_launch(job, &slots[turn]);
    }
    finish(job, &slots[turn]); /* the older one first */
    finish(job, &slots[!turn]);
}

/* ---- a call ---- */

/* LIK_ALL: queries in blocks that fit a piece, too, `result` bytes of results each. A block's
 * are copied once a call. */
static void run_blocks(struct job *job, const struct lik_score *op, int64_t result)
{
    for (int64_t first = 0, end; first < op->q.count; first = end) {
        int64_t bytes = 0, k = job->topk ? job->topk->k : 0;
        for (end = first; end < op->q.count; end++) {
            bytes += cost(&op->q, end, result);
            if (bytes > job->staged->piece_bytes && end > first)
                break;
        }
        job->score = *op;
        job->score.q = tokens_slice(&op->q, first, end - first);
        job->score.scores_stride = op->scores_stride ? op->scores_stride : op->d.count;
        if (op->scores)
            job->score.scores = op->scores + first * job->score.scores_stride;
        if (job->topk) {
            job->values = job->topk->values + first * k;
            job->ids = job->topk->ids + first * k;
        }
        job->q = upload(job, &job->score.q, &job->staged->queries);
        run_pieces(job);
    }
}

void staged_score(struct staged *staged, const struct lik_score *op)
{
    struct job job = {.staged = staged, .library = staged->library, .score = *op};
    if (op->pairing == LIK_LIST)
        run_pieces(&job);
    else
        run_blocks(&job, op, 0);
}

void staged_topk(struct staged *staged, const struct lik_topk *op)
{
    struct job job = {.staged = staged, .library = staged->library, .topk = op};
    for (int64_t i = 0; i < op->score.q.count * op->k; i++) { /* nothing found yet */
        op->values[i] = NAN;
        op->ids[i] = -1;
    }
    run_blocks(&job, &op->score, op->k * (int64_t)(sizeof *op->values + sizeof *op->ids));
}

/* ---- the codec ---- */

/* Documents of x, evenly spaced, that take half of the device's free memory; all of them where
 * they take less, or its memory is the host's. */
static struct lik_tokens sample(const struct job *job, const struct lik_tokens *x)
{
    size_t available, all;
    int64_t bytes = 0, n = 0, step;
    library_check(lik_memory_info(job->library->context, &available, &all));
    for (int64_t i = 0; i < x->count; i++)
        bytes += cost(x, i, 0);
    step = all ? bytes / lik_max_i64((int64_t)(available / 2), 1) + 1 : 1;
    if (step == 1)
        return *x;
    int64_t *which = reserve_host(job, &job->staged->which, (size_t)(x->count / step + 1) * sizeof *which);
    for (int64_t i = 0; i < x->count; i += step)
        which[n++] = i;
    return gather(job, x, which, n);
}

/* Lists and results of a search have no part in training and encoding: their memory serves the
 * outputs. */
void staged_train(struct staged *staged, const struct lik_train *op)
{
    const struct job job = {.staged = staged, .library = staged->library};
    struct lik_context *context = staged->library->context;
    struct slot *slot = &staged->slots[0];
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = library_exec(staged->library);
    struct lik_train run = *op;
    size_t buckets = op->bits ? (size_t)1 << op->bits : 0, weights = buckets * sizeof *op->weights,
           cutoffs = buckets ? (buckets - 1) * sizeof *op->cutoffs : 0,
           centroids = (size_t)(op->centroid_count * op->x.dim) * sizeof *op->centroids;
    struct lik_tokens x = sample(&job, &op->x);
    run.x = upload(&job, &x, &slot->d);
    run.centroids = reserve(&job, &slot->values, centroids);
    run.weights = reserve(&job, &slot->list_q, weights);
    run.cutoffs = reserve(&job, &slot->list_d, cutoffs);
    run.found = op->found ? reserve(&job, &slot->ids, sizeof *op->found) : NULL;
    library_check(lik_train_plan(context, &run, &exec, &plan));
    exec = exec_of(&job, slot, &plan);
    library_check(lik_train_run(context, &run, &exec));
    library_check(lik_stream_synchronize(context, slot->stream));
    take(&job, op->centroids, &slot->values, centroids);
    take(&job, op->weights, &slot->list_q, weights);
    take(&job, op->cutoffs, &slot->list_d, cutoffs);
    if (op->found)
        take(&job, op->found, &slot->ids, sizeof *op->found);
}

void staged_encode(struct staged *staged, const struct lik_encode *op)
{
    const struct job job = {.staged = staged, .library = staged->library};
    struct lik_context *context = staged->library->context;
    struct slot *slot = &staged->slots[0];
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = library_exec(staged->library);
    struct lik_encode run = *op;
    const int32_t bits = op->codec->bits;
    size_t rows = (size_t)lik_tokens_rows(&op->x), codes = rows * lik_dtype_bytes(op->codes_dtype),
           residuals = rows * (size_t)lik_residual_bytes(op->x.dim, bits),
           inv_norms = rows * lik_dtype_bytes(op->inv_norms_dtype ? op->inv_norms_dtype : LIK_F32);
    run.x = upload(&job, &op->x, &slot->d);
    run.codec = upload_codec(&job, op->codec, op->x.dim);
    if (bits)
        run.cutoffs = put(&job, &slot->list_q, op->cutoffs, (((size_t)1 << bits) - 1) * sizeof *op->cutoffs);
    run.codes = reserve(&job, &slot->ids, codes);
    run.residuals = reserve(&job, &slot->values, residuals);
    run.inv_norms = op->inv_norms ? reserve(&job, &slot->list_d, inv_norms) : NULL;
    library_check(lik_encode_plan(context, &run, &exec, &plan));
    exec = exec_of(&job, slot, &plan);
    library_check(lik_encode_run(context, &run, &exec));
    library_check(lik_stream_synchronize(context, slot->stream));
    take(&job, op->codes, &slot->ids, codes);
    take(&job, op->residuals, &slot->values, residuals);
    if (op->inv_norms)
        take(&job, op->inv_norms, &slot->list_d, inv_norms);
}
