/* A Metal that is none: libobjc and Metal.framework in one shared object, which stands before
 * the C library (linked first, or preloaded) and gives itself where their names are opened. It
 * knows the messages that src/metal sends, no others, checks that they come as Metal wants
 * them, and counts every object.
 *
 * What is wrong about a call is printed at once and counted; a message that no such object
 * understands aborts, as Apple's runtime does. At the end of the process what still lives but
 * should not is told too, and if anything was wrong the exit status is 97. */
#ifndef TESTS_METAL_MOCK_H
#define TESTS_METAL_MOCK_H

#include <stddef.h>

/* What fails on demand; also as $MOCK_METAL, names with commas between. */
enum mock_fault {
    MOCK_NO_LIBOBJC,   /* no-libobjc: the runtime cannot be opened */
    MOCK_NO_METAL,     /* no-metal: Metal cannot */
    MOCK_NO_SYMBOL,    /* no-symbol: Metal lacks MTLCopyAllDevices */
    MOCK_NO_DEVICE,    /* no-device: the list of GPUs is empty */
    MOCK_OLD_DEVICE,   /* old-device: of another family */
    MOCK_NO_QUEUE,     /* no-queue */
    MOCK_COMPILE,      /* compile: the source does not, with a log */
    MOCK_NO_KERNEL,    /* no-kernel: the library has no function of any name */
    MOCK_PIPELINE,     /* pipeline: none is made, with a reason */
    MOCK_NARROW,       /* narrow: simdgroups of 16 */
    MOCK_NO_COPYLESS,  /* no-copyless: no buffer around memory of the process */
    MOCK_NO_BUFFER,    /* no-buffer: no buffer at all */
    MOCK_NO_COMMANDS,  /* no-commands: no command buffer */
    MOCK_NO_ENCODER,   /* no-encoder */
    MOCK_FAULT_OF_GPU, /* gpu: the command buffer ends with an error */
    MOCK_OLD_OPTIONS,  /* old-options: no setMathMode:, as before macOS 15 */
    MOCK_FAULTS
};

/* Which fault, or none of them with -1; takes effect at the next call. */
void mock_set_fault(int fault);
/* What has been wrong so far. */
int mock_violations(void);

/* Objects alive, of a class ("MTLBuffer", ...), or with NULL all but those that stay for the
 * life of a process: devices and their list, queues, libraries, pipelines. */
int mock_alive(const char *class_name);

/* Calls so far: of compiling, of making pipelines, of buffers with and without a copy, of
 * dispatches, of command buffers committed. */
struct mock_counts {
    int libraries, pipelines, buffers, buffers_around, dispatches, commits;
};
struct mock_counts mock_count(void);

/* Was the source compiled with Safe math, by either of the two ways? */
int mock_math_was_safe(void);

#endif
