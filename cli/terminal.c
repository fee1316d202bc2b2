/* Messages, what the terminal can show, the progress line, and buffered output. */
#include "cli.h"

#include "base/size.h"
#include "io/text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct terminal terminal = {.width = 80};

/* ---- messages ---- */

/* Texts from files are part of messages, so a message is shown as such texts are; its own lines
 * begin with spaces. */
static void say(const char *kind, const char *format, va_list args)
{
    char text[16384], out[16384]; /* a message names two paths at most */
    size_t size = 0;
    progress_end();
    vsnprintf(text, sizeof text, format, args);
    fputs(kind, stderr);
    for (const char *at = text, *end = text + strlen(text); at < end;) {
        char shown[12];
        int columns, length = text_character(at, end, shown, &columns);
        if (!strncmp(at, "\n    ", 5))
            memcpy(shown, "\n", 2);
        if (size + sizeof shown > sizeof out) {
            fwrite(out, 1, size, stderr);
            size = 0;
        }
        memcpy(out + size, shown, strlen(shown));
        size += strlen(shown);
        at += length;
    }
    fwrite(out, 1, size, stderr);
    fputc('\n', stderr);
}

void die(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("lik: error: ", format, args);
    va_end(args);
    lik_output_abandon_all();
    exit(code);
}

void die_io(int status, const struct lik_io_error *error)
{
    if (status == LIK_IO_GONE) { /* the reader has seen enough, as `| head` does */
        lik_output_abandon_all();
        exit(EXIT_OK);
    }
    die(-status, "%s", error->text);
}

void warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!terminal.quiet)
        say("lik: warning: ", format, args);
    va_end(args);
}

void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!terminal.quiet)
        say("lik: ", format, args);
    va_end(args);
}

void *allocate(int64_t count, int64_t size, const char *what)
{
    int64_t bytes;
    void *memory = NULL;
    if (!lik_mul_i64(count > 0 ? count : 1, size, &bytes))
        memory = calloc(1, (size_t)bytes);
    if (!memory)
        die(EXIT_EXHAUSTED, "out of memory: %s need %lld x %lld bytes", what, (long long)count,
            (long long)size);
    return memory;
}

/* ---- what the terminal can show ---- */

static int set_and_not_empty(const char *name)
{
    const char *value = getenv(name);
    return value && *value;
}

void terminal_open(const struct options *options)
{
    int64_t wide;
    const char *when = options->color ? options->color : "auto", *depth = getenv("COLORTERM");
    const char *columns = getenv("COLUMNS");
    int shown = lik_terminal_columns(LIK_STDOUT);
    terminal.out_tty = lik_is_terminal(LIK_STDOUT);
    terminal.err_tty = lik_is_terminal(LIK_STDERR);
    terminal.quiet = options->quiet;
    terminal.utf8 = lik_terminal_is_utf8();
    if (shown > 0)
        terminal.width = shown;
    else if (columns && !lik_text_whole(columns, (int64_t)strlen(columns), &wide) && wide > 0)
        terminal.width = (int)lik_min_i64(wide, 10000);
    int wanted = !strcmp(when, "always") || (!strcmp(when, "auto") && terminal.out_tty &&
                                             lik_terminal_is_able() && !set_and_not_empty("NO_COLOR"));
    if (strcmp(when, "always") && strcmp(when, "auto") && strcmp(when, "never"))
        die(EXIT_USAGE, "--color is auto, always or never, not '%s'", when);
    terminal.color = !wanted                                                           ? COLOR_NONE
                     : depth && (strstr(depth, "truecolor") || strstr(depth, "24bit")) ? COLOR_24BIT
                                                                                       : COLOR_256;
}

/* Columns of one code point: wide East Asian characters and pictographs take two, combining
 * marks none. */
