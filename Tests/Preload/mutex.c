/* Tells the thread sanitizer of the locks of Swift's Mutex that were contended. Loaded with LD_PRELOAD by scripts/test-threads.
 *
 * Mutex takes and gives a free lock by atomic instructions in its caller, which the sanitizer sees. One that somebody waits for it takes and
 * gives by the kernel (futex(2), FUTEX_LOCK_PI), in _MutexHandle._lockSlow and _unlockSlow of libswiftSynchronization, which is not built for
 * the sanitizer: without this such a lock would look as if it had never been taken. Needs clang, for Swift's calling convention.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context)) void *handle

/* Weak: programs that a test starts inherit the library, and have no sanitizer. */
extern __attribute__((weak)) void __tsan_acquire(void *address), __tsan_release(void *address);

typedef SWIFT void slow_lock(uint32_t state, SELF);
typedef SWIFT void slow_unlock(SELF);

SWIFT void lock_slow(uint32_t state, SELF) __asm__(LOCK);
SWIFT void unlock_slow(SELF) __asm__(UNLOCK);

SWIFT void lock_slow(uint32_t state, SELF) {
    static slow_lock *next;
    if (!next) next = (slow_lock *)dlsym(RTLD_NEXT, LOCK);
    next(state, handle);
    if (__tsan_acquire) __tsan_acquire(handle);
}

SWIFT void unlock_slow(SELF) {
    static slow_unlock *next;
    if (!next) next = (slow_unlock *)dlsym(RTLD_NEXT, UNLOCK);
    if (__tsan_release) __tsan_release(handle);
    next(handle);
}
