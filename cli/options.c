/* Options: one table for all commands, so that a name means the same everywhere. Options and
 * arguments may be mixed. */
#include "cli.h"

#include "io/text.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, TEXT, COUNT, TEXT_OPTIONAL };

/* One bit a command, in the order of `commands`. */
enum {
    SCORE = 1,
    RERANK = 2,
    EXPLAIN = 4,
    COMPRESS = 8,
    EVAL = 16,
    INFO = 32,
    BENCH = 64,
    DEMO = 128,
    SELFTEST = 256,
    ALL = 511,
    ALONE = 512 /* without a command, and for the build */
};
#define INPUT     (SCORE | RERANK | EXPLAIN | BENCH)
#define DOCUMENTS (INPUT | COMPRESS)
#define DEVICE    (DOCUMENTS | DEMO | SELFTEST)

struct option {
    const char *name;
    char letter;
    enum kind kind;
    size_t at;
    int commands;
    const char *value, *help;
};

#define AT(field) offsetof(struct options, field)

static const struct option table[] = {
    {"top", 'k', COUNT, AT(k), SCORE, "N", "the N best documents of each query (default 10)"},
    {"top", 'k', COUNT, AT(k), RERANK, "N",
     "the N best documents of each query (default: all of the run; on a terminal 10)"},
    {"top", 'k', COUNT, AT(k), DEMO, "N", "the N best documents of each query (default 3)"},
    {"all", 0, FLAG, AT(all), SCORE | RERANK, NULL, "every document"},
    {"all", 0, FLAG, AT(all), DEMO, NULL, "every query"},
    {"pairs", 0, TEXT, AT(pairs), SCORE, "FILE",
     "score the pairs in FILE, lines of `query document`, in its order"},
    {"nbits", 0, COUNT, AT(nbits), COMPRESS, "N", "bits an element: 1, 2, 4 (default) or 8"},
    {"centroids", 0, TEXT, AT(centroids), COMPRESS, "N",
     "how many; default auto: the power of two up to 16 * sqrt(tokens)"},
    {"iterations", 0, COUNT, AT(iterations), COMPRESS, "N", "of k-means (default 4)"},
    {"seed", 0, TEXT, AT(seed), COMPRESS, "N", "of the sample and of k-means (default 42)"},
    {"inv-norms", 0, FLAG, AT(inv_norms), COMPRESS, NULL,
     "store each token's inverse norm, 2 bytes: scoring takes no norms then"},
    {"normalize", 0, FLAG, AT(normalize), DOCUMENTS, NULL,
     "scale tokens to unit length: cosines instead of dot products"},
    {"no-weights", 0, FLAG, AT(no_weights), INPUT, NULL, "ignore weights in the queries' file"},
    {"query", 'q', TEXT, AT(query), EXPLAIN, "ID", "the query: its id, or #number (default: the first)"},
    {"document", 'd', TEXT, AT(document), EXPLAIN, "ID",
     "the document: its id, or #number (default: the best one)"},
    {"compare", 0, TEXT, AT(compare), EXPLAIN, "ID", "a second document, on the same scale"},
    {"cmap", 0, TEXT, AT(cmap), EXPLAIN | DEMO, "NAME", "colors of the heat map: viridis (default) or grey"},
    {"grid", 0, TEXT, AT(grid), EXPLAIN, "HxW",
     "the document's tokens are the patches of a page; HxW+FIRST: from token FIRST on"},
    {"image", 0, TEXT, AT(image), EXPLAIN, "FILE", "the page's picture, a PNG, under the patches"},
    {"measures", 'm', TEXT, AT(measures), EVAL, "LIST",
     "ndcg@K, mrr@K, recall@K, map (default ndcg@10,mrr@10,recall@100,map)"},
    {"complete", 'c', FLAG, AT(complete), EVAL, NULL, "judged queries that the run lacks count as 0"},
    {"per-query", 0, FLAG, AT(per_query), EVAL, NULL, "also the values of each query"},
    {"check", 0, FLAG, AT(check), INFO, NULL,
     "read all vectors: norms, NaN, infinities, empty rows; checksums of .npz"},
    {"rounds", 0, COUNT, AT(rounds), BENCH, "N", "timed runs a case (default 7)"},
    {"quick", 0, FLAG, AT(quick), BENCH, NULL, "small cases only"},
    {"quick", 0, FLAG, AT(quick), SELFTEST, NULL, "results alone, no times"},
    {"fresh", 0, FLAG, AT(fresh), SELFTEST, NULL, "run it again, whatever was found before"},
    {"data", 0, TEXT, AT(data), DEMO, "DIR", "the packaged collection, if it lies elsewhere (LIK_DEMO_DATA)"},
    {"output", 'o', TEXT, AT(output), SCORE | RERANK, "FILE",
     "write FILE, complete or not at all: x.npy = arrays, else text"},
    {"output", 'o', TEXT, AT(output), EXPLAIN, "FILE", "write a page, x.html, or a picture, x.svg"},
    {"output", 'o', TEXT, AT(output), COMPRESS, "FILE", "the file to write, complete or not at all"},
    {"output", 'o', TEXT, AT(output), DEMO, "PREFIX", "write PREFIX.html and PREFIX.svg (default lik-demo)"},
    {"ids", 0, TEXT, AT(ids), DOCUMENTS | INFO, "FILE",
     "document ids: one a line, JSON lines, or an integer .npy"},
    {"text", 0, TEXT, AT(text), DOCUMENTS | INFO, "FILE",
     "document texts: JSON lines {\"id\", \"text\", \"tokens\"}"},
    {"lens", 0, TEXT, AT(lens), DOCUMENTS | INFO, "FILE", "document lengths: .npy, JSON array, or numbers"},
    {"key", 0, TEXT, AT(key), DOCUMENTS | INFO, "NAME",
     "the tensor of a .safetensors file that holds the vectors"},
    {"query-ids", 0, TEXT, AT(query_ids), INPUT, "FILE",
     "query ids: one a line, JSON lines, or an integer .npy"},
    {"query-text", 0, TEXT, AT(query_text), INPUT, "FILE",
     "query texts: JSON lines {\"id\", \"text\", \"tokens\"}"},
    {"query-lens", 0, TEXT, AT(query_lens), INPUT, "FILE", "query lengths: .npy, JSON array, or numbers"},
    {"query-key", 0, TEXT, AT(query_key), INPUT, "NAME",
     "the tensor of the queries' .safetensors file that holds the vectors"},
    {"skip-bad", 0, FLAG, AT(skip_bad), SCORE | RERANK | EXPLAIN | COMPRESS, NULL,
     "drop tokens that hold NaN instead of refusing them"},
    {"skip-missing", 0, FLAG, AT(skip_missing), RERANK, NULL,
     "pass over queries and documents of RUN that are not there"},
    {"json", 0, FLAG, AT(json), ALL & ~(COMPRESS | DEMO | SELFTEST), NULL,
     "JSON; results one object a query and line"},
    {"trec", 0, TEXT_OPTIONAL, AT(trec), SCORE | RERANK, "[=TAG]",
     "a TREC run: query Q0 document rank score TAG"},
    {"table", 0, FLAG, AT(table), SCORE | RERANK | EVAL, NULL, "the table of a terminal, also in a pipe"},
    {"fail-empty", 0, FLAG, AT(fail_empty), SCORE | RERANK, NULL, "exit 1 if there is no result"},
    {"device", 0, TEXT, AT(device), DEVICE, "NAME",
     "auto (default), cpu, cpu:LEVEL (see --build-info), ref, cuda:N, metal"},
    {"threads", 'j', COUNT, AT(threads), DEVICE, "N", "threads (default: physical cores; LIK_THREADS)"},
    {"color", 0, TEXT, AT(color), ALL, "WHEN", "auto (default), always, never; NO_COLOR is honored"},
    {"quiet", 0, FLAG, AT(quiet), ALL, NULL, "no progress, notes or warnings"},
    {"verbose", 'v', FLAG, AT(verbose), ALL, NULL, "time of each stage and the code that ran"},
    {"help", 'h', FLAG, AT(help), ALL, NULL, "this text"},
    {"version", 0, FLAG, AT(version), ALL, NULL,
     "version; with --build-info also compiler, backends, processor levels"},
    {"generate", 0, TEXT, AT(generate), ALONE, "WHAT", "man, bash, zsh or fish"},
    {"build-info", 0, FLAG, AT(build_info), ALL, NULL, "version, compiler, backends, processor levels"},
};
#define OPTIONS ((int)(sizeof table / sizeof *table))

