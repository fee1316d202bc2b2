/* Atomic outputs; see output.h. */
#include "io/output.h"

#include "base/size.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OUTPUTS_MAX 4   /* open at once */
#define NAMES_MAX   100 /* runs that write the same file at once */
#define NAME_KEPT \
    200 /* bytes of a file's name in that of its temporary one: 255 is what file systems allow */
#define LINKS_MAX 40
#define PATIENCE  100 /* times 10 ms, for a folder that somebody else has locked: a run of ours takes less */

/* Names of the unfinished outputs, for the signal handlers: never freed, taken only while the
 * file is there. */
static struct {
    char name[PATH_MAX];
    volatile sig_atomic_t taken;
} slots[OUTPUTS_MAX];

void lik_output_abandon_all(void)
{
    for (int i = 0; i < OUTPUTS_MAX; i++)
        if (slots[i].taken) {
            slots[i].taken = 0; /* another run may have the name from here on */
            unlink(slots[i].name);
        }
}

static void block_signals(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
}

static void restore_signals(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

static int lock(int fd)
{
    int status;
    do
        status = flock(fd, LOCK_EX | LOCK_NB);
    while (status && errno == EINTR);
    return status;
}

/* Length of the folder's part of a path, its last '/' included. */
static int folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (int)(slash + 1 - path) : 0;
}

static const char *folder_of(const char *path, char folder[PATH_MAX])
{
    int length = folder_length(path);
    snprintf(folder, PATH_MAX, "%.*s", length ? length : 1, length ? path : ".");
    return folder;
}

/* Where a path leads, in fresh memory: links are followed one by one, so that the last may name
 * what is not there yet. */
