import Shared
import Synchronization

/// Which requests someone wants to see.
struct TraceFilter: Codable, Hashable, Sendable {
    /// A path relative to the mount's root: it and what lies below. Nil or empty: all.
    var path: String?
    /// `RequestOperation.name`s; empty: all.
    var operations: Set<String> = []
    /// Only what took at least so long.
    var minimumNanoseconds: UInt64 = 0

    func takes(_ record: RequestRecord) -> Bool {
        guard record.nanoseconds >= minimumNanoseconds, operations.isEmpty || operations.contains(record.operation) else { return false }
        guard let path, !path.isEmpty else { return true }
        return [record.path, record.newPath].contains { $0.map { $0 == path || $0.hasPrefix(path + "/") } ?? false }
    }
}

/// Those who watch requests as they are answered.
final class TraceListeners: Sendable {
    private let listeners = Mutex<(list: [TraceListener], isEnded: Bool)>(([], false))
    private let count = Atomic<Int>(0)

    var isListened: Bool { count.load(ordering: .relaxed) > 0 }

    /// - Returns: nil when there will be no more requests.
    func add(_ listener: TraceListener) -> Bool {
        listeners.withLock { listeners in
            guard !listeners.isEnded else { return false }
            listeners.list.append(listener)
            count.store(listeners.list.count, ordering: .relaxed)
            return true
        }
    }

    func remove(_ listener: TraceListener) {
        listeners.withLock { listeners in
            listeners.list.removeAll { $0 === listener }
            count.store(listeners.list.count, ordering: .relaxed)
        }
    }

    func tell(_ record: RequestRecord) {
        for listener in listeners.withLock({ $0.list }) { listener.take(record) }
    }

    /// The mount ends: so do those who listen.
    func end() {
        let list = listeners.withLock { listeners in
            listeners.isEnded = true
            return listeners.list
        }
        for listener in list { listener.end() }
    }
}

/// One who watches: a bounded queue of records. Who reads too slowly misses some, and is told how many; requests never wait for it.
final class TraceListener: Sendable {
    private struct State {
        var waiting: [RequestRecord] = []
        var lost = 0
        var isEnded = false
    }
    private let state = Mutex(State())
    let filter: TraceFilter
    /// The watching program: its own requests are not shown, which would never end.
    private let process: Int32
    private let capacity: Int

    init(_ filter: TraceFilter, process: Int32 = 0, capacity: Int = 8192) {
        self.filter = filter
        self.process = process
        self.capacity = capacity
    }

    func take(_ record: RequestRecord) {
        guard filter.takes(record), process == 0 || record.process != process else { return }
        state.withLock { state in
            if state.waiting.count < capacity { state.waiting.append(record) } else { state.lost += 1 }
        }
    }

    /// What came since the last call, by the time of arrival; nil when nothing more will come.
    func next() -> (records: [RequestRecord], lost: Int)? {
        let (records, lost, isEnded) = state.withLock { state in
            defer { (state.waiting, state.lost) = ([], 0) }
            return (state.waiting, state.lost, state.isEnded)
        }
        if records.isEmpty, lost == 0, isEnded { return nil }
        return (records.sorted { $0.moment < $1.moment }, lost)
    }

    func end() { state.withLock { $0.isEnded = true } }
}
