/* Loading the Objective-C runtime and Metal. See objc.h. */
#include "metal/objc.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RUNTIME "/usr/lib/libobjc.A.dylib"
#define METAL   "/System/Library/Frameworks/Metal.framework/Metal"
/* A program without it finds no devices; Metal does not load it. */
#define GRAPHICS "/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics"

struct lik_objc lik_objc;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_long loader; /* the process that loaded, or tries to; 0: nobody yet */
static int loaded;
static char reason[320]; /* why it could not be loaded; "" until that was tried */

/* Into `function`, or the reason. */
static int find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    if (!symbol) {
        snprintf(reason, sizeof reason, "%s is not in the system's libraries", name);
        return -1;
    }
    memcpy(function, &symbol, sizeof symbol);
    return 0;
}

static void *open_library(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        snprintf(reason, sizeof reason, "%.300s", why ? why : path);
    }
    return library;
}

/* The libraries stay for the life of the process. */
static int load(void)
{
    objc_sel (*selector)(const char *) = NULL;
    void *runtime = open_library(RUNTIME), *metal = runtime ? open_library(METAL) : NULL;
    if (!metal || find(runtime, "objc_msgSend", &lik_objc.send) ||
        find(runtime, "objc_getClass", &lik_objc.class_of) || find(runtime, "sel_registerName", &selector) ||
        find(runtime, "objc_autoreleasePoolPush", &lik_objc.pool_push) ||
        find(runtime, "objc_autoreleasePoolPop", &lik_objc.pool_pop) ||
        find(metal, "MTLCopyAllDevices", &lik_objc.copy_all_devices))
        return -1;
    (void)dlopen(GRAPHICS, RTLD_NOW | RTLD_LOCAL);
#define REGISTER(name, text) lik_objc.name = selector(text);
    LIK_METAL_SELECTORS(REGISTER)
#undef REGISTER
    return 0;
}

int lik_objc_load(void)
{
    long nobody = 0, self = (long)getpid();
    if (!atomic_compare_exchange_strong(&loader, &nobody, self) && nobody != self)
        return lik_fail(LIK_EDEVICE,
                        "process %ld cannot use Metal, which process %ld had loaded before it forked: fork "
                        "first, or start new processes",
                        self, nobody); /* without the lock, which somebody may have held then */
    pthread_mutex_lock(&lock);
    if (!loaded && !reason[0])
        loaded = !load();
    int status = loaded ? LIK_OK : lik_fail(LIK_EDEVICE, "there is no Metal here: %s", reason);
    pthread_mutex_unlock(&lock);
    return status;
}
