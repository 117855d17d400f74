import ChunkCache
import Glibc
import Shared

/// A regular file's bytes: slots of a sealed chunk each, or of what was written since.
///
/// A write goes to the slot's segment, which is made from the slot's chunk if some of its bytes stay. A commit freezes the
/// segments that it sends; the next write to a frozen one copies it, so what is being sent never changes. A small write makes a
/// `Patch` instead of a copy. Sealing replaces a segment by its chunk, and a patch that concerns little of a slot by several, if nobody
/// wrote in the meantime.
final class FileContent: @unchecked Sendable {
    /// The longest file: a slot costs memory, even when it is a hole. Beyond it EFBIG.
    static let maximumByteCount: UInt64 = 4 << 40

    let lock = Lock()
    let syncLock = Lock()       // taken before `lock`
    let cache: ChunkCache
    let store: SegmentStore

    // Guarded by `lock`, which is taken after `Tree.lock`.
    var size: UInt64
    var slots: SlotTable { didSet { slotChanges += 1 } }
    private(set) var slotChanges = 0
    /// Chunks sealed here that no commit has claimed on the server yet: each holds one claim on the cache.
    var claims: [ChunkHash] = []
    /// Sealed chunks that were not synced to the disk.
    var unsynced: [ChunkReference] = []
    /// What the replica's rows hold: the manifest's pages by hash value, the segments by where their slots begin.
    var savedPages: [Int] = []
    var savedSegments: [Int: SavedSegment] = [:]
    /// When they were written last, and that which is on the disk. The latter is guarded by `syncLock`.
    var savedRows: Rows?, syncedRows: Rows?
    struct SavedSegment: Equatable { var file: Int64, length: Int, base: Int64?, known: Int, origin: ChunkHash?, revision = 0 }
    /// Where the pieces of new patches go.
    var log: Segment?
    /// When bytes were written that the inode's times do not tell of yet.
    var written: Timestamp?
    /// Segment files that no slot needs any more, and those of them that no row names any more: removed after the commit.
    var abandoned: [Int64] = [], removable: [Int64] = []

    // Guarded by `Tree.lock`.
    var isRowDirty = false
    /// Written to since the last `content` log record.
    var hasUnlogged = false

    init(size: UInt64, slots: SlotTable, cache: ChunkCache, store: SegmentStore) {
        self.size = size
        self.slots = slots
        self.cache = cache
        self.store = store
    }

    /// The manifest of `slots`, in which a segment stands as what `chunks` says of it.
    static func manifest(size: UInt64, slots: SlotTable, _ chunks: (Segment) -> [ChunkReference]) -> Manifest {
        var manifest = Manifest()
        for index in slots.indices {
            var left = slots.extent(index, size: size)
            let parts: [ChunkReference] = switch slots[index] {
            case .hole: []
            case .chunk(let chunk): [chunk]
            case .segment(let segment): chunks(segment)
            }
            for chunk in parts {
                manifest.chunks.append(chunk)
                left -= Int(chunk.length)
            }
            if left > 0 { manifest.chunks.append(ChunkReference(hash: .hole, length: UInt32(left))) }
        }
        return manifest
    }

    var byteCount: UInt64 { lock.withLock { size } }

    func takeWriteTime() -> Timestamp? {
        lock.withLock {
            defer { written = nil }
            return written
        }
    }

    /// Nothing is known here that the rows do not hold. Under `Tree.lock`.
    var isIdle: Bool {
        !isRowDirty && !hasUnlogged && lock.withLock { claims.isEmpty && unsynced.isEmpty }
    }
}