static char *follow(const char *path)
{
    char *name = strdup(path), target[PATH_MAX];
    for (int i = 0; name; i++) {
        ssize_t size = readlink(name, target, sizeof target);
        if (size < 0 && (errno == EINVAL || errno == ENOENT)) /* no link */
            return name;
        errno = size == sizeof target ? ENAMETOOLONG : size >= 0 && i == LINKS_MAX ? ELOOP : errno;
        char *joined = NULL;
        if (size >= 0 && size < (ssize_t)sizeof target && i < LINKS_MAX) {
            int folder = *target == '/' ? 0 : folder_length(name);
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

/* The n-th temporary name of a path; -1 if it is too long. A name that is cut has a hash of the
 * whole in it (FNV-1a). */
static int temporary_name(const char *path, int n, char name[PATH_MAX])
{
    int folder = folder_length(path), kept = (int)strnlen(path + folder, NAME_KEPT);
    char whole[16] = "";
    uint32_t hash = 2166136261u;
    for (int i = 0; i < 3 && kept > 1 && ((unsigned char)path[folder + kept] & 0xc0) == 0x80; i++)
        kept--; /* no half of a character */
    for (const char *at = path + folder; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 16777619u;
    if (path[folder + kept])
        snprintf(whole, sizeof whole, "~%08x", (unsigned)hash);
    errno = ENAMETOOLONG;
    return snprintf(name, PATH_MAX, "%.*s.lik-%.*s%s-%d", folder, path, kept, path + folder, whole, n) <
                   PATH_MAX
               ? 0
               : -1;
}

/* Is there a file of that name that may be ours: a regular one of this user's? */
static int is_own(const char *name, struct stat *info)
{
    return !lstat(name, info) && S_ISREG(info->st_mode) && info->st_uid == geteuid();
}

/* Removes a temporary file whose writer has ended: nobody else may hold its lock, and it must
 * be a file of ours. The name is looked at under the lock, without which no run takes it away
 * from the file. Returns whether it is gone. */
static int remove_dead(const char *name)
{
    struct stat info, there;
    int gone = 0, fd = lik_file_open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return errno == ENOENT;
    if (!fstat(fd, &info) && S_ISREG(info.st_mode) && info.st_uid == geteuid() && !lock(fd) &&
        !lstat(name, &there) && there.st_ino == info.st_ino && there.st_dev == info.st_dev)
        gone = !unlink(name);
    close(fd);
    return gone;
}

/* Creates the temporary file, locked, in a free slot. */
static int claim(struct lik_output *out, unsigned mode)
{
    int slot = 0;
    while (slot < OUTPUTS_MAX && slots[slot].taken)
        slot++;
    errno = slot < OUTPUTS_MAX ? EISDIR : EMFILE;
    if (slot == OUTPUTS_MAX || !out->path[folder_length(out->path)])
        return -1;
    char *name = slots[slot].name;
    for (int i = 0; i < NAMES_MAX; i++) {
        struct stat info;
        if (temporary_name(out->path, i, name))
            return -1;
        remove_dead(name);
        int fd = lik_file_open(name, O_WRONLY | O_CREAT | O_EXCL, mode);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd < 0)
            return -1;
        /* by a run that takes it for a dead one's and removes it */
        int held = lock(fd) && errno == EWOULDBLOCK;
        if (fstat(fd, &info)) {
            int saved = errno;
            unlink(name);
            close(fd);
            errno = saved;
            return -1;
        }
        if (held || !info.st_nlink) {
            close(fd);
            continue;
        }
        out->fd = fd;
        out->temporary = name;
        out->slot = slot;
        out->number = i;
        slots[slot].taken = 1;
        return 0;
    }
    errno = EEXIST;
    return -1;
}

static void forget(struct lik_output *out)
{
    if (out->slot >= 0)
        slots[out->slot].taken = 0;
    if (out->fd >= 0 && out->fd != STDOUT_FILENO)
        close(out->fd);
    free(out->path);
    *out = (struct lik_output){.fd = -1, .slot = -1};
}

int lik_output_open(struct lik_output *out, const char *path, struct lik_io_error *error)
{
    struct stat info, there;
    sigset_t before;
    *out = (struct lik_output){.fd = -1, .slot = -1};
    out->path = path ? follow(path) : strdup("standard output");
    if (!out->path)
        return lik_io_fail_errno(error, path ? path : "standard output", "write");
    if (!path) {
        out->fd = STDOUT_FILENO;
        return 0;
    }
    int exists = !stat(path, &info), failed = 0;
    if (exists && !S_ISREG(info.st_mode)) {
        out->fd = lik_file_open(path, O_WRONLY, 0);
        free(out->path); /* where /proc leads has no name */
        out->path = out->fd < 0 ? NULL : strdup(path);
        failed = !out->path;
    } else if (exists ? stat(out->path, &there) || there.st_ino != info.st_ino || there.st_dev != info.st_dev
                      : errno != ENOENT) {
        failed = -1; /* such as a name under /proc of a file that has none */
    } else {
        block_signals(&before); /* none may come between the file and its slot */
        failed = claim(out, exists ? 0600 : 0666);
        int saved = errno;
        restore_signals(&before);
        errno = saved;
    }
    if (!failed)
        return 0;
    int status = lik_io_fail_errno(error, path, "write");
    forget(out);
    return status;
}

int lik_output_same(const struct lik_output *a, const struct lik_output *b)
{
    char folder[PATH_MAX];
    struct stat x, y;
    int named = !strcmp(a->path + folder_length(a->path), b->path + folder_length(b->path));
    if (named && !stat(folder_of(a->path, folder), &x) && !stat(folder_of(b->path, folder), &y) &&
        x.st_ino == y.st_ino && x.st_dev == y.st_dev)
        return 1;
    return !stat(a->path, &x) && !stat(b->path, &y) && S_ISREG(x.st_mode) && x.st_nlink == 1 &&
           x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

int lik_output_write(struct lik_output *out, const void *data, int64_t size, struct lik_io_error *error)
{
    const char *at = data;
    while (size > 0) {
        ssize_t done = write(out->fd, at, (size_t)lik_min_i64(size, 1 << 30));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return lik_io_fail_errno(error, out->path, "write");
        at += done;
        size -= done;
    }
    return 0;
}

/* ---- putting in place ---- */

/* The name under which the file that `out` replaces stands aside. */
static const char *old_name(const struct lik_output *out, char name[PATH_MAX + 8])
{
    snprintf(name, PATH_MAX + 8, "%s.old", out->temporary);
    return name;
}

/* Mode and owner of what the file replaces, or of what a killed run left aside. Where the group
 * cannot be kept, its rights are those of everyone: the mode must not open the file to another
 * group. */
static int inherit(const struct lik_output *out)
{
    struct stat old, own;
    char aside[PATH_MAX + 8];
    if (stat(out->path, &old)) {
        if (errno != ENOENT)
            return -1;
        if (!is_own(old_name(out, aside), &old)) /* what others leave there gives no rights */
            return 0;
    }
    if (fstat(out->fd, &own))
        return -1;
    mode_t mode = old.st_mode & 0777;
    if (old.st_gid != own.st_gid && fchown(out->fd, (uid_t)-1, old.st_gid))
        mode = (mode & 0707) | (mode & 07) << 3;
    if (old.st_uid != own.st_uid && fchown(out->fd, old.st_uid, (gid_t)-1))
        errno = 0; /* only root may */
    if (!fchmod(out->fd, mode))
        return 0;
    return errno == EPERM || errno == ENOTSUP || errno == ENOSYS ? 0 : -1; /* file systems without modes */
}

/* Makes sure that what was written is kept. */
static int settle(struct lik_output *out, struct lik_io_error *error)
{
    int status;
    if (!out->temporary) {
        /* A close tells what the last write did not; standard output stays open, so that a copy
         * of it is closed. */
        int fd = out->fd == STDOUT_FILENO ? dup(STDOUT_FILENO) : out->fd;
        out->fd = -1;
        return fd >= 0 && close(fd) && errno != EINTR ? lik_io_fail_errno(error, out->path, "write") : 0;
    }
    if (inherit(out))
        return lik_io_fail_errno(error, out->path, "set the mode of");
    do
        status = fsync(out->fd);
    while (status && errno == EINTR);
    return status && errno != EINVAL ? lik_io_fail_errno(error, out->path, "write") : 0;
}

/* A lock on the folder of an output, so that of two runs that replace the same files one waits
 * for the other; -1 if there are no such locks, or somebody who is no run of ours keeps it. */
static int lock_folder(const struct lik_output *out, int patience)
{
    char folder[PATH_MAX];
    int fd = lik_file_open(folder_of(out->path, folder), O_RDONLY | O_DIRECTORY, 0);
    for (int i = 0; fd >= 0; i++) {
        if (!lock(fd))
            return fd;
        int saved = errno;
        if (saved == EWOULDBLOCK && i < patience) {
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
            continue;
        }
        close(fd);
        errno = saved;
        return -1;
    }
    return -1;
}

static int step_aside(struct lik_output *out, struct lik_io_error *error)
{
    char old[PATH_MAX + 8];
    if (out->temporary && rename(out->path, old_name(out, old))) {
        if (errno != ENOENT)
            return lik_io_fail_errno(error, out->path, "rename");
    } else if (out->temporary) {
        out->aside = 1;
    }
    return 0;
}

static int place(struct lik_output *out, struct lik_io_error *error)
{
    if (out->temporary && rename(out->temporary, out->path))
        return lik_io_fail_errno(error, out->path, "rename to");
    out->placed = 1;
    return 0;
}

/* After a failure in the middle: the new file goes, the old one comes back, by a second way if
 * the first is barred. If one cannot come back, none of those before it may. */
static int put_back(struct lik_output *out, int barred, struct lik_io_error *error)
{
    char old[PATH_MAX + 8];
    if (!out->temporary || !out->aside)
        return !barred && out->temporary && out->placed ? unlink(out->path) : barred;
    old_name(out, old);
    if (!barred && !rename(old, out->path))
        return 0;
    if (!barred && (!out->placed || !unlink(out->path)) && !link(old, out->path))
        return unlink(old), 0;
    size_t said = strlen(error->text);
    snprintf(error->text + said, sizeof error->text - said, "\n    What %s held is in %s.", out->path, old);
    return -1;
}

/* Removes what dead runs left that wrote the same file, and the file of old that stood aside
 * meanwhile. */
static void sweep(const struct lik_output *out)
{
    char name[PATH_MAX], old[PATH_MAX + 8];
    for (int i = 0; i < NAMES_MAX && !temporary_name(out->path, i, name); i++) {
        struct stat info;
        snprintf(old, sizeof old, "%s.old", name);
        if ((lstat(name, &info) || remove_dead(name)) && is_own(old, &info))
            unlink(old);
    }
}

/* See output.h for the order. */
static int replace(struct lik_output *const *outs, int count, struct lik_io_error *error)
{
    int status = 0, barred = 0, folder = -1;
    if (outs[0]->temporary)
        folder = lock_folder(outs[0], count > 1 ? PATIENCE : 0);
    for (int i = 0; count > 1 && i < count && !status; i++)
        status = step_aside(outs[i], error);
    for (int i = count - 1; i >= 0 && !status; i--)
        status = place(outs[i], error);
    for (int i = count - 1; i >= 0 && status; i--)
        barred = put_back(outs[i], barred, error);
    for (int i = 0; i < count && !status; i++) {
        char old[PATH_MAX + 8];
        if (outs[i]->aside)
            unlink(old_name(outs[i], old));
        if (outs[i]->temporary && folder >= 0)
            sweep(outs[i]);
    }
    if (folder >= 0)
        close(folder);
    return status;
}

int lik_outputs_commit(struct lik_output *const *outs, int count, struct lik_io_error *error)
{
    sigset_t before;
    int status = 0;
    for (int i = 0; i < count && !status; i++)
        status = settle(outs[i], error);
    block_signals(&before);
    if (!status)
        status = replace(outs, count, error);
    for (int i = 0; i < count; i++) {
        if (status && outs[i]->temporary && !outs[i]->placed)
            unlink(outs[i]->temporary);
        forget(outs[i]);
    }
    restore_signals(&before);
    return status;
}
