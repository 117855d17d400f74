import ChunkCache
import Glibc
import Shared

/// What lies in one 4 MiB stretch of a file, the last one may be shorter.
enum Slot: Sendable {
    case hole
    /// Sealed data: chunks, one as a rule; what they do not fill up to the slot's end is zeros.
    case chunks([ChunkReference])
    /// Written since.
    case segment(Segment)
}

/// A regular file's bytes: slots of sealed chunks, overlaid by segments of what was written since.
///
/// A write goes to the slot's segment, which is made from the slot's chunks if some of their bytes stay. A commit freezes the
/// segments that it sends; the next write to a frozen one copies it, so what is being sent never changes. A small write makes a
/// `Patch` instead of a copy. Sealing replaces a segment by its chunk, if nobody wrote in the meantime.
final class FileContent: @unchecked Sendable {
    static let slotByteCount = Manifest.maximumChunkByteCount
    /// The longest file: a slot costs memory, even when it is a hole. Beyond it EFBIG.
    static let maximumByteCount: UInt64 = 4 << 40

    let lock = Lock()
    let syncLock = Lock()       // taken before `lock`
    let cache: ChunkCache
    let store: SegmentStore

    // Guarded by `lock`, which is taken after `Tree.lock`.
    var size: UInt64
    var slots: [Slot] { didSet { slotChanges += 1 } }
    private(set) var slotChanges = 0
    /// Chunks sealed here that no commit has claimed on the server yet: each holds one claim on the cache.
    var claims: [ChunkHash] = []
    /// Sealed chunks that were not synced to the disk.
    var unsynced: [ChunkReference] = []
    /// What the replica's rows hold: the manifest's pages by hash value, the segments by slot.
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

    init(size: UInt64, slots: [Slot], cache: ChunkCache, store: SegmentStore) {
        self.size = size
        self.slots = slots
        self.cache = cache
        self.store = store
    }

    static func slotCount(size: UInt64) -> Int { Int((size + UInt64(slotByteCount) - 1) / UInt64(slotByteCount)) }

    /// Bytes of slot `index` in a file of `size` bytes.
    static func extent(_ index: Int, size: UInt64) -> Int {
        let start = UInt64(index) * UInt64(slotByteCount)
        return size <= start ? 0 : Int(min(size - start, UInt64(slotByteCount)))
    }

    /// - Returns: nil if a chunk crosses a slot's border: no BoxFS of this version writes such a manifest.
    static func slots(of chunks: [ChunkReference]) -> [Slot]? {
        var slots: [Slot] = []
        var at = 0      // within the file
        for chunk in chunks {
            var left = Int(chunk.length)
            while left > 0 {
                let index = at / slotByteCount
                if index == slots.count { slots.append(.hole) }
                let room = (index + 1) * slotByteCount - at
                if chunk.isHole {
                    let part = min(left, room)
                    append(ChunkReference(hash: .hole, length: UInt32(part)), to: &slots[index])
                    at += part
                    left -= part
                } else {
                    guard left <= room else { return nil }
                    append(chunk, to: &slots[index])
                    at += left
                    left = 0
                }
            }
        }
        for index in slots.indices {
            if case .chunks(let parts) = slots[index], parts.allSatisfy(\.isHole) { slots[index] = .hole }
        }
        return slots
    }

    private static func append(_ chunk: ChunkReference, to slot: inout Slot) {
        if case .chunks(let parts) = slot { slot = .chunks(parts + [chunk]) } else { slot = .chunks([chunk]) }
    }

    /// The manifest of `slots`, in which a segment stands as what `reference` says of it.
    static func manifest(size: UInt64, slots: [Slot], _ reference: (Int, Segment) -> ChunkReference?) -> Manifest {
        var chunks: [ChunkReference] = []
        for index in slots.indices {
            let extent = extent(index, size: size)
            var filled = 0
            func add(_ chunk: ChunkReference) {
                filled += Int(chunk.length)
                chunks.append(chunk)
            }
            switch slots[index] {
            case .hole: break
            case .chunks(let parts): parts.forEach(add)
            case .segment(let segment): if let chunk = reference(index, segment) { add(chunk) }
            }
            if filled < extent { add(ChunkReference(hash: .hole, length: UInt32(extent - filled))) }
        }
        return Manifest(chunks: chunks)
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
