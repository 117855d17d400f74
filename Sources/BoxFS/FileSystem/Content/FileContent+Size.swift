import ChunkCache
import Glibc
import Shared

// What changes a file's length, or whole stretches of it.
extension FileContent {
    /// truncate(2), both ways.
    func truncate(to newSize: UInt64, inode: InodeNumber) throws(FileSystemError) {
        try lock.withLock { () throws(FileSystemError) in
            let count = slots.count(size: newSize)
            if newSize < size, count > 0 {
                let extent = slots.extent(count - 1, size: newSize)
                if let chunk = slots[count - 1].chunk, Int(chunk.length) > extent { _ = try segment(count - 1, overwriting: 0..<0, inode) }
                if case .segment(let current) = slots[count - 1], current.length > extent {
                    // While the rows speak of these bytes they stay, in a file of their own: the process may die before the rows are written.
                    if let saved = savedSegments[slots.start(count - 1)], saved.file == current.file, current.held == nil, saved.length > extent { current.isFrozen = true }
                    let segment = try segment(count - 1, overwriting: 0..<0, inode)
                    try segment.cut(to: extent)
                    cache.release(bytes: Int64(segment.reserved - min(segment.reserved, extent)))
                    segment.reserved = min(segment.reserved, extent)
                }
            }
            while slots.count > count { discard(slots.removeLast()) }
            if slots.count < count { slots.grow(to: count) }
            if let cut = slots.cuts.last, cut >= newSize { slots.forgetCuts(from: newSize) }
            size = newSize
        }
    }

    /// Turns a range into zeros (FALLOC_FL_PUNCH_HOLE); the size stays.
    func punchHole(_ range: Range<UInt64>, inode: InodeNumber) throws(FileSystemError) {
        try lock.withLock { () throws(FileSystemError) in
            let end = min(range.upperBound, size)
            var at = range.lowerBound
            while at < end {
                let index = slots.index(at: Int(at)), start = UInt64(slots.start(index))
                let stop = min(end, UInt64(slots.end(index)))
                if at == start, stop - start == UInt64(slots.extent(index, size: size)) {
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

    /// Takes over sealed slots of another file; both sides start at a multiple of 4 MiB.
    func share(_ parts: SlotTable, at start: Int, byteCount: Int) {
        lock.withLock {
            for old in slots.replace(from: start, with: parts, byteCount: byteCount) { discard(old) }
            claim(parts)
            size = max(size, UInt64(start + byteCount))
        }
    }
}
