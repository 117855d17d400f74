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
/// segments that it sends; the next write to a frozen one copies it, so what is being sent never changes. Sealing replaces a
/// segment by its chunk, if nobody wrote in the meantime.
final class FileContent: @unchecked Sendable {
    static let slotByteCount = Manifest.maximumChunkByteCount
    /// The longest file: a slot costs memory, even when it is a hole. Beyond it EFBIG.
    static let maximumByteCount: UInt64 = 4 << 40

    let lock = Lock()
    private let syncLock = Lock()       // taken before `lock`
    let cache: ChunkCache
    let store: SegmentStore

    // Guarded by `lock`, which is taken after `Tree.lock`.
    private(set) var size: UInt64
    var slots: [Slot]
    /// Chunks sealed here that no commit has claimed on the server yet: each holds one claim on the cache.
    var claims: [ChunkHash] = []
    /// Sealed chunks that were not synced to the disk.
    var unsynced: [ChunkReference] = []
    /// What the replica's rows hold: the manifest's pages by hash value, the segments by slot.
    var savedPages: [Int] = []
    var savedSegments: [Int: SavedSegment] = [:]
    struct SavedSegment: Equatable { var file: Int64, length: Int }

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

    /// Nothing is known here that the rows do not hold. Under `Tree.lock`.
    var isIdle: Bool {
        !isRowDirty && !hasUnlogged && lock.withLock { claims.isEmpty && unsynced.isEmpty }
    }

    // MARK: Reading

    /// Pieces of at most `count` bytes from `offset`, fewer only at the end of the file.
    /// - Parameter missing: turns a chunk that is not here into what to wait for.
    func read(offset: Int64, count: Int, inode: InodeNumber) throws(FileSystemError) -> [ReadPiece] {
        try lock.withLock { () throws(FileSystemError) in
            guard offset >= 0, UInt64(offset) < size else { return [] }
            var pieces: [ReadPiece] = []
            var at = Int(offset)
            let end = Int(min(UInt64(offset) + UInt64(count), size))
            while at < end {
                let index = at / Self.slotByteCount
                // Size and slots must agree; where they do not, one file cannot be read rather than none.
                guard index < slots.count else { throw .io }
                let inSlot = at - index * Self.slotByteCount
                let length = min(end - at, Self.slotByteCount - inSlot)
                try read(index, inSlot..<inSlot + length, inode, into: &pieces)
                at += length
            }
            return pieces
        }
    }

    private func read(_ index: Int, _ range: Range<Int>, _ inode: InodeNumber, into pieces: inout [ReadPiece]) throws(FileSystemError) {
        var at = range.lowerBound
        switch slots[index] {
        case .hole: break
        case .segment(let segment):
            let part = min(range.upperBound, segment.length) - at
            if part > 0 {
                pieces.append(.file(try segment.open(), offset: Int64(at), count: part))
                at += part
            }
        case .chunks(let chunks):
            var start = 0
            for chunk in chunks {
                let end = start + Int(chunk.length)
                defer { start = end }
                guard at < min(end, range.upperBound), at >= start else { continue }
                let part = min(end, range.upperBound) - at
                if chunk.isHole {
                    pieces.append(.zeros(count: part))
                } else {
                    pieces.append(.file(try open(chunk, inode), offset: Int64(at - start), count: part))
                }
                at += part
            }
        }
        if at < range.upperBound { pieces.append(.zeros(count: range.upperBound - at)) }
    }

    private func open(_ chunk: ChunkReference, _ inode: InodeNumber) throws(FileSystemError) -> OpenDescriptor {
        guard let opened = RequestAccount.chargeCurrent(.disk, nil, { cache.open(chunk) }) else { throw .missing(.chunk(chunk.hash, length: chunk.length, inode: inode)) }
        return OpenDescriptor(opened.fileDescriptor, keptOpenBy: opened)
    }

    /// Has the kernel read the local chunks of these slots from the disk: a sequential reader is on its way to them.
    func warm(from index: Int, count: Int) {
        let chunks = lock.withLock {
            slots.dropFirst(index).prefix(count).flatMap { slot -> [ChunkReference] in
                guard case .chunks(let chunks) = slot else { return [] }
                return chunks.filter { !$0.isHole }
            }
        }
        for chunk in chunks where cache.contains(chunk.hash) {
            if let opened = cache.open(chunk) { posix_fadvise(opened.fileDescriptor, 0, 0, POSIX_FADV_WILLNEED) }
        }
    }

    /// The chunks of the slots from `index` on that are not here, at most `count`: what read-ahead should bring.
    func absentChunks(from index: Int, count: Int) -> [ChunkReference] {
        lock.withLock {
            slots.dropFirst(index).prefix(count).flatMap { slot -> [ChunkReference] in
                guard case .chunks(let chunks) = slot else { return [] }
                return chunks.filter { !$0.isHole && !cache.contains($0.hash) }
            }
        }
    }

