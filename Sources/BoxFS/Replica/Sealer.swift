import ChunkCache
import Dispatch
import Glibc
import Shared

/// Turns frozen segments into chunks: hashes each file and links it into the chunk cache, so no byte is written twice, but for patches and a long
/// file's head.
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
        let segment: Segment
        /// None, if the segment held no byte; several, if it was cut.
        var chunks: [ChunkReference] = []
        /// Bytes of them that count twice in the cache until `ChunkCache.endSealing`.
        var doubleBytes: UInt64 = 0
        /// The files that were made for `parts`, and are no longer needed once the rows name the chunks.
        var wholes: [Segment] = []
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
        giveUp(sealed, cache)
        throw failure
    }

    /// The rows name the chunks: what counted twice counts once.
    static func end(_ sealed: [Sealed], _ cache: ChunkCache) {
        cache.endSealing(bytes: sealed.reduce(0) { $0 + $1.doubleBytes })
        for whole in sealed.flatMap(\.wholes) { cache.release(bytes: Int64(whole.length)) }
    }

    private static func giveUp(_ sealed: [Sealed], _ cache: ChunkCache) {
        cache.markSent(sealed.flatMap(\.chunks).map(\.hash))
        end(sealed, cache)
        for whole in sealed.flatMap(\.wholes) { unlink(whole.path) }
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
        guard segment.length > 0 else { return Sealed(segment: segment) }
        if segment.patch != nil { return try sealAnew(segment, into: cache) }
        if segment.parts.count > 1 {
            // A disk without room for it has some once this was sent: whole then.
            do throws(FileSystemError) { return try sealAnew(segment, into: cache) } catch { guard error == .noSpace else { throw error } }
        }
        if let bytes = segment.held { return try seal(bytes, of: segment, into: cache) }
        let descriptor = open(segment.path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw .io }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .io }
        if status.st_size != segment.length, ftruncate(descriptor, off_t(segment.length)) != 0 { throw .io }
        guard let hash = segment.fullHash ?? SHA256.hash(descriptor, count: segment.length) else { throw .io }
        if segment.replacesSynced {
            guard fdatasync(descriptor) == 0 else { throw .io }
            try segment.store.syncDirectory()
        }
        let (chunk, doubleBytes) = try adopt(segment, hash, into: cache)
        return Sealed(segment: segment, chunks: [chunk], doubleBytes: doubleBytes)
    }

    private static func pack(_ segments: [Segment], into cache: ChunkCache) throws(FileSystemError) -> [Sealed] {
        var sealed: [Sealed] = [], chunks: [ChunkCache.Sealed] = []
        for segment in segments {
            let bytes = segment.held ?? []
            let reference = bytes.isEmpty ? nil : ChunkReference(hash: SHA256.hash(bytes), length: UInt32(bytes.count))
            sealed.append(Sealed(segment: segment, chunks: reference.map { [$0] } ?? []))
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
            return Sealed(segment: segment, chunks: [reference], doubleBytes: doubleBytes)
        } catch { throw error == .full ? .noSpace : .io }
    }

    private static func adopt(
        _ segment: Segment, _ hash: ChunkHash, into cache: ChunkCache
    ) throws(FileSystemError) -> (chunk: ChunkReference, doubleBytes: UInt64) {
        let reference = ChunkReference(hash: hash, length: UInt32(segment.length))
        let name = segment.path + ".sealed"
        unlink(name)
        guard link(segment.path, name) == 0 else { throw errno == ENOSPC ? .noSpace : .io }
        do throws(ChunkCacheError) {
            return (reference, try cache.adopt(fileAt: name, as: reference))
        } catch {
            unlink(name)
            throw error == .full ? .noSpace : .io
        }
    }

    /// Makes a file of each part: of a patch and what is beneath it, or of a segment that is cut. They are on the disk before the rows name them, as
    /// the bytes may have been for long.
    private static func sealAnew(_ segment: Segment, into cache: ChunkCache) throws(FileSystemError) -> Sealed {
        var sealed = Sealed(segment: segment)
        do throws(FileSystemError) {
            for part in segment.parts {
                let whole = try segment.store.make()
                cache.count(reservedBytes: Int64(part.count))
                whole.length = part.count
                sealed.wholes.append(whole)
                let hash = try write(part, of: segment, to: whole.open().rawValue)
                guard fdatasync(try whole.open().rawValue) == 0 else { throw .io }
                whole.close()
                let (chunk, doubleBytes) = try adopt(whole, hash, into: cache)
                sealed.chunks.append(chunk)
                sealed.doubleBytes += doubleBytes
            }
            try segment.store.syncDirectory()
            return sealed
        } catch {
            giveUp([sealed], cache)
            throw error
        }
    }

    /// Written before it is hashed: the server, which is making the same chunk (`Synchronizer.sendDifferences`), hashes first.
    private static func write(_ range: Range<Int>, of segment: Segment, to descriptor: Int32) throws(FileSystemError) -> ChunkHash {
        try DirectFile.withParts(of: range.count) { parts throws(FileSystemError) in
            var file = DirectFile(descriptor), at = range.lowerBound
            for part in parts {
                try segment.read(into: part, at: at)
                guard file.append(UnsafeRawBufferPointer(part)) else { throw errno == ENOSPC || errno == EDQUOT ? .noSpace : .io }
                at += part.count
            }
            var hasher = SHA256()
            for part in parts { hasher.update(UnsafeRawBufferPointer(part)) }
            return hasher.finish()
        }
    }
}
