/* Runs Metal kernels, compiled as C++, on this machine: a threadgroup at a time, its lanes as
 * fibers that a schedule orders, or as threads. What lanes share is poisoned with NaN; a
 * barrier that not all lanes reach, or that they reach in different places, ends the process
 * with a message. */
#ifndef LIK_TESTS_EMULATOR_H
#define LIK_TESTS_EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lik_metal_dispatch;

/* How lanes are run: the lowest first, the highest first, or drawn anew at every step. */
enum { EMULATOR_IN_ORDER = 0, EMULATOR_REVERSED = 1 /* from 2 on: seeds */ };
extern uint64_t emulator_schedule;
extern int emulator_threads; /* an OS thread a lane */

/* Counts of what ran, and of races where they are looked for (races.cpp). */
extern int64_t emulator_runs[]; /* dispatches of each kernel */
extern int64_t emulator_dispatches, emulator_groups, emulator_accesses, emulator_races;

/* Carries out a dispatch; a queue's function. */
int emulator_dispatch(void *host, const struct lik_metal_dispatch *dispatch);

/* ---- what the kernels' library calls (metal_stdlib) ---- */

enum { EMULATOR_THREADGROUP, EMULATOR_SIMDGROUP };
void emulator_wait(int scope, int orders_shared, int line);
/* All lanes' values of a simdgroup; read before the lane's next call. */
const uint32_t *emulator_exchange(uint32_t value, int line);
/* The simdgroup's lanes do this together; they are compared at their next barrier. */
void emulator_together(int line);
uint32_t emulator_lane(void); /* in its simdgroup */
/* The lane's next array of threadgroup memory, aligned to so many bytes and no more. */
void *emulator_shared(size_t bytes, size_t alignment);

/* ---- what looks for races (races.cpp), or does not (no_races.c) ---- */

/* A threadgroup begins; ranges are what its lanes share. */
void races_begin_dispatch(void);
void races_begin_group(uint32_t number);
void races_share(const void *at, size_t bytes);
/* The lane that runs, of the threadgroup; -1: none. Epochs are counts of the barriers that
 * order shared memory: the threadgroup's, and those and its simdgroup's. What is on its stack
 * is its own. */
void races_run(int lane, uint32_t epoch, uint32_t simd_epoch, const void *stack, size_t stack_bytes);

#ifdef __cplusplus
}
#endif
#endif
