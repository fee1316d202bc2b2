/* lik info: what a file holds, and with --check whether its vectors are sound. */
#include "engine.h"

#include "base/dtype.h"
#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BINS 8

struct lengths {
    int64_t least, median, most, empty, tokens; /* of the kept tokens */
    int64_t bin_width, bins[BINS];
};

struct health {
    int64_t nan_rows, infinite_rows, zero_rows;
    int64_t nan_sequence, nan_token; /* the first of them */
    double least, mean, most;        /* norms of the finite rows */
};

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static struct lengths measure_lengths(const struct lik_collection *c)
{
    struct lengths result = {0};
    int64_t n = c->tokens.count;
    int64_t *kept = allocate(n, sizeof *kept, "lengths");
    for (int64_t i = 0; i < n; i++) {
        kept[i] = lik_collection_length(c, i);
        for (int64_t t = 0; c->mask && t < lik_collection_length(c, i); t++)
            kept[i] -= !lik_collection_keeps(c, i, t);
        result.tokens += kept[i];
        result.empty += kept[i] == 0;
    }
    if (n) {
        qsort(kept, (size_t)n, sizeof *kept, ascending);
        result.least = kept[0];
        result.median = kept[n / 2];
        result.most = kept[n - 1];
        result.bin_width = lik_max_i64((result.most - result.least + BINS) / BINS, 1);
        for (int64_t i = 0; i < n; i++)
            result.bins[(kept[i] - result.least) / result.bin_width]++;
    }
    free(kept);
    return result;
}

static struct health check_rows(const struct lik_collection *c)
{
    struct health h = {.least = INFINITY};
    int64_t finite = 0;
    progress_begin("check", "tokens");
    for (int64_t i = 0, seen = 0; i < c->tokens.count; i++)
        for (int64_t t = 0; t < lik_collection_length(c, i); t++, seen++) {
            int64_t row = lik_collection_row(c, i, t);
            if (!lik_collection_keeps(c, i, t))
                continue;
            double norm = row_norm(c, row);
            if (isnan(norm) && !h.nan_rows++) {
                h.nan_sequence = i;
                h.nan_token = t;
            }
            h.infinite_rows += isinf(norm) != 0;
            h.zero_rows += norm == 0;
            if (isfinite(norm)) {
                h.least = fmin(h.least, norm);
                h.most = fmax(h.most, norm);
                h.mean += norm;
                finite++;
            }
            if (seen % 65536 == 0)
                progress_update((double)seen / (double)c->rows, (double)seen);
        }
    progress_end();
    h.mean = finite ? h.mean / (double)finite : NAN;
    h.least = finite ? h.least : NAN;
    h.most = finite ? h.most : NAN;
    return h;
}

static void put_health(struct sink *out, const struct lik_collection *c, const struct health *h)
{
    char number[24];
    if (isnan(h->mean))
        sink_printf(out, "norms      none: no token is kept\n");
    else
        sink_printf(out, "norms      %.4g to %.4g, mean %.4g\n", h->least, h->most, h->mean);
    sink_printf(out, "zero rows  %lld\n", (long long)h->zero_rows);
    if (h->infinite_rows)
        sink_printf(out, "infinite   %lld rows\n", (long long)h->infinite_rows);
    if (!h->nan_rows) {
        sink_printf(out, "NaN        none\n");
        return;
    }
    const char *id = lik_collection_id(c, h->nan_sequence, number);
    sink_printf(out, "NaN        %lld rows, the first in sequence ", (long long)h->nan_rows);
    sink_clean(out, id, (int64_t)strlen(id));
    sink_printf(out, ", token %lld\n", (long long)h->nan_token);
}

