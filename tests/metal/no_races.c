/* Where races are not looked for. */
#include "emulator.h"

int64_t emulator_accesses, emulator_races;

void races_begin_dispatch(void)
{
}

void races_begin_group(uint32_t number)
{
    (void)number;
}

void races_share(const void *at, size_t bytes)
{
    (void)at, (void)bytes;
}

void races_run(int lane, uint32_t epoch, uint32_t simd_epoch, const void *stack, size_t stack_bytes)
{
    (void)lane, (void)epoch, (void)simd_epoch, (void)stack, (void)stack_bytes;
}
