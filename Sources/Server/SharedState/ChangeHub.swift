import Shared
import Synchronization

/// Wakes long polls: whoever waits for a namespace hears of its next commit at once.
final class ChangeHub: Sendable {
    private struct State {
        var sequences: [NamespaceID: Int64] = [:]
        var waiters: [NamespaceID: [UInt64: CheckedContinuation<Void, Never>]] = [:]
        var next: UInt64 = 0
        var isClosed = false
    }
    private let state = Mutex(State())

    func committed(_ namespace: NamespaceID, _ sequence: Int64) {
        let waiters = state.withLock { state in
            state.sequences[namespace] = max(state.sequences[namespace] ?? 0, sequence)
            return state.waiters.removeValue(forKey: namespace) ?? [:]
        }
        for waiter in waiters.values { waiter.resume() }
    }

    /// Returns when the namespace has a number beyond `sequence`, when the time is over, or when the task is cancelled.
    func wait(_ namespace: NamespaceID, beyond sequence: Int64, seconds: Int64) async {
        let id = state.withLock { state in
            state.next += 1
            return state.next
        }
        let alarm = Task {
            try? await Task.sleep(for: .seconds(seconds))
            self.wake(namespace, id)
        }
        defer { alarm.cancel() }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    if state.isClosed || Task.isCancelled || state.sequences[namespace] ?? 0 > sequence { return true }
                    state.waiters[namespace, default: [:]][id] = continuation
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            wake(namespace, id)
        }
    }

    private func wake(_ namespace: NamespaceID, _ id: UInt64) {
        state.withLock { $0.waiters[namespace]?.removeValue(forKey: id) }?.resume()
    }

    /// The server ends: nobody waits any more.
    var isClosed: Bool { state.withLock { $0.isClosed } }

    /// Answers everybody: the server ends.
    func close() {
        let waiters = state.withLock { state in
            state.isClosed = true
            defer { state.waiters = [:] }
            return state.waiters.values.flatMap(\.values)
        }
        for waiter in waiters { waiter.resume() }
    }
}