    // MARK: Writing

    func write(offset: Int, _ bytes: UnsafeRawBufferPointer, inode: InodeNumber) throws(FileSystemError) {
        try lock.withLock { () throws(FileSystemError) in
            let end = offset + bytes.count
            let slotSize = Self.slotByteCount
            // First all that may have to wait: a segment made from its chunks changes no byte of the file.
            var segments: [Segment] = []
            for index in offset / slotSize...(end - 1) / slotSize {
                let range = max(offset - index * slotSize, 0)..<min(end - index * slotSize, slotSize)
                segments.append(try segment(index, overwriting: range, inode))
            }
            func extent(_ position: Int) -> (slotStart: Int, range: Range<Int>) {
                let start = (offset / slotSize + position) * slotSize
                return (start, max(offset, start)..<min(end, start + slotSize))
            }
            try onDisk { () throws(FileSystemError) in
                for (position, segment) in segments.enumerated() {
                    let (start, range) = extent(position)
                    let descriptor = try segment.open().rawValue
                    do throws(FileSystemError) {
                        try writeFully(descriptor, .init(rebasing: bytes[range.lowerBound - offset..<range.upperBound - offset]), at: range.lowerBound - start)
                    } catch {   // what was written past `length` must not show up when the file grows
                        for segment in segments { ftruncate(try segment.open().rawValue, off_t(segment.length)) }
                        throw error
                    }
                }
            }
            for (position, segment) in segments.enumerated() {
                let (start, range) = extent(position)
                segment.length = max(segment.length, range.upperBound - start)
                segment.noteChange(range.lowerBound - start..<range.upperBound - start)
                segment.isSynced = false
                size = max(size, UInt64(range.upperBound))
            }
        }
    }

    /// Runs what writes to the local disk. A full one is as a full cache: clean chunks go; then who writes waits until unsent data were sent.
    private func onDisk<R>(_ body: () throws(FileSystemError) -> R) throws(FileSystemError) -> R {
        while true {
            do throws(FileSystemError) { return try body() } catch {
                guard error == .noSpace else { throw error }
                guard !cache.makeRoomOnDisk() else { continue }
                throw cache.unsentBytes > 0 ? .missing(.cacheRoom) : .noSpace
            }
        }
    }

    /// The writable segment of a slot; bytes outside of `overwriting` are kept. Under the lock.
    private func segment(_ index: Int, overwriting range: Range<Int>, _ inode: InodeNumber) throws(FileSystemError) -> Segment {
        while slots.count <= index { slots.append(.hole) }
        var reserved = 0
        do throws(FileSystemError) {
            return try onDisk { () throws(FileSystemError) in try self.makeSegment(index, overwriting: range, inode, &reserved) }
        } catch {
            cache.release(bytes: Int64(reserved))
            throw error
        }
    }

    /// - Parameter reserved: room that was asked from the cache for the slot's new segment.
    private func makeSegment(_ index: Int, overwriting range: Range<Int>, _ inode: InodeNumber, _ reserved: inout Int) throws(FileSystemError) -> Segment {
        func reserveRoom(_ bytes: Int) throws(FileSystemError) {
            guard reserved == 0 else { return }     // by an attempt for which the disk was full
            try self.reserveRoom(bytes)
            reserved = bytes
        }
        let segment: Segment
        let needed: Int
        switch slots[index] {
        case .segment(let current) where !current.isFrozen:
            try reserve(current, upTo: range.upperBound)
            return current
        case .segment(let current):
            needed = current.length
            try reserveRoom(max(needed, range.upperBound))
            segment = try store.copy(of: current.open().rawValue, length: needed)
            segment.changes = current.changes
        case .hole:
            needed = 0
            try reserveRoom(range.upperBound)
            segment = try store.make()
        case .chunks(let chunks):
            let held = chunks.reduce(0) { $0 + Int($1.length) }
            let keeps = range.lowerBound > 0 || range.upperBound < min(held, Self.extent(index, size: size))
            needed = keeps ? min(held, Self.extent(index, size: size)) : 0
            var sources: [OpenDescriptor?] = []
            if keeps { for chunk in chunks { sources.append(chunk.isHole ? nil : try open(chunk, inode)) } }
            try reserveRoom(max(needed, range.upperBound))
            segment = try store.make()
            var at = 0
            do throws(FileSystemError) {
                for (chunk, source) in zip(chunks, sources) where at < needed {
                    let part = min(Int(chunk.length), needed - at)
                    if let source { try copyBytes(from: source.rawValue, at: 0, to: segment.open().rawValue, at: at, count: part) }
                    at += part
                }
            } catch {
                unlink(segment.path)
                throw error
            }
            segment.length = needed
            if let base = chunks.first, chunks.count == 1, !base.isHole, needed == Int(base.length) { segment.changes = SegmentChanges(base: base) }
        }
        segment.reserved = max(needed, range.upperBound)
        slots[index] = .segment(segment)
        return segment
    }

