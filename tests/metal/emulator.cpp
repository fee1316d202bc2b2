/* The engine: lanes as fibers or threads, barriers, exchanges, threadgroup memory. */
#include "emulator.h"

#include "kernels.h"

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/common_interface_defs.h>
#define WITH_ASAN
#endif
#endif

/* Where a fiber stopped: its stack pointer (a context of ucontext.h where this file does not
 * know the processor: that is right, and asks the kernel at every switch). */
#if defined(__x86_64__)
struct fiber {
    void *stack_pointer;
};

/* What a call preserves goes onto the stack that is left and comes from the one that is
 * entered. */
extern "C" void emulator_switch(void **left, void *entered);
asm(".text\n"
    ".globl emulator_switch\n"
    ".type emulator_switch, @function\n"
    "emulator_switch:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n"
    "    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n"
    "    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n"
    ".size emulator_switch, . - emulator_switch\n");

static void fiber_switch(struct fiber *left, struct fiber *entered)
{
    emulator_switch(&left->stack_pointer, entered->stack_pointer);
}

static void fiber_make(struct fiber *f, char *stack, size_t bytes, void (*run)())
{
    void **top = reinterpret_cast<void **>(stack + bytes) - 1;
    top[0] = nullptr; /* as if called from nowhere: the stack is aligned as it is behind a call */
    *--top = reinterpret_cast<void *>(run);
    memset(top - 6, 0, 6 * sizeof *top);
    f->stack_pointer = top - 6;
}
#else
#include <ucontext.h>

struct fiber {
    ucontext_t context;
};

static void fiber_switch(struct fiber *left, struct fiber *entered)
{
    swapcontext(&left->context, &entered->context);
}

static void fiber_make(struct fiber *f, char *stack, size_t bytes, void (*run)())
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack;
    f->context.uc_stack.ss_size = bytes;
    f->context.uc_link = nullptr;
    makecontext(&f->context, run, 0);
}
#endif

uint64_t emulator_schedule;
int emulator_threads;
int64_t emulator_dispatches, emulator_groups, emulator_runs[LIK_METAL_KERNELS];

namespace {

const int LANES = LIK_METAL_THREADS, SIMD = LIK_METAL_SIMD;
const size_t STACK_BYTES = 256 << 10;

enum state { RUNS, AT_THREADGROUP, AT_SIMDGROUP, AT_EXCHANGE, DONE };
const char *const state_names[] = {"runs", "waits for the threadgroup", "waits for its simdgroup",
                                   "waits for an exchange", "is done"};

struct lane {
    int number;
    enum state state;
    int line;               /* where it waits */
    uint64_t together;      /* what it did with its simdgroup: a hash of lines */
    uint32_t exchanges;     /* so far: two buffers take turns */
    uint32_t epoch, simd_epoch;
    size_t arrays; /* threadgroup arrays asked for */
    struct fiber fiber;
    char *stack;
    void *fake_stack; /* AddressSanitizer's */
};

struct array {
    void *memory, *at;
    size_t bytes;
};

struct lane lanes[LANES];
uint32_t exchanged[2][LANES];
std::vector<array> arrays;
thread_local struct lane *current;
struct fiber scheduler;
uint64_t random_state;

/* threads */
std::mutex mutex;
std::condition_variable woken;

const struct emulated_kernel *running;
void *const *buffers;
uint32_t group;

[[noreturn]] void give_up(const char *what)
{
    printf("EMULATOR %s in %s, threadgroup %u:\n", what, running->name, group);
    for (int i = 0; i < LANES;) {
        int last = i;
        while (last + 1 < LANES && lanes[last + 1].state == lanes[i].state && lanes[last + 1].line == lanes[i].line)
            last++;
        printf("    lanes %d to %d: %s, line %d\n", i, last, state_names[lanes[i].state], lanes[i].line);
        i = last + 1;
    }
    fflush(stdout);
    _exit(3);
}

/* Lets lanes first ... last go on if all of them wait alike, and what they did together is the
 * same. */
void release(int first, int count, enum state state)
{
    for (int i = first; i < first + count; i++)
        if (lanes[i].state != state)
            return;
    for (int i = first; i < first + count; i++)
        if (lanes[i].line != lanes[first].line)
            give_up("found a divergent barrier");
    for (int i = first; i < first + count; i++)
        if (lanes[i].together != lanes[i / SIMD * SIMD].together)
            give_up("found a simdgroup whose lanes did different things together");
    for (int i = first; i < first + count; i++)
        lanes[i].state = RUNS;
}

/* A lane has come to wait: who may go on? */
void release_waiting(int number)
{
    switch (lanes[number].state) {
    case AT_THREADGROUP: release(0, LANES, AT_THREADGROUP); break;
    case AT_SIMDGROUP:
    case AT_EXCHANGE: release(number / SIMD * SIMD, SIMD, lanes[number].state); break;
    default: break;
    }
}

bool stuck()
{
    int done = 0;
    for (int i = 0; i < LANES; i++) {
        if (lanes[i].state == RUNS)
            return false;
        done += lanes[i].state == DONE;
    }
    return done < LANES;
}

/* ---- fibers ---- */

void switch_to(struct fiber *from, struct fiber *to, void **fake_stack, const void *stack, size_t bytes)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#endif
    fiber_switch(from, to);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(fake_stack ? *fake_stack : nullptr, nullptr, nullptr);
#endif
    (void)fake_stack, (void)stack, (void)bytes;
}

