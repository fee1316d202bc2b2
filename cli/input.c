/* Opening queries and documents, and what should be said about them before work begins. */
#include "heatmap.h"

#include "base/dtype.h"
#include "base/size.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Is there something that the name leads to? Links are followed; the input "-" is what standard
 * input comes from. */
static int look(const char *path, int input, struct stat *info)
{
    if (!(input && !strcmp(path, "-") ? fstat(STDIN_FILENO, info) : stat(path, info)))
        return 1;
    if (errno != EIO && errno != ENOMEM && errno != EOVERFLOW)
        return 0; /* nothing, or nothing that can be opened */
    die(errno == ENOMEM ? EXIT_EXHAUSTED : EXIT_UNREADABLE, "%s: cannot look for it: %s", path,
        strerror(errno));
}

/* Do both names lead to one regular file, by whatever links and spellings? */
static int one_file(const char *output, const char *input)
{
    struct stat a, b;
    return look(output, 0, &a) && S_ISREG(a.st_mode) && look(input, 1, &b) && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

void inputs_keep(const char *output, const char *input)
{
    if (one_file(output, input))
        die(EXIT_USAGE,
            "the output %s is also the input %s, which it would replace\n    Name another file with -o.",
            output, strcmp(input, "-") ? input : "standard input");
}

/* What the command writes beside standard output, in fresh memory. */
static int outputs_of(const struct command *command, const struct options *options, char *outputs[2])
{
    const char *output = options->output;
    int count = 0;
    if (command->run == command_demo) {
        outputs[count++] = heatmap_path(output ? output : "lik-demo", 0);
        outputs[count++] = heatmap_path(output ? output : "lik-demo", 1);
    } else if (output) {
        size_t size = strlen(output);
        outputs[count] = allocate((int64_t)size + 1, 1, "a file name");
        memcpy(outputs[count++], output, size);
        if (has_suffix(output, ".npy") && command->run != command_explain)
            outputs[count++] = results_ids_path(output);
        if (count == 2 && command->run == command_score && (options->all || options->pairs)) {
            char *ids = outputs[--count]; /* which these do not write */
            if (!access(ids, F_OK) && (!options->ids || strcmp(options->ids, ids)))
                warn("%s is there already: it does not belong to the scores that %s gets now", ids, output);
            free(ids);
        }
    }
    return count;
}

void inputs_check(const struct command *command, const struct options *options)
{
    const char *sources[16] = {options->lens,      options->ids,        options->text, options->query_lens,
                               options->query_ids, options->query_text, options->pairs};
    int count = 7, from_input = 0;
    for (int i = 0; i < options->argument_count; i++)
        sources[count++] = options->arguments[i];
    for (int i = 0; i < count; i++)
        from_input += sources[i] && !strcmp(sources[i], "-");
    if (from_input > 1)
        die(EXIT_USAGE, "only one of %d inputs can come from standard input", from_input);
    char *outputs[2];
    int written = outputs_of(command, options, outputs);
    for (int o = 0; o < written; o++) {
        for (int i = 0; i < count; i++) {
            if (sources[i])
                inputs_keep(outputs[o], sources[i]);
            for (int k = 0; sources[i] && k < 2; k++) {
                char *beside;
                struct lik_io_error error;
                int status = lik_collection_beside(sources[i], k, &beside, &error);
                if (status)
                    die_io(status, &error);
                if (beside)
                    inputs_keep(outputs[o], beside);
                free(beside);
            }
        }
        if (o && one_file(outputs[0], outputs[1]))
            die(EXIT_USAGE, "the outputs %s and %s are one file", outputs[0], outputs[1]);
    }
    for (int o = 0; o < written; o++)
        free(outputs[o]);
}

void collection_open(struct lik_collection *c, const struct options *options, const char *path, int queries)
{
    struct lik_io_error error;
    struct lik_collection_options from = {
        .path = path, .queries = queries, .weights = queries && !options->no_weights};
    from.lens = queries ? options->query_lens : options->lens;
    from.ids = queries ? options->query_ids : options->ids;
    from.text = queries ? options->query_text : options->text;
    from.key = queries ? options->query_key : options->key;
    int status = lik_collection_open(c, &from, &error);
    if (status)
        die_io(status, &error);
    if (c->converted)
        note("%s holds float64; it is converted to float32 in memory", c->path);
    c->tokens.normalize = options->normalize;
}

/* Warns if the tokens are not unit length, which makes scores that are no cosines; looks at up
 * to a thousand of them. */
static void look_at_norms(const struct lik_collection *c, const char *noun)
{
    const struct lik_tokens *x = &c->tokens;
    double low = INFINITY, high = 0;
    /* what rounding to the dtype may do to a norm */
    double slack = x->dtype == LIK_E4M3 || x->dtype == LIK_E5M2 ? 0.1 : x->dtype == LIK_I8 ? 0.05 : 0.02;
    if (x->normalize || terminal.quiet)
        return;
    for (int64_t row = 0; row < lik_min_i64(c->rows, 1000); row++) {
        double sum = 0;
        for (int64_t i = 0; i < x->dim; i++) {
            double value = (double)lik_load_f32(x->data, x->dtype, row * x->dim + i);
            sum += value * value;
        }
        double norm = sqrt(sum) * (x->scale ? fabs((double)x->scale[row * x->scale_strides.token]) : 1);
        if ((c->mask && !c->mask[row]) || norm == 0 || !isfinite(norm))
            continue;
        low = fmin(low, norm);
        high = fmax(high, norm);
    }
    if (high > 0 && (low < 1 - slack || high > 1 + slack))
        warn("%s are not unit length (norms %.3g to %.3g): scores are dot products; --normalize makes them "
             "cosines",
             noun, low, high);
}

void inputs_open(struct inputs *inputs, const struct options *options, const char *queries,
                 const char *documents)
{
    double start = seconds();
    collection_open(&inputs->queries, options, queries, 1);
    collection_open(&inputs->documents, options, documents, 0);
    const struct lik_collection *q = &inputs->queries, *d = &inputs->documents;
    if (q->tokens.dim != d->tokens.dim)
        die(EXIT_INCOMPATIBLE,
            "queries have %lld dimensions (%s), documents have %lld (%s)\n    Embed both with the same "
            "model.",
            (long long)q->tokens.dim, q->path, (long long)d->tokens.dim, d->path);
    look_at_norms(q, "queries");
    look_at_norms(d, "documents");
    inputs->seconds = seconds() - start;
}

void inputs_close(struct inputs *inputs)
{
    lik_collection_free(&inputs->queries);
    lik_collection_free(&inputs->documents);
}

double query_weight(const struct lik_collection *queries, int64_t i)
{
    double sum = 0;
    for (int64_t t = 0; t < lik_collection_length(queries, i); t++)
        if (lik_collection_keeps(queries, i, t))
            sum += queries->tokens.weights
                       ? (double)queries->tokens.weights[lik_collection_row(queries, i, t)]
                       : 1;
    return sum;
}
