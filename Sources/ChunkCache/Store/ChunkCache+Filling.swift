import Glibc
import Shared
import Synchronization

// How chunks come here, one by one; several sealed ones at once: `ChunkCache+Packs.swift`.
extension ChunkCache {
    /// Keeps bytes, if they are the chunk's.
    /// - Returns: false if they are not.
    public func insert(_ reference: ChunkReference, _ bytes: UnsafeRawBufferPointer) throws(ChunkCacheError) -> Bool {
        let arriving = ArrivingChunk(self, reference)
        try arriving.append(bytes)
        return try arriving.finish()
    }

    /// Takes over a sealed segment's file (on the same file system) with one claim.
    /// - Returns: bytes that count as a chunk's from now on. They are the segment's, which are counted still: `endSealing` takes them.
    public func adopt(fileAt path: String, as reference: ChunkReference) throws(ChunkCacheError) -> UInt64 {
        if state.withLock({ $0.holds(reference) && $0.claim(reference.hash) }) {
            do throws(ChunkCacheError) { try sync(reference.hash) } catch {
                markSent([reference.hash])
                throw error
            }
            unlink(path)
            return 0
        }
        state.withLock { $0.doubleBytes += UInt64(reference.length) }
        do throws(ChunkCacheError) { try publish(path, reference, claims: 1) } catch {
            endSealing(bytes: UInt64(reference.length))
            throw error
        }
        return UInt64(reference.length)
    }

    /// Takes over a sealed segment's bytes with one claim.
    /// - Parameters:
    ///   - reference: theirs.
    ///   - synced: they are on the disk when it returns.
    /// - Returns: as `adopt(fileAt:as:)`.
    public func adopt(_ bytes: [UInt8], as reference: ChunkReference, synced: Bool) throws(ChunkCacheError) -> UInt64 {
        let name = temporaryPath()
        let descriptor = Glibc.open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .io("creating a chunk file: errno \(errno)") }
        defer { close(descriptor) }
        var file = DirectFile(descriptor, isDirect: false)
        guard bytes.withUnsafeBytes({ file.append($0) }), !synced || fdatasync(descriptor) == 0 else {
            let error = errno
            unlink(name)
            throw error == ENOSPC || error == EDQUOT ? .full : .io("writing a chunk file: errno \(error)")
        }
        let counted = try adopt(fileAt: name, as: reference)
        if synced, state.withLock({ $0.chunks[reference.hash]?.place == nil }) { try syncFolder(of: reference.hash) }
        return counted
    }

    private func syncFolder(of hash: ChunkHash) throws(ChunkCacheError) {
        let descriptor = Glibc.open(String(path(hash).dropLast(hash.description.count + 1)), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        defer { if descriptor >= 0 { close(descriptor) } }
        guard descriptor >= 0, fsync(descriptor) == 0 else {
            markSent([hash])
            throw .io("syncing a folder of chunks: errno \(errno)")
        }
    }

    func temporaryPath() -> String { "\(directory)/chunks/\(nextTemporary.add(1, ordering: .relaxed).newValue).part" }

    /// Makes a file of unknown content a clean chunk, if it can be one; it goes in any case.
    public func takeOver(fileAt path: String) {
        defer { unlink(path) }
        guard let mark = FileMark(path: path), (1...Int64(Manifest.maximumChunkByteCount)).contains(mark.size) else { return }
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        guard let hash = SHA256.hash(descriptor, count: Int(mark.size)) else { return }
        let reference = ChunkReference(hash: hash, length: UInt32(mark.size))
        if state.withLock({ $0.holds(reference) }) { return }
        try? publish(path, reference, claims: 0)
    }

    /// Whether the chunk's file is gone or has other bytes; false when it only cannot be read now.
    public func isLost(_ reference: ChunkReference) -> Bool {
        let (path, _, offset) = whereabouts(reference.hash, state.withLock { $0.chunks[reference.hash] })
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return errno == ENOENT }
        defer { close(descriptor) }
        guard let mark = FileMark(descriptor) else { return false }
        guard mark.size >= Int64(offset) + Int64(reference.length) else { return true }
        return SHA256.hash(descriptor, from: offset, count: Int(reference.length)).map { $0 != reference.hash } ?? false
    }

    /// The file that stays may never have been synced, while the one that goes was. A pack was.
    func sync(_ hash: ChunkHash) throws(ChunkCacheError) {
        if state.withLock({ $0.chunks[hash]?.place != nil }) { return }
        let descriptor = Glibc.open(path(hash), O_RDONLY | O_CLOEXEC)
        defer { if descriptor >= 0 { close(descriptor) } }
        guard descriptor >= 0, fdatasync(descriptor) == 0 else { throw .io("syncing a chunk file: errno \(errno)") }
    }

    /// The bytes of adopted segments are chunks' alone from now on.
    public func endSealing(bytes: UInt64) { state.withLock { $0.doubleBytes -= min($0.doubleBytes, bytes) } }

    func publish(_ file: String, _ reference: ChunkReference, claims: Int) throws(ChunkCacheError) {
        let target = path(reference.hash)
        let failure = withFile(reference.hash) { () -> Int32? in
            guard rename(file, target) == 0 else { return errno }
            let mark = FileMark(path: target)
            let emptied = state.withLock { state in
                defer { for _ in 0..<claims { _ = state.claim(reference.hash) } }
                return state.add(reference.hash, length: reference.length, mark: mark)
            }
            if let emptied { removeFile(emptied) }
            if let mark { index.note(reference.hash, mark) }
            return nil
        }
        guard let failure else { return }
        unlink(file)
        throw failure == ENOSPC ? .full : .io("renaming a chunk file: errno \(failure)")
    }

    /// Gives a chunk's file one more name, under which it stays when the chunk is evicted (on the same file system). False, with errno, if it cannot.
    public func link(_ reference: ChunkReference, to name: String) -> Bool {
        withFile(reference.hash) { Glibc.link(path(reference.hash), name) == 0 }     // ENOENT of one that lies in a pack
    }
}
