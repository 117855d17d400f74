import ChunkCache
import Dispatch
import Glibc
import Shared

/// Turns frozen segments into chunks: hashes each file and links it into the chunk cache, so no byte is written twice.
///
/// Crash order: 1. the segment's file is linked into the cache under its hash; 2. the file's rows name the chunk and no longer
/// the segment (one commit); 3. the segment's name is removed. A crash before 2 leaves the segment as it was; its file may then be
/// the cache's as well, which is why segments that were loaded from rows count as frozen.
enum Sealer {
    private static let queue = DispatchQueue(label: "seal", qos: .utility, attributes: .concurrent)
    /// Segments hashed by one job: small files are many.
    private static let jobCount = 32
    /// Short segments, whose bytes memory holds, become a pack if they are as many; a pack costs a sync.
    private static let packedCount = 4

    struct Sealed: Sendable {
        var segment: Segment
        /// nil: the segment held no byte.
        let reference: ChunkReference?
        /// Bytes of it that count twice in the cache until `ChunkCache.endSealing`.
        var doubleBytes: UInt64 = 0
        /// The file that was made for a patch, and is no longer needed once the rows name the chunk.
        var whole: Segment?
    }

    /// - Returns: their chunks are in the cache, each with one claim. After an error none has one.
    static func seal(_ segments: [Segment], into cache: ChunkCache) async throws(FileSystemError) -> [Sealed] {
        var jobs = stride(from: 0, to: segments.count, by: jobCount).map { Array(segments[$0..<min($0 + jobCount, segments.count)]) }
        let short = segments.filter { $0.held != nil }
        if short.count >= packedCount { jobs = [short] + jobs.map { $0.filter { $0.held == nil } } }
        let (sealed, failure) = await withTaskGroup(of: (Int, [Sealed], FileSystemError?).self) { group in
            var results = [[Sealed]](repeating: [], count: jobs.count)
            for (index, job) in jobs.enumerated() {
                group.addTask {
                    let (sealed, failure) = await run(job, into: cache)
                    return (index, sealed, failure)
                }
            }
            var failure: FileSystemError?
            for await (index, sealed, error) in group {
                results[index] = sealed
                failure = failure ?? error
            }
            return (results.flatMap { $0 }, failure)
        }
        guard let failure else { return sealed }
        cache.markSent(sealed.compactMap(\.reference?.hash))
        end(sealed, cache)
        for whole in sealed.compactMap(\.whole) { unlink(whole.path) }
        throw failure
    }

    /// The rows name the chunks: what counted twice counts once.
    static func end(_ sealed: [Sealed], _ cache: ChunkCache) {
        cache.endSealing(bytes: sealed.reduce(0) { $0 + $1.doubleBytes })
        for whole in sealed.compactMap(\.whole) { cache.release(bytes: Int64(whole.length)) }
    }

    private static func run(_ segments: [Segment], into cache: ChunkCache) async -> ([Sealed], FileSystemError?) {
        await withCheckedContinuation { continuation in
            queue.async {
                var done: [Sealed] = []
                do throws(FileSystemError) {
                    if segments.count >= packedCount, segments.allSatisfy({ $0.held != nil }) {
                        done = try pack(segments, into: cache)
                    } else {
                        for segment in segments { done.append(try seal(segment, into: cache)) }
                    }
                    continuation.resume(returning: (done, nil))
                } catch { continuation.resume(returning: (done, error)) }
            }
        }
    }

