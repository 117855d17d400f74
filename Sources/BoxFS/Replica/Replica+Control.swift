import Foundation
import GRDB
import Shared

// What the control socket asks of a running mount.
extension Replica {
    /// Changes that wait, and the bytes that go with them.
    func pending() -> (changes: Int, bytes: UInt64) {
        let changes = tree.lock.withLock {
            (try? tree.database.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM log") ?? 0 }) ?? 0
        }
        return (changes, cache.unsentBytes)
    }

    /// Says in the log what open files hold, and ends the transaction: all that was written before is now to be sent.
    func settle() throws(FileSystemError) {
        try tree.lock.withLock { () throws(FileSystemError) in
            for inode in tree.inodes.values where inode.file?.hasUnlogged ?? false { try tree.logContent(inode) }
            try tree.commit()
        }
    }

    /// Returns when all that was written before the call is on the server.
    /// - Parameter progress: (changes left, changes at the start, bytes left), some times a second.
    func flush(progress: @escaping @Sendable (_ left: Int, _ total: Int, _ bytesLeft: UInt64) -> Void) async throws {
        try settle()
        let last = tree.lock.withLock { tree.lastLog }
        guard synchronizer.state.withLock({ $0.acknowledged }) < last else { return }
        synchronizer.state.withLock { $0.flushRequests += 1 }
        defer { synchronizer.state.withLock { $0.flushRequests -= 1 } }
        let total = pending().changes
        let reporter = Task {
            while !Task.isCancelled {
                try? await Task.sleep(for: .milliseconds(200))
                let (left, bytes) = self.pending()
                if !Task.isCancelled { progress(left, max(total, left), bytes) }
            }
        }
        defer { reporter.cancel() }
        await withCheckedContinuation { continuation in
            synchronizer.waitForUpload(upTo: last) { continuation.resume() }
        }
    }

    /// Forgets every clean chunk and the kernel's copies of files.
    func dropCache() {
        cache.dropClean()
        let events = tree.lock.withLock {
            tree.inodes.values.filter { $0.isRegular && $0.lookups > 0 }.map { KernelEvent.inode($0.number, data: true) }
        }
        synchronizer.notify(events)
    }
}
