/* See mock.h. Below: the runtime (classes, messages, pools), then the classes' methods in the
 * order of enum class. */
#define _GNU_SOURCE /* RTLD_NEXT, dladdr */
#include "mock.h"
#include "emulate.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#pragma GCC visibility push(default)

#define ARGUMENTS   31   /* buffers of a kernel */
#define BYTES_MAX   4096 /* of setBytes: */
#define THREADS_MAX 1024 /* a threadgroup */
#define COMPLETED   4    /* MTLCommandBufferStatus */
#define ERROR       5
#define MAX_BUFFER  (1ull << 36)
#define EXIT_WRONG  97
#define ALIVE_MAGIC 0x6d6f636bu
#define DEAD_MAGIC  0xdeadbeefu

enum class {
    STRING,
    ARRAY,
    ERRORS, /* NSError */
    DEVICE,
    QUEUE,
    OPTIONS,
    LIBRARY,
    FUNCTION,
    PIPELINE,
    BUFFER,
    COMMANDS,
    ENCODER,
    CLASSES
};
static const char *const class_names[CLASSES] = {
    "NSString",   "NSArray",     "NSError",     "MTLDevice", "MTLCommandQueue",  "MTLCompileOptions",
    "MTLLibrary", "MTLFunction", "MTLPipeline", "MTLBuffer", "MTLCommandBuffer", "MTLComputeCommandEncoder",
};
/* They stay for the life of the process. */
static const int permanent[CLASSES] = {[ARRAY] = 1, [DEVICE] = 1, [QUEUE] = 1, [LIBRARY] = 1, [PIPELINE] = 1};

typedef unsigned long uint_;
struct size {
    uint_ width, height, depth;
};

/* One argument of a dispatch: a buffer with an offset, or bytes. */
struct argument {
    struct object *buffer;
    uint_ offset;
    unsigned char *bytes;
    uint_ length;
};

struct dispatch {
    struct object *pipeline;
    struct argument arguments[ARGUMENTS];
    struct size groups, threads;
    struct dispatch *next;
};

