/* The Objective-C runtime and Metal, found by dlopen when a Metal device is first asked for:
 * nothing is linked and no Objective-C is compiled, so that a library with this backend builds
 * and loads everywhere.
 *
 * A message is a call of the runtime's one function, cast to the method's type: LIK_SEND(type,
 * receiver, selector, arguments ...). No method here returns a struct, which some processors
 * want another function for. */
#ifndef LIK_METAL_OBJC_H
#define LIK_METAL_OBJC_H

#include "base/error.h"

#include <stdint.h>

typedef struct lik_objc_object *objc_id;
typedef struct lik_objc_selector *objc_sel;
typedef signed char objc_bool;   /* BOOL: its lowest byte is what both ABIs agree about */
typedef unsigned long objc_uint; /* NSUInteger */

struct metal_size { /* MTLSize */
    objc_uint width, height, depth;
};

/* Every selector that is sent: a name for C, and the selector. */
#define LIK_METAL_SELECTORS(X)                                                   \
    X(alloc, "alloc")                                                            \
    X(init, "init")                                                              \
    X(release, "release")                                                        \
    X(responds, "respondsToSelector:")                                           \
    X(utf8, "UTF8String")                                                        \
    X(string, "stringWithUTF8String:")                                           \
    X(description, "localizedDescription")                                       \
    X(count, "count")                                                            \
    X(object_at, "objectAtIndex:")                                               \
    X(name, "name")                                                              \
    X(supports_family, "supportsFamily:")                                        \
    X(max_buffer, "maxBufferLength")                                             \
    X(new_queue, "newCommandQueue")                                              \
    X(set_math_mode, "setMathMode:")                                             \
    X(set_math_functions, "setMathFloatingPointFunctions:")                      \
    X(set_fast_math, "setFastMathEnabled:")                                      \
    X(set_language, "setLanguageVersion:")                                       \
    X(new_library, "newLibraryWithSource:options:error:")                        \
    X(new_function, "newFunctionWithName:")                                      \
    X(new_pipeline, "newComputePipelineStateWithFunction:error:")                \
    X(max_threads, "maxTotalThreadsPerThreadgroup")                              \
    X(simd_width, "threadExecutionWidth")                                        \
    X(new_buffer, "newBufferWithLength:options:")                                \
    X(new_buffer_around, "newBufferWithBytesNoCopy:length:options:deallocator:") \
    X(contents, "contents")                                                      \
    X(command_buffer, "commandBuffer")                                           \
    X(encoder, "computeCommandEncoder")                                          \
    X(set_pipeline, "setComputePipelineState:")                                  \
    X(set_buffer, "setBuffer:offset:atIndex:")                                   \
    X(set_bytes, "setBytes:length:atIndex:")                                     \
    X(dispatch, "dispatchThreadgroups:threadsPerThreadgroup:")                   \
    X(end_encoding, "endEncoding")                                               \
    X(commit, "commit")                                                          \
    X(wait, "waitUntilCompleted")                                                \
    X(status, "status")                                                          \
    X(error, "error")

struct lik_objc {
    void (*send)(void); /* objc_msgSend, of no type until it is cast */
    objc_id (*class_of)(const char *name);
    void *(*pool_push)(void);
    void (*pool_pop)(void *pool);
    objc_id (*copy_all_devices)(void); /* MTLCopyAllDevices: an array that the caller releases */
#define LIK_METAL_SELECTOR(name, text) objc_sel name;
    LIK_METAL_SELECTORS(LIK_METAL_SELECTOR)
#undef LIK_METAL_SELECTOR
};

#define LIK_SEND(type, ...) ((type)lik_objc.send)(__VA_ARGS__)

extern struct lik_objc lik_objc; /* whole after lik_objc_load */

/* Loads the runtime and Metal, once a process; LIK_EDEVICE with the reason where they are not,
 * or were loaded before a fork(): Apple's frameworks do not survive that. */
LIK_STATUS lik_objc_load(void);

static inline void lik_objc_release(objc_id object)
{
    if (object)
        LIK_SEND(void (*)(objc_id, objc_sel), object, lik_objc.release);
}

/* An object of no arguments' method: autoreleased unless the method's name begins with new. */
static inline objc_id lik_objc_get(objc_id object, objc_sel selector)
{
    return LIK_SEND(objc_id (*)(objc_id, objc_sel), object, selector);
}

static inline objc_uint lik_objc_count(objc_id object, objc_sel selector)
{
    return LIK_SEND(objc_uint (*)(objc_id, objc_sel), object, selector);
}

/* An NSString of UTF-8, autoreleased. */
static inline objc_id lik_objc_string(const char *text)
{
    return LIK_SEND(objc_id (*)(objc_id, objc_sel, const char *), lik_objc.class_of("NSString"),
                    lik_objc.string, text);
}

/* What an NSString holds; "" of none. It lives as long as the innermost pool. */
static inline const char *lik_objc_text(objc_id string)
{
    const char *text = string ? LIK_SEND(const char *(*)(objc_id, objc_sel), string, lik_objc.utf8) : NULL;
    return text ? text : "";
}

/* The words of an NSError; "" of none. */
static inline const char *lik_objc_reason(objc_id error)
{
    return error ? lik_objc_text(lik_objc_get(error, lik_objc.description)) : "";
}

static inline int lik_objc_responds(objc_id object, objc_sel selector)
{
    return LIK_SEND(objc_bool (*)(objc_id, objc_sel, objc_sel), object, lik_objc.responds, selector) != 0;
}

#endif
