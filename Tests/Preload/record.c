/* Records what a process does to the files below a folder, in the order in which it was done: the power-cut tests rebuild from that
 * what a disk may hold after a cut at any point. Loaded with LD_PRELOAD.
 *
 *   RECORD_ROOT  the folder
 *   RECORD_LOG   where the records go; outside of the folder
 *
 * A record: kind (1 byte), length of path, other path and data (4 bytes each), inode and offset (8 bytes each), little-endian, then the
 * two paths, relative to the folder, and the data. Every call and its record are one step under a lock, so that the log's order is the
 * files' order; a sync is recorded when it has returned. Mappings are not seen: SQLite's -shm, which a power cut may lose anyway.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, SIZE, SYNC, SYNC_FOLDER, RENAME, LINK, UNLINK, MKDIR, RMDIR };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_file = -1;
static char root[PATH_MAX];
static size_t root_length;

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("RECORD_ROOT"), *log = getenv("RECORD_LOG");
    if (!folder || !log) return;
    mkdir(folder, 0700);
    if (!realpath(folder, root)) return;
    root_length = strlen(root);
    log_file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

#define NEXT(name) ({ static typeof(&name) next; if (!next) next = (typeof(&name))dlsym(RTLD_NEXT, #name); next; })

/* The path below the root; NULL when it is elsewhere. */
static const char *inside(const char *path) {
    if (log_file < 0 || strncmp(path, root, root_length) != 0 || path[root_length] != '/') return NULL;
    return path + root_length + 1;
}

static const char *of_descriptor(int file, char *buffer) {
    char name[40];
    if (log_file < 0) return NULL;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t count = readlink(name, buffer, PATH_MAX - 1);
    if (count < 0) return NULL;
    buffer[count] = 0;
    return strcmp(buffer, root) == 0 ? "" : inside(buffer);
}

/* An absolute path below the root, from a folder's descriptor if need be. */
static const char *of_path(int folder, const char *path, char *buffer) {
    if (log_file < 0) return NULL;
    if (path[0] == '/') {
        snprintf(buffer, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX];
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return NULL;
        } else if (of_descriptor(folder, base) == NULL) return NULL;
        if (snprintf(buffer, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return NULL;
    }
    for (char *at = buffer; (at = strstr(at, "//")); ) memmove(at, at + 1, strlen(at));
    return inside(buffer);
}

static void put(uint8_t kind, const char *path, const char *other, uint64_t inode, uint64_t offset, const void *data, size_t count) {
    uint8_t head[29];
    uint32_t lengths[3] = { (uint32_t)strlen(path), (uint32_t)strlen(other), (uint32_t)count };
    head[0] = kind;
    memcpy(head + 1, lengths, 12);
    memcpy(head + 13, &inode, 8);
    memcpy(head + 21, &offset, 8);
    struct iovec parts[] = { { head, sizeof head }, { (void *)path, lengths[0] }, { (void *)other, lengths[1] }, { (void *)data, count } };
    size_t all = sizeof head + lengths[0] + lengths[1] + count;
    if (syscall(SYS_writev, log_file, parts, 4) != (ssize_t)all) abort();     /* a log with gaps proves nothing */
}

static uint64_t inode_of(int file) {
    struct stat status;
    return fstat(file, &status) == 0 ? status.st_ino : 0;
}

static uint64_t inode_at(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 ? status.st_ino : 0;
}

#define BEGIN int saved_; pthread_mutex_lock(&lock)
#define END saved_ = errno; pthread_mutex_unlock(&lock); errno = saved_

/* Opening */

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = flags & (O_CREAT | O_TRUNC) ? of_path(folder, path, buffer) : NULL;
    if (!name) return (int)syscall(SYS_openat, folder, path, flags, mode);
    BEGIN;
    int existed = access(buffer, F_OK) == 0;
    int file = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (file >= 0) {
        if (!existed) put(CREATE, name, "", inode_of(file), 0, NULL, 0);
        else if (flags & O_TRUNC) put(SIZE, name, "", inode_of(file), 0, NULL, 0);
    }
    END;
    return file;
}

static mode_t mode_from(int flags, va_list arguments) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0; }
#define BODY(folder) { va_list more; va_start(more, flags); mode_t mode = mode_from(flags, more); va_end(more); return opened(folder, path, flags, mode); }
int open(const char *path, int flags, ...) BODY(AT_FDCWD)
int open64(const char *path, int flags, ...) BODY(AT_FDCWD)
int openat(int folder, const char *path, int flags, ...) BODY(folder)
int openat64(int folder, const char *path, int flags, ...) BODY(folder)
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

/* Data */

static ssize_t written(int file, const void *bytes, size_t count, off_t offset) {
    char buffer[PATH_MAX];
    const char *name = of_descriptor(file, buffer);
    if (!name) return syscall(offset < 0 ? SYS_write : SYS_pwrite64, file, bytes, count, offset);
    BEGIN;
    off_t at = offset;
    if (offset < 0) {
        int flags = fcntl(file, F_GETFL);
        struct stat status;
        at = flags & O_APPEND && fstat(file, &status) == 0 ? status.st_size : lseek(file, 0, SEEK_CUR);
    }
    ssize_t done = syscall(offset < 0 ? SYS_write : SYS_pwrite64, file, bytes, count, offset);
    if (done > 0) put(WRITE, name, "", inode_of(file), (uint64_t)at, bytes, (size_t)done);
    END;
    return done;
}

