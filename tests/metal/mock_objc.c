/* The runtime: objects, pools, messages, and what opens the libraries. See mock.h. */
#define _GNU_SOURCE /* RTLD_NEXT, dladdr */
#include "mock_objc.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#pragma GCC visibility push(default)

#define EXIT_WRONG 97

const char *const mock_class_names[CLASSES] = {
    "NSString",   "NSArray",     "NSError",     "MTLDevice", "MTLCommandQueue",  "MTLCompileOptions",
    "MTLLibrary", "MTLFunction", "MTLPipeline", "MTLBuffer", "MTLCommandBuffer", "MTLComputeCommandEncoder",
};
/* They stay for the life of the process. */
static const int permanent[CLASSES] = {[ARRAY] = 1, [DEVICE] = 1, [QUEUE] = 1, [LIBRARY] = 1, [PIPELINE] = 1};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct object *all;
static struct object classes[CLASSES];
static int fault = -1, violations;
static int faults_of_environment[MOCK_FAULTS];

static const char *const fault_names[MOCK_FAULTS] = {
    "no-libobjc",  "no-metal",   "no-symbol", "no-device",   "old-device",  "no-queue",
    "compile",     "no-kernel",  "pipeline",  "narrow",      "no-copyless", "no-buffer",
    "no-commands", "no-encoder", "gpu",       "old-options",
};

int mock_fails(enum mock_fault which)
{
    return fault == (int)which || faults_of_environment[which];
}

void mock_wrong(const char *format, ...)
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

struct object *mock_make(enum class class, const char *text)
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

void mock_drop_dispatches(struct object *commands)
{
    while (commands->first) {
        struct dispatch *d = commands->first;
        commands->first = d->next;
        for (int i = 0; i < ARGUMENTS; i++) {
            if (d->arguments[i].buffer)
                mock_give_up(d->arguments[i].buffer);
            free(d->arguments[i].bytes);
        }
        free(d);
    }
}

/* The memory of what is released stays, so that its use is seen. */
void mock_give_up(struct object *o)
{
    if (__atomic_sub_fetch(&o->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (o->references < 0) {
        mock_wrong("a %s was released once too often", mock_class_names[o->class]);
        return;
    }
    if (o->class == COMMANDS && o->committed && !o->waited)
        mock_wrong("a command buffer was let go while it ran");
    if (o->class == COMMANDS)
        mock_drop_dispatches(o);
    if (o->class == ENCODER && !o->ended)
        mock_wrong("an encoder was let go before endEncoding");
    if (o->class == BUFFER && o->own)
        free(o->memory);
    o->memory = NULL;
    o->magic = DEAD_MAGIC;
}

struct object *mock_keep(struct object *o)
{
    __atomic_add_fetch(&o->references, 1, __ATOMIC_ACQ_REL);
    return o;
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
            mock_wrong("a pool was left before the one inside it");
        pools = p->below;
        if (p->object)
            mock_give_up(p->object);
        free(p);
        if (begin)
            return;
    }
    mock_wrong("a pool was left that this thread is not in");
}

struct object *mock_autoreleased(struct object *o)
{
    if (!pools) {
        mock_wrong("a %s was autoreleased without a pool", mock_class_names[o->class]);
        return o;
    }
    struct pooled *p = calloc(1, sizeof *p);
    p->object = o;
    p->below = pools;
    pools = p;
    return o;
}

/* ---- messages ---- */

static void release(struct object *self, const char *sel)
{
    (void)sel;
    mock_give_up(self);
}

static signed char responds(struct object *self, const char *sel, const char *asked);

static method method_of(const struct object *self, const char *sel)
{
    int old = mock_fails(MOCK_OLD_OPTIONS) && self->class == OPTIONS;
    if (old && (!strcmp(sel, "setMathMode:") || !strcmp(sel, "setMathFloatingPointFunctions:")))
        return NULL;
    if (!self->is_class && !strcmp(sel, "release"))
        return (method)release;
    if (!strcmp(sel, "respondsToSelector:"))
        return (method)responds;
    for (const struct mock_method *m = mock_methods; m->selector; m++)
        if (m->class == self->class && m->is_class == self->is_class && !strcmp(m->selector, sel))
            return m->call;
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
        mock_wrong("%s is sent to nil", sel);
        abort();
    }
    if (self->magic != ALIVE_MAGIC) {
        mock_wrong("%s is sent to a %s that was let go", sel,
                   self->magic == DEAD_MAGIC ? mock_class_names[self->class] : "thing");
        abort();
    }
    method call = method_of(self, sel);
    if (!call) {
        mock_wrong("-[%s %s]: unrecognized selector", mock_class_names[self->class], sel);
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
        if (!strcmp(mock_class_names[i], name)) {
            classes[i].magic = ALIVE_MAGIC;
            classes[i].class = (enum class)i;
            classes[i].is_class = 1;
            return &classes[i];
        }
    mock_wrong("objc_getClass(\"%s\")", name);
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
    if ((runtime && mock_fails(MOCK_NO_LIBOBJC)) || (metal && mock_fails(MOCK_NO_METAL)))
        return next("/nowhere/libobjc.A.dylib", mode);
    if (!runtime && !metal && !(name && !strcmp(name, "/CoreGraphics")))
        return next(path, mode);
    Dl_info own;
    if (!dladdr((void *)objc_msgSend, &own))
        return NULL;
    return next(metal && mock_fails(MOCK_NO_SYMBOL) ? "libc.so.6" : own.dli_fname, mode);
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
             (class_name ? !strcmp(class_name, mock_class_names[o->class]) : !permanent[o->class]);
    pthread_mutex_unlock(&lock);
    return n;
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
        if (!permanent[i] && mock_alive(mock_class_names[i]))
            mock_wrong("%d %s still live at the end", mock_alive(mock_class_names[i]), mock_class_names[i]);
    if (violations)
        _exit(EXIT_WRONG);
}