/* Edits (insert, delete, replace, swap neighbors) that turn a into b; names are short. */
static int distance(const char *a, const char *b)
{
    int d[32][32];
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > 30 || m > 30)
        return 99;
    for (int i = 0; i <= n; i++)
        for (int j = 0; j <= m; j++) {
            if (!i || !j) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m];
}

static int bit_of(const struct command *command)
{
    return command ? 1 << (command - commands) : ALL | ALONE;
}

/* Keeps the nearest of the names offered, if it is near enough to be meant. */
static void consider(const char *typed, const char *name, const char **best, int *best_distance)
{
    int d = distance(typed, name), limit = strlen(typed) < 4 ? 1 : 2;
    size_t n = strlen(typed);
    if (n >= 3 && !strncmp(typed, name, n)) /* an abbreviation */
        d = 1;
    if (d <= limit && d < *best_distance) {
        *best = name;
        *best_distance = d;
    }
}

static _Noreturn void unknown_command(const char *name)
{
    const char *best = NULL;
    int nearest = 99;
    for (const struct command *c = commands; c->name; c++)
        consider(name, c->name, &best, &nearest);
    if (best)
        die(EXIT_USAGE, "there is no command '%s'. Did you mean '%s'?", name, best);
    die(EXIT_USAGE, "there is no command '%s'\n    `lik --help` lists them.", name);
}

