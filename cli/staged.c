/* Scoring on a context that has memory of its own, from operands in the host's: the staged way.
 * See engine.h.
 *
 * The work is cut into pieces, consecutive documents or stretches of the list, that go in turn
 * through two slots, each with a stream and memory of the context. A mapped file is pageable,
 * so that a copy from it keeps this thread busy until it is done; what overlaps is the other
 * slot's kernels, which run meanwhile. Before a slot is used again its results are taken.
 * Scores depend on their pair alone, so the pieces do not show in them. */
#include "engine.h"

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

struct staged {
    int64_t piece_bytes;
    struct slot slots[2];
    struct operand queries;  /* LIK_ALL: those of the block, for both slots */
    struct operand gathered; /* host memory, as all below */
    /* lists of a piece; results before they are merged or spread */
    struct memory which, position, scores, best, ids;
};

/* One call. */
struct job {
    struct engine *engine;
    struct staged *staged;
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

struct staged *staged_open(const struct engine *engine, const char *way)
{
    struct staged *s = allocate(1, sizeof *s, "the staged way");
    size_t available, all;
    engine_check(lik_memory_info(engine->context, &available, &all));
    s->piece_bytes = PIECE_BYTES;
    if (all)
        s->piece_bytes = lik_max_i64(lik_min_i64(PIECE_BYTES, (int64_t)(available / PIECE_SHARE)), 1);
    if (way && *way)
        s->piece_bytes = positive(way, "LIK_STAGED");
    for (int i = 0; i < 2; i++)
        engine_check(lik_stream_create(engine->context, &s->slots[i].stream));
    return s;
}

int64_t staged_piece_bytes(const struct staged *staged)
{
    return staged->piece_bytes;
}

static void drop(const struct engine *engine, struct memory *memory)
{
    lik_memory_free(engine->context, memory->at);
}

static void drop_operand(const struct engine *engine, struct operand *x)
{
    for (int i = 0; i < LIK_OPERAND_ARRAYS; i++)
        drop(engine, &x->arrays[i]);
    drop(engine, &x->offsets);
}

void staged_close(struct engine *engine)
{
    struct staged *s = engine->staged;
    if (!s)
        return;
    for (int i = 0; i < 2; i++) {
        struct slot *slot = &s->slots[i];
        struct memory *all[] = {&slot->list_q, &slot->list_d, &slot->values, &slot->ids, &slot->workspace};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            drop(engine, all[j]);
        drop_operand(engine, &slot->q);
        drop_operand(engine, &slot->d);
        lik_stream_destroy(engine->context, slot->stream);
    }
    drop_operand(engine, &s->queries);
    struct memory *host[] = {&s->which, &s->position, &s->scores, &s->best, &s->ids};
    for (size_t j = 0; j < sizeof host / sizeof *host; j++)
        free(host[j]->at);
    for (int i = 0; i < LIK_OPERAND_ARRAYS; i++)
        free(s->gathered.arrays[i].at);
    free(s->gathered.offsets.at);
    free(s);
    engine->staged = NULL;
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
    drop(job->engine, memory);
    *memory = (struct memory){0};
    int status = lik_memory_alloc(job->engine->context, wanted, &memory->at);
    if (status == LIK_ENOMEM)
        die(EXIT_EXHAUSTED, "out of memory on %s: %s", lik_context_name(job->engine->context),
            lik_last_error());
    engine_check(status);
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
    engine_check(lik_memory_copy(job->engine->context, at, from, bytes));
    return at;
}

static void take(const struct job *job, void *to, const struct memory *memory, size_t bytes)
{
    engine_check(lik_memory_copy(job->engine->context, to, memory->at, bytes));
}

/* ---- operands ---- */

/* Row of sequence i's first token in every array of the operand. */
static int64_t row_of(const struct lik_tokens *x, int64_t i)
{
    return x->offsets ? ((const int64_t *)x->offsets)[i] : i * x->len_max;
}

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
    return (row_of(x, i + 1) - row_of(x, i)) * (int64_t)a_row + ENTRY_BYTES + more;
}

