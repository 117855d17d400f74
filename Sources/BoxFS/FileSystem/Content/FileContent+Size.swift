import ChunkCache
import Glibc
import Shared

// What changes a file's length, or whole stretches of it.
extension FileContent {
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
                    // While the rows speak of these bytes they stay, in a file of their own: the process may die before the rows are written.
                    if let saved = savedSegments[count - 1], saved.file == current.file, current.held == nil, saved.length > extent { current.isFrozen = true }
                    let segment = try segment(count - 1, overwriting: 0..<0, inode)
                    try segment.cut(to: extent)
                    cache.release(bytes: Int64(segment.reserved - min(segment.reserved, extent)))
                    segment.reserved = min(segment.reserved, extent)
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
                        try onDisk { () throws(FileSystemError) in
                            try zeros.withBytes { bytes throws(FileSystemError) in _ = try segment.write(bytes, at: Int(at - start), .now()) }
                        }
                        segment.wrote(Int(at - start)..<last, nil)
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
}