static void put_table(struct sink *out, const struct lik_collection *c, const struct lengths *l)
{
    const struct lik_tokens *x = &c->tokens;
    sink_printf(out, "sequences  %lld\n", (long long)x->count);
    sink_printf(out, "tokens     %lld", (long long)l->tokens);
    if (l->tokens != c->rows)
        sink_printf(out, " kept of %lld", (long long)c->rows);
    sink_printf(out, ", %lld dimensions, %s%s, %lld bytes a token\n", (long long)x->dim, storage_name(x),
                c->converted ? " (from float64)" : "", (long long)token_bytes(x));
    if (c->compressed)
        sink_printf(out, "codec      %lld centroids, bit order %s; tokens %s\n",
                    (long long)x->codec->centroid_count,
                    x->codec->bit_order == LIK_BITS_COLBERT ? "colbert" : "low-first",
                    c->compressed->normalize ? "count as unit vectors" : "count as they are");
    sink_printf(out, "layout     %s%s%s%s\n", c->offsets ? "packed" : "padded", x->mask ? ", mask" : "",
                !x->scale                ? ""
                : c->compressed          ? ", inverse norms"
                : x->scale_strides.token ? ", a scale for each token"
                                         : ", one scale",
                x->weights ? ", a weight for each token" : "");
    sink_printf(out, "names      %s%s\n", c->has_ids ? "ids" : "numbers", c->texts.count ? ", texts" : "");
    sink_printf(out, "lengths    %lld to %lld, median %lld", (long long)l->least, (long long)l->most,
                (long long)l->median);
    if (l->empty)
        sink_printf(out, "; %lld empty", (long long)l->empty);
    sink_put(out, "\n", 1);
    for (int i = 0; i < BINS && l->least + i * l->bin_width <= l->most && l->most > l->least; i++) {
        sink_printf(out, "  %6lld-%-6lld %8lld  ", (long long)(l->least + i * l->bin_width),
                    (long long)(l->least + (i + 1) * l->bin_width - 1), (long long)l->bins[i]);
        int64_t highest = 1;
        for (int b = 0; b < BINS; b++)
            highest = lik_max_i64(highest, l->bins[b]);
        for (int64_t star = 0; star < (l->bins[i] * 24 + highest - 1) / highest; star++)
            sink_put(out, "#", 1);
        sink_put(out, "\n", 1);
    }
}

static void put_array(struct sink *out, const struct lik_array *array, int json)
{
    char text[160];
    if (!json) {
        const char *name = array->name ? array->name : "array";
        int64_t size = text_prefix(name, (int64_t)strlen(name), 200);
        sink_put(out, "  ", 2);
        sink_clean(out, name, size);
        sink_printf(out, "%*s %s %s\n", (int)lik_max_i64(16 - text_columns(name, size), 0), "",
                    lik_array_shape_text(array, text), lik_array_type_name(array->type));
        return;
    }
    sink_printf(out, "{\"name\": ");
    sink_quote(out, array->name ? array->name : "", array->name ? (int64_t)strlen(array->name) : 0);
    sink_printf(out, ", \"type\": \"%s\", \"shape\": [", lik_array_type_name(array->type));
    for (int i = 0; i < array->rank; i++)
        sink_printf(out, "%s%lld", i ? ", " : "", (long long)array->shape[i]);
    sink_printf(out, "]}");
}

/* Lists the arrays in an .npy or .safetensors file, even if they are no collection. Nothing is
 * read again: what could not be listed was an error when the file was opened. */
static void put_arrays(struct sink *out, const struct lik_collection *c, int json)
{
    struct lik_io_error error;
    struct lik_array array;
    sink_printf(out, json ? ", \"arrays\": [" : "");
    if (lik_npy_recognize(&c->map) && !lik_npy_read(&c->map, c->path, &array, &error))
        put_array(out, &array, json);
    for (int64_t i = 0; i < c->tensors.count && (json || i < 20); i++) {
        sink_printf(out, json && i ? ", " : "");
        put_array(out, &c->tensors.arrays[i], json);
    }
    if (c->tensors.count > 20 && !json)
        sink_printf(out, "  and %lld more\n", (long long)c->tensors.count - 20);
    sink_printf(out, json ? "]" : "");
}

