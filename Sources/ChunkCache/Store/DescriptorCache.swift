import Shared
import Synchronization

/// Open chunk files, the most recently opened ones, so that a hot read costs no open(2).
final class DescriptorCache: Sendable {
    private let capacity: Int
    private let held = Mutex<(table: [ChunkHash: OpenChunk], order: [ChunkHash])>(([:], []))

    init(capacity: Int) { self.capacity = capacity }

    subscript(hash: ChunkHash) -> OpenChunk? {
        get { held.withLock { $0.table[hash] } }
        set {
            // What goes is closed outside of the lock.
            let gone = held.withLock { held -> OpenChunk? in
                guard let newValue else { return held.table.removeValue(forKey: hash) }
                if held.table.updateValue(newValue, forKey: hash) == nil { held.order.append(hash) }
                guard held.order.count > capacity else { return nil }
                return held.table.removeValue(forKey: held.order.removeFirst())
            }
            _ = gone
        }
    }

    func removeAll() { _ = held.withLock { held in defer { held = ([:], []) }; return held.table } }
}
