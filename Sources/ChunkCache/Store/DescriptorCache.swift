import Shared
import Synchronization

/// Open files of chunks, the most recently opened ones, so that a hot read costs no open(2).
final class DescriptorCache: Sendable {
    /// What a file is for.
    enum Key: Hashable, Sendable { case chunk(ChunkHash), pack(UInt64) }

    private let capacity: Int
    private let held = Mutex<(table: [Key: OpenFile], order: [Key])>(([:], []))

    init(capacity: Int) { self.capacity = capacity }

    subscript(key: Key) -> OpenFile? {
        get { held.withLock { $0.table[key] } }
        set {
            // What goes is closed outside of the lock.
            let gone = held.withLock { held -> OpenFile? in
                guard let newValue else { return held.table.removeValue(forKey: key) }
                if held.table.updateValue(newValue, forKey: key) == nil { held.order.append(key) }
                guard held.order.count > capacity else { return nil }
                return held.table.removeValue(forKey: held.order.removeFirst())
            }
            _ = gone
        }
    }

    func removeAll() { _ = held.withLock { held in defer { held = ([:], []) }; return held.table } }
}