const void *scheduler_stack; /* AddressSanitizer asks whose stack is next */
size_t scheduler_stack_bytes;

void fiber_main()
{
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    struct lane *l = current;
    running->run(buffers, group, uint32_t(l->number / SIMD), uint32_t(l->number % SIMD));
    l->state = DONE;
    switch_to(&l->fiber, &scheduler, nullptr, scheduler_stack, scheduler_stack_bytes);
}

uint32_t draw(uint32_t below)
{
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return uint32_t((z ^ z >> 31) >> 32) % below;
}

/* The lane that runs next, of `count` that can. */
int next_of(const int *able, int count)
{
    if (emulator_schedule == EMULATOR_IN_ORDER)
        return able[0];
    return able[emulator_schedule == EMULATOR_REVERSED ? count - 1 : int(draw(uint32_t(count)))];
}

void run_fibers()
{
    for (int i = 0; i < LANES; i++) {
        struct lane *l = &lanes[i];
        if (!l->stack)
            l->stack = static_cast<char *>(malloc(STACK_BYTES));
        fiber_make(&l->fiber, l->stack, STACK_BYTES, fiber_main);
    }
    void *fake_stack = nullptr;
    for (;;) {
        int able[LANES], count = 0;
        for (int i = 0; i < LANES; i++)
            if (lanes[i].state == RUNS)
                able[count++] = i;
        if (count == 0)
            break;
        /* a sweep, whole or, where lanes are drawn, of some: no lane runs twice in it */
        int rest = emulator_schedule > EMULATOR_REVERSED ? int(draw(uint32_t(count))) : 0;
        for (; count > rest; count--) {
            int chosen = next_of(able, count), at = 0;
            while (able[at] != chosen)
                at++;
            memmove(able + at, able + at + 1, size_t(count - 1 - at) * sizeof *able);
            current = &lanes[chosen];
            races_run(chosen, current->epoch, current->simd_epoch, current->stack, STACK_BYTES);
            switch_to(&scheduler, &current->fiber, &fake_stack, current->stack, STACK_BYTES);
            races_run(-1, 0, 0, nullptr, 0);
            release_waiting(chosen);
        }
    }
    if (stuck())
        give_up("is stuck");
}

/* ---- threads ---- */

void thread_main(struct lane *l)
{
    current = l;
    running->run(buffers, group, uint32_t(l->number / SIMD), uint32_t(l->number % SIMD));
    std::lock_guard<std::mutex> lock(mutex);
    l->state = DONE;
    if (stuck())
        give_up("is stuck");
}

void run_threads()
{
    std::vector<std::thread> threads;
    for (int i = 0; i < LANES; i++)
        threads.emplace_back(thread_main, &lanes[i]);
    for (auto &t : threads)
        t.join();
}

