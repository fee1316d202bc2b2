/* lik compress: trains a codec on a collection and writes its tokens compressed.
 *
 * What the file will be is known before training, but for numbers: so its size is told first,
 * and it is written from the beginning to the end. Residuals go out block by block; the codes
 * behind them stay in memory until then. */
#include "codec.h"

#include "base/size.h"
#include "io/text.h"
#include "shared/tokens.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ROWS 65536 /* at most: a block is also to take a fraction of a second */
#define SCAN_ROWS  4096

struct norms {
    double low, high; /* of those with a direction */
    int64_t zero, infinite;
};

struct compressing {
    const struct options *options;
    struct engine engine;
    struct lik_collection documents;
    struct lik_compressed_shape shape;
    struct trained trained;
    struct trained trial; /* of the estimate: zeros */
    struct sink out;
    int64_t *lengths;   /* [documents] up to the last token that is kept */
    int64_t kept;       /* tokens */
    struct norms norms; /* of them */
    int64_t centroids;  /* told by an option; 0: auto */
    struct lik_train train;
    double rate; /* flops a second of the assignment */
    double train_seconds, encode_seconds;
};

/* ---- what the tokens are ---- */

struct scan {
    const struct lik_collection *c;
    struct norms *blocks;
};

static double flops_a_token(const struct compressing *s)
{
    return 2 * (double)s->shape.centroids * (double)s->shape.dim;
}

static void scan_block(void *arg, int64_t block)
{
    struct scan *scan = arg;
    struct norms n = {.low = INFINITY};
    const uint8_t *mask = scan->c->mask;
    int64_t end = lik_min_i64((block + 1) * SCAN_ROWS, scan->c->rows);
    for (int64_t row = block * SCAN_ROWS; row < end; row++) {
        if (mask && !mask[row])
            continue;
        double norm = row_norm(scan->c, row);
        n.zero += norm < LIK_NORM_MIN;
        n.infinite += isinf(norm) != 0;
        if (norm < LIK_NORM_MIN || isinf(norm))
            continue;
        n.low = fmin(n.low, norm);
        n.high = fmax(n.high, norm);
    }
    scan->blocks[block] = n;
}

static struct norms scan_norms(struct compressing *s)
{
    int64_t blocks = lik_divide_up(s->documents.rows, SCAN_ROWS);
    struct scan scan = {&s->documents, allocate(blocks, sizeof *scan.blocks, "norms")};
    struct norms all = {.low = INFINITY};
    lik_pool_parallel_for(s->engine.library.pool, blocks, scan_block, &scan);
    for (int64_t i = 0; i < blocks; i++) {
        all.low = fmin(all.low, scan.blocks[i].low);
        all.high = fmax(all.high, scan.blocks[i].high);
        all.zero += scan.blocks[i].zero;
        all.infinite += scan.blocks[i].infinite;
    }
    free(scan.blocks);
    return all;
}

/* Tokens without a direction belong to no centroid; as padding they are common. */
static void drop_rows(struct lik_collection *c)
{
    struct lik_io_error error;
    int status = lik_collection_own_mask(c, &error);
    if (status)
        die_io(status, &error);
    for (int64_t row = 0; row < c->rows; row++) {
        double norm = c->mask[row] ? row_norm(c, row) : 0;
        c->mask[row] = c->mask[row] && norm >= LIK_NORM_MIN && !isinf(norm);
    }
}

/* Lengths up to the last token that is kept, and how many are. */
static void measure(struct compressing *s)
{
    const struct lik_collection *c = &s->documents;
    s->lengths = allocate(c->tokens.count, sizeof *s->lengths, "lengths");
    for (int64_t i = 0; i < c->tokens.count; i++) {
        int64_t length = lik_collection_length(c, i), kept = 0;
        while (length > 0 && !lik_collection_keeps(c, i, length - 1))
            length--;
        for (int64_t t = 0; t < length; t++)
            kept += lik_collection_keeps(c, i, t);
        s->lengths[i] = length;
        s->shape.rows += length;
        s->kept += kept;
    }
    s->shape.sequences = c->tokens.count;
    s->shape.has_mask = s->kept < s->shape.rows;
}

/* Are the tokens unit vectors? The collection says so by their lengths, the user by an
 * option. */
