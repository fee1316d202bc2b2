/* Looks for races, exactly: the kernels are compiled with -fsanitize=thread, and what that
 * makes every access call is here in place of ThreadSanitizer's runtime.
 *
 * Two accesses of a byte by different lanes, one of them a write, are a race unless a barrier
 * stands between them: of the threadgroup, or of the simdgroup if both lanes are in it.
 * Barriers order threadgroup memory alone; of device memory a byte that one thread of a
 * dispatch writes is no other's. Fibers run one at a time, so what is found does not depend on
 * luck, and a race is found in whatever order the two accesses come. */
#include "emulator.h"

#include "metal/layout.h"

#include <cstdio>
#include <cstring>
#include <unordered_map>
#include <vector>

int64_t emulator_accesses, emulator_races;

namespace {

const int SIMDS = LIK_METAL_SIMDS, SIMD = LIK_METAL_SIMD;

/* The last accesses of a byte of threadgroup memory by a simdgroup: those since its last
 * barrier; older ones are behind it, but for other simdgroups perhaps not behind theirs. */
struct accesses {
    uint32_t epoch, simd_epoch; /* 0: none; epochs begin at 1 */
    uint32_t lanes;
};
struct shared_byte {
    struct accesses reads[SIMDS], writes[SIMDS];
};
/* Of device memory: one thread that read, one that wrote; -1: none, -2: several read. */
struct device_byte {
    int64_t reader = -1, writer = -1;
};

struct range {
    uintptr_t begin;
    std::vector<shared_byte> bytes;
};

std::vector<range> ranges;
std::unordered_map<uintptr_t, device_byte> device_bytes;
int lane = -1;
uint32_t epoch, simd_epoch;
uintptr_t stack;
size_t stack_bytes;
int64_t group;

void report(const char *where, uintptr_t at)
{
    if (emulator_races++ < 3)
        printf("RACE in %s memory, byte %zu, lane %d of threadgroup %lld\n", where, size_t(at), lane,
               (long long)group);
}

/* Does an access of this lane meet one of another's that no barrier separates from it? */
bool meets(const struct accesses *others)
{
    for (int simd = 0; simd < SIMDS; simd++) {
        const struct accesses *a = &others[simd];
        if (a->epoch != epoch)
            continue;
        if (simd != lane / SIMD)
            return true;
        if (a->simd_epoch == simd_epoch && (a->lanes & ~(1u << lane % SIMD)))
            return true;
    }
    return false;
}

void access_shared(struct shared_byte *byte, bool writes, uintptr_t at)
{
    if (meets(byte->writes) || (writes && meets(byte->reads)))
        report("threadgroup", at);
    struct accesses *mine = (writes ? byte->writes : byte->reads) + lane / SIMD;
    if (mine->epoch != epoch || mine->simd_epoch != simd_epoch)
        *mine = {epoch, simd_epoch, 0};
    mine->lanes |= 1u << lane % SIMD;
}

void access_device(uintptr_t at, bool writes)
{
    struct device_byte *byte = &device_bytes[at];
    int64_t me = group * LIK_METAL_THREADS + lane;
    if ((byte->writer != -1 && byte->writer != me) ||
        (writes && byte->reader != -1 && byte->reader != me))
        report("device", at);
    if (writes)
        byte->writer = me;
    else
        byte->reader = byte->reader == -1 || byte->reader == me ? me : -2;
}

void access(const void *pointer, size_t bytes, bool writes)
{
    uintptr_t at = reinterpret_cast<uintptr_t>(pointer);
    if (lane < 0 || at - stack < stack_bytes)
        return;
    emulator_accesses++;
    for (auto &r : ranges)
        if (at >= r.begin && at < r.begin + r.bytes.size()) {
            for (size_t b = 0; b < bytes && at + b < r.begin + r.bytes.size(); b++)
                access_shared(&r.bytes[at + b - r.begin], writes, at + b - r.begin);
            return;
        }
    for (size_t b = 0; b < bytes; b++)
        access_device(at + b, writes);
}

} // namespace

void races_begin_dispatch(void)
{
    device_bytes.clear();
}

void races_begin_group(uint32_t number)
{
    group = number;
    ranges.clear();
}

void races_share(const void *at, size_t bytes)
{
    ranges.push_back({reinterpret_cast<uintptr_t>(at), std::vector<shared_byte>(bytes)});
}

void races_run(int number, uint32_t of_group, uint32_t of_simdgroup, const void *its_stack, size_t bytes)
{
    lane = number;
    epoch = of_group + 1;
    simd_epoch = of_simdgroup + 1;
    stack = reinterpret_cast<uintptr_t>(its_stack);
    stack_bytes = bytes;
}

#define ACCESS(bytes)                                                                                      \
    extern "C" void __tsan_read##bytes(void *at)                                                           \
    {                                                                                                      \
        access(at, bytes, false);                                                                          \
    }                                                                                                      \
    extern "C" void __tsan_write##bytes(void *at)                                                          \
    {                                                                                                      \
        access(at, bytes, true);                                                                           \
    }                                                                                                      \
    extern "C" void __tsan_unaligned_read##bytes(void *at)                                                 \
    {                                                                                                      \
        access(at, bytes, false);                                                                          \
    }                                                                                                      \
    extern "C" void __tsan_unaligned_write##bytes(void *at)                                                \
    {                                                                                                      \
        access(at, bytes, true);                                                                           \
    }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

extern "C" void __tsan_init(void)
{
}
extern "C" void __tsan_func_entry(void *)
{
}
extern "C" void __tsan_func_exit(void)
{
}
