import ChunkCache
import Glibc
import Shared

// Reading, and finding out what would have to be fetched for it.
extension FileContent {
    /// Pieces of at most `count` bytes from `offset`, fewer only at the end of the file.
    /// - Parameter missing: turns a chunk that is not here into what to wait for.
    func read(offset: Int64, count: Int, inode: InodeNumber) throws(FileSystemError) -> [ReadPiece] {
        try lock.withLock { () throws(FileSystemError) in
            guard offset >= 0, UInt64(offset) < size else { return [] }
            var pieces: [ReadPiece] = []
            var at = Int(offset)
            let end = Int(min(UInt64(offset) + UInt64(count), size))
            while at < end {
                let index = slots.index(at: at), start = slots.start(index)
                // Size and slots must agree; where they do not, one file cannot be read rather than none.
                guard index < slots.count else { throw .io }
                let stop = min(end, slots.end(index))
                try read(index, at - start..<stop - start, inode, into: &pieces)
                at = stop
            }
            return pieces
        }
    }

    private func read(_ index: Int, _ range: Range<Int>, _ inode: InodeNumber, into pieces: inout [ReadPiece]) throws(FileSystemError) {
        var at = range.lowerBound
        switch slots[index] {
        case .hole: break
        case .segment(let segment):
            if let patch = segment.patch {
                at = try read(patch, at..<range.upperBound, into: &pieces)
            } else {
                at = try read(segment, at..<range.upperBound, into: &pieces)
            }
        case .chunk(let chunk):
            let part = min(Int(chunk.length), range.upperBound) - at
            if part > 0 {
                let (file, offset) = try open(chunk, inode)
                pieces.append(.file(file, offset: Int64(offset + at), count: part))
                at += part
            }
        }
        if at < range.upperBound { pieces.append(.zeros(count: range.upperBound - at)) }
    }

    /// - Returns: up to where the segment has bytes.
    private func read(_ segment: Segment, _ range: Range<Int>, into pieces: inout [ReadPiece]) throws(FileSystemError) -> Int {
        let part = min(range.upperBound, segment.length) - range.lowerBound
        guard part > 0 else { return range.lowerBound }
        if let held = segment.held {
            pieces.append(.bytes(held[range.lowerBound..<range.lowerBound + part]))
        } else {
            pieces.append(.file(try segment.open(), offset: Int64(range.lowerBound), count: part))
        }
        return range.lowerBound + part
    }

    private func read(_ patch: Patch, _ range: Range<Int>, into pieces: inout [ReadPiece]) throws(FileSystemError) -> Int {
        var at = range.lowerBound
        for piece in patch.pieces(in: range) {
            at = try read(patch.base, at..<max(at, piece.start), into: &pieces)
            if at < piece.start { pieces.append(.zeros(count: piece.start - at)) }
            at = max(at, piece.start)
            let part = min(piece.end, range.upperBound) - at
            pieces.append(.file(try patch.log.open(), offset: Int64(piece.position + at - piece.start), count: part))
            at += part
        }
        return try read(patch.base, at..<range.upperBound, into: &pieces)
    }

    /// - Returns: the chunk's file, and where in it the chunk begins.
    func open(_ chunk: ChunkReference, _ inode: InodeNumber) throws(FileSystemError) -> (file: OpenDescriptor, offset: Int) {
        guard let opened = RequestAccount.chargeCurrent(.disk, nil, { cache.open(chunk) }) else { throw .missing(.chunk(chunk.hash, length: chunk.length, inode: inode)) }
        return (OpenDescriptor(opened.fileDescriptor, keptOpenBy: opened.keeper), opened.offset)
    }

    /// Has the kernel read local chunks from the disk: a sequential reader is on its way to them.
    /// - Parameter stretches: of 4 MiB, by number.
    func warm(_ stretches: Range<Int>) {
        for chunk in chunks(stretches) where cache.contains(chunk.hash) {
            if let opened = cache.open(chunk) { posix_fadvise(opened.fileDescriptor, off_t(opened.offset), off_t(chunk.length), POSIX_FADV_WILLNEED) }
        }
    }

    /// The chunks that are not here: what read-ahead should bring.
    func absentChunks(_ stretches: Range<Int>) -> [ChunkReference] { chunks(stretches).filter { !cache.contains($0.hash) } }

    private func chunks(_ stretches: Range<Int>) -> [ChunkReference] {
        lock.withLock {
            let first = slots.index(at: stretches.lowerBound * SlotTable.stretch), end = slots.index(at: stretches.upperBound * SlotTable.stretch)
            return slots.dropFirst(first).prefix(end - first).compactMap(\.chunk)
        }
    }

    /// Where the slot ends that has the byte at an offset.
    func slotEnd(at offset: UInt64) -> UInt64 { lock.withLock { UInt64(slots.end(slots.index(at: Int(offset)))) } }

    func seek(_ offset: UInt64, data wantsData: Bool) throws(FileSystemError) -> UInt64 {
        try lock.withLock { () throws(FileSystemError) in
            guard offset < size else { throw .noSuchOffset }
            var index = slots.index(at: Int(offset))
            var at = offset
            while at < size {
                let start = UInt64(slots.start(index))
                let stop = start + UInt64(slots.extent(index, size: size))
                let dataEnd: UInt64 = switch slots[index] {
                case .hole: start
                case .segment(let segment): min(start + UInt64(segment.length), stop)
                case .chunk(let chunk): start + UInt64(chunk.length)
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