ssize_t write(int file, const void *bytes, size_t count) { return written(file, bytes, count, -1); }
ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) { return written(file, bytes, count, offset); }
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) { return written(file, bytes, count, offset); }

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
    char buffer[PATH_MAX];
    if (!of_descriptor(file, buffer)) return NEXT(pwritev)(file, parts, count, offset);
    return written(file, parts[0].iov_base, parts[0].iov_len, offset);       /* a short write */
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    char buffer[PATH_MAX];
    if (!of_descriptor(file, buffer)) return NEXT(writev)(file, parts, count);
    return written(file, parts[0].iov_base, parts[0].iov_len, -1);
}
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t count, unsigned flags) {
    char buffer[PATH_MAX];
    if (!of_descriptor(to, buffer)) return NEXT(copy_file_range)(from, from_at, to, to_at, count, flags);
    errno = ENOSYS;         /* the caller copies by reading and writing */
    return -1;
}

static int sized(int file, off_t size) {
    char buffer[PATH_MAX];
    const char *name = of_descriptor(file, buffer);
    if (!name) return (int)syscall(SYS_ftruncate, file, size);
    BEGIN;
    int result = (int)syscall(SYS_ftruncate, file, size);
    if (result == 0) put(SIZE, name, "", inode_of(file), (uint64_t)size, NULL, 0);
    END;
    return result;
}
int ftruncate(int file, off_t size) { return sized(file, size); }
int ftruncate64(int file, off64_t size) { return sized(file, size); }

int truncate(const char *path, off_t size) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return -1;
    int result = sized(file, size), saved = errno;
    close(file);
    errno = saved;
    return result;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

int posix_fallocate(int file, off_t offset, off_t length) {
    char buffer[PATH_MAX];
    if (!of_descriptor(file, buffer)) return NEXT(posix_fallocate)(file, offset, length);
    struct stat status;
    if (fstat(file, &status) != 0) return errno;
    return status.st_size >= offset + length || sized(file, offset + length) == 0 ? 0 : errno;
}
int posix_fallocate64(int file, off64_t offset, off64_t length) { return posix_fallocate(file, offset, length); }
int fallocate(int file, int mode, off_t offset, off_t length) {
    return mode == 0 ? ((errno = posix_fallocate(file, offset, length)) == 0 ? 0 : -1) : NEXT(fallocate)(file, mode, offset, length);
}
int fallocate64(int file, int mode, off64_t offset, off64_t length) { return fallocate(file, mode, offset, length); }

/* Syncs */

static int synced(int file, long call) {
    char buffer[PATH_MAX];
    const char *name = of_descriptor(file, buffer);
    if (!name) return (int)syscall(call, file);
    BEGIN;
    struct stat status;
    int is_folder = fstat(file, &status) == 0 && S_ISDIR(status.st_mode);
    /* The disk itself need not be waited for: what it holds after the cut is made up from the log. */
    put(is_folder ? SYNC_FOLDER : SYNC, name, "", inode_of(file), 0, NULL, 0);
    END;
    return 0;
}
int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

/* Names */

static int two_paths(uint8_t kind, int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *from_name = of_path(from_folder, from, from_buffer), *to_name = of_path(to_folder, to, to_buffer);
    BEGIN;
    int result = kind == LINK ? (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags)
                              : (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (result == 0 && (from_name || to_name)) put(kind, from_name ? from_name : "", to_name ? to_name : "", inode_at(to_buffer), 0, NULL, 0);
    END;
    return result;
}
int rename(const char *from, const char *to) { return two_paths(RENAME, AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_folder, const char *from, int to_folder, const char *to) { return two_paths(RENAME, from_folder, from, to_folder, to, 0); }
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    return two_paths(RENAME, from_folder, from, to_folder, to, flags);
}
int link(const char *from, const char *to) { return two_paths(LINK, AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    return two_paths(LINK, from_folder, from, to_folder, to, (unsigned)flags);
}

static int removed(int folder, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *name = of_path(folder, path, buffer);
    BEGIN;
    int result = (int)syscall(SYS_unlinkat, folder, path, flags);
    if (result == 0 && name) put(flags & AT_REMOVEDIR ? RMDIR : UNLINK, name, "", 0, 0, NULL, 0);
    END;
    return result;
}
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return removed(folder, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) { return unlink(path) == 0 ? 0 : errno == EISDIR ? rmdir(path) : -1; }

static int made(int folder, const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = of_path(folder, path, buffer);
    BEGIN;
    int result = (int)syscall(SYS_mkdirat, folder, path, mode);
    if (result == 0 && name) put(MKDIR, name, "", 0, 0, NULL, 0);
    END;
    return result;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return made(folder, path, mode); }
