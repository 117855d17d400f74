import Foundation
import Glibc
import Shared
import Synchronization

public enum ChunkCacheError: Error, Equatable, Sendable {
    /// Only unsent data is left in it, or the disk is full.
    case full
    case io(String)
}

/// An open chunk, read-only: its bytes begin at `offset` of the file.
public struct OpenChunk: Sendable {
    private let file: OpenFile
    public let offset: Int
    public var fileDescriptor: Int32 { file.descriptor }
    /// The file is open for as long as this lives.
    public var keeper: any AnyObject & Sendable { file }

    init(_ file: OpenFile, offset: Int = 0) { (self.file, self.offset) = (file, offset) }
}

final class OpenFile: Sendable {
    let descriptor: Int32
    init(_ descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }
}

/// Chunks on the local disk, each in a file named by its SHA-256 or, if it is small, with others in a pack, within a limit.
///
/// - The files are the truth: `chunks/ab/HASH` and `packs/N` (`Pack`). The index keeps what a file looked like when its bytes were last verified and when it
///   was last used; what it lost is found again by listing the folder.
/// - Chunks that the server does not have carry claims and are never evicted; they and the dirty segments (`reserve`) may exceed
///   the limit only where `reserve` was refused and the caller went on nevertheless.
/// - Any thread may call; a call may touch the disk but waits for nothing else.
/// - Invariant: a chunk in `state` has its file. A file appears or goes, and `state` with it, under its hash's lock of `fileLocks`
///   (which is taken before that of `state`), so that what is evicted and at once put back keeps its new file.
public final class ChunkCache: Sendable {
    public let directory: String
    public let limitBytes: UInt64
    let index: ChunkIndex
    private let descriptors = DescriptorCache(capacity: 256)
    let nextTemporary = Atomic<UInt64>(0)
    let nextPack: Atomic<UInt64>
    let state: Mutex<CacheState>
    private let fileLocks = (0..<64).map { _ in FileLock() }
    private final class FileLock: Sendable { let mutex = Mutex(()) }

    public struct Statistics: Sendable, Equatable {
        public var chunks = 0, hits = 0, misses = 0, evictions = 0, damaged = 0
    }

    /// Creates the folder, or takes over what it holds.
    public init(directory: String, limitBytes: UInt64) throws(ChunkCacheError) {
        self.directory = directory
        self.limitBytes = limitBytes
        do {
            for first in 0..<256 {
                let folder = "\(directory)/chunks/\(Hexadecimal.encode([UInt8(first)]))"
                try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            }
            try FileManager.default.createDirectory(atPath: directory + "/packs", withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            nextPack = Atomic(try Pack.list(directory).max() ?? 0)
            index = try ChunkIndex(path: directory + "/index.db")
            var state = CacheState()
            var rows = try index.load()
            for (hash, fileBytes) in try ChunkFiles.list(directory) {
                _ = state.add(hash, length: UInt32(fileBytes), mark: rows.removeValue(forKey: hash))
            }
            try Self.takePacks(directory, &state, &rows)
            for hash in rows.keys { index.remove(hash) }    // their files are gone
            self.state = Mutex(state)
        } catch { throw .io("\(error)") }
    }

    public var usedBytes: UInt64 { state.withLock(\.usedBytes) }
    /// How much of the room for unsent data beyond the first half is taken: 0 to 1.
    public var pressure: Double { min(1, max(0, Double(unsentBytes) / Double(max(1, limitBytes)) * 2 - 1)) }
    /// Bytes that the server does not have: claimed chunks and segments.
    public var unsentBytes: UInt64 { state.withLock(\.unsentBytes) }
    public var statistics: Statistics {
        state.withLock { state in
            var statistics = state.statistics
            statistics.chunks = state.chunks.count
            return statistics
        }
    }

    public func contains(_ hash: ChunkHash) -> Bool { state.withLock { $0.chunks[hash] != nil } }

    func path(_ hash: ChunkHash) -> String { ChunkFiles.path(directory, hash) }

    // MARK: Reading

    /// The chunk's file, or nil when it is not here. A file that does not look as it did when its bytes were last verified is
    /// hashed first; a damaged one is removed and counts as not here.
    public func open(_ reference: ChunkReference) -> OpenChunk? {
        let known = state.withLock { $0.use(reference.hash) }
        guard let known else { return nil }
        guard known.length == reference.length else {       // cut short by a power cut
            foundDamaged(reference.hash, known)
            return nil
        }
        let (path, key, offset) = whereabouts(reference.hash, known)
        if let held = descriptors[key], FileMark(held.descriptor) == known.mark { return OpenChunk(held, offset: offset) }
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            discard(reference.hash) { $0.place == known.place && access(path, F_OK) != 0 && errno == ENOENT }
            return nil
        }
        let opened = OpenFile(descriptor)
        guard let mark = FileMark(descriptor) else { return nil }
        if mark != known.mark {
            guard SHA256.hash(descriptor, from: offset, count: Int(reference.length)) == reference.hash,
                  mark.size == Int64(reference.length) || known.place != nil else {
                foundDamaged(reference.hash, known)
                return nil
            }
            verified(reference.hash, mark)
        }
        descriptors[key] = opened
        return OpenChunk(opened, offset: offset)
    }

