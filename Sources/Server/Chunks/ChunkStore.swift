import NIOCore
import Shared

/// Where a chunk's bytes lie: a slice of an object.
struct ChunkLocation: Hashable, Sendable {
    /// The object's name, a UUID as text.
    var object: String
    /// Bytes from the object's start.
    var offset: UInt64
    var length: UInt32

    /// What is left of it from a byte on; nothing behind its end.
    func suffix(from start: Int) -> ChunkLocation {
        let start = min(UInt32(clamping: start), length)
        return ChunkLocation(object: object, offset: offset + UInt64(start), length: length - start)
    }
}

struct StoredObject: Sendable {
    var name: String
    var byteCount: UInt64
    var modified: Timestamp
}

enum ChunkStoreError: Error, Sendable, Equatable {
    case notFound
    case noSpace
    /// More bytes than any chunk has.
    case tooLong
    /// The chunk has another length than the reference says, or nothing arrived.
    case wrongLength
    case io(String)
}

/// Keeps chunks' bytes. The rows say where; nothing here knows what a chunk is for.
protocol ChunkStore: Sendable {
    /// What became of a chunk that arrived: where it lies, nil if it is another than asked for or was not to be kept.
    typealias Arrived = (found: ChunkHash, location: ChunkLocation?)
    typealias Made = (hash: ChunkHash, location: ChunkLocation)

    /// Stores the chunks as one object: a single one by itself, several small ones as a pack. Durable when it returns.
    /// - Returns: in the order of `chunks`.
    func put(_ chunks: [(reference: ChunkReference, bytes: ByteBuffer)]) async throws(ChunkStoreError) -> [ChunkLocation]
    /// Stores a chunk as an object while its bytes arrive, if its hash is right. Durable when it returns.
    /// - Parameter keeps: false: only finds the hash.
    /// - Throws: `ChunkStoreError`, and what `body` throws.
    func put<Body: AsyncSequence>(_ reference: ChunkReference, arriving body: Body, keeps: Bool) async throws -> Arrived where Body.Element == ByteBuffer
    /// Makes a chunk of another one and a delta, and stores it as an object. Durable when it returns.
    /// - Parameters:
    ///   - length: of the new chunk, bytes.
    ///   - delta: a body that `ChunkDelta` takes.
    ///   - pieces: of `delta`.
    func make(
        _ length: Int, from base: ChunkLocation, _ delta: ByteBuffer, _ pieces: [ChunkDelta.Piece]
    ) async throws(ChunkStoreError) -> Made
    func read(_ location: ChunkLocation) async throws(ChunkStoreError) -> ByteBuffer
    /// The SHA-256 of what lies there.
    func hash(_ location: ChunkLocation) async throws(ChunkStoreError) -> ChunkHash
    /// For a long chunk, which is sent on while it is read.
    func source(_ location: ChunkLocation) -> any ChunkSource
    func remove(object: String) async throws(ChunkStoreError)
    /// All objects, for fsck and gc.
    func objects() async throws(ChunkStoreError) -> [StoredObject]
}

/// A chunk that is read piece by piece, by one task at a time.
protocol ChunkSource: Sendable {
    /// The next bytes: `count`, at the end fewer.
    func next(_ count: Int) async throws(ChunkStoreError) -> ByteBuffer
}
