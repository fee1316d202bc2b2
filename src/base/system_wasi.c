/* Memory of WebAssembly; see system.h. There are no threads, and so no pool (pool.c). */
#ifdef __wasi__
#include "base/system.h"

#include <stdlib.h>

void *lik_aligned_alloc(size_t align, size_t bytes)
{
    size_t whole = (bytes + align - 1) & ~(align - 1); /* aligned_alloc takes multiples alone */
    return whole < bytes ? NULL : aligned_alloc(align, whole);
}

void lik_aligned_free(void *memory)
{
    free(memory);
}
#endif