    /// The file in which a chunk lies, and where.
    func whereabouts(_ hash: ChunkHash, _ chunk: CacheState.Chunk?) -> (path: String, key: DescriptorCache.Key, offset: Int) {
        if let place = chunk?.place { return (Pack.path(directory, place.pack), .pack(place.pack), place.offset) }
        return (path(hash), .chunk(hash), 0)
    }

    private func verified(_ hash: ChunkHash, _ mark: FileMark) {
        state.withLock { $0.chunks[hash]?.mark = mark }
        index.note(hash, mark)
    }

    /// The chunk as `known` says has wrong bytes: it goes, unless it is all that is left of unsent data, or was replaced meanwhile.
    func foundDamaged(_ hash: ChunkHash, _ known: CacheState.Chunk) {
        state.withLock { $0.statistics.damaged += 1 }
        discard(hash) { $0.claims == 0 && $0.mark == known.mark && $0.length == known.length && $0.place == known.place }
    }

    /// Takes a chunk out, with its file, if `condition` is still true of it.
    private func discard(_ hash: ChunkHash, if condition: (CacheState.Chunk) -> Bool) {
        withFile(hash) {
            let victim = state.withLock { state -> CacheState.Victim? in
                guard let chunk = state.chunks[hash], condition(chunk) else { return nil }
                return state.remove(hash)
            }
            if let victim { removeFile(victim) }
        }
    }

    func withFile<R>(_ hash: ChunkHash, _ body: () -> R) -> R {
        fileLocks[Int(UInt(bitPattern: hash.hashValue) % UInt(fileLocks.count))].mutex.withLock { _ in body() }
    }

    func removeFile(_ victim: CacheState.Victim) {
        switch victim {
        case .chunk(let hash):
            descriptors[.chunk(hash)] = nil
            unlink(path(hash))
            index.remove(hash)
        case .pack(let number):     // its chunks' rows go at the next start
            descriptors[.pack(number)] = nil
            unlink(Pack.path(directory, number))
        }
    }

    // MARK: Claims and room

    /// One more reason to keep the chunk until the server has it.
    public func claimUnsent(_ hash: ChunkHash) { _ = state.withLock { $0.claim(hash) } }

    /// Takes back one claim of each.
    public func markSent(_ hashes: some Sequence<ChunkHash>) {
        state.withLock { state in for hash in hashes { state.release(hash) } }
        _ = makeRoom(0)
    }

    /// The claims of an earlier process, as its owner states them again.
    public func resetUnsentClaims(_ claims: [ChunkHash: Int]) {
        state.withLock { state in
            for (hash, count) in claims { for _ in 0..<count { _ = state.claim(hash) } }
        }
    }

    /// Counts `bytes` of a dirty segment. False when there is no room even after evicting all that is clean.
    public func reserve(bytes: Int64) -> Bool {
        makeRoom(UInt64(max(0, bytes)), andTakeFor: \.reservedBytes)
    }

    /// Counts segments that were there before.
    public func count(reservedBytes bytes: Int64) { state.withLock { $0.reservedBytes += UInt64(max(0, bytes)) } }

    public func release(bytes: Int64) {
        state.withLock { $0.reservedBytes -= min($0.reservedBytes, UInt64(max(0, bytes))) }
    }

    /// Forgets every chunk without a claim, but for some.
    public func dropClean(except kept: Set<ChunkHash> = []) {
        evict { $0.takeClean(except: kept) }
        descriptors.removeAll()
    }

    /// The disk is fuller than the limit knows: evicts some clean chunks, 16 MiB of them.
    /// - Returns: false when there is none.
    public func makeRoomOnDisk() -> Bool {
        let victims = state.withLock { state in
            let used = state.usedBytes
            return state.victims(toFit: 0, limit: used - min(used, 16 << 20)).victims
        }
        remove(victims)
        return !victims.isEmpty
    }

    /// Evicts until `bytes` more fit, and counts them when they do.
    func makeRoom(_ bytes: UInt64, andTakeFor purpose: WritableKeyPath<CacheState, UInt64> = \.reservedBytes) -> Bool {
        let (victims, fits) = state.withLock { state in
            let result = state.victims(toFit: bytes, limit: limitBytes)
            if result.fits { state[keyPath: purpose] += bytes }
            return result
        }
        remove(victims)
        return fits
    }

    private func evict(_ choose: (inout CacheState) -> [CacheState.Victim]) { remove(state.withLock { choose(&$0) }) }

    /// Removes the files of chunks that were taken out of `state`, except of those that somebody put back meanwhile.
    func remove(_ victims: [CacheState.Victim]) {
        for victim in victims {
            if case .chunk(let hash) = victim { withFile(hash) { if !isFile(hash) { removeFile(victim) } } } else { removeFile(victim) }
        }
    }

    private func isFile(_ hash: ChunkHash) -> Bool { state.withLock { $0.chunks[hash].map { $0.place == nil } ?? false } }
}
