/// One chunk of a file: what it is and how long it is.
public struct ChunkReference: Hashable, Sendable {
    public let hash: ChunkHash
    /// Bytes, 1 to `Manifest.maximumChunkByteCount`.
    public let length: UInt32

    public init(hash: ChunkHash, length: UInt32) {
        self.hash = hash
        self.length = length
    }
}

/// A file's content: its chunks in order. Their lengths add up to the file's size.
///
/// Packed form, the same on disk and on the wire: for each chunk 36 bytes, the SHA-256 (32) and the length (4,
/// little-endian). The all-zero hash names a hole: `length` zero bytes that are stored nowhere.
public struct Manifest: Hashable, Sendable {
    public static let maximumChunkByteCount = 4 << 20
    /// The first chunk of a file that is longer than `maximumChunkByteCount`, bytes; the second ends where the first would have. So who looks at
    /// the head of a long file, where formats keep their marks and tables, waits for that much and not for 4 MiB; and a program that changes
    /// the head with each save, as SQLite does, sends that much.
    public static let headByteCount = 128 << 10
    /// Chunks that stand in the version itself; a longer manifest is kept in pages.
    public static let maximumInlineCount = 128
    /// Chunks in one page, of which only the last may hold fewer.
    public static let pageCount = 1024
    public static let packedReferenceByteCount = 36

    public var chunks: [ChunkReference]

    public init(chunks: [ChunkReference] = []) { self.chunks = chunks }

    /// The file's size in bytes.
    public var byteCount: UInt64 { chunks.reduce(0) { $0 + UInt64($1.length) } }

    public static func pack(_ chunks: some Collection<ChunkReference>) -> [UInt8] {
        let count = chunks.count * packedReferenceByteCount
        return [UInt8](unsafeUninitializedCapacity: count) { bytes, done in
            let bytes = UnsafeMutableRawBufferPointer(bytes)
            for chunk in chunks {
                chunk.hash.write(to: UnsafeMutableRawBufferPointer(rebasing: bytes[done...]))
                bytes.storeBytes(of: chunk.length.littleEndian, toByteOffset: done + ChunkHash.byteCount, as: UInt32.self)
                done += packedReferenceByteCount
            }
        }
    }

    public enum FormatError: Error, Equatable, Sendable { case length, chunkLength }

    /// - Throws: `.length` if the bytes are no multiple of 36, `.chunkLength` if a chunk is empty or too long.
    public static func unpack(_ bytes: some RandomAccessCollection<UInt8>) throws(FormatError) -> [ChunkReference] {
        guard bytes.count.isMultiple(of: packedReferenceByteCount) else { throw .length }
        guard let chunks = bytes.withMemory(unpackMemory) else { throw .chunkLength }
        return chunks
    }

    private static func unpackMemory(_ bytes: UnsafeRawBufferPointer) -> [ChunkReference]? {
        var chunks: [ChunkReference] = []
        chunks.reserveCapacity(bytes.count / packedReferenceByteCount)
        for at in stride(from: 0, to: bytes.count, by: packedReferenceByteCount) {
            let length = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: at + ChunkHash.byteCount, as: UInt32.self))
            guard length > 0, length <= UInt32(maximumChunkByteCount) else { return nil }
            chunks.append(ChunkReference(hash: ChunkHash(UnsafeRawBufferPointer(rebasing: bytes[at...])), length: length))
        }
        return chunks
    }
}

extension ChunkHash {
    /// Names a hole in a manifest. Nothing hashes to it in practice, and no chunk is ever stored under it.
    public static let hole = ChunkHash(bytes: [UInt8](repeating: 0, count: byteCount))!
}

extension ChunkReference {
    public var isHole: Bool { hash == .hole }
}

extension Manifest {
    /// A long manifest's pages, each named by the SHA-256 of its packed bytes.
    public var pages: [(hash: ChunkHash, packed: [UInt8])] {
        stride(from: 0, to: chunks.count, by: Self.pageCount).map { start in
            let packed = Self.pack(chunks[start..<min(start + Self.pageCount, chunks.count)])
            return (SHA256.hash(packed), packed)
        }
    }
}
