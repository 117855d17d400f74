import Shared
import Synchronization

/// Wakes long polls: whoever waits for a namespace hears of its next commit at once.
final class ChangeHub: Sendable {
    private struct State {
        var sequences: [NamespaceID: Int64] = [:]
        /// Who waits for a namespace; one may wait for several.
        var waiters: [NamespaceID: Set<UInt64>] = [:]
        var continuations: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var next: UInt64 = 0
        var isClosed = false
    }
    private let state = Mutex(State())

    func committed(_ namespace: NamespaceID, _ sequence: Int64) {
        let waiters = state.withLock { state in
            state.sequences[namespace] = max(state.sequences[namespace] ?? 0, sequence)
            return (state.waiters.removeValue(forKey: namespace) ?? []).compactMap { state.continuations.removeValue(forKey: $0) }
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Returns when the namespace has a number beyond `sequence`, when the time is over, or when the task is cancelled.
    func wait(_ namespace: NamespaceID, beyond sequence: Int64, seconds: Int64) async { await wait([(namespace, sequence)], seconds: seconds) }

    /// The same for several, each with the number that is known.
    func wait(_ known: [(namespace: NamespaceID, sequence: Int64)], seconds: Int64) async {
        let id = state.withLock { state in
            state.next += 1
            return state.next
        }
        let alarm = Task {
            try? await Task.sleep(for: .seconds(seconds))
            self.wake(id)
        }
        defer {
            alarm.cancel()
            state.withLock { state in
                for (namespace, _) in known where state.waiters[namespace]?.remove(id) != nil {
                    if state.waiters[namespace]!.isEmpty { state.waiters[namespace] = nil }
                }
            }
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    if state.isClosed || Task.isCancelled || known.contains(where: { state.sequences[$0.namespace] ?? 0 > $0.sequence }) { return true }
                    for (namespace, _) in known { state.waiters[namespace, default: []].insert(id) }
                    state.continuations[id] = continuation
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            wake(id)
        }
    }

    private func wake(_ id: UInt64) { state.withLock { $0.continuations.removeValue(forKey: id) }?.resume() }

    /// The server ends: nobody waits any more.
    var isClosed: Bool { state.withLock { $0.isClosed } }

    /// Answers everybody: the server ends.
    func close() {
        let waiters = state.withLock { state in
            state.isClosed = true
            defer { (state.waiters, state.continuations) = ([:], [:]) }
            return Array(state.continuations.values)
        }
        for waiter in waiters { waiter.resume() }
    }
}
