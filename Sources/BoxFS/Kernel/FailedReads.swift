import Synchronization

/// Files of which a read failed a moment ago, because the server did not deliver in time.
///
/// What a request of the kernel's read-ahead did not bring, the kernel asks for again page by page within the same system call; and whoever
/// waited for the lock of such a page meanwhile asks then, one after the other. None of these requests may wait for the server again: their
/// system calls have waited already.
final class FailedReads: Sendable {
    /// How long the kernel may take for that, in nanoseconds.
    private static let repetitionNanoseconds: UInt64 = 1_000_000_000

    private struct Failure: Sendable { let end: UInt64, wait: Wait }
    /// By inode; what is past is removed with each failure.
    private let failures = Mutex<[UInt64: Failure]>([:])

    /// A read of the inode is about to be answered with an error, after this wait.
    func add(_ inode: UInt64, _ wait: Wait) {
        let now = Clock.now()
        failures.withLock { failures in
            failures = failures.filter { $0.value.end > now }
            failures[inode] = Failure(end: now + Self.repetitionNanoseconds, wait: wait)
        }
    }

    /// What a system call that reads the inode has waited for already, without success; nil if it may wait.
    func recent(_ inode: UInt64) -> Wait? { failures.withLock { $0[inode].flatMap { $0.end > Clock.now() ? $0.wait : nil } } }
}
