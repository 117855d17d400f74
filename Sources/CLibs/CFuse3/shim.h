// libfuse 3.14, low-level API. Sole importer: Sources/BoxFS/Kernel.
// _GNU_SOURCE is not defined here: it would give fd_set another shape than Swift's own Glibc module has.
#pragma once
#define FUSE_USE_VERSION 314
#include <sys/syscall.h>
#include <unistd.h>
#include <fuse3/fuse_lowlevel.h>
#include <fuse3/fuse_opt.h>
#include <sys/mount.h>

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

static inline void boxfs_set_open(struct fuse_file_info *info, uint64_t handle, int keep_cache, int cache_readdir) {
    info->fh = handle;
    info->keep_cache = keep_cache ? 1 : 0;
    info->cache_readdir = cache_readdir ? 1 : 0;
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