static void put_json(struct sink *out, const struct lik_collection *c, const struct lengths *l,
                     const struct health *h)
{
    const struct lik_tokens *x = &c->tokens;
    sink_printf(out,
                ", \"sequences\": %lld, \"tokens\": %lld, \"rows\": %lld, \"dim\": %lld, \"dtype\": \"%s\", "
                "\"layout\": \"%s\"",
                (long long)x->count, (long long)l->tokens, (long long)c->rows, (long long)x->dim,
                storage_name(x), c->offsets ? "packed" : "padded");
    sink_printf(out, ", \"token_bytes\": %lld", (long long)token_bytes(x));
    if (c->compressed)
        sink_printf(out, ", \"centroids\": %lld, \"normalize\": %s", (long long)x->codec->centroid_count,
                    c->compressed->normalize ? "true" : "false");
    sink_printf(out, ", \"mask\": %s, \"scales\": %s, \"weights\": %s, \"ids\": %s, \"texts\": %s",
                x->mask ? "true" : "false", x->scale ? "true" : "false", x->weights ? "true" : "false",
                c->has_ids ? "true" : "false", c->texts.count ? "true" : "false");
    sink_printf(out, ", \"lengths\": {\"min\": %lld, \"median\": %lld, \"max\": %lld, \"empty\": %lld}",
                (long long)l->least, (long long)l->median, (long long)l->most, (long long)l->empty);
    if (!h)
        return;
    sink_printf(
        out, ", \"check\": {\"nan_rows\": %lld, \"infinite_rows\": %lld, \"zero_rows\": %lld, \"norm_min\": ",
        (long long)h->nan_rows, (long long)h->infinite_rows, (long long)h->zero_rows);
    sink_number(out, h->least);
    sink_printf(out, ", \"norm_mean\": ");
    sink_number(out, h->mean);
    sink_printf(out, ", \"norm_max\": ");
    sink_number(out, h->most);
    sink_put(out, "}", 1);
}

int command_info(struct options *options)
{
    const char *path = options->arguments[0];
    struct lik_collection c;
    struct lik_io_error error;
    struct lik_collection_options from = {.path = path,
                                          .weights = 1,
                                          .lens = options->lens,
                                          .ids = options->ids,
                                          .text = options->text,
                                          .key = options->key};
    struct health health = {0};
    struct lengths lengths = {0};
    struct sink out;
    int status = lik_collection_open(&c, &from, &error), named = strcmp(path, "-") != 0;
    if (status == LIK_IO_UNREADABLE || status == LIK_IO_EXHAUSTED || (status && !c.format))
        die_io(status, &error);
    if (!status && options->check && !strcmp(c.format, "npz") && lik_npz_verify(&c.map, c.path, &error))
        die_io(LIK_IO_UNREADABLE, &error);
    if (!status)
        lengths = measure_lengths(&c);
    if (!status && options->check)
        health = check_rows(&c);
    sink_open(&out, NULL);
    if (options->json) {
        sink_printf(&out, "{\"path\": ");
        sink_quote(&out, path, (int64_t)strlen(path));
        sink_printf(&out, ", \"format\": \"%s\"", c.format);
    } else {
        sink_clean(&out, path, (int64_t)strlen(path));
        sink_printf(&out, ": %s\n", c.format);
    }
    if (named)
        put_arrays(&out, &c, options->json);
    if (!status && options->json)
        put_json(&out, &c, &lengths, options->check ? &health : NULL);
    if (!status && !options->json) {
        put_table(&out, &c, &lengths);
        if (options->check)
            put_health(&out, &c, &health);
    }
    if (options->json)
        sink_printf(&out, "}\n");
    sink_close(&out);
    if (status)
        warn("not a collection of token vectors: %s", error.text);
    lik_collection_free(&c);
    return status ? -status : health.nan_rows ? EXIT_UNREADABLE : EXIT_OK;
}