    private func reserve(_ segment: Segment, upTo length: Int) throws(FileSystemError) {
        guard length > segment.reserved else { return }
        try reserveRoom(length - segment.reserved)
        segment.reserved = length
    }

    private func reserveRoom(_ bytes: Int) throws(FileSystemError) {
        guard cache.reserve(bytes: Int64(bytes)) else { throw .missing(.cacheRoom) }
    }

    /// truncate(2), both ways.
    func truncate(to newSize: UInt64, inode: InodeNumber) throws(FileSystemError) {
        try lock.withLock { () throws(FileSystemError) in
            let count = Self.slotCount(size: newSize)
            if newSize < size, count > 0 {
                let extent = Self.extent(count - 1, size: newSize)
                if case .chunks(let chunks) = slots[count - 1], chunks.reduce(0, { $0 + Int($1.length) }) > extent {
                    _ = try segment(count - 1, overwriting: 0..<0, inode)
                }
                if case .segment(let current) = slots[count - 1], current.length > extent {
                    let segment = try segment(count - 1, overwriting: 0..<0, inode)
                    guard ftruncate(try segment.open().rawValue, off_t(extent)) == 0 else { throw .io }
                    segment.length = extent
                    cache.release(bytes: Int64(segment.reserved - min(segment.reserved, extent)))
                    segment.reserved = min(segment.reserved, extent)
                    segment.changes = nil
                    segment.isSynced = false
                }
            }
            while slots.count > count { discard(slots.removeLast()) }
            while slots.count < count { slots.append(.hole) }
            size = newSize
        }
    }

    /// Turns a range into zeros (FALLOC_FL_PUNCH_HOLE); the size stays.
    func punchHole(_ range: Range<UInt64>, inode: InodeNumber) throws(FileSystemError) {
        try lock.withLock { () throws(FileSystemError) in
            let end = min(range.upperBound, size)
            var at = range.lowerBound
            while at < end {
                let index = Int(at / UInt64(Self.slotByteCount))
                let start = UInt64(index) * UInt64(Self.slotByteCount)
                let stop = min(end, start + UInt64(Self.slotByteCount))
                if at == start, stop - start == UInt64(Self.extent(index, size: size)) {
                    discard(slots[index])
                    slots[index] = .hole
                } else if case .hole = slots[index] {
                } else {
                    let segment = try segment(index, overwriting: 0..<0, inode)
                    let last = min(Int(stop - start), segment.length)
                    if last > Int(at - start) {
                        let zeros = [UInt8](repeating: 0, count: last - Int(at - start))
                        let descriptor = try segment.open().rawValue
                        try onDisk { () throws(FileSystemError) in
                            try zeros.withBytes { bytes throws(FileSystemError) in try writeFully(descriptor, bytes, at: Int(at - start)) }
                        }
                        segment.noteChange(Int(at - start)..<last)
                        segment.isSynced = false
                    }
                }
                at = stop
            }
        }
    }

    /// Takes over sealed slots of another file; both sides start at a slot.
    func share(_ parts: [Slot], at index: Int, newSize: UInt64) {
        lock.withLock {
            while slots.count < index { slots.append(.hole) }
            for (position, part) in parts.enumerated() {
                if index + position < slots.count {
                    discard(slots[index + position])
                    slots[index + position] = part
                } else {
                    slots.append(part)
                }
                guard case .chunks(let chunks) = part else { continue }
                for chunk in chunks where !chunk.isHole && cache.contains(chunk.hash) {
                    cache.claimUnsent(chunk.hash)
                    claims.append(chunk.hash)
                }
            }
            size = max(size, newSize)
        }
    }

    private func discard(_ slot: Slot) {
        guard case .segment(let segment) = slot else { return }
        cache.release(bytes: Int64(segment.reserved))
        segment.reserved = 0
        if !segment.isFrozen { abandoned.append(segment.file) }
    }

    /// Segment files that no slot names any more; removed after the next commit.
    private var abandoned: [Int64] = []

    func takeAbandoned() -> [Int64] {
        lock.withLock {
            defer { abandoned = [] }
            return abandoned
        }
    }

    /// The node is gone: nothing of it is needed.
    func discardSegments() {
        lock.withLock {
            for slot in slots { discard(slot) }
            slots = []
            size = 0
            cache.markSent(claims)
            claims = []
        }
    }

