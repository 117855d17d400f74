import Glibc
import Shared

/// A chunk's file while its bytes arrive, hashed on the way. One thread's at a time. Nothing stays of it unless `finish` finds the right hash.
/// Not synced to the disk: it can be fetched again.
public final class ArrivingChunk: @unchecked Sendable {
    public let reference: ChunkReference
    private let cache: ChunkCache
    private let path: String
    private var descriptor: Int32 = -1
    private var count = 0
    /// The network's pieces are short and begin anywhere: written as they come, a page of 4 KiB each, they take three times as long.
    private static let pieceByteCount = 256 << 10
    private final class Piece { let memory = PartBuffer() }
    private lazy var piece = Piece()
    private var pieceCount = 0
    private var hasRoom = false
    /// It came another way: it is only hashed. The file that is there may be on the disk, and this one would not be.
    private var isHere = false
    /// nil: it is finished.
    private var hasher: SHA256? = SHA256()

    public init(_ cache: ChunkCache, _ reference: ChunkReference) {
        (self.cache, self.reference) = (cache, reference)
        path = cache.temporaryPath()
    }

    deinit {
        discard()
        if hasRoom { cache.state.withLock { $0.arrivingBytes -= UInt64(reference.length) } }
    }

    /// What is longer than the chunk is passed over: it will not be one.
    /// - Throws: `.full` if the cache or the disk is, and nothing clean is left to evict.
    public func append(_ bytes: UnsafeRawBufferPointer) throws(ChunkCacheError) {
        if count == 0 { isHere = cache.state.withLock { $0.holds(reference) } }
        count += bytes.count
        guard count <= reference.length else { return }
        if !isHere { try open() }
        var rest = bytes[...]
        while !rest.isEmpty {
            let part = rest.prefix(Self.pieceByteCount - pieceCount), memory = piece.memory.bytes
            UnsafeMutableRawBufferPointer(rebasing: memory[pieceCount...]).copyMemory(from: UnsafeRawBufferPointer(rebasing: part))
            pieceCount += part.count
            rest = rest.dropFirst(part.count)
            if pieceCount == Self.pieceByteCount || rest.isEmpty && count == reference.length { try writePiece() }
        }
    }

    private func writePiece() throws(ChunkCacheError) {
        let bytes = UnsafeRawBufferPointer(rebasing: piece.memory.bytes[..<pieceCount])
        pieceCount = 0
        hasher!.update(bytes)
        if isHere { return }
        var done = 0
        while done < bytes.count {
            let written = write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if written < 0, errno == EINTR { continue }
            guard written > 0 else {
                let error = errno
                guard error == ENOSPC || error == EDQUOT else { throw .io("writing a chunk file: errno \(error)") }
                guard cache.makeRoomOnDisk() else { throw .full }
                continue
            }
            done += written
        }
    }

    private func open() throws(ChunkCacheError) {
        guard descriptor < 0 else { return }
        hasRoom = cache.makeRoom(UInt64(reference.length), andTakeFor: \.arrivingBytes)
        guard hasRoom else { throw .full }
        while descriptor < 0 {
            descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            guard descriptor < 0 else { return }
            let error = errno
            guard error == ENOSPC || error == EDQUOT else { throw .io("creating a chunk file: errno \(error)") }
            guard cache.makeRoomOnDisk() else { throw .full }
        }
    }

    /// - Returns: whether these were the chunk's bytes, and it is in the cache now.
    public func finish() throws(ChunkCacheError) -> Bool {
        guard count > 0, count == reference.length, hasher.take()!.finish() == reference.hash else { return false }
        if isHere || cache.state.withLock({ $0.holds(reference) }) {
            discard()
            return true
        }
        close(descriptor)
        descriptor = -1
        try cache.publish(path, reference, claims: 0)
        return true
    }

    private func discard() {
        guard descriptor >= 0 else { return }
        close(descriptor)
        descriptor = -1
        unlink(path)
    }
}
