/* See system.h. */
#ifdef _WIN32
#include "check.h"
#include "system.h"

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <process.h>
#include <windows.h>

size_t page_bytes(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}

/* Reserved, and committed a touched page at a time by on_fault if it is more than a buffer. */
#define COMMITTED_MAX ((size_t)1 << 28)

static struct {
    char *at;
    size_t bytes;
} reserved;

void *pages_map(size_t bytes)
{
    DWORD how = bytes > COMMITTED_MAX ? MEM_RESERVE : MEM_RESERVE | MEM_COMMIT;
    void *at = VirtualAlloc(NULL, bytes, how, PAGE_READWRITE);
    if (at && bytes > COMMITTED_MAX) { /* one at a time */
        reserved.at = at;
        reserved.bytes = bytes;
    }
    return at;
}

int pages_protect(void *at, size_t bytes, enum access access)
{
    DWORD before;
    return VirtualProtect(at, bytes, access == PAGES_READ ? PAGE_READONLY : PAGE_NOACCESS, &before) ? 0 : -1;
}

void pages_unmap(void *at, size_t bytes)
{
    (void)bytes;
    if (at == reserved.at)
        reserved.bytes = 0;
    VirtualFree(at, 0, MEM_RELEASE);
}

struct spawned {
    void (*body)(void *arg);
    void *arg;
};

static unsigned __stdcall spawned_main(void *opaque)
{
    struct spawned *s = opaque;
    s->body(s->arg);
    return 0;
}

void threads_run(int64_t count, void (*body)(void *arg), void *all, size_t step)
{
    enum { MOST = 16 };
    HANDLE threads[MOST];
    struct spawned each[MOST];
    if (count > MOST)
        exit(2);
    for (int64_t i = 0; i < count; i++) {
        each[i] = (struct spawned){body, (char *)all + (size_t)i * step};
        threads[i] = (HANDLE)_beginthreadex(NULL, 0, spawned_main, &each[i], 0, NULL);
        if (!threads[i])
            exit(2);
    }
    for (int64_t i = 0; i < count; i++) {
        WaitForSingleObject(threads[i], INFINITE);
        CloseHandle(threads[i]);
    }
}

int fork_run(int (*body)(void *arg), void *arg)
{
    (void)body, (void)arg;
    return 0;
}

void environment_set(const char *name, const char *value)
{
    if (_putenv_s(name, value ? value : ""))
        exit(2);
}

int amx_is_allowed(void)
{
    return 0; /* nobody asks Windows for it yet */
}

static void (*printer)(void);

static LONG WINAPI on_fault(EXCEPTION_POINTERS *what)
{
    const EXCEPTION_RECORD *fault = what->ExceptionRecord;
    if (fault->ExceptionCode != EXCEPTION_ACCESS_VIOLATION)
        return EXCEPTION_CONTINUE_SEARCH;
    char *at = (char *)fault->ExceptionInformation[1];
    size_t offset = (size_t)(at - reserved.at);
    if (at >= reserved.at && offset < reserved.bytes && VirtualAlloc(at, 1, MEM_COMMIT, PAGE_READWRITE))
        return EXCEPTION_CONTINUE_EXECUTION;
    printer();
    return EXCEPTION_CONTINUE_SEARCH;
}

void faults_catch(void (*print_fault)(void))
{
    printer = print_fault;
    AddVectoredExceptionHandler(1, on_fault);
}
#endif
