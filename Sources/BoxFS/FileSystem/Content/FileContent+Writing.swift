import ChunkCache
import Glibc
import Shared

// Everything that changes bytes. What has to wait for something comes first; then the change is made.
extension FileContent {
    /// A part of a write(2): its slot, and its bytes within the slot and within what is written.
    private struct Part { var index: Int, range: Range<Int>, at: Int }

    /// - Throws: then slots have what they had. (Of a segment that had a hole there, a part may be written.)
    func write(offset: Int, _ bytes: UnsafeRawBufferPointer, inode: InodeNumber) throws(FileSystemError) {
        try lock.withLock { () throws(FileSystemError) in
            let end = offset + bytes.count
            let parts = (slots.index(at: offset)...slots.index(at: end - 1)).map { index in
                let start = slots.start(index), range = max(offset, start)..<min(end, slots.end(index))
                return Part(index: index, range: range.lowerBound - start..<range.upperBound - start, at: range.lowerBound - offset)
            }
            do throws(FileSystemError) { try write(parts, bytes, inode) } catch {
                takeBackEmpty(parts.map(\.index))
                throw error
            }
            size = max(size, UInt64(end))
        }
    }

    private func write(_ parts: [Part], _ bytes: UnsafeRawBufferPointer, _ inode: InodeNumber) throws(FileSystemError) {
        // First all that may have to wait: a segment that has its chunk's bytes changes nothing.
        var segments: [Segment] = []
        for part in parts { segments.append(try segment(part.index, overwriting: part.range, inode, patching: true)) }
        let now = Timestamp.now()
        let records = try onDisk { () throws(FileSystemError) in
            var records: [PieceRecord?] = []
            do throws(FileSystemError) {
                for (part, segment) in zip(parts, segments) {
                    records.append(try segment.write(.init(rebasing: bytes[part.at..<part.at + part.range.count]), at: part.range.lowerBound, now))
                }
            } catch {
                for (index, segment) in segments.enumerated() { try segment.takeBack(index < records.count ? records[index] : nil) }
                throw error
            }
            return records
        }
        for (index, segment) in segments.enumerated() {
            let wasFull = segment.length == SlotTable.stretch
            segment.wrote(parts[index].range, records[index])
            guard parts[index].range.upperBound == SlotTable.stretch, records[index] == nil else { continue }
            store.beginWriting(segment)
            // Not a file's first, which is cut (`parts(of:_:)`), and none that somebody writes to here and there.
            if parts[index].index > 0, !wasFull { beginHashing(segment) }
        }
        written = now
    }

    /// Slots that were to be written whole, and were not, have again what they had.
    private func takeBackEmpty(_ indices: [Int]) {
        for index in indices where index < slots.count {
            if let segment = slots[index].segment, segment.length == 0, !segment.isTaken { putBack(segment, at: index) }
        }
        while slots.count > slots.count(size: size) { discard(slots.removeLast()) }
    }

    /// Runs what writes to the local disk. A full one is as a full cache: clean chunks go; then who writes waits until unsent data were sent.
    func onDisk<R>(_ body: () throws(FileSystemError) -> R) throws(FileSystemError) -> R {
        while true {
            do throws(FileSystemError) { return try body() } catch {
                guard error == .noSpace else { throw error }
                guard !cache.makeRoomOnDisk() else { continue }
                throw cache.unsentBytes > 0 ? .missing(.cacheRoom) : .noSpace
            }
        }
    }

    /// The writable segment of a slot; bytes outside of `overwriting` are kept. Under the lock.
    /// - Parameter patching: whether it may be a patch, of which only `Segment.write` and `wrote` change bytes.
    func segment(_ index: Int, overwriting range: Range<Int>, _ inode: InodeNumber, patching: Bool = false) throws(FileSystemError) -> Segment {
        if slots.count <= index { slots.grow(to: index + 1) }
        var reserved = 0
        do throws(FileSystemError) {
            return try onDisk { () throws(FileSystemError) in
                if patching, let segment = try self.patch(index, range, inode, &reserved) { return segment }
                return try self.makeSegment(index, overwriting: range, inode, &reserved)
            }
        } catch {
            cache.release(bytes: Int64(reserved))
            throw error
        }
    }

    /// The slot's patch if a write to `range` may be a piece of it.
    private func patch(_ index: Int, _ range: Range<Int>, _ inode: InodeNumber, _ reserved: inout Int) throws(FileSystemError) -> Segment? {
        switch slots[index] {
        case .segment(let current) where !current.isFrozen:
            guard let patch = current.patch else { return nil }
            guard patch.hasRoom(for: range) else { return nil }
            try reserveRoom(range.count, &reserved)
            current.reserved += range.count
            return current
        case .segment(let current):
            guard (current.patch?.base ?? current).length >= Patch.minimumBaseBytes else { return nil }
            let patch = if let patch = current.patch { patch } else { Patch(base: current, log: try pieceLog()) }
            guard patch.hasRoom(for: range) else { return nil }
            try reserveRoom(range.count, &reserved)
            defer { if !current.isTaken { drop(current) } }     // an earlier process froze it
            return begin(patch, at: index, length: current.length, reserved: range.count, origin: current.origin)
        case .chunk(let chunk):
            guard chunk.length >= Patch.minimumBaseBytes, range.count <= Patch.maximumWriteBytes,
                  Int(chunk.length) <= slots.extent(index, size: size) else { return nil }
            _ = try open(chunk, inode)
            // What was evicted would stay on the disk under this name: it counts.
            try reserveRoom(Int(chunk.length) + range.count, &reserved)
            let base = try store.link(length: Int(chunk.length)) { cache.link(chunk, to: $0) }
            base.sealed = chunk
            base.reserved = Int(chunk.length)
            return try begin(Patch(base: base, log: pieceLog()), at: index, length: base.length, reserved: range.count, origin: chunk)
        case .hole: return nil
        }
    }