/* Copies the sequences of x, which lie behind one another, to the context's memory. */
static struct lik_tokens upload(const struct job *job, const struct lik_tokens *x, struct operand *to)
{
    size_t begin = (size_t)row_of(x, 0), count = (size_t)row_of(x, x->count) - begin;
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
    if (!x->offsets)
        return y;
    size_t bytes = (size_t)(x->count + 1) * sizeof(int64_t);
    int64_t *offsets = reserve_host(job, &job->staged->gathered.offsets, bytes);
    for (int64_t i = 0; i <= x->count; i++) /* in place, if x was gathered */
        offsets[i] = row_of(x, i) - (int64_t)begin;
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
    size_t from = (size_t)row_of(g->x, g->which[i]), to = (size_t)row_of(g->y, i),
           count = (size_t)row_of(g->y, i + 1) - to;
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
            offsets[i + 1] = offsets[i] + row_of(x, which[i] + 1) - row_of(x, which[i]);
        y.offsets = offsets;
        y.total = offsets[n];
    }
    size_t count = (size_t)row_of(&y, n);
    for (int a = 0; a < LIK_OPERAND_ARRAYS; a++) {
        struct lik_operand_array array = lik_array_of(x, a);
        size_t size = entry_bytes(&array);
        if (size)
            lik_operand_move(&y, a, reserve_host(job, &to->arrays[a], count * size));
    }
    struct gathering g = {x, &y, which, to};
    lik_pool_parallel_for(job->engine->pool, n, gather_one, &g);
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
    engine_check(lik_merge_topk(2, queries, k, values, ids, k, job->topk->smallest, job->values, job->ids));
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
    engine_check(lik_stream_synchronize(job->engine->context, slot->stream));
    if (job->topk)
        take_topk(job, slot);
    else
        take_scores(job, slot);
}

static struct lik_exec exec_of(const struct job *job, struct slot *slot, const struct lik_plan *plan)
{
    struct lik_exec exec = engine_exec(job->engine);
    memcpy(job->engine->variant, plan->variant, sizeof plan->variant);
    exec.stream = slot->stream;
    exec.workspace = reserve(job, &slot->workspace, plan->workspace_bytes);
    exec.workspace_bytes = plan->workspace_bytes;
    return exec;
}

/* Puts the piece, whose operands are in the context's memory, on the slot's stream. */
static void launch(const struct job *job, struct slot *slot, struct lik_score *piece)
{
    struct lik_context *context = job->engine->context;
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = engine_exec(job->engine);
    piece->scores = NULL;
    piece->scores_stride = 0;
    if (job->topk) {
        struct lik_topk top = *job->topk;
        size_t size = (size_t)(score_rows(job) * top.k);
        top.score = *piece;
        top.id_base += slot->first;
        top.values = reserve(job, &slot->values, size * sizeof *top.values);
        top.ids = reserve(job, &slot->ids, size * sizeof *top.ids);
        engine_check(lik_topk_plan(context, &top, &exec, &plan));
        exec = exec_of(job, slot, &plan);
        engine_check(lik_topk_run(context, &top, &exec));
    } else {
        piece->scores =
            reserve(job, &slot->values, (size_t)(score_rows(job) * slot->count) * sizeof *piece->scores);
        engine_check(lik_score_plan(context, piece, &exec, &plan));
        exec = exec_of(job, slot, &plan);
        engine_check(lik_score_run(context, piece, &exec));
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

void staged_score(struct engine *engine, const struct lik_score *op)
{
    struct job job = {.engine = engine, .staged = engine->staged, .score = *op};
    if (op->pairing == LIK_LIST)
        run_pieces(&job);
    else
        run_blocks(&job, op, 0);
}

void staged_topk(struct engine *engine, const struct lik_topk *op)
{
    struct job job = {.engine = engine, .staged = engine->staged, .topk = op};
    for (int64_t i = 0; i < op->score.q.count * op->k; i++) { /* nothing found yet */
        op->values[i] = NAN;
        op->ids[i] = -1;
    }
    run_blocks(&job, &op->score, op->k * (int64_t)(sizeof *op->values + sizeof *op->ids));
}
