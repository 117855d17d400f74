import Glibc

/// Fills memory from a place of a file, in as many calls as pread(2) needs.
/// - Returns: false if the file ends before, or with errno.
public func readAll(_ descriptor: Int32, _ memory: UnsafeMutableRawBufferPointer, at offset: Int) -> Bool {
    var done = 0
    while done < memory.count {
        let part = pread(descriptor, memory.baseAddress! + done, memory.count - done, off_t(offset + done))
        if part < 0, errno == EINTR { continue }
        guard part > 0 else { return false }
        done += part
    }
    return true
}

extension SHA256 {
    /// The hash of `count` bytes of a file; nil if it is shorter or cannot be read.
    public static func hash(_ descriptor: Int32, from start: Int = 0, count: Int) -> ChunkHash? {
        var hasher = SHA256(), isRead = true
        DirectFile.forEachPart(of: count) { part, at in
            isRead = isRead && readAll(descriptor, part, at: start + at)
            if isRead { hasher.update(UnsafeRawBufferPointer(part)) }
        }
        return isRead ? hasher.finish() : nil
    }
}