void wait_as(enum state state, int line)
{
    struct lane *l = current;
    if (!emulator_threads) {
        l->state = state;
        l->line = line;
        switch_to(&l->fiber, &scheduler, &l->fake_stack, scheduler_stack, scheduler_stack_bytes);
        return;
    }
    std::unique_lock<std::mutex> lock(mutex);
    l->state = state;
    l->line = line;
    release_waiting(l->number);
    if (l->state == RUNS)
        woken.notify_all();
    else if (stuck())
        give_up("is stuck");
    woken.wait(lock, [l] { return l->state == RUNS; });
}

} // namespace

void emulator_wait(int scope, int orders_shared, int line)
{
    struct lane *l = current;
    wait_as(scope == EMULATOR_THREADGROUP ? AT_THREADGROUP : AT_SIMDGROUP, line);
    if (!orders_shared)
        return;
    l->epoch += scope == EMULATOR_THREADGROUP;
    l->simd_epoch++;
    if (!emulator_threads)
        races_run(l->number, l->epoch, l->simd_epoch, l->stack, STACK_BYTES);
}

const uint32_t *emulator_exchange(uint32_t value, int line)
{
    struct lane *l = current;
    uint32_t turn = l->exchanges++ % 2;
    l->together = l->together * 31 + uint64_t(line);
    exchanged[turn][l->number] = value;
    wait_as(AT_EXCHANGE, line);
    return exchanged[turn] + l->number / SIMD * SIMD;
}

void emulator_together(int line)
{
    current->together = current->together * 31 + uint64_t(line);
}

uint32_t emulator_lane(void)
{
    return uint32_t(current->number % SIMD);
}

void *emulator_shared(size_t bytes, size_t alignment)
{
    std::unique_lock<std::mutex> lock(mutex, std::defer_lock);
    if (emulator_threads)
        lock.lock();
    size_t number = current->arrays++;
    if (number == arrays.size()) {
        struct array a = {malloc(alignment + bytes), nullptr, bytes};
        a.at = static_cast<char *>(a.memory) + alignment; /* malloc's is of 16 */
        static const uint16_t nan = 0x7fff; /* in halves, floats; far out of range as an index */
        for (size_t at = 0; at + 2 <= bytes; at += 2)
            memcpy(static_cast<char *>(a.at) + at, &nan, 2);
        races_share(a.at, bytes);
        arrays.push_back(a);
    }
    return arrays[number].at;
}

int emulator_dispatch(void *, const struct lik_metal_dispatch *dispatch)
{
    const struct lik_metal_kernel *kernel = &lik_metal_kernels[dispatch->kernel];
    const void *bound[LIK_METAL_BUFFERS];
    memcpy(bound, dispatch->buffers, sizeof bound);
    bound[LIK_AT_ARGS] = dispatch->args;
    for (int n = 1; n < LIK_METAL_BUFFERS; n++)
        if (bound[n] && !(kernel->buffers >> n & 1)) {
            printf("EMULATOR %s is given buffer %d, which it does not declare\n", kernel->name, n);
            fflush(stdout);
            _exit(3);
        }
    running = emulated_kernel_of(kernel->name);
    buffers = const_cast<void *const *>(bound);
    random_state = emulator_schedule * 0x2545f4914f6cdd1du + uint64_t(emulator_dispatches);
    emulator_dispatches++;
    emulator_runs[dispatch->kernel]++;
    races_begin_dispatch();
    for (group = 0; group < uint64_t(dispatch->threadgroups); group++, emulator_groups++) {
        for (int i = 0; i < LANES; i++) {
            struct lane *l = &lanes[i];
            l->number = i;
            l->state = RUNS;
            l->line = 0;
            l->together = l->exchanges = l->epoch = l->simd_epoch = 0;
            l->arrays = 0;
        }
        races_begin_group(group);
        if (emulator_threads)
            run_threads();
        else
            run_fibers();
        size_t shared = 0;
        for (auto &a : arrays) {
            shared += a.bytes;
            free(a.memory);
        }
        arrays.clear();
        if (shared != size_t(kernel->shared_bytes)) {
            printf("EMULATOR %s declares %zu bytes of threadgroup memory, its entry says %d\n", kernel->name,
                   shared, int(kernel->shared_bytes));
            fflush(stdout);
            _exit(3);
        }
    }
    return 0;
}