static void look_at_tokens(struct compressing *s)
{
    struct lik_collection *c = &s->documents;
    engine_refuse_bad(&s->engine, c, 0, s->options->skip_bad);
    struct norms n = scan_norms(s);
    if (n.infinite && !s->options->skip_bad)
        die(EXIT_UNREADABLE,
            "%s: %lld tokens are not finite, or too long for a norm\n    Drop them with --skip-bad.", c->path,
            (long long)n.infinite);
    if (n.zero + n.infinite)
        drop_rows(c);
    measure(s);
    if (!s->kept)
        die(EXIT_INCOMPATIBLE, "%s has %lld documents and no token: there is nothing to train on", c->path,
            (long long)c->tokens.count);
    s->norms = n;
    s->shape.normalize = s->options->normalize || norms_are_unit(&c->tokens, n.low, n.high);
    c->tokens.normalize = s->shape.normalize;
    if (s->options->inv_norms && !s->shape.normalize)
        die(EXIT_USAGE,
            "--inv-norms belongs to tokens of unit length, those of %s have norms %.3g to %.3g\n    "
            "--normalize scales them.",
            c->path, n.low, n.high);
}

/* ---- options ---- */

static void take_options(struct compressing *s)
{
    const struct options *options = s->options;
    const char *centroids = options->centroids ? options->centroids : "auto",
               *text = options->seed ? options->seed : "42";
    int64_t seed, bits = options->nbits;
    if (!options->output)
        die(EXIT_USAGE, "lik compress needs -o FILE, a .safetensors file that is to be written");
    if (lik_path_ends(options->output, ".npy") || lik_path_ends(options->output, ".jsonl"))
        die(EXIT_USAGE, "-o %s: compressed tokens are written as .safetensors", options->output);
    if (bits && bits != 1 && bits != 2 && bits != 4 && bits != 8)
        die(EXIT_USAGE, "--nbits is %lld, must be 1, 2, 4 or 8", (long long)bits);
    if (options->iterations > INT32_MAX)
        die(EXIT_USAGE, "--iterations is %lld, must be at most %d", (long long)options->iterations,
            INT32_MAX);
    if (strcmp(centroids, "auto") &&
        (lik_text_whole(centroids, (int64_t)strlen(centroids), &s->centroids) || s->centroids < 1))
        die(EXIT_USAGE, "--centroids is '%s', must be auto or a whole number of at least 1", centroids);
    if (lik_text_whole(text, (int64_t)strlen(text), &seed))
        die(EXIT_USAGE, "--seed is '%s', must be a whole number below 2^63", text);
    s->shape.bits = bits ? (int)bits : 4;
    s->shape.has_inv_norms = options->inv_norms;
    s->train = (struct lik_train){.bits = s->shape.bits,
                                  .iterations = options->iterations ? (int32_t)options->iterations : 4,
                                  .seed = (uint64_t)seed};
}

static void choose_centroids(struct compressing *s)
{
    s->shape.centroids = s->centroids ? s->centroids : codec_auto_centroids(s->kept);
    if (s->shape.centroids > s->kept)
        die(EXIT_INCOMPATIBLE, "--centroids is %lld, %s has %lld tokens", (long long)s->shape.centroids,
            s->documents.path, (long long)s->kept);
}

/* ---- names and texts ---- */

static void append(struct lik_bytes *line, const char *text)
{
    if (lik_bytes_append(line, text, (int64_t)strlen(text)))
        die(EXIT_EXHAUSTED, "out of memory: a document's text");
}

static void append_member(struct lik_bytes *line, const char *name, const char *text, int64_t size)
{
    append(line, line->size > 1 ? ",\"" : "\"");
    append(line, name);
    append(line, "\":");
    if (lik_json_quote(line, text, size, 0))
        die(EXIT_EXHAUSTED, "out of memory: a document's text");
}

static void append_tokens(struct lik_bytes *line, const struct lik_line *of)
{
    const char *at = of->tokens.data;
    append(line, line->size > 1 ? ",\"tokens\":[" : "\"tokens\":[");
    for (int64_t i = 0; i < of->token_count; i++, at += strlen(at) + 1) {
        append(line, i ? "," : "");
        if (lik_json_quote(line, at, (int64_t)strlen(at), 0))
            die(EXIT_EXHAUSTED, "out of memory: a document's tokens");
    }
    append(line, "]");
}

/* A JSON line a document, to `out` or, if that is NULL, nowhere; returns their bytes, 0 where
 * the documents have neither ids nor texts. */