    private func begin(_ patch: Patch, at index: Int, length: Int, reserved: Int, origin: ChunkReference?) -> Segment {
        let segment = Segment(patch, length: length)
        segment.origin = origin
        segment.reserved = reserved
        slots[index] = .segment(segment)
        return segment
    }

    /// Where the pieces of this file go: a log that this process made, as files that are gone give their numbers to the next process's, and no
    /// record of another base must pass for one of theirs.
    private func pieceLog() throws(FileSystemError) -> Segment {
        if let log, Patch.hasRoom(in: log, for: 0..<Patch.maximumWriteBytes) { return log }
        let log = try store.make()
        log.isSuperseded = true
        self.log = log
        return log
    }

    /// - Parameter reserved: room that was asked from the cache for the slot's new segment.
    private func makeSegment(_ index: Int, overwriting range: Range<Int>, _ inode: InodeNumber, _ reserved: inout Int) throws(FileSystemError) -> Segment {
        let segment: Segment
        let needed: Int
        switch slots[index] {
        case .segment(let current) where !current.isFrozen && current.patch == nil && (current.held == nil || store.mayHold(index, end: range.upperBound)):
            try reserve(current, upTo: range.upperBound)
            return current
        case .segment(let current):
            needed = current.length
            try reserveRoom(max(needed, range.upperBound), &reserved)
            segment = if let held = current.held, store.mayHold(index, end: range.upperBound) {
                Segment(holding: held, store: store)
            } else { try store.copy(of: current) }
            segment.changes = current.differences
            segment.origin = current.origin
            // What was synced once must not depend on a copy that was not.
            if segment.held == nil, (current.patch?.log ?? current).wasSynced { try store.sync(segment) }
            segment.wasSynced = segment.wasSynced || segment.held != nil && current.wasSynced
            if !current.isTaken { drop(current) }
        case .hole:
            needed = 0
            try reserveRoom(range.upperBound, &reserved)
            segment = store.mayHold(index, end: range.upperBound) ? Segment(holding: [], store: store) : try store.make()
        case .chunk(let chunk):
            let held = min(Int(chunk.length), slots.extent(index, size: size)), keeps = range.lowerBound > 0 || range.upperBound < held
            needed = keeps ? held : 0
            let source = keeps ? try open(chunk, inode) : nil
            try reserveRoom(max(needed, range.upperBound), &reserved)
            segment = if store.mayHold(index, end: max(needed, range.upperBound)) {
                Segment(holding: try bytes(of: source, count: needed), store: store)
            } else { try copy(of: source, count: needed) }
            segment.origin = chunk
            if needed == Int(chunk.length) { segment.changes = SegmentChanges(base: chunk) }
        }
        segment.reserved = max(needed, range.upperBound)
        slots[index] = .segment(segment)
        return segment
    }

    /// The first `count` bytes of a chunk.
    private func bytes(of chunk: (file: OpenDescriptor, offset: Int)?, count: Int) throws(FileSystemError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        guard let chunk else { return bytes }
        try bytes.withMutableBytes { bytes throws(FileSystemError) in try readFully(chunk.file.rawValue, bytes, at: chunk.offset) }
        return bytes
    }

    private func copy(of chunk: (file: OpenDescriptor, offset: Int)?, count: Int) throws(FileSystemError) -> Segment {
        let segment = try store.make()
        guard let chunk else { return segment }
        do throws(FileSystemError) {
            try copyBytes(from: chunk.file.rawValue, at: chunk.offset, to: segment.open().rawValue, at: 0, count: count)
        } catch {
            unlink(segment.path)
            throw error
        }
        segment.length = count
        return segment
    }

    private func reserve(_ segment: Segment, upTo length: Int) throws(FileSystemError) {
        guard length > segment.reserved else { return }
        try reserveRoom(length - segment.reserved)
        segment.reserved = length
    }

    /// - Parameter reserved: what an attempt got for which the disk was full.
    private func reserveRoom(_ bytes: Int, _ reserved: inout Int) throws(FileSystemError) {
        guard reserved < bytes else { return }
        try reserveRoom(bytes - reserved)
        reserved = bytes
    }

    private func reserveRoom(_ bytes: Int) throws(FileSystemError) {
        guard cache.reserve(bytes: Int64(bytes)) else { throw .missing(.cacheRoom) }
    }
}
