/* The mock's two halves, to each other: mock_objc.c has objects, pools, messages and faults,
 * mock_metal.c what each class does. */
#ifndef TESTS_METAL_MOCK_OBJC_H
#define TESTS_METAL_MOCK_OBJC_H

#include "mock.h"

#include <stdint.h>

#define ARGUMENTS   31 /* buffers of a kernel */
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
extern const char *const mock_class_names[CLASSES];

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

typedef void (*method)(void);
struct mock_method {
    enum class class;
    int is_class;
    const char *selector;
    method call;
};
extern const struct mock_method mock_methods[]; /* ends with a NULL selector */

int mock_fails(enum mock_fault which);
/* Tells what is wrong, and counts it. */
__attribute__((format(printf, 1, 2))) void mock_wrong(const char *format, ...);

/* An object with one reference; the text is copied. */
struct object *mock_make(enum class class, const char *text);
struct object *mock_keep(struct object *o);
void mock_give_up(struct object *o);
struct object *mock_autoreleased(struct object *o);
/* Those of a command buffer, with what they keep. */
void mock_drop_dispatches(struct object *commands);

#endif
