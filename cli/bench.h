/* The table of lik bench, for lik selftest too. */
#ifndef LIK_CLI_BENCH_H
#define LIK_CLI_BENCH_H

#include "engine.h"

/* Its head, a table's; then a row a case, those that are quick or all. */
void bench_head(struct sink *out, const struct engine *engine);
void bench_cases(struct engine *engine, struct sink *out, int json, int quick, int64_t rounds);

#endif
