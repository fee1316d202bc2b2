/* What each class of Metal does, in the order of enum class. See mock.h. */
#include "mock_objc.h"
#include "emulate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#pragma GCC visibility push(default)

#define BYTES_MAX   4096 /* of setBytes: */
#define THREADS_MAX 1024 /* a threadgroup */
#define COMPLETED   4    /* MTLCommandBufferStatus */
#define ERROR       5
#define MAX_BUFFER  (1ull << 36)

static struct mock_counts counts;
static int math_was_safe;

/* ---- strings, arrays, errors ---- */

static struct object *string_of(const char *text)
{
    return mock_autoreleased(mock_make(STRING, text));
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
        *error = mock_autoreleased(mock_make(ERRORS, text));
}

static struct object *error_description(struct object *self, const char *sel)
{
    (void)sel;
    return string_of(self->text);
}

static struct object *device;

struct object *MTLCopyAllDevices(void)
{
    struct object *array = mock_make(ARRAY, NULL);
    if (!device && !mock_fails(MOCK_NO_DEVICE))
        device = mock_make(DEVICE, "Mock M1");
    return array;
}

static uint_ array_count(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return device && !mock_fails(MOCK_NO_DEVICE) ? 1 : 0;
}

static struct object *array_at(struct object *self, const char *sel, uint_ i)
{
    (void)self, (void)sel;
    if (i || !device)
        mock_wrong("objectAtIndex: %lu of %d", i, device ? 1 : 0);
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
    return family <= 1007 && !mock_fails(MOCK_OLD_DEVICE);
}

static uint_ device_max_buffer(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return MAX_BUFFER;
}

static struct object *device_queue(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return mock_fails(MOCK_NO_QUEUE) ? NULL : mock_make(QUEUE, NULL);
}

static struct object *device_library(struct object *self, const char *sel, struct object *source,
                                     struct object *options, struct object **error)
{
    (void)self, (void)sel;
    counts.libraries++;
    if (!source || source->class != STRING || !strlen(source->text))
        mock_wrong("newLibraryWithSource: without a source");
    if (!options)
        mock_wrong("newLibraryWithSource: without options is compiled with fast math");
    else {
        math_was_safe = mock_fails(MOCK_OLD_OPTIONS)
                            ? !options->fast_math
                            : options->math_mode == 0 && options->math_functions == 1;
        if (!math_was_safe)
            mock_wrong("the source is compiled with other maths than Safe");
        if (options->language != (2ul << 16) + 3)
            mock_wrong("setLanguageVersion: %lx, the kernels are written in 2.3", options->language);
    }
    if (mock_fails(MOCK_COMPILE)) {
        set_error(error,
                  "program_source:7:13: warning: unused function 'mock_of_a_mock'\n"
                  "static int mock_of_a_mock(int, int, int, int, int, int, int, int, int, int)\n"
                  "           ^\n"
                  "program_source:12:5: error: use of undeclared identifier 'mock'\n    mock();\n    ^\n"
                  "program_source:13:5: error: another\n");
        return NULL;
    }
    return mock_make(LIBRARY, NULL);
}

static struct object *device_pipeline(struct object *self, const char *sel, struct object *function,
                                      struct object **error)
{
    (void)self, (void)sel;
    counts.pipelines++;
    if (!function || function->class != FUNCTION)
        mock_wrong("newComputePipelineStateWithFunction: without a function");
    if (mock_fails(MOCK_PIPELINE)) {
        set_error(error, "threadgroup memory of the mock is exceeded");
        return NULL;
    }
    return mock_make(PIPELINE, function->text);
}

static struct object *device_buffer(struct object *self, const char *sel, uint_ length, uint_ options)
{
    (void)self, (void)sel;
    counts.buffers++;
    if (!length || length > MAX_BUFFER || (options & ~1ul))
        mock_wrong("newBufferWithLength: %lu options: %lu", length, options);
    if (mock_fails(MOCK_NO_BUFFER))
        return NULL;
    struct object *o = mock_make(BUFFER, NULL);
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
        mock_wrong("newBufferWithBytesNoCopy:%p length:%lu is not of pages", memory, length);
    if (mock_fails(MOCK_NO_COPYLESS) || mock_fails(MOCK_NO_BUFFER))
        return NULL;
    struct object *o = mock_make(BUFFER, NULL);
    o->memory = memory;
    o->length = length;
    return o;
}

/* ---- queues, options, libraries, pipelines, buffers ---- */

static struct object *queue_commands(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return mock_fails(MOCK_NO_COMMANDS) ? NULL : mock_autoreleased(mock_make(COMMANDS, NULL));
}

static struct object *options_alloc(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    struct object *o = mock_make(OPTIONS, NULL);
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
    if (mock_fails(MOCK_NO_KERNEL) || !emulate_has(name->text))
        return NULL;
    return mock_make(FUNCTION, name->text);
}

static uint_ pipeline_threads(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return THREADS_MAX;
}