static _Noreturn void unknown_option(const struct command *command, const char *name)
{
    const char *best = NULL, *of = command ? command->name : "";
    int nearest = 99;
    for (int i = 0; i < OPTIONS; i++)
        if (table[i].commands & bit_of(command))
            consider(name + (name[0] == '-') + (name[0] == '-' && name[1] == '-'), table[i].name, &best,
                     &nearest);
    if (best)
        die(EXIT_USAGE, "lik %s has no option '%s'. Did you mean '--%s'?", of, name, best);
    die(EXIT_USAGE, "lik %s has no option '%s'\n    `lik %s%s--help` lists them.", of, name, of,
        *of ? " " : "");
}

static void set_count(int64_t *at, const char *name, const char *text)
{
    if (lik_text_whole(text, (int64_t)strlen(text), at) || *at < 1)
        die(EXIT_USAGE, "--%s needs a whole number of at least 1, not '%s'", name, text);
}

static void set(struct options *options, const struct option *option, const char *value)
{
    char *at = (char *)options + option->at;
    switch (option->kind) {
    case FLAG:
        if (value)
            die(EXIT_USAGE, "--%s takes no value, '%s' was given", option->name, value);
        *(int *)(void *)at = 1;
        break;
    case COUNT: set_count((int64_t *)(void *)at, option->name, value); break;
    case TEXT_OPTIONAL: *(const char **)(void *)at = value ? value : "lik"; break;
    case TEXT: *(const char **)(void *)at = value; break;
    }
}

static const struct option *find(const struct command *command, const char *name, size_t length, char letter)
{
    for (int i = 0; i < OPTIONS; i++)
        if ((table[i].commands & bit_of(command)) &&
            (letter ? table[i].letter == letter
                    : strlen(table[i].name) == length && !strncmp(table[i].name, name, length)))
            return &table[i];
    return NULL;
}

