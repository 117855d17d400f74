// libfuse 3.14, low-level API. Sole importer: Sources/BoxFS/Kernel.
// _GNU_SOURCE is not defined here: it would give fd_set another shape than Swift's own Glibc module has.
#pragma once
#define FUSE_USE_VERSION 314
#include <linux/sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <fuse3/fuse_lowlevel.h>
#include <fuse3/fuse_opt.h>
#include <sys/mount.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/uio.h>

// Macros and bit fields that Swift does not see.

static inline int boxfs_session_loop(struct fuse_session *session, unsigned int idle, unsigned int threads) {
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_idle_threads(config, idle);
    fuse_loop_cfg_set_max_threads(config, threads);
    int result = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return result;
}

// Answers a read with bytes of a file, moved through a pipe in the kernel.
static inline int boxfs_reply_file(fuse_req_t request, int descriptor, off_t offset, size_t count) {
    struct fuse_bufvec bytes = FUSE_BUFVEC_INIT(count);
    bytes.buf[0].flags = (enum fuse_buf_flags)(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
    bytes.buf[0].fd = descriptor;
    bytes.buf[0].pos = offset;
    return fuse_reply_data(request, &bytes, FUSE_BUF_SPLICE_MOVE);
}

// The number that the kernel puts into a request's header as its caller's.
static inline pid_t boxfs_thread_id(void) { return (pid_t)syscall(SYS_gettid); }

// Gives the calling thread a table of descriptors of its own, without any (unshare(2), close_range(2)). 0, or -1 with errno.
static inline int boxfs_leave_descriptors(void) {
    return syscall(SYS_unshare, CLONE_FILES) == 0 ? (int)syscall(SYS_close_range, 3U, ~0U, 0U) : -1;
}

static inline void boxfs_set_open(struct fuse_file_info *info, uint64_t handle, int keep_cache) {
    info->fh = handle;
    info->noflush = (info->flags & O_ACCMODE) == O_RDONLY;      // FOPEN_NOFLUSH (Linux 5.16): close(2) of what only reads asks nobody
    info->keep_cache = keep_cache ? 1 : 0;
}

// FUSE_HANDLE_KILLPRIV_V2 (linux/fuse.h, since protocol 7.33): the file system clears set-user-ID and file capabilities itself when
// a file is written to. Without it the kernel asks for security.capability before every write(2). libfuse 3.14 knows no name for it, so
// it is put into the answer to FUSE_INIT, which is the first that a session writes.
static inline int *boxfs_greeted(void) {
    static int greeted;
    return &greeted;
}

static inline ssize_t boxfs_io_writev(int descriptor, struct iovec *parts, int count, void *user) {
    (void)user;
    struct boxfs_init_out { uint32_t major, minor, max_readahead, flags; };     // the beginning of fuse_init_out
    if (!__atomic_exchange_n(boxfs_greeted(), 1, __ATOMIC_RELAXED) && count == 2 && parts[1].iov_len >= 64)
        ((struct boxfs_init_out *)parts[1].iov_base)->flags |= 1u << 28;
    return writev(descriptor, parts, count);
}

static inline ssize_t boxfs_io_read(int descriptor, void *buffer, size_t size, void *user) {
    (void)user;
    return read(descriptor, buffer, size);
}

extern ssize_t splice(int, off_t *, int, off_t *, size_t, unsigned int);        // hidden without _GNU_SOURCE

static inline ssize_t boxfs_io_splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t size, unsigned int flags, void *user) {
    (void)user;
    return splice(from, from_offset, to, to_offset, size, flags);
}

// After fuse_session_mount, before the first request is read.
static inline int boxfs_clear_privileges_here(struct fuse_session *session) {
    struct fuse_custom_io io = { .writev = boxfs_io_writev, .read = boxfs_io_read, .splice_receive = boxfs_io_splice, .splice_send = boxfs_io_splice };
    *boxfs_greeted() = 0;
    return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

enum {
    BOXFS_CAP_ASYNC_READ = FUSE_CAP_ASYNC_READ,
    BOXFS_CAP_ATOMIC_O_TRUNC = FUSE_CAP_ATOMIC_O_TRUNC,
    BOXFS_CAP_SPLICE_WRITE = FUSE_CAP_SPLICE_WRITE,
    BOXFS_CAP_SPLICE_MOVE = FUSE_CAP_SPLICE_MOVE,
    BOXFS_CAP_SPLICE_READ = FUSE_CAP_SPLICE_READ,
    BOXFS_CAP_AUTO_INVAL_DATA = FUSE_CAP_AUTO_INVAL_DATA,
    BOXFS_CAP_EXPLICIT_INVAL_DATA = FUSE_CAP_EXPLICIT_INVAL_DATA,
    BOXFS_CAP_READDIRPLUS = FUSE_CAP_READDIRPLUS,
    BOXFS_CAP_READDIRPLUS_AUTO = FUSE_CAP_READDIRPLUS_AUTO,
    BOXFS_CAP_PARALLEL_DIROPS = FUSE_CAP_PARALLEL_DIROPS,
    BOXFS_CAP_HANDLE_KILLPRIV = FUSE_CAP_HANDLE_KILLPRIV,
    BOXFS_CAP_CACHE_SYMLINKS = FUSE_CAP_CACHE_SYMLINKS,
    BOXFS_CAP_WRITEBACK_CACHE = FUSE_CAP_WRITEBACK_CACHE,
};
