/* Sets the wall clock of one process. Loaded with LD_PRELOAD.
 *
 *   CLOCK_FILE  8 bytes, little-endian: nanoseconds to add to CLOCK_REALTIME. May be changed at any time.
 *
 * Who waits until a time of the wall clock behaves as when clock_settime(2) sets it: a step forward ends the wait, a step backward makes it
 * longer. That concerns condition variables with that clock, semaphores and absolute sleeps; timer descriptors of that clock are
 * counted as a mistake, told on standard error, as they are not moved. CLOCK_MONOTONIC and CLOCK_BOOTTIME stay as they are, as in the kernel.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SECOND = 1000000000, SLICE = 20000000 };

static const volatile int64_t still = 0;
static const volatile int64_t *offset = &still;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *memory = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) offset = memory;
    close(file);
}

#define NEXT(name) ({ static typeof(&name) next; if (!next) next = (typeof(&name))dlsym(RTLD_NEXT, #name); next; })

static int64_t nanoseconds(const struct timespec *time) { return (int64_t)time->tv_sec * SECOND + time->tv_nsec; }

static struct timespec timespec_of(int64_t nanoseconds) {
    struct timespec time = {nanoseconds / SECOND, nanoseconds % SECOND};
    if (time.tv_nsec < 0) time.tv_sec -= 1, time.tv_nsec += SECOND;
    return time;
}

static int64_t real_now(void) {
    struct timespec time;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &time);
    return nanoseconds(&time);
}

static int64_t now(void) { return real_now() + *offset; }

/* The wall clock's time at which a wait looks again whether it is over. */
static struct timespec slice(int64_t until) {
    int64_t left = until - now();
    return timespec_of(real_now() + (left < SLICE ? left : SLICE));
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = NEXT(clock_gettime)(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) *time = timespec_of(nanoseconds(time) + *offset);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec exact = timespec_of(now());
    time->tv_sec = exact.tv_sec;
    time->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    time_t seconds = timespec_of(now()).tv_sec;
    if (result) *result = seconds;
    return seconds;
}

/* dlsym would give the version for programs of before glibc 2.3.2, which has another structure. */
typedef int timed_wait(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
#if defined(__x86_64__)
#define CONDITION_VERSION "GLIBC_2.3.2"
#else
#define CONDITION_VERSION "GLIBC_2.17"
#endif

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    static timed_wait *next;
    if (!next) next = (timed_wait *)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", CONDITION_VERSION);
    if (condition->__data.__wrefs & 2) return next(condition, mutex, until);       /* CLOCK_MONOTONIC, glibc's nptl/pthread_cond_wait.c */
    while (nanoseconds(until) > now()) {
        struct timespec part = slice(nanoseconds(until));
        int result = next(condition, mutex, &part);
        if (result != ETIMEDOUT) return result;
    }
    return ETIMEDOUT;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    while (nanoseconds(until) > now()) {
        struct timespec part = slice(nanoseconds(until));
        if (NEXT(sem_timedwait)(semaphore, &part) == 0) return 0;
        if (errno != ETIMEDOUT) return -1;
    }
    if (sem_trywait(semaphore) == 0) return 0;
    if (errno == EAGAIN) errno = ETIMEDOUT;
    return -1;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left) {
    if (clock != CLOCK_REALTIME || !(flags & TIMER_ABSTIME)) return NEXT(clock_nanosleep)(clock, flags, time, left);
    while (nanoseconds(time) > now()) {
        struct timespec part = slice(nanoseconds(time));
        int result = NEXT(clock_nanosleep)(clock, flags, &part, NULL);
        if (result != 0) return result;
    }
    return 0;
}

int timerfd_create(int clock, int flags) {
    static const char mistake[] = "clock.c: a timer of the wall clock\n";
    if (clock == CLOCK_REALTIME) (void)!write(2, mistake, sizeof mistake - 1);
    return NEXT(timerfd_create)(clock, flags);
}
