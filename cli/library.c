/* The library as the command holds it; see library.h. */
#include "library.h"

#include "base/size.h"
#include "io/text.h"

#include <stdlib.h>
#include <string.h>

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
    return threads ? (int32_t)threads : lik_physical_cores();
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
