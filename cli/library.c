/* The library as the command holds it; see library.h. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "library.h"

#include "base/size.h"
#include "io/text.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Cores this process may run on, two hardware threads of a core counted once. */
int physical_cores(void)
{
    cpu_set_t allowed, seen;
    int cores = 0;
    CPU_ZERO(&seen);
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return (int)lik_max_i64(sysconf(_SC_NPROCESSORS_ONLN), 1);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        char path[96], text[256] = "";
        if (!CPU_ISSET(cpu, &allowed) || CPU_ISSET(cpu, &seen))
            continue;
        cores++;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (!fgets(text, sizeof text, file))
            text[0] = 0;
        fclose(file);
        for (char *at = text; *at >= '0' && *at <= '9';) { /* "0,4" or "0-1" */
            long from = strtol(at, &at, 10), to = *at == '-' ? strtol(at + 1, &at, 10) : from;
            for (; from <= to && from < CPU_SETSIZE; from++)
                CPU_SET((size_t)from, &seen);
            at += *at == ',';
        }
    }
    return cores ? cores : 1;
}

static int32_t threads_of(const struct options *options)
{
    const char *environment = getenv("LIK_THREADS");
    int64_t threads = options->threads;
    if (!threads && environment && *environment) {
        if (lik_text_whole(environment, (int64_t)strlen(environment), &threads) || threads < 1 ||
            threads > 4096)
            die(EXIT_USAGE, "LIK_THREADS is '%s', must be a whole number from 1 to 4096", environment);
    }
    if (threads > 4096)
        die(EXIT_USAGE, "--threads is %lld, must be at most 4096", (long long)threads);
    return threads ? (int32_t)threads : physical_cores();
}

void library_open(struct library *library, const struct options *options)
{
    const char *device = options->device ? options->device : "auto";
    int32_t threads = threads_of(options);
    *library = (struct library){0};
    int status = lik_context_create(strcmp(device, "auto") ? device : "cpu", &library->context);
    if (status == LIK_EINVAL || status == LIK_EUNSUPPORTED)
        die(EXIT_DEVICE, "--device %s: %s", device, lik_last_error());
    library_check(status);
    library_check(lik_pool_create(threads, &library->pool));
    library->threads = lik_pool_threads(library->pool);
}

void library_close(struct library *library)
{
    lik_pool_destroy(library->pool);
    lik_context_destroy(library->context);
    *library = (struct library){0};
}

void library_check(int status)
{
    int code = status == LIK_EDEVICE  ? EXIT_DEVICE
               : status == LIK_ENOMEM ? EXIT_EXHAUSTED
                                      : EXIT_INCOMPATIBLE;
    if (status)
        die(code, "%s", lik_last_error());
}

struct lik_exec library_exec(const struct library *library)
{
    return (struct lik_exec){.struct_size = sizeof(struct lik_exec),
                             .threads = library->threads,
                             .parallel_for = lik_pool_parallel_for,
                             .pool = library->pool};
}

struct lik_tokens tokens_slice(const struct lik_tokens *all, int64_t first, int64_t count)
{
    struct lik_tokens slice;
    library_check(lik_tokens_slice(all, first, count, &slice));
    return slice;
}