static uint_ pipeline_width(struct object *self, const char *sel)
{
    (void)self, (void)sel;
    return mock_fails(MOCK_NARROW) ? 16 : 32;
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
        mock_wrong("computeCommandEncoder of a command buffer that is %s",
                   self->committed ? "committed" : "being encoded");
    if (mock_fails(MOCK_NO_ENCODER))
        return NULL;
    struct object *o = mock_make(ENCODER, NULL);
    o->commands = self;
    self->open = o;
    return mock_autoreleased(o);
}

static void commands_commit(struct object *self, const char *sel)
{
    (void)sel;
    counts.commits++;
    if (self->open || self->committed)
        mock_wrong("commit %s", self->open ? "before endEncoding" : "twice");
    self->committed = 1;
}

static void execute(const struct dispatch *d)
{
    struct emulate_argument arguments[ARGUMENTS] = {0};
    for (int i = 0; i < ARGUMENTS; i++) {
        const struct argument *a = &d->arguments[i];
        if (a->buffer) {
            if (a->buffer->magic != ALIVE_MAGIC)
                mock_wrong("buffer %d of %s was let go before it ran", i, d->pipeline->text);
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
        mock_wrong("%s: %s", d->pipeline->text, why);
}

/* The work is done here, not at commit: what looks at results before it waited sees none. */
static void commands_wait(struct object *self, const char *sel)
{
    (void)sel;
    if (!self->committed)
        mock_wrong("waitUntilCompleted before commit waits for ever");
    self->waited = 1;
    self->status = mock_fails(MOCK_FAULT_OF_GPU) ? ERROR : COMPLETED;
    for (struct dispatch *d = self->first; d && self->status == COMPLETED; d = d->next)
        execute(d);
    mock_drop_dispatches(self);
}

static uint_ commands_status(struct object *self, const char *sel)
{
    (void)sel;
    return (uint_)self->status;
}

static struct object *commands_error(struct object *self, const char *sel)
{
    (void)sel;
    return self->status == ERROR ? mock_autoreleased(mock_make(ERRORS, "Caused GPU Hang Error (mock)"))
                                 : NULL;
}

/* ---- encoders ---- */

static int encoding(struct object *self, const char *sel)
{
    if (self->ended)
        mock_wrong("%s after endEncoding", sel);
    return !self->ended;
}

static void encoder_pipeline(struct object *self, const char *sel, struct object *pipeline)
{
    int is_one = pipeline && pipeline->magic == ALIVE_MAGIC && pipeline->class == PIPELINE;
    if (encoding(self, sel) && !is_one)
        mock_wrong("%s without a pipeline", sel);
    self->set.pipeline = pipeline;
}

static struct argument *argument_at(struct object *self, const char *sel, uint_ index)
{
    static struct argument nowhere;
    if (index >= ARGUMENTS) {
        mock_wrong("%s %lu, there are %d", sel, index, ARGUMENTS);
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
        mock_wrong("%s %lu: offset %lu of %lu bytes", sel, index, offset, buffer ? buffer->length : 0);
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
        mock_wrong("%s %lu: %lu bytes", sel, index, length);
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
        mock_wrong("%s %lu x %lu x %lu of %lu x %lu x %lu threads", sel, groups.width, groups.height,
                   groups.depth, threads.width, threads.height, threads.depth);
        return;
    }
    struct dispatch *d = calloc(1, sizeof *d);
    *d = self->set;
    d->groups = groups;
    d->threads = threads;
    for (int i = 0; i < ARGUMENTS; i++) { /* bindings stay set for the next dispatch */
        struct argument *a = &d->arguments[i];
        if (a->buffer)
            mock_keep(a->buffer);
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

struct mock_counts mock_count(void)
{
    return counts;
}

int mock_math_was_safe(void)
{
    return math_was_safe;
}

/* The kernels that ran, a line each, into the file that $MOCK_METAL_RUNS names. */
__attribute__((destructor)) static void write_runs(void)
{
    const char *path = getenv("MOCK_METAL_RUNS");
    FILE *file = path ? fopen(path, "w") : NULL;
    for (int i = 0; file && emulate_name(i); i++)
        if (emulate_runs(i))
            fprintf(file, "%s\n", emulate_name(i));
    if (file)
        fclose(file);
}

/* ---- all of them ---- */

const struct mock_method mock_methods[] = {
    {STRING, 1, "stringWithUTF8String:", (method)string_make},
    {STRING, 0, "UTF8String", (method)string_text},
    {ARRAY, 0, "count", (method)array_count},
    {ARRAY, 0, "objectAtIndex:", (method)array_at},
    {ERRORS, 0, "localizedDescription", (method)error_description},
    {DEVICE, 0, "name", (method)named},
    {DEVICE, 0, "supportsFamily:", (method)device_family},
    {DEVICE, 0, "maxBufferLength", (method)device_max_buffer},
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
    {.selector = NULL},
};
