/* What a command reads and writes, looked at before work begins: no input twice from standard
 * input, no output over an input. */
#include "heatmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Is there something that the name leads to? Links are followed; the input "-" is what standard
 * input comes from. */
static int look(const char *path, int input, struct lik_file_info *info)
{
    if (!(input && !strcmp(path, "-") ? lik_file_info_of(LIK_STDIN, info) : lik_file_info(path, info)))
        return 1;
    if (errno != EIO && errno != ENOMEM && errno != EOVERFLOW)
        return 0; /* nothing, or nothing that can be opened */
    die(errno == ENOMEM ? EXIT_EXHAUSTED : EXIT_UNREADABLE, "%s: cannot look for it: %s", path,
        strerror(errno));
}

/* Do both names lead to one regular file, by whatever links and spellings? */
static int one_file(const char *output, const char *input)
{
    struct lik_file_info a, b;
    return look(output, 0, &a) && a.kind == LIK_FILE_REGULAR && look(input, 1, &b) && a.device == b.device &&
           a.number == b.number;
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
        if (lik_path_ends(output, ".npy") && command->run != command_explain &&
            command->run != command_compress)
            outputs[count++] = results_ids_path(output);
        if (count == 2 && command->run == command_score && (options->all || options->pairs)) {
            char *ids = outputs[--count]; /* which these do not write */
            struct lik_file_info info;
            if (!lik_file_info(ids, &info) && (!options->ids || strcmp(options->ids, ids)))
                warn("%s is there already: it does not belong to the scores that %s gets now", ids, output);
            free(ids);
        }
    }
    return count;
}

void inputs_check(const struct command *command, const struct options *options)
{
    const char *sources[16] = {options->lens,      options->ids,        options->text,  options->query_lens,
                               options->query_ids, options->query_text, options->pairs, options->image};
    int count = 8, from_input = 0;
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
