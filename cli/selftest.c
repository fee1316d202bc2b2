/* lik selftest: does a device compute what the reference does, and how fast? What was found is
 * kept in the user's cache, a file a device: its first line says which version, device and
 * system it is of, its second whether it passed, the rest is what was printed. The Python
 * package reads the two lines. */
#include "bench.h"
#include "vectors.h"

#include "io/system.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define TIMED_ROUNDS 5
#define KEY          1024
#define PATH         (LIK_PATH_MAX + 64)

/* What a result is of: one line. */
static void put_key(const struct library *library, char key[KEY])
{
    char system[KEY / 2];
    lik_system_text(system, sizeof system);
    snprintf(key, KEY, "lik %s, %s, %s, %s\n", lik_version(), lik_context_name(library->context),
             lik_context_hardware(library->context), system);
}

/* The folder of this user's results, made if it is not there, and the file of a device in it.
 * 0, or what is in the way. */
static const char *find_place(const struct library *library, char path[PATH])
{
    if (lik_cache_folder(path))
        return errno ? strerror(errno) : "the environment names no folder of this user's";
    size_t n = strlen(path);
    snprintf(path + n, PATH - n, "/selftest-%s.txt", lik_context_name(library->context));
    for (char *at = path + n; *at; at++)
        *at = *at == ':' ? '-' : *at;
    return NULL;
}

/* Prints what is kept under this key. 0: nothing is; 1: it passed; -1: it did not. */
static int print_kept(const char *path, const char *key)
{
    struct lik_map map = {0};
    struct lik_io_error error;
    int found = 0, there = lik_file_exists(path, &error) > 0 && !lik_map_open(path, &map, &error);
    const char *text = (const char *)map.data, *end = text + map.size;
    size_t length = strlen(key);
    if (there && map.size > (int64_t)length && !memcmp(text, key, length)) {
        const char *verdict = text + length, *line = memchr(verdict, '\n', (size_t)(end - verdict));
        found = line && line - verdict == 6 && !memcmp(verdict, "passed", 6) ? 1 : -1;
        if (line)
            fwrite(line + 1, 1, (size_t)(end - line - 1), stdout);
    }
    if (there)
        lik_map_close(&map);
    return found;
}

/* Nothing depends on it here: where it cannot be kept that is said, no more. */
static void keep(const char *path, const char *key, int right, const struct lik_bytes *block)
{
    struct lik_output file;
    struct lik_output *const files[] = {&file};
    struct lik_io_error error;
    const char *verdict = right ? "passed\n" : "failed\n";
    int status = lik_output_open(&file, path, &error);
    if (!status)
        status = lik_output_write(&file, key, (int64_t)strlen(key), &error);
    if (!status)
        status = lik_output_write(&file, verdict, (int64_t)strlen(verdict), &error);
    if (!status)
        status = lik_output_write(&file, block->data, block->size, &error);
    if (!status)
        status = lik_outputs_commit(files, 1, &error);
    if (status)
        warn("the result is not kept: %s", error.text);
}

static void put_block(struct sink *out, const struct engine *engine, const char *key,
                      const struct vectors_found *found, double spent)
{
    char workers[48], day[16];
    const time_t now = time(NULL);
    strftime(day, sizeof day, "%Y-%m-%d", gmtime(&now));
    sink_printf(out, "%s%s, %s, %s\n", key, lik_build_info(), engine_workers(engine, workers), day);
    sink_printf(out,
                "%d operations are right, %d wrong, %d this device does not do; the worst error is %.2f of "
                "what is allowed; %.1f s\n",
                found->right, found->wrong, found->refused, found->worst_error, spent);
    if (found->wrong)
        sink_printf(out, "first wrong: %s\n", found->first_wrong);
    sink_printf(out, "selftest %s\n", found->wrong ? "FAILED" : "passed");
}

int command_selftest(struct options *options)
{
    struct engine engine;
    struct vectors_found found;
    struct sink out;
    char key[KEY], path[PATH];
    engine_open(&engine, options);
    put_key(&engine.library, key);
    const char *in_the_way = find_place(&engine.library, path);
    int kept = in_the_way || options->fresh ? 0 : print_kept(path, key);
    if (kept) {
        note("this was found before; --fresh looks again");
        stdout_check();
    } else {
        double start = lik_seconds();
        vectors_run(&engine.library, &found);
        sink_open(&out, NULL);
        put_block(&out, &engine, key, &found, lik_seconds() - start);
        if (!options->quick && !found.wrong) {
            sink_printf(&out, "\n");
            bench_head(&out, &engine);
            bench_cases(&engine, &out, 0, 1, TIMED_ROUNDS);
        }
        kept = found.wrong ? -1 : 1;
        if (in_the_way)
            warn("the result is not kept: %s", in_the_way);
        else
            keep(path, key, kept > 0, &out.buffer); /* so little is not written before it is closed */
        sink_close(&out);
    }
    engine_close(&engine);
    return kept > 0 ? EXIT_OK : EXIT_DEVICE;
}
