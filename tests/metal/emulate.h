/* How the mock runs a kernel: what the emulator of tests/metal does for it. */
#ifndef TESTS_METAL_EMULATE_H
#define TESTS_METAL_EMULATE_H

#include <stddef.h>

#pragma GCC visibility push(default) /* for fake_torch.py as well */
#ifdef __cplusplus
extern "C" {
#endif

/* What is bound at an index: memory from the offset to the buffer's end; NULL: nothing. */
struct emulate_argument {
    void *memory;
    size_t bytes;
};

int emulate_has(const char *kernel);
/* How often kernel `number` ran so far, and its name; NULL past the last. */
long emulate_runs(int number);
const char *emulate_name(int number);

/* Runs it: NULL, or what went wrong. */
const char *emulate(const char *kernel, const struct emulate_argument *arguments, int count,
                    const size_t groups[3], const size_t threads[3]);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop
#endif
