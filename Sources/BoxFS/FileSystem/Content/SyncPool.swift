import Dispatch
import Foundation
import Glibc

/// Syncs several files at once: the block layer merges the flushes of the disk's cache that come together, so eight files side by
/// side cost little more than one.
final class SyncPool: @unchecked Sendable {      // `jobs` and `threads` are guarded by `condition`
    static let shared = SyncPool()
    private static let maximumThreads = 8

    private let condition = NSCondition()
    private var jobs: [@Sendable () -> Void] = []
    private var threads = 0
    private var idle = 0

    /// - Returns: whether all are on the disk.
    func sync(_ descriptors: [OpenDescriptor]) -> Bool {
        descriptors.count > 1 ? sync(descriptors, beside: {}) : descriptors.allSatisfy { fdatasync($0.rawValue) == 0 }
    }

    /// - Parameter work: what the calling thread does meanwhile.
    /// - Returns: whether all are on the disk. After an error of `work` they may not be.
    func sync<Failure: Error>(_ descriptors: [OpenDescriptor], beside work: () throws(Failure) -> Void) throws(Failure) -> Bool {
        let group = DispatchGroup()
        let failures = Failures()
        for descriptor in descriptors {
            group.enter()
            add {
                if fdatasync(descriptor.rawValue) != 0 { failures.note() }
                group.leave()
            }
        }
        defer { group.wait() }
        try work()
        group.wait()
        return failures.isEmpty
    }

    private func add(_ job: @escaping @Sendable () -> Void) {
        condition.lock()
        jobs.append(job)
        let needsThread = idle < jobs.count && threads < Self.maximumThreads
        if needsThread { threads += 1 }
        condition.signal()
        condition.unlock()
        guard needsThread else { return }
        let thread = Thread { [self] in while true { next()() } }
        thread.stackSize = 128 << 10
        thread.start()
    }

    private func next() -> @Sendable () -> Void {
        condition.lock()
        defer { condition.unlock() }
        idle += 1
        while jobs.isEmpty { condition.wait() }
        idle -= 1
        return jobs.removeFirst()
    }

    private final class Failures: @unchecked Sendable {      // guarded by `lock`
        private let lock = Lock()
        private var count = 0
        func note() { lock.withLock { count += 1 } }
        var isEmpty: Bool { lock.withLock { count == 0 } }
    }
}
