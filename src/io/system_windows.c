/* Files, interruptions and consoles of Windows; see system.h. Names go to the system as UTF-16,
 * whatever the code page is. */
#ifdef _WIN32
#include "io/system.h"

#include "io/file.h"

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#include <shellapi.h>

#define SHORT_MAX 240 /* characters of a path that needs no prefix; 12 are kept for names of old systems */
#define PATIENCE  10  /* times 10 ms, for a file that a scanner of files looks at */
#ifndef ENABLE_VIRTUAL_TERMINAL_PROCESSING
#define ENABLE_VIRTUAL_TERMINAL_PROCESSING 4
#endif

/* ---- errors ---- */

/* errno of what the system said last; -1. */
static int fail(void)
{
    static const struct {
        DWORD code;
        int number;
    } known[] = {
        {ERROR_FILE_NOT_FOUND, ENOENT},      {ERROR_PATH_NOT_FOUND, ENOENT},
        {ERROR_INVALID_DRIVE, ENOENT},       {ERROR_INVALID_NAME, ENOENT},
        {ERROR_BAD_NETPATH, ENOENT},         {ERROR_BAD_NET_NAME, ENOENT},
        {ERROR_ACCESS_DENIED, EACCES},       {ERROR_SHARING_VIOLATION, EACCES},
        {ERROR_LOCK_VIOLATION, EACCES},      {ERROR_WRITE_PROTECT, EACCES},
        {ERROR_USER_MAPPED_FILE, EACCES},    {ERROR_FILE_EXISTS, EEXIST},
        {ERROR_ALREADY_EXISTS, EEXIST},      {ERROR_DISK_FULL, ENOSPC},
        {ERROR_HANDLE_DISK_FULL, ENOSPC},    {ERROR_NOT_ENOUGH_MEMORY, ENOMEM},
        {ERROR_OUTOFMEMORY, ENOMEM},         {ERROR_COMMITMENT_LIMIT, ENOMEM},
        {ERROR_BROKEN_PIPE, EPIPE},          {ERROR_NO_DATA, EPIPE},
        {ERROR_PIPE_NOT_CONNECTED, EPIPE},   {ERROR_BAD_PIPE, EPIPE},
        {ERROR_TOO_MANY_OPEN_FILES, EMFILE}, {ERROR_FILENAME_EXCED_RANGE, ENAMETOOLONG},
        {ERROR_DIRECTORY, ENOTDIR},
    };
    DWORD code = GetLastError();
    errno = EIO;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].code == code)
            errno = known[i].number;
    return -1;
}

/* The C library calls a pipe that nobody reads an invalid argument. */
int lik_system_status(void)
{
    unsigned long code = 0;
    _get_doserrno(&code);
    if (errno == EPIPE || (errno == EINVAL && code == ERROR_NO_DATA))
        return LIK_IO_GONE;
    return errno == ENOSPC || errno == ENOMEM || errno == EFBIG ? LIK_IO_EXHAUSTED : LIK_IO_UNREADABLE;
}

/* ---- names ---- */

/* UTF-16 in fresh memory; NULL with errno. */
static wchar_t *wide(const char *path)
{
    int size = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    wchar_t *name = size > 0 ? malloc((size_t)size * sizeof *name) : NULL;
    if (!name) {
        errno = size > 0 ? ENOMEM : ENOENT;
        return NULL;
    }
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, name, size);
    if (size < SHORT_MAX)
        return name;
    static const wchar_t prefix[] = L"\\\\?\\";
    DWORD need = GetFullPathNameW(name, 0, NULL, NULL);
    wchar_t *whole = wcsncmp(name, prefix, 4) ? malloc((need + 4) * sizeof *whole) : NULL;
    if (!whole || name[0] == '\\') /* it has the prefix, or is another computer's */ {
        free(whole);
        return name;
    }
    memcpy(whole, prefix, 4 * sizeof *whole);
    GetFullPathNameW(name, need, whole + 4, NULL);
    free(name);
    return whole;
}