static int64_t put_documents(const struct lik_collection *c, struct sink *out)
{
    struct lik_bytes text = {0};
    struct lik_line line = {0};
    struct lik_io_error error;
    int64_t bytes = 0;
    for (int64_t i = 0; i < c->tokens.count && (c->has_ids || c->texts.count); i++) {
        int64_t at = lik_collection_text_line(c, i);
        int status = at < 0 ? 0 : lik_lines_get(&c->texts, at, &line, &error);
        if (status)
            die_io(status, &error);
        text.size = 0;
        append(&text, "{");
        if (c->has_ids) {
            const char *id = lik_names_get(&c->ids, i);
            append_member(&text, "id", id, (int64_t)strlen(id));
        }
        if (at >= 0 && line.text.size)
            append_member(&text, "text", line.text.data, line.text.size);
        if (at >= 0 && line.token_count)
            append_tokens(&text, &line);
        append(&text, "}\n");
        bytes += text.size;
        if (out)
            sink_put(out, text.data, text.size);
    }
    lik_bytes_free(&text);
    lik_line_free(&line);
    return bytes;
}

/* ---- the estimate ---- */

/* How fast tokens find their centroids: some of them, twice, among as many zeros. */
static void measure_rate(struct compressing *s)
{
    struct lik_compressed_shape *shape = &s->shape;
    int64_t n = (int64_t)(5e8 / flops_a_token(s)), rows = s->documents.rows;
    n = lik_min_i64(lik_max_i64(n, 64), lik_min_i64(rows, SCAN_ROWS));
    struct lik_tokens x = tokens_rows(&s->documents.tokens, 0, n);
    x.mask = NULL;
    uint8_t *bytes = allocate(n, 4 + lik_compressed_token_bytes(shape), "a trial");
    codec_blank(&s->trial, shape->bits, shape->centroids, shape->dim);
    for (int i = 0; i < 2; i++) {
        double start = lik_seconds();
        codec_encode(&s->trial, &s->engine, &x, bytes, bytes + 4 * n, NULL);
        s->rate = (double)n * flops_a_token(s) / fmax(lik_seconds() - start, 1e-9);
    }
    free(bytes);
}

static void tell(struct compressing *s, int64_t bytes)
{
    const struct lik_compressed_shape *shape = &s->shape;
    const struct norms *n = &s->norms;
    const char *path = s->documents.path;
    double points = fmin((double)s->kept, 256.0 * (double)shape->centroids);
    if (n->zero + n->infinite)
        note("%s: %lld tokens without a direction are dropped", path, (long long)(n->zero + n->infinite));
    if (norms_are_unit(&s->documents.tokens, n->low, n->high))
        note("%s: unit vectors (norms %.3g to %.3g), which they will be again when they are read", path,
             n->low, n->high);
    else if (shape->normalize)
        note("%s: scaled to unit length (norms %.3g to %.3g)", path, n->low, n->high);
    else
        warn(
            "%s: not unit length (norms %.3g to %.3g): kept so, while centroids have unit length; scores are "
            "dot products; --normalize makes them cosines",
            path, n->low, n->high);
    note(
        "%lld tokens of %lld documents, %lld dimensions; %lld centroids and %d bits an element: %lld bytes a "
        "token (%lld now), %.3g MB in all; about %.2g s of training and %.2g s of encoding",
        (long long)s->kept, (long long)shape->sequences, (long long)shape->dim, (long long)shape->centroids,
        shape->bits, (long long)lik_compressed_token_bytes(shape),
        (long long)token_bytes(&s->documents.tokens), (double)bytes * 1e-6,
        s->train.iterations * points * flops_a_token(s) / s->rate,
        (double)s->kept * flops_a_token(s) / s->rate);
}

/* ---- the file ---- */

/* Encodes all rows; of each document those up to its length go out, codes and inverse norms to
 * where the file's rows are. */
static void put_rows(struct compressing *s, char *codes, uint16_t *inv_norms)
{
    const struct lik_collection *c = &s->documents;
    const int64_t width = lik_divide_up(s->shape.dim, 8 / s->shape.bits);
    const int64_t code = (int64_t)lik_dtype_bytes(lik_compressed_codes_dtype(s->shape.centroids));
    int64_t block = (int64_t)(s->rate * 0.25 / flops_a_token(s)), i = 0, done = 0;
    block = lik_min_i64(lik_max_i64(block, 256), BLOCK_ROWS);
    uint8_t *residuals = allocate(block, width, "residuals");
    char *some_codes = allocate(block, code, "codes");
    uint16_t *some_norms = inv_norms ? allocate(block, sizeof *some_norms, "inverse norms") : NULL;
    progress_begin("encode", "tokens");
    for (int64_t first = 0, n; first < c->rows; first += n) {
        n = lik_min_i64(block, c->rows - first);
        struct lik_tokens x = tokens_rows(&c->tokens, first, n);
        codec_encode(&s->trained, &s->engine, &x, some_codes, residuals, some_norms);
        for (; i < c->tokens.count; i++) {
            int64_t begin = lik_collection_row(c, i, 0), end = begin + s->lengths[i];
            int64_t from = lik_max_i64(begin, first), count = lik_min_i64(end, first + n) - from;
            if (count > 0) {
                sink_put(&s->out, (const char *)residuals + (from - first) * width, count * width);
                memcpy(codes + done * code, some_codes + (from - first) * code, (size_t)(count * code));
                if (inv_norms)
                    memcpy(inv_norms + done, some_norms + (from - first), (size_t)count * sizeof *inv_norms);
                done += count;
            }
            if (lik_collection_row(c, i + 1, 0) > first + n)
                break;
        }
        progress_update((double)(first + n) / (double)c->rows, (double)(first + n));
    }
    progress_end();
    free(residuals);
    free(some_codes);
    free(some_norms);
}

