import NIOCore
import Shared

/// Reads a version's bytes on the server, for those who have no mount to put chunks together.
struct FileReader: Sendable {
    /// Bytes that are in memory at a time.
    static let pieceByteCount: UInt64 = 512 << 10

    private let drive: Drive
    private let namespace: NamespaceID
    private let chunks: [ChunkReference]
    let byteCount: UInt64

    /// - Parameter version: nil for a file that never had content.
    init(_ drive: Drive, _ namespace: NamespaceID, _ version: VersionID?) async throws(DriveError) {
        (self.drive, self.namespace) = (drive, namespace)
        chunks = try await drive.read { sql in
            guard let version else { return [] }
            guard let content = try NodeRow.content(sql, version) else { throw DriveError.notFound("This version is not there any more.") }
            if let inline = content.inline { return try Manifest.unpack(Array(inline)) }
            return try (content.pages ?? []).flatMap { page in
                guard let data = try sql.first("SELECT data FROM manifest_pages WHERE hash = $1", [.hash(page)])?.blob(0) else {
                    throw DriveError.internalError("page \(page) is not there")
                }
                return try Manifest.unpack(data)
            }
        }
        byteCount = chunks.reduce(0) { $0 + UInt64($1.length) }
    }

    /// Gives the bytes of `range` in order, in pieces. A chunk that is read whole is checked against its hash.
    ///
    /// - Throws: `.internalError` for damaged and missing chunks, after some pieces perhaps: then the receiver has less than it was promised.
    func read(_ range: Range<UInt64>, _ emit: (ByteBuffer) async throws -> Void) async throws {
        var start: UInt64 = 0
        for chunk in chunks {
            let end = start + UInt64(chunk.length)
            defer { start = end }
            let wanted = range.clamped(to: start..<end)
            if wanted.isEmpty { continue }
            try await read(chunk, (wanted.lowerBound - start)..<(wanted.upperBound - start), emit)
        }
    }

    private func read(_ chunk: ChunkReference, _ range: Range<UInt64>, _ emit: (ByteBuffer) async throws -> Void) async throws {
        let source = chunk.isHole ? nil : drive.chunks.source(try await locate(chunk, range))
        var hasher = SHA256()
        var at = range.lowerBound
        while at < range.upperBound {
            let count = min(Self.pieceByteCount, range.upperBound - at)
            let piece: ByteBuffer
            if let source {
                piece = try await source.next(Int(count))
                piece.withUnsafeReadableBytes { hasher.update($0) }
            } else {
                piece = ByteBuffer(repeating: 0, count: Int(count))
            }
            at += count
            // The last piece of a damaged chunk is never given: a short answer is noticed, a wrong one is not.
            if at == range.upperBound, source != nil, range.count == chunk.length {
                guard hasher.finish() == chunk.hash else { throw DriveError.internalError("chunk \(chunk.hash) is damaged") }
                return try await emit(piece)
            }
            try await emit(piece)
        }
    }

    /// A slice of a chunk.
    private func locate(_ chunk: ChunkReference, _ range: Range<UInt64>) async throws -> ChunkLocation {
        guard let whole = try await drive.read({ try Drive.location($0, namespace, chunk.hash) }), whole.length == chunk.length else {
            throw DriveError.internalError("chunk \(chunk.hash) is not there any more")
        }
        return ChunkLocation(object: whole.object, offset: whole.offset + range.lowerBound, length: UInt32(range.count))
    }
}