/* UTF-8 in fresh memory; NULL with errno. */
static char *narrow(const wchar_t *text)
{
    int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
    char *name = malloc((size_t)size + 1);
    if (name)
        WideCharToMultiByte(CP_UTF8, 0, text, -1, name, size, NULL, NULL);
    return name;
}

static HANDLE open_as(const char *path, DWORD access, DWORD share, DWORD creation, DWORD flags)
{
    wchar_t *name = wide(path);
    if (!name)
        return INVALID_HANDLE_VALUE;
    HANDLE handle = CreateFileW(name, access, share, NULL, creation, flags, NULL);
    if (handle == INVALID_HANDLE_VALUE)
        fail();
    free(name);
    return handle;
}

#define SHARE_ALL (FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)

static HANDLE open_to_look(const char *path)
{
    return open_as(path, FILE_READ_ATTRIBUTES, SHARE_ALL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS);
}

/* A file number for an open handle, which goes with it. */
static int number_of(HANDLE handle, int flags)
{
    if (handle == INVALID_HANDLE_VALUE)
        return -1;
    int fd = _open_osfhandle((intptr_t)handle, flags | _O_BINARY | _O_NOINHERIT);
    if (fd < 0)
        CloseHandle(handle);
    return fd;
}

static HANDLE handle_of(int fd)
{
    return (HANDLE)_get_osfhandle(fd);
}

static int info_of(HANDLE handle, struct lik_file_info *info)
{
    BY_HANDLE_FILE_INFORMATION found;
    *info = (struct lik_file_info){.kind = LIK_FILE_OTHER};
    if (GetFileType(handle) != FILE_TYPE_DISK)
        return 0;
    if (!GetFileInformationByHandle(handle, &found))
        return fail();
    info->device = found.dwVolumeSerialNumber;
    info->number = (uint64_t)found.nFileIndexHigh << 32 | found.nFileIndexLow;
    info->size = (int64_t)((uint64_t)found.nFileSizeHigh << 32 | found.nFileSizeLow);
    info->links = found.nNumberOfLinks;
    info->kind = found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? LIK_FILE_FOLDER : LIK_FILE_REGULAR;
    return 0;
}

int lik_file_info(const char *path, struct lik_file_info *info)
{
    HANDLE handle = open_to_look(path);
    if (handle == INVALID_HANDLE_VALUE)
        return -1;
    int status = info_of(handle, info);
    CloseHandle(handle);
    return status;
}

int lik_file_info_of(int fd, struct lik_file_info *info)
{
    return info_of(handle_of(fd), info);
}

int lik_path_folder(const char *path)
{
    int length = path[0] && path[1] == ':' ? 2 : 0;
    for (int i = 0; path[i]; i++)
        if (path[i] == '/' || path[i] == '\\')
            length = i + 1;
    return length;
}

static DWORD attributes_of(const char *path)
{
    wchar_t *name = wide(path);
    DWORD attributes = name ? GetFileAttributesW(name) : INVALID_FILE_ATTRIBUTES;
    free(name);
    return attributes;
}

/* A link to what is not there has no end: an error. */
char *lik_path_follow(const char *path)
{
    DWORD attributes = attributes_of(path);
    if (attributes == INVALID_FILE_ATTRIBUTES || !(attributes & FILE_ATTRIBUTE_REPARSE_POINT))
        return _strdup(path);
    wchar_t whole[LIK_PATH_MAX];
    HANDLE handle = open_to_look(path);
    if (handle == INVALID_HANDLE_VALUE)
        return NULL;
    DWORD size = GetFinalPathNameByHandleW(handle, whole, LIK_PATH_MAX, FILE_NAME_NORMALIZED);
    CloseHandle(handle);
    errno = ENAMETOOLONG;
    return size == 0 || size >= LIK_PATH_MAX ? NULL : narrow(whole);
}

/* ---- reading and writing ---- */