    /// The server's content takes the place of ours.
    func replace(size newSize: UInt64, slots newSlots: [Slot]) {
        lock.withLock {
            for slot in slots { discard(slot) }
            slots = newSlots
            size = newSize
            unsynced = []
        }
    }

    /// Another manifest takes the place of this content, which was sent whole: a read under way may still use it, no write will.
    func retire() {
        lock.withLock { for slot in slots { discard(slot) } }
    }

    func closeDescriptors() {
        lock.withLock {
            for case .segment(let segment) in slots { segment.close() }
        }
    }

    // MARK: Sealing

    /// Puts the chunks of sealed segments into the slots where nobody wrote meanwhile.
    /// - Parameter frozen: the slots as the commit froze them.
    func install(_ frozen: [Slot], _ references: [ObjectIdentifier: ChunkReference?]) {
        lock.withLock {
            for (index, slot) in frozen.enumerated() {
                guard let segment = slot.segment, let sealed = references[ObjectIdentifier(segment)] else { continue }
                cache.release(bytes: Int64(segment.reserved))
                segment.reserved = 0
                if let sealed {
                    claims.append(sealed.hash)
                    if !segment.isSynced { unsynced.append(sealed) }
                }
                if index < slots.count, slots[index].segment === segment { slots[index] = sealed.map { .chunks([$0]) } ?? .hole }
            }
        }
    }

    /// Puts zeros in the place of a chunk.
    /// - Returns: whether there was one.
    func zero(_ hash: ChunkHash) -> Bool {
        lock.withLock {
            var isFound = false
            for (index, slot) in slots.enumerated() {
                guard case .chunks(let chunks) = slot, chunks.contains(where: { $0.hash == hash }) else { continue }
                slots[index] = .chunks(chunks.map { $0.hash == hash ? ChunkReference(hash: .hole, length: $0.length) : $0 })
                isFound = true
            }
            return isFound
        }
    }

    func takeClaims() -> [ChunkHash] {
        lock.withLock {
            defer { claims = [] }
            return claims
        }
    }

    /// Chunks sealed before this process began hold no claim yet: whatever of the content is in the cache gets one.
    func restateClaims() {
        lock.withLock {
            for case .chunks(let chunks) in slots {
                for chunk in chunks where !chunk.isHole && cache.contains(chunk.hash) {
                    cache.claimUnsent(chunk.hash)
                    claims.append(chunk.hash)
                }
            }
        }
    }

    /// The server has it: a power cut here loses nothing any more.
    func uploaded() {
        lock.withLock { if claims.isEmpty { unsynced = [] } }
    }

    // MARK: Durability

    /// Returns when all written data are on the disk, in segments or in chunk files.
    func sync() throws(FileSystemError) {
        // One at a time: what another caller is syncing is not on the disk yet.
        try syncLock.withLock { () throws(FileSystemError) in try syncAlone() }
    }

    private func syncAlone() throws(FileSystemError) {
        let (descriptors, chunks) = try lock.withLock { () throws(FileSystemError) in
            var descriptors: [OpenDescriptor] = []
            for case .segment(let segment) in slots where !segment.isSynced {
                descriptors.append(try segment.open())
                segment.isSynced = true
            }
            defer { unsynced = [] }
            return (descriptors, unsynced)
        }
        do throws(FileSystemError) {
            guard SyncPool.shared.sync(descriptors) else { throw .io }
            for chunk in chunks {
                guard let opened = cache.open(chunk) else { continue }  // already on the server and evicted
                guard fsync(opened.fileDescriptor) == 0 else { throw .io }
            }
            if !descriptors.isEmpty { try store.syncDirectory() }
        } catch {
            lock.withLock {
                for case .segment(let segment) in slots { segment.isSynced = false }
                unsynced += chunks
            }
            throw error
        }
    }

    // MARK: SEEK_DATA and SEEK_HOLE

    func seek(_ offset: UInt64, data wantsData: Bool) throws(FileSystemError) -> UInt64 {
        try lock.withLock { () throws(FileSystemError) in
            guard offset < size else { throw .noSuchOffset }
            var index = Int(offset / UInt64(Self.slotByteCount))
            var at = offset
            while at < size {
                let start = UInt64(index) * UInt64(Self.slotByteCount)
                let stop = start + UInt64(Self.extent(index, size: size))
                let dataEnd: UInt64 = switch slots[index] {
                case .hole: start
                case .segment(let segment): min(start + UInt64(segment.length), stop)
                case .chunks(let chunks): start + UInt64(chunks.reduce(0) { $0 + Int($1.length) })
                }
                if wantsData ? at < dataEnd : at >= dataEnd && dataEnd < stop { return at }
                if !wantsData, dataEnd < stop { return dataEnd }
                at = stop
                index += 1
            }
            guard !wantsData else { throw .noSuchOffset }
            return size
        }
    }
}
