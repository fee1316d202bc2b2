/* The part of inject.c that programs call which fail parts of themselves. */
#ifndef LIK_TESTS_INJECT_H
#define LIK_TESTS_INJECT_H

/* From now on the n-th call of the kind fails with errno `action`, or with `ever` the n-th and
 * all after it; n = 0: none fails, they are counted. */
void inject_arm(const char *kind, long n, int ever, int action);
long inject_disarm(void);                            /* calls of the armed kind since then */
long inject_hits(void);                              /* how many of them failed */
long inject_live(void);                              /* allocations not freed, since the process began */
void inject_only(const void *low, const void *high); /* only calls from code in this range count */
/* callable(*args) of Python, armed: the interpreter's own calls before and after stay out of
 * it. */
void *inject_call(void *callable, void *args, const char *kind, long n, int ever, int action);
long inject_last(void); /* what inject_disarm said there */

#endif
