/* What the extension needs of an operating system: system_posix.c, system_windows.c. */
#ifndef LIK_PYTHON_SYSTEM_H
#define LIK_PYTHON_SYSTEM_H

#include <stdint.h>

/* One pointer a thread, NULL at first; what is not NULL goes to `end` when its thread ends. The
 * caller holds the GIL. */
void *own_get(void);
int own_set(void *value, void (*end)(void *value)); /* -1: there is no room for one */

/* in_child runs in the child of every fork from here on. */
void fork_watch(void (*in_child)(void));

/* A function of torch's CPU library, as a pointer to it; NULL: torch is not in the process, or
 * does not have it. */
void *torch_symbol(const char *name);

/* Processors that this process may run on. */
int32_t processors(void);

#endif