static void put_array(struct compressing *s, const void *data, int64_t count, int64_t element_bytes)
{
    sink_put(&s->out, data, count * element_bytes);
}

static void put_mask(struct compressing *s)
{
    const struct lik_collection *c = &s->documents;
    for (int64_t i = 0; i < c->tokens.count; i++)
        for (int64_t t = 0; t < s->lengths[i]; t++)
            sink_put(&s->out, lik_collection_keeps(c, i, t) ? "\1" : "\0", 1);
}

static void put_file(struct compressing *s, const struct lik_bytes *header)
{
    const struct lik_compressed_shape *shape = &s->shape;
    const int64_t code = (int64_t)lik_dtype_bytes(lik_compressed_codes_dtype(shape->centroids));
    const int64_t buckets = (int64_t)1 << shape->bits;
    char *codes = allocate(shape->rows, code, "codes");
    uint16_t *inv_norms =
        shape->has_inv_norms ? allocate(shape->rows, sizeof *inv_norms, "inverse norms") : NULL;
    sink_put(&s->out, header->data, header->size);
    put_array(s, s->lengths, shape->sequences, sizeof *s->lengths);
    put_array(s, s->trained.centroids, shape->centroids * shape->dim, sizeof *s->trained.centroids);
    put_array(s, s->trained.weights, buckets, sizeof *s->trained.weights);
    put_array(s, s->trained.cutoffs, buckets - 1, sizeof *s->trained.cutoffs);
    put_rows(s, codes, inv_norms);
    put_array(s, codes, shape->rows, code);
    if (inv_norms)
        put_array(s, inv_norms, shape->rows, sizeof *inv_norms);
    if (shape->has_mask)
        put_mask(s);
    if (put_documents(&s->documents, &s->out) != shape->documents_bytes)
        die(EXIT_UNREADABLE, "the texts of %s were changed while they were being read", s->documents.path);
    free(codes);
    free(inv_norms);
}

int command_compress(struct options *options)
{
    struct compressing s = {.options = options};
    struct lik_bytes header = {0};
    int64_t bytes;
    take_options(&s);
    engine_open(&s.engine, options);
    collection_open(&s.documents, options, options->arguments[0], 0);
    if (s.documents.compressed)
        die(EXIT_INCOMPATIBLE, "%s is compressed already (%s)\n    Compress the vectors that it was made of.",
            s.documents.path, storage_name(&s.documents.tokens));
    look_at_tokens(&s);
    choose_centroids(&s);
    s.shape.dim = s.documents.tokens.dim;
    s.shape.documents_bytes = put_documents(&s.documents, NULL);
    if (lik_compressed_header(&s.shape, &header, &bytes))
        die(EXIT_EXHAUSTED, "out of memory: the header of %s", options->output);
    sink_open(&s.out, options->output);
    measure_rate(&s);
    tell(&s, header.size + bytes);
    s.train.x = s.documents.tokens;
    s.train.centroid_count = s.shape.centroids;
    double start = lik_seconds();
    codec_train(&s.trained, &s.engine, &s.train);
    s.train_seconds = lik_seconds() - start;
    start = lik_seconds();
    put_file(&s, &header);
    sink_close(&s.out);
    s.encode_seconds = lik_seconds() - start;
    note("%s: training %.2f s (squares of a residual %.4f, %lld of %lld clusters begun anew), encoding and "
         "writing %.2f s",
         options->output, s.train_seconds, s.trained.found.mean_squared_residual,
         (long long)s.trained.found.reseeded, (long long)s.shape.centroids, s.encode_seconds);
    lik_bytes_free(&header);
    codec_free(&s.trained);
    codec_free(&s.trial);
    lik_collection_free(&s.documents);
    free(s.lengths);
    engine_close(&s.engine);
    return EXIT_OK;
}
