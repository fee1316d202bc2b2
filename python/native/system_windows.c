/* See system.h. */
#ifdef _WIN32
#include "system.h"

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

static DWORD slot = FLS_OUT_OF_INDEXES;
static void (*slot_end)(void *value);

static void WINAPI end_slot(void *value)
{
    if (value)
        slot_end(value);
}

void *own_get(void)
{
    return slot == FLS_OUT_OF_INDEXES ? NULL : FlsGetValue(slot);
}

int own_set(void *value, void (*end)(void *value))
{
    slot_end = end;
    if (slot == FLS_OUT_OF_INDEXES)
        slot = FlsAlloc(end_slot);
    return slot != FLS_OUT_OF_INDEXES && FlsSetValue(slot, value) ? 0 : -1;
}

void fork_watch(void (*in_child)(void))
{
    (void)in_child; /* there is no fork */
}

void *torch_symbol(const char *name)
{
    HMODULE torch = GetModuleHandleW(L"torch_cpu.dll");
    FARPROC found = torch ? GetProcAddress(torch, name) : NULL;
    return *(void **)(void *)&found;
}

int32_t processors(void)
{
    DWORD_PTR allowed = 0, system;
    int32_t n = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &allowed, &system))
        for (; allowed; allowed &= allowed - 1)
            n++;
    return n ? n : 1;
}
#endif