/* A folder can be opened, too, so that it is named as one. */
int lik_file_open_read(const char *path)
{
    return number_of(open_as(path, GENERIC_READ, SHARE_ALL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS),
                     _O_RDONLY);
}

int lik_file_open_write(const char *path)
{
    return number_of(open_as(path, GENERIC_WRITE, SHARE_ALL, OPEN_EXISTING, 0), _O_WRONLY);
}

int64_t lik_file_read(int fd, void *to, int64_t bytes)
{
    return _read(fd, to, (unsigned)(bytes < 1 << 30 ? bytes : 1 << 30));
}

int64_t lik_file_write(int fd, const void *from, int64_t bytes)
{
    DWORD done = 0; /* not by _write, which makes other errors of a pipe that nobody reads */
    if (!WriteFile(handle_of(fd), from, (DWORD)(bytes < 1 << 30 ? bytes : 1 << 30), &done, NULL))
        return fail();
    return done;
}

int lik_file_close(int fd)
{
    return _close(fd);
}

int lik_file_sync(int fd)
{
    return FlushFileBuffers(handle_of(fd)) ? 0 : fail();
}

int lik_stdout_sync(void)
{
    return 0; /* its writes have told all */
}

void *lik_file_map(int fd, int64_t bytes)
{
    (void)bytes; /* the whole file */
    HANDLE mapping = CreateFileMappingW(handle_of(fd), NULL, PAGE_READONLY, 0, 0, NULL);
    void *data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (!data)
        fail();
    if (mapping)
        CloseHandle(mapping); /* the view keeps it */
    return data;
}

void lik_file_unmap(void *data, int64_t bytes)
{
    (void)bytes;
    UnmapViewOfFile(data);
}

/* ---- outputs ----
 *
 * A file is held by being open for writing: whoever opens it and does not allow that is
 * refused. Renaming and deleting it are allowed all the while. */

int lik_file_create_held(const char *name, int private)
{
    (void)private; /* rights are the folder's */
    return number_of(open_as(name, GENERIC_WRITE | DELETE, FILE_SHARE_READ | FILE_SHARE_DELETE, CREATE_NEW,
                             FILE_ATTRIBUTE_NORMAL),
                     _O_WRONLY);
}

int lik_file_remove_dead(const char *name)
{
    HANDLE handle = open_as(name, DELETE, FILE_SHARE_READ | FILE_SHARE_DELETE, OPEN_EXISTING,
                            FILE_FLAG_OPEN_REPARSE_POINT);
    if (handle == INVALID_HANDLE_VALUE)
        return errno == ENOENT;
    FILE_DISPOSITION_INFO gone = {.DeleteFile = TRUE};
    int removed =
        lik_file_is_own(name) && SetFileInformationByHandle(handle, FileDispositionInfo, &gone, sizeof gone);
    CloseHandle(handle);
    return removed;
}

/* In the user's own folders whose it is does not matter, in others' it cannot be replaced. */
int lik_file_is_own(const char *name)
{
    DWORD attributes = attributes_of(name);
    return attributes != INVALID_FILE_ATTRIBUTES &&
           !(attributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT));
}

int lik_file_inherit(int fd, const char *path, const char *aside)
{
    (void)fd, (void)path, (void)aside; /* rights are the folder's */
    return 0;
}