    private static func seal(_ segment: Segment, into cache: ChunkCache) throws(FileSystemError) -> Sealed {
        guard segment.length > 0 else { return Sealed(segment: segment, reference: nil) }
        guard segment.patch == nil else { return try sealPatch(segment, into: cache) }
        if let bytes = segment.held { return try seal(bytes, of: segment, into: cache) }
        let descriptor = open(segment.path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw .io }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .io }
        if status.st_size != segment.length, ftruncate(descriptor, off_t(segment.length)) != 0 { throw .io }
        let hash = try hash(descriptor, count: segment.length)
        if segment.replacesSynced {
            guard fdatasync(descriptor) == 0 else { throw .io }
            try segment.store.syncDirectory()
        }
        return try adopt(segment, hash, into: cache)
    }

    private static func pack(_ segments: [Segment], into cache: ChunkCache) throws(FileSystemError) -> [Sealed] {
        var sealed: [Sealed] = [], chunks: [ChunkCache.Sealed] = []
        for segment in segments {
            let bytes = segment.held ?? []
            let reference = bytes.isEmpty ? nil : ChunkReference(hash: SHA256.hash(bytes), length: UInt32(bytes.count))
            sealed.append(Sealed(segment: segment, reference: reference))
            if let reference { chunks.append((reference, bytes)) }
        }
        do throws(ChunkCacheError) { sealed[0].doubleBytes = try cache.adopt(chunks) } catch { throw error == .full ? .noSpace : .io }
        return sealed
    }

    /// What the row has may be on the disk and promised; so it is before the row names the chunk instead.
    private static func seal(_ bytes: [UInt8], of segment: Segment, into cache: ChunkCache) throws(FileSystemError) -> Sealed {
        let reference = ChunkReference(hash: SHA256.hash(bytes), length: UInt32(bytes.count))
        do throws(ChunkCacheError) {
            let doubleBytes = try cache.adopt(bytes, as: reference, synced: segment.wasSynced || segment.isSynced || segment.replacesSynced)
            return Sealed(segment: segment, reference: reference, doubleBytes: doubleBytes)
        } catch { throw error == .full ? .noSpace : .io }
    }

    private static func adopt(_ segment: Segment, _ hash: ChunkHash, into cache: ChunkCache) throws(FileSystemError) -> Sealed {
        let reference = ChunkReference(hash: hash, length: UInt32(segment.length))
        let name = segment.path + ".sealed"
        unlink(name)
        guard link(segment.path, name) == 0 else { throw errno == ENOSPC ? .noSpace : .io }
        do throws(ChunkCacheError) {
            return Sealed(segment: segment, reference: reference, doubleBytes: try cache.adopt(fileAt: name, as: reference))
        } catch {
            unlink(name)
            throw error == .full ? .noSpace : .io
        }
    }

    /// Makes the whole of a patch. It is on the disk before the rows name it, as the pieces may have been for long.
    private static func sealPatch(_ segment: Segment, into cache: ChunkCache) throws(FileSystemError) -> Sealed {
        cache.count(reservedBytes: Int64(segment.length))
        var whole: Segment?
        do throws(FileSystemError) {
            let made = try segment.store.make()
            whole = made
            made.length = segment.length
            let hash = try writeWhole(segment, to: made.open().rawValue)
            try segment.store.sync(made)
            made.close()
            var sealed = try adopt(made, hash, into: cache)
            sealed.segment = segment
            sealed.whole = made
            return sealed
        } catch {
            cache.release(bytes: Int64(segment.length))
            if let whole { unlink(whole.path) }
            throw error
        }
    }

    /// Written before it is hashed: the server, which is making the same chunk (`Synchronizer.sendDifferences`), hashes first.
    private static func writeWhole(_ segment: Segment, to descriptor: Int32) throws(FileSystemError) -> ChunkHash {
        try DirectFile.withParts(of: segment.length) { parts throws(FileSystemError) in
            var file = DirectFile(descriptor), start = 0
            for part in parts {
                try segment.read(into: part, at: start)
                guard file.append(UnsafeRawBufferPointer(part)) else { throw errno == ENOSPC || errno == EDQUOT ? .noSpace : .io }
                start += part.count
            }
            var hasher = SHA256()
            for part in parts { hasher.update(UnsafeRawBufferPointer(part)) }
            return hasher.finish()
        }
    }

    private static func hash(_ descriptor: Int32, count: Int) throws(FileSystemError) -> ChunkHash {
        var hasher = SHA256()
        try DirectFile.forEachPart(of: count) { part, start throws(FileSystemError) in
            try readFully(descriptor, part, at: start)
            hasher.update(UnsafeRawBufferPointer(part))
        }
        return hasher.finish()
    }
}
