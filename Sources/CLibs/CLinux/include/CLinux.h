// System calls that Swift's Glibc module does not show.
// No header is included here: with another _GNU_SOURCE than Swift's own modules have, types such as fd_set would be
// defined twice with different shapes, and a clean build would fail.
#pragma once

// fallocate(2) with FALLOC_FL_KEEP_SIZE: blocks up to `end` (bytes), beyond the file's size. 0, or -1 and errno.
int linux_allocate_keeping_size(int file, long end);

// fcntl(2) F_SETFL: sets or clears O_DIRECT, which has another number on each kind of processor. 0, or -1 and errno.
int linux_set_direct(int file, int direct);

// setpriority(2), ioprio_set(2): this thread computes and reads when nobody else does.
void linux_become_idle(void);

// sync_file_range(2) with SYNC_FILE_RANGE_WRITE: begins to write what is dirty in the page cache. No promise that anything is on the disk.
void linux_begin_writing(int file);

// mallopt(3), M_ARENA_MAX: threads share so many heaps. glibc makes eight for each processor, and what one has free no other one can have.
void linux_limit_heaps(int count);
