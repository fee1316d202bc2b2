/* Files, signals and terminals of POSIX systems; see system.h. */
#ifndef _WIN32
#include "io/system.h"

#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define LINKS_MAX 40

int lik_system_status(void)
{
    return errno == EPIPE                                                            ? LIK_IO_GONE
           : errno == ENOSPC || errno == ENOMEM || errno == EDQUOT || errno == EFBIG ? LIK_IO_EXHAUSTED
                                                                                     : LIK_IO_UNREADABLE;
}

/* ---- which file a name leads to ---- */

static int take_info(int failed, const struct stat *from, struct lik_file_info *info)
{
    if (failed)
        return -1;
    *info = (struct lik_file_info){.device = (uint64_t)from->st_dev,
                                   .number = (uint64_t)from->st_ino,
                                   .size = (int64_t)from->st_size,
                                   .links = (int64_t)from->st_nlink,
                                   .kind = S_ISREG(from->st_mode)   ? LIK_FILE_REGULAR
                                           : S_ISDIR(from->st_mode) ? LIK_FILE_FOLDER
                                                                    : LIK_FILE_OTHER};
    return 0;
}

int lik_file_info(const char *path, struct lik_file_info *info)
{
    struct stat found;
    return take_info(stat(path, &found), &found, info);
}

int lik_file_info_of(int fd, struct lik_file_info *info)
{
    struct stat found;
    return take_info(fstat(fd, &found), &found, info);
}

int lik_path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (int)(slash + 1 - path) : 0;
}

/* Links are followed one by one, so that the last may name what is not there yet. */
char *lik_path_follow(const char *path)
{
    char *name = strdup(path), target[LIK_PATH_MAX];
    for (int i = 0; name; i++) {
        ssize_t size = readlink(name, target, sizeof target);
        if (size < 0 && (errno == EINVAL || errno == ENOENT)) /* no link */
            return name;
        errno = size == sizeof target ? ENAMETOOLONG : size >= 0 && i == LINKS_MAX ? ELOOP : errno;
        char *joined = NULL;
        if (size >= 0 && size < (ssize_t)sizeof target && i < LINKS_MAX) {
            int folder = *target == '/' ? 0 : lik_path_folder(name);
            joined = malloc((size_t)folder + (size_t)size + 1);
            if (joined) {
                memcpy(joined, name, (size_t)folder);
                memcpy(joined + folder, target, (size_t)size);
                joined[folder + size] = 0;
            }
        }
        free(name);
        name = joined;
    }
    return NULL;
}

/* ---- reading and writing ---- */

/* open(), which an interruption does not end. The file is closed when another program is
 * started. */
static int open_file(const char *path, int flags, mode_t mode)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

int lik_file_open_read(const char *path)
{
    return open_file(path, O_RDONLY, 0);
}

int lik_file_open_write(const char *path)
{
    return open_file(path, O_WRONLY, 0);
}

int64_t lik_file_read(int fd, void *to, int64_t bytes)
{
    ssize_t got;
    do
        got = read(fd, to, (size_t)bytes);
    while (got < 0 && errno == EINTR);
    return got;
}

int64_t lik_file_write(int fd, const void *from, int64_t bytes)
{
    ssize_t done;
    do
        done = write(fd, from, (size_t)bytes);
    while (done < 0 && errno == EINTR);
    return done;
}

int lik_file_close(int fd)
{
    return close(fd) && errno != EINTR ? -1 : 0;
}

int lik_file_sync(int fd)
{
    int status;
    do
        status = fsync(fd);
    while (status && errno == EINTR);
    return status && errno != EINVAL ? -1 : 0;
}

int lik_stdout_sync(void)
{
    int fd = dup(STDOUT_FILENO);
    return fd >= 0 ? lik_file_close(fd) : 0;
}

void *lik_file_map(int fd, int64_t bytes)
{
    void *data = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    return data == MAP_FAILED ? NULL : data;
}

void lik_file_unmap(void *data, int64_t bytes)
{
    munmap(data, (size_t)bytes);
}

/* ---- outputs ---- */

static int lock(int fd)
{
    int status;
    do
        status = flock(fd, LOCK_EX | LOCK_NB);
    while (status && errno == EINTR);
    return status;
}

static int own_file(const char *name, struct stat *info)
{
    return !lstat(name, info) && S_ISREG(info->st_mode) && info->st_uid == geteuid();
}

int lik_file_is_own(const char *name)
{
    struct stat info;
    return own_file(name, &info);
}

