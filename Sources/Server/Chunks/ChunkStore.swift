import NIOCore
import Shared

/// Where a chunk's bytes lie: a slice of an object.
struct ChunkLocation: Hashable, Sendable {
    /// The object's name, a UUID as text.
    var object: String
    /// Bytes from the object's start.
    var offset: UInt64
    var length: UInt32
}

struct StoredObject: Sendable {
    var name: String
    var byteCount: UInt64
    var modified: Timestamp
}

enum ChunkStoreError: Error, Sendable, Equatable {
    case notFound
    case noSpace
    case io(String)
}

/// Keeps chunks' bytes. The rows say where; nothing here knows what a chunk is for.
protocol ChunkStore: Sendable {
    /// Stores the chunks as one object: a single one by itself, several small ones as a pack. Durable when it returns.
    /// - Returns: in the order of `chunks`.
    func put(_ chunks: [(reference: ChunkReference, bytes: ByteBuffer)]) async throws(ChunkStoreError) -> [ChunkLocation]
    func read(_ location: ChunkLocation) async throws(ChunkStoreError) -> ByteBuffer
    func remove(object: String) async throws(ChunkStoreError)
    /// All objects, for fsck and gc.
    func objects() async throws(ChunkStoreError) -> [StoredObject]
}
