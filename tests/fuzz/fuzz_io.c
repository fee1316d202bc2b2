/* libFuzzer target for the file readers and the JSON the command writes.
 *
 * The input is a file's bytes; its first byte says what is opened beside it. Whatever the
 * readers accept is then used in full: every length, mask entry, vector and text is touched, so
 * that a wrong size shows as a bad access, and ids and texts go through the JSON writer and
 * must come back from the reader unchanged. */
// sources: src/io/*.c src/base/*.c src/core/views.c
#include "fuzz.h"

#include "base/dtype.h"
#include "io/collection.h"
#include "io/text.h"
#include "shared/residual.h"

#include <string.h>

static void check_json(const char *text, int64_t size, int shown)
{
    struct lik_bytes quoted = {0}, back = {0};
    if (lik_json_quote(&quoted, text, size, shown))
        abort();
    for (const char *at = quoted.data, *end = at + quoted.size; shown && at < end;) {
        uint32_t code;
        int length = lik_utf8_decode(at, end, &code);
        if (!length || !lik_text_shows(code))
            abort();
        at += length;
    }
    struct lik_json json = lik_json_open(quoted.data, quoted.size);
    if (lik_json_string(&json, &back) || lik_json_finish(&json) || back.size != size ||
        memcmp(back.data, text, (size_t)size))
        abort();
    lik_bytes_free(&quoted);
    lik_bytes_free(&back);
}

/* Everything that scoring a token reads. */
static float use_token(const struct lik_tokens *x, int64_t row)
{
    float sum = 0;
    if (x->storage == LIK_DENSE) {
        for (int64_t e = 0; e < x->dim; e++)
            sum += lik_load_f32(x->data, x->dtype, row * x->dim + e);
        return sum + (x->scale ? x->scale[row * x->scale_strides.token] : 0);
    }
    const struct lik_codec *codec = x->codec;
    const uint8_t *bytes = (const uint8_t *)x->data + row * x->strides.token;
    int64_t code = lik_code_at(x, row);
    for (int64_t e = 0; e < x->dim; e++) {
        int bucket = lik_residual_bucket(bytes, e, codec->bits, codec->bit_order);
        sum += lik_load_f32(codec->centroids, codec->centroids_dtype, code * x->dim + e);
        sum += lik_load_f32(codec->weights, codec->weights_dtype, bucket);
    }
    return sum + (x->scale ? lik_load_f32(x->scale, x->scale_dtype, row * x->scale_strides.token) : 0);
}

static void use(const struct lik_collection *c)
{
    const struct lik_tokens *x = &c->tokens;
    struct lik_line line = {0};
    float sum = 0;
    int64_t rows = 0;
    char number[24];
    for (int64_t i = 0; i < x->count; i++) {
        const char *id = lik_collection_id(c, i, number);
        if (lik_collection_find(c, id) != i)
            abort();
        if (c->has_ids)
            check_json(id, (int64_t)strlen(id), i & 1);
        if (lik_collection_length(c, i) < 0 || lik_collection_length(c, i) > x->len_max)
            abort();
        for (int64_t t = 0; t < lik_collection_length(c, i); t++, rows++) {
            int64_t row = lik_collection_row(c, i, t);
            if (row != rows)
                abort();
            sum += (float)lik_collection_keeps(c, i, t);
            sum += x->weights ? x->weights[row] : 0;
            sum += use_token(x, row);
        }
        int64_t at = lik_collection_text_line(c, i);
        struct lik_io_error error;
        if (at >= 0 && !lik_lines_get(&c->texts, at, &line, &error))
            check_json(line.text.data, line.text.size, i & 1);
        if (i > 100000) /* empty sequences take no room in the file */
            break;
    }
    lik_line_free(&line);
    volatile float kept = sum;
    (void)kept;
}

static void open_collection(const char *path, const char *beside, int how)
{
    struct lik_collection_options options = {.path = path, .queries = how & 1, .weights = how & 2};
    struct lik_collection c;
    struct lik_io_error error;
    int kind = how >> 2 & 7;
    options.lens = kind == 1 ? beside : NULL;
    options.ids = kind == 2 ? beside : NULL;
    options.text = kind == 3 ? beside : NULL;
    options.key = kind == 4 ? "a" : NULL;
    int status = lik_collection_open(&c, &options, &error);
    if (!status) {
        use(&c);
        if (lik_collection_own_mask(&c, &error))
            abort();
        use(&c);
    } else if (status < LIK_IO_EXHAUSTED || status > LIK_IO_UNREADABLE || !error.text[0]) {
        abort(); /* every failure has a status of the list and a message */
    }
    lik_collection_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64], beside[64];
    int fd, beside_fd;
    if (size < 2)
        return 0;
    /* how[0], length of the second file / 8, first file, second file */
    size_t second = (size_t)data[1] * 8 < size - 2 ? (size_t)data[1] * 8 : 0;
    fuzz_file(data + 2, size - 2 - second, path, &fd);
    fuzz_file(data + size - second, second, beside, &beside_fd);
    open_collection(path, beside, data[0]);
    close(fd);
    close(beside_fd);
    return 0;
}
