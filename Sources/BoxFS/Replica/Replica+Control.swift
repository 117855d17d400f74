import Foundation
import GRDB
import Shared

// What can be asked of a running replica, whoever asks.
extension Replica {
    /// Changes that wait, and the bytes that go with them.
    func pending() -> (changes: Int, bytes: UInt64) {
        let changes = tree.lock.withLock {
            (try? tree.database.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM log") ?? 0 }) ?? 0
        }
        return (changes, cache.unsentBytes)
    }

    /// Returns when all that was written before the call is on the server, when nothing is sent any more, or when its task is cancelled.
    /// - Parameter progress: called some times a second while there is something to wait for.
    func flush(progress: @escaping @Sendable () -> Void) async throws(FileSystemError) {
        let last = try fileSystem.logAll()
        guard synchronizer.state.withLock({ $0.acknowledged }) < last else { return }
        let reporter = Task {
            while !Task.isCancelled {
                try? await Task.sleep(for: .milliseconds(200))
                if !Task.isCancelled { progress() }
            }
        }
        defer { reporter.cancel() }
        let finished = OneTime()
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                finished.onFire { continuation.resume() }
                synchronizer.waitForUpload(upTo: last) { _ in finished.fire() }
            }
        } onCancel: {
            finished.fire()
        }
    }

    /// Forgets every clean chunk and the kernel's copies of files. When it returns they are gone, but for files that somebody waits for.
    func dropCache() async {
        cache.dropClean()
        let events = tree.lock.withLock { tree.lookups.keys.map { KernelEvent.inode($0, data: true) } }
        await synchronizer.tell(events)
    }
}

/// An event that happens once: whoever asks to be called, before or after it, is called once.
final class OneTime: Sendable {
    private let state = MutexBox()

    func onFire(_ action: @escaping @Sendable () -> Void) {
        if state.add(action) { action() }
    }

    func fire() { state.take().forEach { $0() } }

    private final class MutexBox: @unchecked Sendable {     // guarded by `lock`
        private let lock = Lock()
        private var fired = false
        private var actions: [@Sendable () -> Void] = []

        func add(_ action: @escaping @Sendable () -> Void) -> Bool {
            lock.withLock {
                if !fired { actions.append(action) }
                return fired
            }
        }

        func take() -> [@Sendable () -> Void] {
            lock.withLock {
                defer { actions = [] }
                fired = true
                return actions
            }
        }
    }
}
