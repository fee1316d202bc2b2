/* What all commands of `lik` share: options, messages and exit codes, the terminal, standard
 * output. */
#ifndef LIK_CLI_H
#define LIK_CLI_H

#include "io/collection.h"
#include "io/output.h"
#include "io/system.h"

#include "lik/lik.h"

#include <stdio.h>

enum exit_code {
    EXIT_OK = 0,
    EXIT_EMPTY = 1, /* no result, and --fail-empty */
    EXIT_USAGE = 2,
    EXIT_UNREADABLE = 3,   /* as LIK_IO_UNREADABLE */
    EXIT_INCOMPATIBLE = 4, /* as LIK_IO_INCOMPATIBLE */
    EXIT_EXHAUSTED = 5,    /* as LIK_IO_EXHAUSTED */
    EXIT_DEVICE = 6,
    EXIT_INTERRUPTED = 130,
};

enum format { FORMAT_AUTO, FORMAT_TABLE, FORMAT_TSV, FORMAT_JSON, FORMAT_TREC };

/* Every option of every command; zero = not given. options.c says which command takes which. */
struct options {
    const char *device, *color;
    const char *lens, *ids, *text, *key;                         /* of the documents */
    const char *query_lens, *query_ids, *query_text, *query_key; /* of the queries */
    const char *pairs, *output, *trec, *query, *document, *compare, *cmap, *grid, *image, *generate,
        *measures, *data;
    const char *centroids, *seed;
    int64_t k, threads, rounds, nbits, iterations;
    int all, normalize, json, table, quiet, verbose, skip_bad, skip_missing, fail_empty, check, complete,
        per_query, quick, fresh, no_weights, inv_norms, help, version, build_info;
    const char *arguments[8]; /* what is not an option */
    int argument_count;
};

struct command {
    const char *name, *arguments, *summary;
    const char *about; /* the text of --help between usage and options: prose and examples */
    int least, most;   /* arguments */
    int (*run)(struct options *options);
};

extern const struct command commands[]; /* ends with a NULL name */

/* files.c: ends the program if a command would read standard input twice, or write over one of
 * its inputs. */
void inputs_check(const struct command *command, const struct options *options);
/* The same for one more pair of files. */
void inputs_keep(const char *output, const char *input);

/* options.c */
const struct command *options_parse(int argc, char **argv, struct options *options);
void options_help(const struct command *command, FILE *out); /* command NULL: the overview */
struct option_help {
    const char *name, *value, *help; /* value: what it is called, NULL without, [..] may be left out */
    char letter;                     /* 0 = none */
};
/* Each option of a command in the order of --help, or with NULL each of all of them once. */
void options_each(const struct command *command, void (*each)(const struct option_help *option, void *arg),
                  void *arg);
/* generate.c: the manual page or a shell's completions, to standard output. */
void generate(const char *what);

/* Ends the program if what went to stdout by way of stdio did not arrive. */
void stdout_check(void);

/* Messages, on standard error: "lik: error: ..." and so on. die removes unfinished output files
 * and exits. */
_Noreturn __attribute__((format(printf, 2, 3))) void die(int code, const char *format, ...);
_Noreturn void die_io(int status, const struct lik_io_error *error);
__attribute__((format(printf, 1, 2))) void warn(const char *format, ...);
__attribute__((format(printf, 1, 2))) void note(const char *format, ...);

/* count * size bytes, zeroed, or exit 5 naming `what`. */
void *allocate(int64_t count, int64_t size, const char *what);

/* The terminal: what standard output is, and can show. Set once by terminal_open. */
enum color { COLOR_NONE, COLOR_256, COLOR_24BIT };
struct terminal {
    int out_tty, err_tty, quiet, width, utf8;
    enum color color;
};
extern struct terminal terminal;
void terminal_open(const struct options *options);
/* One character of a text as it is shown: itself, a space for white space, an escape as \u202e
 * for what cannot be seen or would steer the terminal, \x9b for a byte that is not UTF-8.
 * Returns its bytes in the text; `columns` are those of `shown`. */
int text_character(const char *at, const char *end, char shown[12], int *columns);
/* Columns that text takes as it is shown. */
int text_columns(const char *text, int64_t size);
/* Bytes of the longest prefix of at most `columns` columns. */
int64_t text_prefix(const char *text, int64_t size, int columns);

/* A progress line on standard error, if that is a terminal and not --quiet. `unit` names what
 * `rate` counts. */
void progress_begin(const char *phase, const char *unit);
void progress_update(double fraction, double units_done);
void progress_end(void);

/* Buffered output to standard output or, atomically, to a file. A closed pipe ends the program
 * quietly. */
struct sink {
    struct lik_output file;
    int tty;
    struct lik_bytes buffer;
};
void sink_open(struct sink *sink, const char *path); /* NULL: standard output */
void sink_put(struct sink *sink, const char *text, int64_t size);
__attribute__((format(printf, 2, 3))) void sink_printf(struct sink *sink, const char *format, ...);
/* Text of a file, such as an id: as it is, or on a terminal as it is shown. */
void sink_text(struct sink *sink, const char *text, int64_t size);
/* the same as a JSON string */
void sink_quote(struct sink *sink, const char *text, int64_t size);
/* JSON number, null if not finite */
void sink_number(struct sink *sink, double value);
/* as it is shown, in any case */
void sink_clean(struct sink *sink, const char *text, int64_t size);
/* clean, cut or padded to columns */
void sink_fill(struct sink *sink, const char *text, int64_t size, int columns);
void sink_close(struct sink *sink);
/* Two files that belong together: both appear, or none. The second is named after the first. */
void sinks_open(struct sink *first, const char *first_path, struct sink *second, const char *second_path);
void sinks_close(struct sink *first, struct sink *second);

/* The commands. */
int command_score(struct options *options);
int command_rerank(struct options *options);
int command_explain(struct options *options);
int command_compress(struct options *options);
int command_eval(struct options *options);
int command_info(struct options *options);
int command_bench(struct options *options);
int command_demo(struct options *options);
int command_selftest(struct options *options);

#endif
