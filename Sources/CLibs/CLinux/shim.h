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

// setpriority(2), ioprio_set(2): this thread computes and reads when nobody else does.
static inline void linux_become_idle(void) {
    syscall(SYS_setpriority, 0 /* PRIO_PROCESS */, 0, 19);
    syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, 3 << 13 /* IOPRIO_CLASS_IDLE */);
}