static int code_columns(uint32_t c)
{
    static const uint32_t wide[][2] = {{0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},
                                       {0xa960, 0xa97f},   {0xac00, 0xd7a3},   {0xf900, 0xfaff},
                                       {0xfe30, 0xfe6f},   {0xff00, 0xff60},   {0xffe0, 0xffe6},
                                       {0x1f300, 0x1f64f}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
    static const uint32_t none[][2] = {
        {0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5bd},   {0x610, 0x61a},
        {0x64b, 0x65f},   {0x6d6, 0x6dc},   {0x900, 0x902},   {0x93c, 0x93c},
        {0x941, 0x948},   {0xe31, 0xe31},   {0xe34, 0xe3a},   {0x1ab0, 0x1aff},
        {0x1dc0, 0x1dff}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (c >= none[i][0] && c <= none[i][1])
            return 0;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (c >= wide[i][0] && c <= wide[i][1])
            return 2;
    return 1;
}

int text_character(const char *at, const char *end, char shown[12], int *columns)
{
    uint32_t code = 0;
    int length = lik_utf8_decode(at, end, &code);
    if (length && lik_text_shows(code)) {
        memcpy(shown, at, (size_t)length);
        shown[length] = 0;
        *columns = code_columns(code);
        return length;
    }
    if (!length)
        *columns = snprintf(shown, 12, "\\x%02x", (unsigned char)*at);
    else if (code >= '\t' && code <= '\r')
        *columns = snprintf(shown, 12, " ");
    else
        *columns = snprintf(shown, 12, code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
    return length ? length : 1;
}

int64_t text_prefix(const char *text, int64_t size, int columns)
{
    const char *at = text, *end = text + size;
    while (at < end) {
        char shown[12];
        int wide, length = text_character(at, end, shown, &wide);
        if (wide > columns)
            break;
        columns -= wide;
        at += length;
    }
    return at - text;
}

int text_columns(const char *text, int64_t size)
{
    int columns = 0, wide;
    char shown[12];
    for (const char *at = text, *end = text + size; at < end; columns += wide)
        at += text_character(at, end, shown, &wide);
    return columns;
}

/* ---- progress ---- */

static struct {
    const char *phase, *unit;
    double start, shown;
    int active, visible;
} progress;

void progress_begin(const char *phase, const char *unit)
{
    progress.phase = phase;
    progress.unit = unit;
    progress.start = progress.shown = lik_seconds();
    progress.active = terminal.err_tty && !terminal.quiet;
    progress.visible = 0;
}

void progress_update(double fraction, double units)
{
    static const char *prefixes[] = {"", " k", " M", " G", " T"};
    double now = lik_seconds(), elapsed = now - progress.start;
    if (!progress.active || now - progress.shown < (progress.visible ? 0.1 : 0.4))
        return;
    double rate = units / elapsed, left = fraction > 0 ? elapsed * (1 - fraction) / fraction : 0;
    int prefix = 0;
    for (; rate >= 1000 && prefix < 4; prefix++)
        rate /= 1000;
    progress.shown = now;
    progress.visible = 1;
    const char *dot = terminal.utf8 ? "\u00b7" : "-";
    fprintf(stderr, "\r\x1b[K%s %s %.0f %% %s %.3g%s %s/s %s %.0f s left", progress.phase, dot,
            fraction * 100, dot, rate, prefixes[prefix], progress.unit, dot, left);
    fflush(stderr);
}

void progress_end(void)
{
    if (progress.visible)
        fputs("\r\x1b[K", stderr);
    progress.active = progress.visible = 0;
}

/* ---- output ---- */

static void check(int status, const struct lik_io_error *error)
{
    if (status)
        die_io(status, error);
}

void stdout_check(void)
{
    struct lik_io_error error;
    errno = EIO; /* if it failed before and flushing does not tell */
    if (fflush(stdout) || ferror(stdout))
        die_io(lik_io_fail_errno(&error, "standard output", "write"), &error);
}

void sink_open(struct sink *sink, const char *path)
{
    struct lik_io_error error;
    *sink = (struct sink){0};
    check(lik_output_open(&sink->file, path, &error), &error);
    sink->tty = lik_is_terminal(sink->file.fd);
}

void sinks_open(struct sink *first, const char *first_path, struct sink *second, const char *second_path)
{
    sink_open(first, first_path);
    sink_open(second, second_path);
    if (lik_output_same(&first->file, &second->file))
        die(EXIT_USAGE, "%s and %s are one file", first_path, second_path);
}

static void flush(struct sink *sink)
{
    struct lik_io_error error;
    check(lik_output_write(&sink->file, sink->buffer.data, sink->buffer.size, &error), &error);
    sink->buffer.size = 0;
}

void sink_put(struct sink *sink, const char *text, int64_t size)
{
    if (lik_bytes_append(&sink->buffer, text, size))
        die(EXIT_EXHAUSTED, "out of memory: the output needs %lld bytes", (long long)sink->buffer.size);
    if (sink->buffer.size >= 1 << 16)
        flush(sink);
}

void sink_printf(struct sink *sink, const char *format, ...)
{
    char small[512], *text = small;
    va_list args;
    va_start(args, format);
    int size = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (size < 0)
        die(EXIT_EXHAUSTED, "out of memory: a text");
    if (size >= (int)sizeof small) {
        text = allocate(size + 1, 1, "text");
        va_start(args, format);
        vsnprintf(text, (size_t)size + 1, format, args);
        va_end(args);
    }
    sink_put(sink, text, size);
    if (text != small)
        free(text);
}

void sink_quote(struct sink *sink, const char *text, int64_t size)
{
    if (lik_json_quote(&sink->buffer, text, size, sink->tty))
        die(EXIT_EXHAUSTED, "out of memory: the output needs %lld bytes", (long long)sink->buffer.size);
}

void sink_number(struct sink *sink, double value)
{
    if (isfinite(value))
        sink_printf(sink, "%.9g", value);
    else
        sink_put(sink, "null", 4);
}

void sink_clean(struct sink *sink, const char *text, int64_t size)
{
    for (const char *at = text, *end = text + size; at < end;) {
        char shown[12];
        int columns, length = text_character(at, end, shown, &columns);
        sink_put(sink, shown, (int64_t)strlen(shown));
        at += length;
    }
}

void sink_text(struct sink *sink, const char *text, int64_t size)
{
    if (sink->tty)
        sink_clean(sink, text, size);
    else
        sink_put(sink, text, size);
}

void sink_fill(struct sink *sink, const char *text, int64_t size, int columns)
{
    int needed = text_columns(text, size), mark = terminal.utf8 ? 1 : 3;
    if (needed > columns && columns > mark) {
        size = text_prefix(text, size, columns - mark);
        sink_clean(sink, text, size);
        sink_put(sink, terminal.utf8 ? "\u2026" : "...", 3);
        needed = text_columns(text, size) + mark;
    } else {
        size = text_prefix(text, size, columns);
        sink_clean(sink, text, size);
        needed = text_columns(text, size);
    }
    for (; needed < columns; needed++)
        sink_put(sink, " ", 1);
}

static void close_all(struct sink *const *sinks, int count)
{
    struct lik_io_error error;
    struct lik_output *files[2];
    for (int i = 0; i < count; i++) {
        flush(sinks[i]);
        lik_bytes_free(&sinks[i]->buffer);
        files[i] = &sinks[i]->file;
    }
    check(lik_outputs_commit(files, count, &error), &error);
}

void sink_close(struct sink *sink)
{
    close_all(&sink, 1);
}

void sinks_close(struct sink *first, struct sink *second)
{
    close_all((struct sink *[]){first, second}, 2);
}
