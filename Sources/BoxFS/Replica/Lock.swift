import Glibc

/// A mutex for state that spans several objects, where `Synchronization.Mutex` (one value, one closure, no typed error
/// through `inout`) does not fit. Not recursive.
final class Lock: @unchecked Sendable {
    // Never moved: allocated once, as pthread_mutex_t asks.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)

    init() { pthread_mutex_init(mutex, nil) }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    func withLock<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        if pthread_mutex_trylock(mutex) != 0 { RequestAccount.chargeCurrent(.lock) { _ = pthread_mutex_lock(mutex) } }
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }
}