/* One word that begins with '-'; returns how many further words it used up. */
static int parse_option(const struct command *command, struct options *options, char **words, int left)
{
    const char *word = words[0], *value = NULL;
    const struct option *option;
    if (word[1] == '-') {
        const char *equal = strchr(word, '=');
        option = find(command, word + 2, equal ? (size_t)(equal - word - 2) : strlen(word + 2), 0);
        value = equal ? equal + 1 : NULL;
    } else {
        option = find(command, NULL, 0, word[1]);
        if (option && option->kind == FLAG && word[2])
            option = NULL;
        value = option && word[2] ? word + 2 + (word[2] == '=') : NULL;
    }
    if (!option)
        unknown_option(command, word);
    if (value || option->kind == FLAG || option->kind == TEXT_OPTIONAL) {
        set(options, option, value);
        return 0;
    }
    if (left < 1)
        die(EXIT_USAGE, "--%s needs a value: %s", option->name, option->value);
    set(options, option, words[1]);
    return 1;
}

const struct command *options_parse(int argc, char **argv, struct options *options)
{
    const struct command *command = NULL;
    int only_arguments = 0;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_arguments && !strcmp(word, "--")) {
            only_arguments = 1;
        } else if (!only_arguments && word[0] == '-' && word[1]) {
            i += parse_option(command, options, argv + i, argc - i - 1);
        } else if (!command) {
            if (!strcmp(word, "help")) {
                options->help = 1;
                continue;
            }
            for (command = commands; command->name && strcmp(command->name, word); command++)
                ;
            if (!command->name)
                unknown_command(word);
        } else {
            if (options->argument_count == command->most)
                die(EXIT_USAGE, "lik %s takes at most %d argument%s, '%s' is one more\n    usage: lik %s %s",
                    command->name, command->most, command->most == 1 ? "" : "s", word, command->name,
                    command->arguments);
            options->arguments[options->argument_count++] = word;
        }
    }
    if (command && !options->help && !options->version && options->argument_count < command->least)
        die(EXIT_USAGE, "lik %s needs %d argument%s, %d given\n    usage: lik %s %s", command->name,
            command->least, command->least == 1 ? "" : "s", options->argument_count, command->name,
            command->arguments);
    return command;
}

void options_each(const struct command *command, void (*each)(const struct option_help *option, void *arg),
                  void *arg)
{
    for (int i = 0; i < OPTIONS; i++) {
        const struct option *o = &table[i];
        struct option_help help = {o->name, o->value, o->help, o->letter};
        int seen = 0;
        for (int k = 0; k < i && !command; k++)
            seen |= !strcmp(table[k].name, o->name);
        if (command ? o->commands & bit_of(command) : !seen && o->commands != ALONE)
            each(&help, arg);
    }
}

static void put_help(const struct option_help *o, void *out)
{
    char left[40];
    snprintf(left, sizeof left, "%c%c%c --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
             o->letter ? ',' : ' ', o->name, o->value && o->value[0] != '[' ? " " : "",
             o->value ? o->value : "");
    fprintf(out, "  %-24s %s\n", left, o->help);
}

void options_help(const struct command *command, FILE *out)
{
    if (!command) {
        fputs("lik: exact late-interaction scores (MaxSim) of token vectors, from files.\n\n"
              "usage: lik COMMAND ... ; lik COMMAND --help tells more\n\n",
              out);
        for (const struct command *c = commands; c->name; c++)
            fprintf(out, "  %-8s %s\n", c->name, c->summary);
        fputs("\nfirst steps:\n"
              "  lik demo                            a real collection, ranked in seconds\n"
              "  lik score queries.npy docs.npy      your own vectors, [n, tokens, dim]\n"
              "\nexit codes: 0 done, 1 no result (--fail-empty), 2 usage, 3 unreadable or corrupt input,\n"
              "  4 incompatible input, 5 out of memory or disk, 6 device unavailable, 130 interrupted\n",
              out);
        return;
    }
    fprintf(out, "lik %s: %s\n\nusage: lik %s %s [options]\n\n%s\noptions:\n", command->name,
            command->summary, command->name, command->arguments, command->about);
    options_each(command, put_help, out);
}