int lik_file_move(const char *from, const char *to)
{
    wchar_t *old = wide(from), *new = wide(to);
    int status = -1;
    for (int i = 0; old && new && status; i++) {
        if (MoveFileExW(old, new, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) {
            status = 0;
        } else {
            fail();
            if (errno != EACCES || i == PATIENCE)
                break;
            Sleep(10);
        }
    }
    free(old);
    free(new);
    return status;
}

int lik_file_link(const char *from, const char *to)
{
    wchar_t *old = wide(from), *new = wide(to);
    int status = old && new && CreateHardLinkW(new, old, NULL) ? 0 : fail();
    free(old);
    free(new);
    return status;
}

int lik_file_remove(const char *path)
{
    wchar_t *name = wide(path);
    int status = name && DeleteFileW(name) ? 0 : fail();
    free(name);
    return status;
}

/* A mutex named after the folder: the system gives it back when its holder dies. */
intptr_t lik_folder_lock(const char *folder, int patience)
{
    struct lik_file_info info;
    wchar_t name[64];
    if (lik_file_info(folder, &info))
        return -1;
    _snwprintf(name, 64, L"Local\\lik-%llx-%llx", (unsigned long long)info.device,
               (unsigned long long)info.number);
    HANDLE mutex = CreateMutexW(NULL, FALSE, name);
    if (!mutex)
        return -1;
    DWORD got = WaitForSingleObject(mutex, (DWORD)patience * 10);
    if (got == WAIT_OBJECT_0 || got == WAIT_ABANDONED)
        return (intptr_t)mutex;
    CloseHandle(mutex);
    return -1;
}

void lik_folder_unlock(intptr_t lock)
{
    if (lock != -1) {
        ReleaseMutex((HANDLE)lock);
        CloseHandle((HANDLE)lock);
    }
}

/* ---- the process ---- */

static void (*on_interruption)(void), (*on_cut)(void);
static SRWLOCK holding = SRWLOCK_INIT; /* interruptions come on a thread of their own */

static BOOL WINAPI take_interruption(DWORD kind)
{
    (void)kind;
    AcquireSRWLockExclusive(&holding);
    on_interruption();
    return TRUE;
}

static LONG WINAPI take_exception(EXCEPTION_POINTERS *what)
{
    if (what->ExceptionRecord->ExceptionCode == EXCEPTION_IN_PAGE_ERROR)
        on_cut();
    return EXCEPTION_CONTINUE_SEARCH;
}

void lik_interrupts_catch(void (*interrupted)(void), void (*cut_short)(void))
{
    on_interruption = interrupted;
    on_cut = cut_short;
    SetConsoleCtrlHandler(take_interruption, TRUE);
    SetUnhandledExceptionFilter(take_exception);
}

void lik_interrupts_hold(void)
{
    AcquireSRWLockExclusive(&holding);
}

void lik_interrupts_release(void)
{
    ReleaseSRWLockExclusive(&holding);
}

void lik_end(int code, const char *text)
{
    DWORD written;
    if (text)
        WriteFile(GetStdHandle(STD_ERROR_HANDLE), text, (DWORD)strlen(text), &written, NULL);
    TerminateProcess(GetCurrentProcess(), (UINT)code);
    abort();
}

static UINT code_page_before;
static int console_is_able;

static void restore_console(void)
{
    SetConsoleOutputCP(code_page_before);
}

/* UTF-8 and escape sequences. */
static void begin_console(void)
{
    static const DWORD streams[] = {STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
    DWORD mode;
    for (int i = 0; i < 2; i++) {
        HANDLE handle = GetStdHandle(streams[i]);
        if (!GetConsoleMode(handle, &mode))
            continue;
        console_is_able = SetConsoleMode(handle, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0;
        if (!code_page_before) {
            code_page_before = GetConsoleOutputCP();
            SetConsoleOutputCP(CP_UTF8);
            atexit(restore_console);
        }
    }
}

void lik_process_begin(int *argc, char ***argv)
{
    static const DWORD streams[] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
    for (int fd = 0; fd < 3; fd++) {
        HANDLE handle = GetStdHandle(streams[fd]);
        if (!handle || handle == INVALID_HANDLE_VALUE) {
            int nothing = _open("NUL", fd ? _O_RDONLY : _O_WRONLY);
            if (nothing < 0 || (nothing != fd && _dup2(nothing, fd)))
                lik_end(-LIK_IO_UNREADABLE, NULL);
        }
        _setmode(fd, _O_BINARY);
    }
    begin_console();
    int count = 0;
    wchar_t **texts = CommandLineToArgvW(GetCommandLineW(), &count);
    char **all = texts ? calloc((size_t)count + 1, sizeof *all) : NULL;
    for (int i = 0; all && i < count; i++)
        if (!(all[i] = narrow(texts[i])))
            lik_end(-LIK_IO_EXHAUSTED, NULL);
    if (!all)
        lik_end(-LIK_IO_EXHAUSTED, NULL);
    LocalFree(texts);
    *argc = count;
    *argv = all; /* to the end of the process */
}

const char *lik_environment(const char *name)
{
    wchar_t *key = wide(name);
    const wchar_t *value = key ? _wgetenv(key) : NULL;
    free(key);
    return value ? narrow(value) : NULL; /* to the end of the process */
}

int lik_program_path(char path[LIK_PATH_MAX])
{
    wchar_t name[LIK_PATH_MAX];
    DWORD size = GetModuleFileNameW(NULL, name, LIK_PATH_MAX);
    return size > 0 && size < LIK_PATH_MAX &&
                   WideCharToMultiByte(CP_UTF8, 0, name, -1, path, LIK_PATH_MAX, NULL, NULL)
               ? 0
               : -1;
}

int lik_physical_cores(void)
{
    SYSTEM_LOGICAL_PROCESSOR_INFORMATION *all = NULL;
    DWORD_PTR allowed = 0, system;
    DWORD bytes = 0;
    int cores = 0;
    GetProcessAffinityMask(GetCurrentProcess(), &allowed, &system);
    GetLogicalProcessorInformation(NULL, &bytes);
    if (bytes && (all = malloc(bytes)) && GetLogicalProcessorInformation(all, &bytes))
        for (size_t i = 0; i < bytes / sizeof *all; i++)
            cores += all[i].Relationship == RelationProcessorCore && (all[i].ProcessorMask & allowed);
    free(all);
    return cores ? cores : 1;
}

void lik_system_text(char *text, size_t size)
{
    typedef LONG(WINAPI * version_of)(OSVERSIONINFOW *); /* GetVersionEx says what a program was made for */
    OSVERSIONINFOW is = {.dwOSVersionInfoSize = sizeof is};
    HMODULE system = GetModuleHandleW(L"ntdll.dll");
    version_of ask = system ? (version_of)(void *)GetProcAddress(system, "RtlGetVersion") : NULL;
    if (!ask || ask(&is))
        snprintf(text, size, "Windows");
    else
        snprintf(text, size, "Windows %lu.%lu.%lu", is.dwMajorVersion, is.dwMinorVersion, is.dwBuildNumber);
}

int lik_cache_folder(char path[LIK_PATH_MAX])
{
    const char *local = lik_environment("LOCALAPPDATA");
    errno = 0;
    if (!local || !*local || strlen(local) > LIK_PATH_MAX - 64)
        return -1;
    snprintf(path, LIK_PATH_MAX, "%s\\late-interaction-kernels", local);
    wchar_t *name = wide(path);
    if (!name)
        return -1;
    int made = CreateDirectoryW(name, NULL) || GetLastError() == ERROR_ALREADY_EXISTS;
    free(name);
    errno = made ? 0 : EACCES;
    return made ? 0 : -1;
}

double lik_seconds(void)
{
    LARGE_INTEGER now, each;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&each);
    return (double)now.QuadPart / (double)each.QuadPart;
}

/* ---- the console ---- */

int lik_is_terminal(int fd)
{
    DWORD mode;
    return GetConsoleMode(handle_of(fd), &mode) != 0;
}

int lik_terminal_columns(int fd)
{
    CONSOLE_SCREEN_BUFFER_INFO info;
    return GetConsoleScreenBufferInfo(handle_of(fd), &info) ? info.srWindow.Right - info.srWindow.Left + 1
                                                            : 0;
}

int lik_terminal_is_able(void)
{
    return console_is_able;
}

int lik_terminal_is_utf8(void)
{
    return 1; /* begin_console */
}
#endif
