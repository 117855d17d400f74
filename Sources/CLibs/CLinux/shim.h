// System calls that Swift's Glibc module does not show.
#pragma once
#include <errno.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

// fallocate(2) with FALLOC_FL_KEEP_SIZE: blocks up to `end`, beyond the file's size.
static inline int linux_allocate_keeping_size(int file, off_t end) {
    return (int)syscall(SYS_fallocate, file, 1, (off_t)0, end);
}

// ioprio_set(2): this thread reads and writes when nobody else does.
static inline int linux_set_idle_io_priority(void) {
    return (int)syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, 3 << 13 /* IOPRIO_CLASS_IDLE */);
}
