/* The emulator as a device of the check suite. */
#ifndef LIK_TESTS_METAL_BACKEND_H
#define LIK_TESTS_METAL_BACKEND_H

#include <stdint.h>

struct lik_context;

/* The schedule of every run; -1: each run has the next one. */
extern int64_t emulated_schedule;

/* "metal", emulated: what lik_context_create does for a device. */
int emulated_context(struct lik_context **out);

#endif
