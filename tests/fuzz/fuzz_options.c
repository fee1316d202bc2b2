/* libFuzzer target for the command's options: the input's lines are the arguments. It goes as
 * far as no file is opened, --help and the names of measures included; and every argument is
 * read as a number by each of the readers. */
// sources: src/io/*.c src/base/*.c src/core/views.c cli/options.c cli/trec.c cli/terminal.c
// flags: -Wl,--wrap=exit
#define LIK_FUZZ_EXIT
#include "fuzz.h"

#include "../../cli/trec.h"
#include "io/text.h"

#include <math.h>
#include <string.h>

#define ARGUMENTS_MAX 40

/* As in main.c, without what runs them. */
const struct command commands[] = {
    {"score", "QUERIES DOCUMENTS", "", "", 2, 2, NULL},
    {"rerank", "QUERIES DOCUMENTS RUN", "", "", 3, 3, NULL},
    {"explain", "QUERIES DOCUMENTS", "", "", 2, 2, NULL},
    {"compress", "DOCUMENTS", "", "", 1, 1, NULL},
    {"eval", "RUN QRELS", "", "", 2, 2, NULL},
    {"info", "FILE", "", "", 1, 1, NULL},
    {"bench", "[QUERIES DOCUMENTS]", "", "", 0, 2, NULL},
    {"demo", "", "", "", 0, 0, NULL},
    {"selftest", "", "", "", 0, 0, NULL},
    {0},
};

struct job {
    int argc;
    char *argv[ARGUMENTS_MAX + 2];
    struct options options;
    const struct command *command;
};

static void parse(void *arg)
{
    struct job *job = arg;
    struct options *o = &job->options;
    struct measure measures[MEASURES_MAX];
    job->command = options_parse(job->argc, job->argv, o);
    if (o->argument_count < 0 || o->argument_count > 3 || o->k < 0 || o->threads < 0 || o->rounds < 0 ||
        o->nbits < 0 || o->iterations < 0)
        abort();
    if (job->command && !o->help && !o->version && o->argument_count < job->command->least)
        abort();
    if (o->measures)
        for (int i = measures_parse(o->measures, measures); i-- > 0;)
            if (measures[i].depth < 0 || !measures[i].name[0])
                abort();
    if (o->help) {
        static FILE *nowhere;
        nowhere = nowhere ? nowhere : fopen("/dev/null", "w");
        options_help(job->command, nowhere);
    }
    if (job->command)
        terminal_open(o);
}

/* The readers of numbers against the C library's: what is accepted has that value, and is
 * written as the rule says. */
static void check_numbers(const char *text)
{
    int64_t whole, integer, size = (int64_t)strlen(text);
    double number;
    char back[32], *end;
    if (!lik_text_whole(text, size, &whole)) {
        snprintf(back, sizeof back, "%lld", (long long)whole);
        if (strcmp(back, text) || lik_text_integer(text, size, &integer) || integer != whole)
            abort();
    }
    if (!lik_text_integer(text, size, &integer) &&
        (integer != strtoll(text, &end, 10) || *end || strspn(text, "+-0123456789") != (size_t)size))
        abort();
    if (!lik_text_number(text, size, &number) && (number != strtod(text, &end) || *end || isnan(number)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct job job;
    char *text = malloc(size + 1); /* of its very size, so that a step beyond the end shows */
    memcpy(text, data, size);
    text[size] = 0;
    job = (struct job){.argc = 1, .argv = {"lik"}};
    for (char *at = text, *next; at && job.argc <= ARGUMENTS_MAX; at = next) {
        next = strchr(at, '\n');
        if (next)
            *next++ = 0;
        check_numbers(at);
        job.argv[job.argc++] = at;
    }
    int code = fuzz_call(parse, &job);
    if (code != 0 && code != EXIT_USAGE)
        abort();
    free(text);
    return 0;
}