struct object {
    uint32_t magic;
    enum class class;
    int is_class; /* the class itself, which alloc and stringWithUTF8String: are sent to */
    int references;
    char *text; /* strings, errors, functions, pipelines: the name or the words */
    /* options */
    int math_mode, math_functions, fast_math;
    uint_ language;
    /* buffers */
    void *memory;
    uint_ length;
    int own;
    /* command buffers: dispatches in order, the encoder that is open; encoders: their command
     * buffer, what is set */
    struct dispatch *first, *last;
    struct object *open, *commands;
    struct dispatch set;
    int committed, waited, ended, status;
    struct object *next; /* of all */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct object *all;
static struct object classes[CLASSES];
static int fault = -1, violations, math_was_safe;
static int faults_of_environment[MOCK_FAULTS];
static struct mock_counts counts;

static const char *const fault_names[MOCK_FAULTS] = {"no-libobjc", "no-metal",    "no-symbol",  "no-device",
                                                     "old-device", "no-queue",    "compile",    "no-kernel",
                                                     "pipeline",   "no-copyless", "no-buffer",  "no-commands",
                                                     "no-encoder", "gpu",         "old-options"};

static int fails(enum mock_fault which)
{
    return fault == (int)which || faults_of_environment[which];
}

__attribute__((format(printf, 1, 2))) static void wrong(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "mock Metal: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    __atomic_add_fetch(&violations, 1, __ATOMIC_RELAXED);
}

/* ---- objects ---- */

static struct object *make(enum class class, const char *text)
{
    struct object *o = calloc(1, sizeof *o);
    if (!o || (text && !(o->text = strdup(text))))
        abort();
    o->magic = ALIVE_MAGIC;
    o->class = class;
    o->references = 1;
    pthread_mutex_lock(&lock);
    o->next = all;
    all = o;
    pthread_mutex_unlock(&lock);
    return o;
}

static void drop_dispatches(struct object *commands);

/* The memory of what is released stays, so that its use is seen. */
static void give_up(struct object *o)
{
    if (__atomic_sub_fetch(&o->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (o->references < 0) {
        wrong("a %s was released once too often", class_names[o->class]);
        return;
    }
    if (o->class == COMMANDS && o->committed && !o->waited)
        wrong("a command buffer was let go while it ran");
    if (o->class == COMMANDS)
        drop_dispatches(o);
    if (o->class == ENCODER && !o->ended)
        wrong("an encoder was let go before endEncoding");
    if (o->class == BUFFER && o->own)
        free(o->memory);
    o->memory = NULL;
    o->magic = DEAD_MAGIC;
}

static struct object *keep(struct object *o)
{
    __atomic_add_fetch(&o->references, 1, __ATOMIC_ACQ_REL);
    return o;
}

static void drop_dispatches(struct object *commands)
{
    while (commands->first) {
        struct dispatch *d = commands->first;
        commands->first = d->next;
        for (int i = 0; i < ARGUMENTS; i++) {
            if (d->arguments[i].buffer)
                give_up(d->arguments[i].buffer);
            free(d->arguments[i].bytes);
        }
        free(d);
    }
}

/* ---- pools ---- */

struct pooled {
    struct object *object; /* NULL: where a pool begins */
    struct pooled *below;
};
static _Thread_local struct pooled *pools;

void *objc_autoreleasePoolPush(void)
{
    struct pooled *p = calloc(1, sizeof *p);
    p->below = pools;
    pools = p;
    return p;
}

void objc_autoreleasePoolPop(void *pool)
{
    while (pools) {
        struct pooled *p = pools;
        int begin = p == pool;
        if (!p->object && !begin)
            wrong("a pool was left before the one inside it");
        pools = p->below;
        if (p->object)
            give_up(p->object);
        free(p);
        if (begin)
            return;
    }
    wrong("a pool was left that this thread is not in");
}

static struct object *autoreleased(struct object *o)
{
    if (!pools) {
        wrong("a %s was autoreleased without a pool", class_names[o->class]);
        return o;
    }
    struct pooled *p = calloc(1, sizeof *p);
    p->object = o;
    p->below = pools;
    pools = p;
    return o;
}

/* ---- strings, arrays, errors ---- */

static struct object *string_of(const char *text)
{
    return autoreleased(make(STRING, text));
}

static struct object *string_make(struct object *self, const char *sel, const char *text)
{
    (void)self, (void)sel;
    return string_of(text);
}

static const char *string_text(struct object *self, const char *sel)
{
    (void)sel;
    return self->text;
}

static void set_error(struct object **error, const char *text)
{
    if (error)
        *error = autoreleased(make(ERRORS, text));
}

static struct object *error_description(struct object *self, const char *sel)
{
    (void)sel;
    return string_of(self->text);
}

static struct object *device;

struct object *MTLCopyAllDevices(void)
{
    struct object *array = make(ARRAY, NULL);
    if (!device && !fails(MOCK_NO_DEVICE))
        device = make(DEVICE, "Mock M1");
    return array;
}

static uint_ array_count(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return device && !fails(MOCK_NO_DEVICE) ? 1 : 0;
}

static struct object *array_at(struct object *self, const char *sel, uint_ i)
{
    (void)self, (void)sel;
    if (i || !device)
        wrong("objectAtIndex: %lu of %d", i, device ? 1 : 0);
    return device;
}

/* ---- devices ---- */

static struct object *named(struct object *self, const char *sel)
{
    (void)sel;
    return string_of(self->text);
}

static signed char device_family(struct object *self, const char *sel, long family)
{
    (void)self, (void)sel;
    return family <= 1007 && !fails(MOCK_OLD_DEVICE);
}

static uint_ device_max_buffer(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return MAX_BUFFER;
}

static uint_ device_max_shared(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return 32768;
}

static struct object *device_queue(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return fails(MOCK_NO_QUEUE) ? NULL : make(QUEUE, NULL);
}

static struct object *device_library(struct object *self, const char *sel, struct object *source,
                                     struct object *options, struct object **error)
{
    (void)self, (void)sel;
    counts.libraries++;
    if (!source || source->class != STRING || !strlen(source->text))
        wrong("newLibraryWithSource: without a source");
    if (!options)
        wrong("newLibraryWithSource: without options is compiled with fast math");
    else {
        math_was_safe = fails(MOCK_OLD_OPTIONS) ? !options->fast_math
                                                : options->math_mode == 0 && options->math_functions == 1;
        if (!math_was_safe)
            wrong("the source is compiled with other maths than Safe");
        if (options->language != (2ul << 16) + 3)
            wrong("setLanguageVersion: %lx, the kernels are written in 2.3", options->language);
    }
    if (fails(MOCK_COMPILE)) {
        set_error(error, "program_source:12:5: error: use of undeclared identifier 'mock'");
        return NULL;
    }
    return make(LIBRARY, NULL);
}

static struct object *device_pipeline(struct object *self, const char *sel, struct object *function,
                                      struct object **error)
{
    (void)self, (void)sel;
    counts.pipelines++;
    if (!function || function->class != FUNCTION)
        wrong("newComputePipelineStateWithFunction: without a function");
    if (fails(MOCK_PIPELINE)) {
        set_error(error, "threadgroup memory of the mock is exceeded");
        return NULL;
    }
    return make(PIPELINE, function->text);
}

static struct object *device_buffer(struct object *self, const char *sel, uint_ length, uint_ options)
{
    (void)self, (void)sel;
    counts.buffers++;
    if (!length || length > MAX_BUFFER || (options & ~1ul))
        wrong("newBufferWithLength: %lu options: %lu", length, options);
    if (fails(MOCK_NO_BUFFER))
        return NULL;
    struct object *o = make(BUFFER, NULL);
    o->own = 1;
    o->length = length;
    if (posix_memalign(&o->memory, 4096, length))
        abort();
    memset(o->memory, 0xa5, length);
    return o;
}

static struct object *device_buffer_around(struct object *self, const char *sel, void *memory, uint_ length,
                                           uint_ options, void *deallocator)
{
    (void)self, (void)sel;
    uint_ page = (uint_)sysconf(_SC_PAGESIZE);
    counts.buffers_around++;
    if (!length || length % page || (uintptr_t)memory % page || (options & ~1ul) || deallocator)
        wrong("newBufferWithBytesNoCopy:%p length:%lu is not of pages", memory, length);
    if (fails(MOCK_NO_COPYLESS) || fails(MOCK_NO_BUFFER))
        return NULL;
    struct object *o = make(BUFFER, NULL);
    o->memory = memory;
    o->length = length;
    return o;
}

/* ---- queues, options, libraries, pipelines, buffers ---- */

static struct object *queue_commands(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return fails(MOCK_NO_COMMANDS) ? NULL : autoreleased(make(COMMANDS, NULL));
}

static struct object *options_alloc(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    struct object *o = make(OPTIONS, NULL);
    o->math_mode = o->fast_math = -1; /* Apple's defaults: fast */
    return o;
}

static struct object *itself(struct object *self, const char *sel)
{
    (void)sel;
    return self;
}

static void options_math(struct object *self, const char *sel, long mode)
{
    (void)sel;
    self->math_mode = (int)mode;
}

static void options_functions(struct object *self, const char *sel, long functions)
{
    (void)sel;
    self->math_functions = (int)functions;
}

static void options_fast(struct object *self, const char *sel, signed char fast)
{
    (void)sel;
    self->fast_math = fast;
}

static void options_language(struct object *self, const char *sel, uint_ version)
{
    (void)sel;
    self->language = version;
}

static struct object *library_function(struct object *self, const char *sel, struct object *name)
{
    (void)self, (void)sel;
    if (fails(MOCK_NO_KERNEL) || !emulate_has(name->text))
        return NULL;
    return make(FUNCTION, name->text);
}

static uint_ pipeline_threads(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return THREADS_MAX;
}

static uint_ pipeline_width(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return 32;
}

static void *buffer_contents(struct object *self, const char *sel)
{
    (void)sel;
    return self->memory;
}

/* ---- command buffers ---- */

static struct object *commands_encoder(struct object *self, const char *sel)
{
    (void)sel;
    if (self->committed || self->open)
        wrong("computeCommandEncoder of a command buffer that is %s",
              self->committed ? "committed" : "being encoded");
    if (fails(MOCK_NO_ENCODER))
        return NULL;
    struct object *o = make(ENCODER, NULL);
    o->commands = self;
    self->open = o;
    return autoreleased(o);
}

static void commands_commit(struct object *self, const char *sel)
{
    (void)sel;
    counts.commits++;
    if (self->open || self->committed)
        wrong("commit %s", self->open ? "before endEncoding" : "twice");
    self->committed = 1;
}

static void execute(const struct dispatch *d)
{
    struct emulate_argument arguments[ARGUMENTS] = {0};
    for (int i = 0; i < ARGUMENTS; i++) {
        const struct argument *a = &d->arguments[i];
        if (a->buffer) {
            if (a->buffer->magic != ALIVE_MAGIC)
                wrong("buffer %d of %s was let go before it ran", i, d->pipeline->text);
            arguments[i].memory = (char *)a->buffer->memory + a->offset;
            arguments[i].bytes = a->buffer->length - a->offset;
        } else if (a->bytes) {
            arguments[i].memory = a->bytes;
            arguments[i].bytes = a->length;
        }
    }
    const size_t groups[3] = {d->groups.width, d->groups.height, d->groups.depth};
    const size_t threads[3] = {d->threads.width, d->threads.height, d->threads.depth};
    const char *why = emulate(d->pipeline->text, arguments, ARGUMENTS, groups, threads);
    if (why)
        wrong("%s: %s", d->pipeline->text, why);
}

/* The work is done here, not at commit: what looks at results before it waited sees none. */
static void commands_wait(struct object *self, const char *sel)
{
    (void)sel;
    if (!self->committed)
        wrong("waitUntilCompleted before commit waits for ever");
    self->waited = 1;
    self->status = fails(MOCK_FAULT_OF_GPU) ? ERROR : COMPLETED;
    for (struct dispatch *d = self->first; d && self->status == COMPLETED; d = d->next)
        execute(d);
    drop_dispatches(self);
}

static uint_ commands_status(struct object *self, const char *sel)
{
    (void)sel;
    return (uint_)self->status;
}

static struct object *commands_error(struct object *self, const char *sel)
{
    (void)sel;
    return self->status == ERROR ? autoreleased(make(ERRORS, "Caused GPU Hang Error (mock)")) : NULL;
}

/* ---- encoders ---- */

static int encoding(struct object *self, const char *sel)
{
    if (self->ended)
        wrong("%s after endEncoding", sel);
    return !self->ended;
}

static void encoder_pipeline(struct object *self, const char *sel, struct object *pipeline)
{
    if (encoding(self, sel) && (!pipeline || pipeline->magic != ALIVE_MAGIC || pipeline->class != PIPELINE))
        wrong("%s without a pipeline", sel);
    self->set.pipeline = pipeline;
}

static struct argument *argument_at(struct object *self, const char *sel, uint_ index)
{
    static struct argument nowhere;
    if (index >= ARGUMENTS) {
        wrong("%s %lu, there are %d", sel, index, ARGUMENTS);
        return &nowhere;
    }
    struct argument *a = &self->set.arguments[index];
    free(a->bytes);
    *a = (struct argument){0};
    return a;
}

static void encoder_buffer(struct object *self, const char *sel, struct object *buffer, uint_ offset,
                           uint_ index)
{
    struct argument *a = argument_at(self, sel, index);
    if (!encoding(self, sel))
        return;
    if (!buffer || buffer->magic != ALIVE_MAGIC || buffer->class != BUFFER || offset >= buffer->length) {
        wrong("%s %lu: offset %lu of %lu bytes", sel, index, offset, buffer ? buffer->length : 0);
        return;
    }
    a->buffer = buffer;
    a->offset = offset;
}

static void encoder_bytes(struct object *self, const char *sel, const void *bytes, uint_ length, uint_ index)
{
    struct argument *a = argument_at(self, sel, index);
    if (!encoding(self, sel))
        return;
    if (!length || length > BYTES_MAX || !(a->bytes = malloc(length))) {
        wrong("%s %lu: %lu bytes", sel, index, length);
        return;
    }
    memcpy(a->bytes, bytes, length);
    a->length = length;
}

static int is_empty(struct size s)
{
    return !s.width || !s.height || !s.depth;
}

static void encoder_dispatch(struct object *self, const char *sel, struct size groups, struct size threads)
{
    counts.dispatches++;
    if (!encoding(self, sel))
        return;
    if (!self->set.pipeline || is_empty(groups) || is_empty(threads) ||
        threads.width * threads.height * threads.depth > THREADS_MAX) {
        wrong("%s %lu x %lu x %lu of %lu x %lu x %lu threads", sel, groups.width, groups.height, groups.depth,
              threads.width, threads.height, threads.depth);
        return;
    }
    struct dispatch *d = calloc(1, sizeof *d);
    *d = self->set;
    d->groups = groups;
    d->threads = threads;
    for (int i = 0; i < ARGUMENTS; i++) { /* bindings stay set for the next dispatch */
        struct argument *a = &d->arguments[i];
        if (a->buffer)
            keep(a->buffer);
        if (a->bytes) {
            const unsigned char *bytes = a->bytes;
            a->bytes = malloc(a->length);
            memcpy(a->bytes, bytes, a->length);
        }
    }
    struct object *commands = self->commands;
    *(commands->last && commands->first ? &commands->last->next : &commands->first) = d;
    commands->last = d;
}

static void encoder_end(struct object *self, const char *sel)
{
    encoding(self, sel);
    self->ended = 1;
    self->commands->open = NULL;
    for (int i = 0; i < ARGUMENTS; i++) {
        free(self->set.arguments[i].bytes);
        self->set.arguments[i].bytes = NULL;
    }
}

/* ---- messages ---- */

static void release(struct object *self, const char *sel)
{
    (void)sel;
    give_up(self);
}

static signed char responds(struct object *self, const char *sel, const char *asked);

typedef void (*method)(void);
static const struct {
    enum class class;
    int is_class;
    const char *selector;
    method call;
} methods[] = {
    {STRING, 1, "stringWithUTF8String:", (method)string_make},
    {STRING, 0, "UTF8String", (method)string_text},
    {ARRAY, 0, "count", (method)array_count},
    {ARRAY, 0, "objectAtIndex:", (method)array_at},
    {ERRORS, 0, "localizedDescription", (method)error_description},
    {DEVICE, 0, "name", (method)named},
    {DEVICE, 0, "supportsFamily:", (method)device_family},
    {DEVICE, 0, "maxBufferLength", (method)device_max_buffer},
    {DEVICE, 0, "maxThreadgroupMemoryLength", (method)device_max_shared},
    {DEVICE, 0, "newCommandQueue", (method)device_queue},
    {DEVICE, 0, "newLibraryWithSource:options:error:", (method)device_library},
    {DEVICE, 0, "newComputePipelineStateWithFunction:error:", (method)device_pipeline},
    {DEVICE, 0, "newBufferWithLength:options:", (method)device_buffer},
    {DEVICE, 0, "newBufferWithBytesNoCopy:length:options:deallocator:", (method)device_buffer_around},
    {QUEUE, 0, "commandBuffer", (method)queue_commands},
    {OPTIONS, 1, "alloc", (method)options_alloc},
    {OPTIONS, 0, "init", (method)itself},
    {OPTIONS, 0, "setMathMode:", (method)options_math},
    {OPTIONS, 0, "setMathFloatingPointFunctions:", (method)options_functions},
    {OPTIONS, 0, "setFastMathEnabled:", (method)options_fast},
    {OPTIONS, 0, "setLanguageVersion:", (method)options_language},
    {LIBRARY, 0, "newFunctionWithName:", (method)library_function},
    {PIPELINE, 0, "maxTotalThreadsPerThreadgroup", (method)pipeline_threads},
    {PIPELINE, 0, "threadExecutionWidth", (method)pipeline_width},
    {BUFFER, 0, "contents", (method)buffer_contents},
    {COMMANDS, 0, "computeCommandEncoder", (method)commands_encoder},
    {COMMANDS, 0, "commit", (method)commands_commit},
    {COMMANDS, 0, "waitUntilCompleted", (method)commands_wait},
    {COMMANDS, 0, "status", (method)commands_status},
    {COMMANDS, 0, "error", (method)commands_error},
    {ENCODER, 0, "setComputePipelineState:", (method)encoder_pipeline},
    {ENCODER, 0, "setBuffer:offset:atIndex:", (method)encoder_buffer},
    {ENCODER, 0, "setBytes:length:atIndex:", (method)encoder_bytes},
    {ENCODER, 0, "dispatchThreadgroups:threadsPerThreadgroup:", (method)encoder_dispatch},
    {ENCODER, 0, "endEncoding", (method)encoder_end},
};

static method method_of(const struct object *self, const char *sel)
{
    int old = fails(MOCK_OLD_OPTIONS) && self->class == OPTIONS;
    if (old && (!strcmp(sel, "setMathMode:") || !strcmp(sel, "setMathFloatingPointFunctions:")))
        return NULL;
    if (!self->is_class && !strcmp(sel, "release"))
        return (method)release;
    if (!strcmp(sel, "respondsToSelector:"))
        return (method)responds;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (methods[i].class == self->class && methods[i].is_class == self->is_class &&
            !strcmp(methods[i].selector, sel))
            return methods[i].call;
    return NULL;
}

static signed char responds(struct object *self, const char *sel, const char *asked)
{
    (void)sel;
    return method_of(self, asked) != NULL;
}

/* What objc_msgSend below goes on to. */
__attribute__((used, visibility("default"))) method mock_look_up(struct object *self, const char *sel)
{
    if (!self) {
        wrong("%s is sent to nil", sel);
        abort();
    }
    if (self->magic != ALIVE_MAGIC) {
        wrong("%s is sent to a %s that was let go", sel,
              self->magic == DEAD_MAGIC ? class_names[self->class] : "thing");
        abort();
    }
    method call = method_of(self, sel);
    if (!call) {
        wrong("-[%s %s]: unrecognized selector", class_names[self->class], sel);
        abort();
    }
    return call;
}

/* Finds the method and jumps there, every register that may hold an argument as it was: what a
 * cast of the caller's gets wrong goes wrong in the method. */
#if defined(__x86_64__)
__asm__(".text\n.globl objc_msgSend\n.type objc_msgSend, @function\nobjc_msgSend:\n"
        "push %rbp\nmov %rsp, %rbp\nsub $64, %rsp\n"
        "mov %rdi, -8(%rbp)\nmov %rsi, -16(%rbp)\nmov %rdx, -24(%rbp)\n"
        "mov %rcx, -32(%rbp)\nmov %r8, -40(%rbp)\nmov %r9, -48(%rbp)\n"
        "call mock_look_up@PLT\nmov %rax, %r11\n"
        "mov -8(%rbp), %rdi\nmov -16(%rbp), %rsi\nmov -24(%rbp), %rdx\n"
        "mov -32(%rbp), %rcx\nmov -40(%rbp), %r8\nmov -48(%rbp), %r9\n"
        "leave\njmp *%r11\n.size objc_msgSend, .-objc_msgSend\n");
#elif defined(__aarch64__)
__asm__(".text\n.globl objc_msgSend\n.type objc_msgSend, %function\nobjc_msgSend:\n"
        "stp x29, x30, [sp, #-96]!\nmov x29, sp\n"
        "stp x0, x1, [sp, #16]\nstp x2, x3, [sp, #32]\nstp x4, x5, [sp, #48]\nstp x6, x7, [sp, #64]\n"
        "str x8, [sp, #80]\nbl mock_look_up\nmov x16, x0\n"
        "ldp x0, x1, [sp, #16]\nldp x2, x3, [sp, #32]\nldp x4, x5, [sp, #48]\nldp x6, x7, [sp, #64]\n"
        "ldr x8, [sp, #80]\nldp x29, x30, [sp], #96\nbr x16\n.size objc_msgSend, .-objc_msgSend\n");
#else
#error "the mock's objc_msgSend is written for x86-64 and arm64"
#endif
void objc_msgSend(void);

struct object *objc_getClass(const char *name)
{
    for (int i = 0; i < CLASSES; i++)
        if (!strcmp(class_names[i], name)) {
            classes[i].magic = ALIVE_MAGIC;
            classes[i].class = (enum class)i;
            classes[i].is_class = 1;
            return &classes[i];
        }
    wrong("objc_getClass(\"%s\")", name);
    return NULL;
}

const char *sel_registerName(const char *name)
{
    return name;
}

/* ---- libraries ---- */

void *dlopen(const char *path, int mode)
{
    static void *(*next)(const char *, int);
    const char *name = path ? strrchr(path, '/') : NULL;
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "dlopen");
    int runtime = name && !strcmp(name, "/libobjc.A.dylib"), metal = name && !strcmp(name, "/Metal");
    if ((runtime && fails(MOCK_NO_LIBOBJC)) || (metal && fails(MOCK_NO_METAL)))
        return next("/nowhere/libobjc.A.dylib", mode);
    if (!runtime && !metal && !(name && !strcmp(name, "/CoreGraphics")))
        return next(path, mode);
    Dl_info own;
    if (!dladdr((void *)objc_msgSend, &own))
        return NULL;
    return next(metal && fails(MOCK_NO_SYMBOL) ? "libc.so.6" : own.dli_fname, mode);
}

/* ---- control ---- */

void mock_set_fault(int which)
{
    fault = which;
}

int mock_violations(void)
{
    return violations;
}

int mock_alive(const char *class_name)
{
    int n = 0;
    pthread_mutex_lock(&lock);
    for (const struct object *o = all; o; o = o->next)
        n += o->magic == ALIVE_MAGIC &&
             (class_name ? !strcmp(class_name, class_names[o->class]) : !permanent[o->class]);
    pthread_mutex_unlock(&lock);
    return n;
}

struct mock_counts mock_count(void)
{
    return counts;
}

int mock_math_was_safe(void)
{
    return math_was_safe;
}

__attribute__((constructor)) static void read_environment(void)
{
    const char *text = getenv("MOCK_METAL");
    for (int i = 0; i < MOCK_FAULTS && text; i++) {
        const char *found = strstr(text, fault_names[i]);
        size_t length = strlen(fault_names[i]);
        faults_of_environment[i] =
            found && (found == text || found[-1] == ',') && (!found[length] || found[length] == ',');
    }
}

__attribute__((destructor)) static void report(void)
{
    for (int i = 0; i < CLASSES; i++)
        if (!permanent[i] && mock_alive(class_names[i]))
            wrong("%d %s still live at the end", mock_alive(class_names[i]), class_names[i]);
    if (violations)
        _exit(EXIT_WRONG);
}
