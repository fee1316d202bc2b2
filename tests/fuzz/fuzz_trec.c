/* libFuzzer target for the files of lines: runs, judgments, pairs, ids and lengths.
 *
 * The input: a byte that says how, the length of the second file / 4, the first file, the
 * second. What is accepted is used in full: runs and judgments are measured, and every name
 * must be found again and be shown without a character that steers a terminal. Refusals go
 * through the message as it is printed. */
// sources: src/io/*.c src/base/*.c src/core/views.c cli/trec.c cli/terminal.c
// flags: -Wl,--wrap=exit
#define LIK_FUZZ_EXIT
#include "fuzz.h"

#include "../../cli/trec.h"
#include "io/collection.h"
#include "io/text.h"

#include <math.h>
#include <string.h>

/* What is shown of a text has nothing but characters that show, and as many columns as are
 * told. */
static void check_shown(const char *text, int64_t size)
{
    int sum = 0;
    for (const char *at = text, *end = text + size; at < end;) {
        char shown[12];
        int columns, length = text_character(at, end, shown, &columns);
        if (length < 1 || length > end - at || strlen(shown) > 11)
            abort();
        for (const char *c = shown, *stop = shown + strlen(shown); c < stop;) {
            uint32_t code;
            int bytes = lik_utf8_decode(c, stop, &code);
            if (!bytes || !lik_text_shows(code))
                abort();
            c += bytes;
        }
        sum += columns;
        at += length;
    }
    if (sum != text_columns(text, size) || text_prefix(text, size, sum) != size)
        abort();
}

struct job {
    const char *first, *second;
    int how;
    struct trec run, judgments;
    struct evaluation evaluation;
};

static void check_entries(const struct trec *trec, enum trec_kind kind)
{
    for (int64_t i = 0; i < trec->count; i++) {
        const struct trec_entry *e = &trec->entries[i];
        if (lik_name_fault(e->query, e->query_size) || lik_name_fault(e->document, e->document_size) ||
            e->line < 1)
            abort();
        if (kind == TREC_RUN && isnan(e->score))
            abort();
        check_shown(e->query, e->query_size);
        check_shown(e->document, e->document_size);
    }
    for (int64_t i = 0, end; i < trec->count; i = end)
        if ((end = trec_query_end(trec, i)) <= i || end > trec->count)
            abort();
}

static void measure(void *arg)
{
    struct job *job = arg;
    struct measure measures[MEASURES_MAX];
    int count = measures_parse("ndcg@3,mrr,recall@2,map,ndcg,map@1", measures);
    trec_read(&job->run, job->first, TREC_RUN);
    check_entries(&job->run, TREC_RUN);
    trec_read(&job->judgments, job->second, TREC_JUDGMENTS);
    check_entries(&job->judgments, TREC_JUDGMENTS);
    evaluate(&job->run, &job->judgments, measures, count, job->how & 8, &job->evaluation);
    for (int64_t i = 0; i < job->evaluation.queries * count; i++)
        if (!(job->evaluation.values[i] >= 0 && job->evaluation.values[i] <= 1.000001))
            abort();
}

static void read_pairs(void *arg)
{
    struct job *job = arg;
    trec_read(&job->run, job->first, TREC_PAIRS);
    check_entries(&job->run, TREC_PAIRS);
    trec_read(&job->judgments, job->second, TREC_JUDGMENTS);
}

/* A column of int8 as an .npy file: [rows, 1], or [rows, 1, 1]. */
static size_t column(uint8_t *out, int rows, int padded)
{
    char *text = (char *)out + 10;
    int n = sprintf(text, "{'descr': '|i1', 'fortran_order': False, 'shape': (%d, 1%s), }\n", rows,
                    padded ? ", 1" : "");
    memcpy(out, "\x93NUMPY\1\0", 8);
    out[8] = (uint8_t)n;
    out[9] = 0;
    memset(out + 10 + n, 1, (size_t)rows);
    return (size_t)(10 + n + rows);
}

/* The file is the ids or the lengths of as many sequences as it seems to have. */
static void open_beside(const struct job *job, const uint8_t *data, size_t size, int ids)
{
    uint8_t file[512];
    char path[64];
    int fd, rows = ids ? size && data[size - 1] != '\n' : job->how >> 3;
    for (size_t i = 0; ids && i < size; i++)
        rows += data[i] == '\n';
    if (rows > 255)
        return;
    fuzz_file(file, column(file, rows, ids), path, &fd);
    struct lik_collection_options options = {.path = path};
    struct lik_collection c;
    struct lik_io_error error;
    options.ids = ids ? job->first : NULL;
    options.lens = ids ? NULL : job->first;
    int status = lik_collection_open(&c, &options, &error);
    if (status && (status < LIK_IO_EXHAUSTED || status > LIK_IO_UNREADABLE || !error.text[0]))
        abort();
    for (int64_t i = 0, row = 0; !status && i < c.tokens.count && i < 1000; i++) {
        char number[24], hash[32];
        const char *id = lik_collection_id(&c, i, number);
        if (lik_collection_find(&c, id) != i)
            abort();
        check_shown(id, (int64_t)strlen(id));
        snprintf(hash, sizeof hash, "#%lld", (long long)i);
        int64_t found = lik_collection_find(&c, hash);
        if (found != i && (found < 0 || strcmp(lik_collection_id(&c, found, number), hash)))
            abort();
        if (lik_collection_row(&c, i, 0) != row)
            abort();
        row += lik_collection_length(&c, i);
    }
    lik_collection_free(&c);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64], beside[64];
    int fd, beside_fd;
    struct job job = {.first = path, .second = beside};
    if (size < 2)
        return 0;
    size_t second = (size_t)data[1] * 4 < size - 2 ? (size_t)data[1] * 4 : 0, first = size - 2 - second;
    job.how = data[0];
    fuzz_file(data + 2, first, path, &fd);
    fuzz_file(data + 2 + first, second, beside, &beside_fd);
    switch (job.how & 7) {
    case 0:
    case 1: fuzz_call(measure, &job); break;
    case 2: fuzz_call(read_pairs, &job); break;
    case 3: open_beside(&job, data + 2, first, 1); break;
    default: open_beside(&job, data + 2, first, 0); break;
    }
    check_shown((const char *)data, (int64_t)size);
    evaluation_free(&job.evaluation);
    trec_free(&job.run);
    trec_free(&job.judgments);
    close(fd);
    close(beside_fd);
    return 0;
}