/* The name is looked at under the lock, without which no run takes it away from the file. */
int lik_file_remove_dead(const char *name)
{
    struct stat info, there;
    int gone = 0, fd = open_file(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return errno == ENOENT;
    if (!fstat(fd, &info) && S_ISREG(info.st_mode) && info.st_uid == geteuid() && !lock(fd) &&
        !lstat(name, &there) && there.st_ino == info.st_ino && there.st_dev == info.st_dev)
        gone = !unlink(name);
    close(fd);
    return gone;
}

int lik_file_create_held(const char *name, int private)
{
    struct stat info;
    int fd = open_file(name, O_WRONLY | O_CREAT | O_EXCL, private ? 0600 : 0666);
    if (fd < 0)
        return -1;
    int taken = lock(fd) && errno == EWOULDBLOCK; /* by a run that takes it for a dead one's and removes it */
    if (fstat(fd, &info)) {
        int saved = errno;
        unlink(name);
        close(fd);
        errno = saved;
        return -1;
    }
    if (taken || !info.st_nlink) {
        close(fd);
        errno = EEXIST;
        return -1;
    }
    return fd;
}

/* Where the group cannot be kept, its rights are those of everyone: the mode must not open the
 * file to another group. */
int lik_file_inherit(int fd, const char *path, const char *aside)
{
    struct stat old, own;
    if (stat(path, &old)) {
        if (errno != ENOENT)
            return -1;
        if (!own_file(aside, &old)) /* what others leave there gives no rights */
            return 0;
    }
    if (fstat(fd, &own))
        return -1;
    mode_t mode = old.st_mode & 0777;
    if (old.st_gid != own.st_gid && fchown(fd, (uid_t)-1, old.st_gid))
        mode = (mode_t)((mode & 0707) | (mode & 07) << 3);
    if (old.st_uid != own.st_uid && fchown(fd, old.st_uid, (gid_t)-1))
        errno = 0; /* only root may */
    if (!fchmod(fd, mode))
        return 0;
    return errno == EPERM || errno == ENOTSUP || errno == ENOSYS ? 0 : -1; /* file systems without modes */
}

int lik_file_move(const char *from, const char *to)
{
    return rename(from, to);
}

int lik_file_link(const char *from, const char *to)
{
    return link(from, to);
}

int lik_file_remove(const char *name)
{
    return unlink(name);
}

intptr_t lik_folder_lock(const char *folder, int patience)
{
    int fd = open_file(folder, O_RDONLY | O_DIRECTORY, 0);
    for (int i = 0; fd >= 0; i++) {
        if (!lock(fd))
            return fd;
        if (errno == EWOULDBLOCK && i < patience) {
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
            continue;
        }
        close(fd);
        return -1;
    }
    return -1;
}

void lik_folder_unlock(intptr_t held)
{
    if (held >= 0)
        close((int)held);
}

/* ---- the process ---- */

static void (*on_interruption)(void), (*on_cut)(void);
static sigset_t before_hold;

static void take_interruption(int number)
{
    (void)number;
    on_interruption();
}

static void take_bus_error(int number)
{
    (void)number;
    on_cut();
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler}, before;
    sigemptyset(&action.sa_mask);
    /* A background job's shell ignores interrupts for it, and means that. */
    if (handler == take_interruption && !sigaction(number, NULL, &before) && before.sa_handler == SIG_IGN)
        return;
    sigaction(number, &action, NULL);
}

void lik_interrupts_catch(void (*interrupted)(void), void (*cut_short)(void))
{
    on_interruption = interrupted;
    on_cut = cut_short;
    handle(SIGINT, take_interruption);
    handle(SIGTERM, take_interruption);
    handle(SIGHUP, take_interruption);
    handle(SIGBUS, take_bus_error);
    handle(SIGPIPE, SIG_IGN);
    handle(SIGXFSZ, SIG_IGN); /* the write fails instead */
}

void lik_interrupts_hold(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before_hold);
}

void lik_interrupts_release(void)
{
    int saved = errno;
    pthread_sigmask(SIG_SETMASK, &before_hold, NULL);
    errno = saved;
}

/* Nothing but async-signal-safe calls. */
void lik_end(int code, const char *text)
{
    if (text && write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(code);
    _exit(code);
}

void lik_process_begin(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open_file("/dev/null", fd ? O_RDONLY : O_WRONLY, 0) < 0)
            _exit(-LIK_IO_UNREADABLE);
}

const char *lik_environment(const char *name)
{
    return getenv(name);
}

void lik_system_text(char *text, size_t size)
{
    struct utsname machine;
    if (uname(&machine) < 0)
        snprintf(text, size, "an unknown system");
    else
        snprintf(text, size, "%s %s %s, %s", machine.sysname, machine.release, machine.machine,
                 machine.version);
}

int lik_cache_folder(char path[LIK_PATH_MAX])
{
    struct utsname machine;
    const char *cache = getenv("XDG_CACHE_HOME"), *below = "";
    if (!cache || cache[0] != '/') {
        cache = getenv("HOME");
        below = uname(&machine) < 0 || strcmp(machine.sysname, "Darwin") ? "/.cache" : "/Library/Caches";
    }
    errno = 0;
    if (!cache || cache[0] != '/' || strlen(cache) > LIK_PATH_MAX - 64)
        return -1;
    size_t n = (size_t)snprintf(path, LIK_PATH_MAX, "%s%s", cache, below);
    if (mkdir(path, 0700) && errno != EEXIST)
        return -1;
    snprintf(path + n, LIK_PATH_MAX - n, "/late-interaction-kernels");
    return mkdir(path, 0700) && errno != EEXIST ? -1 : 0;
}

double lik_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- the terminal ---- */

int lik_is_terminal(int fd)
{
    return isatty(fd);
}

int lik_terminal_columns(int fd)
{
    struct winsize size;
    return isatty(fd) && !ioctl(fd, TIOCGWINSZ, &size) ? size.ws_col : 0;
}

int lik_terminal_is_able(void)
{
    const char *kind = getenv("TERM");
    return kind && *kind && strcmp(kind, "dumb");
}

int lik_terminal_is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            return strstr(value, "UTF-8") || strstr(value, "utf8") || strstr(value, "UTF8") ||
                   strstr(value, "utf-8");
    }
    return 0;
}
#endif
