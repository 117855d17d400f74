import NIOCore
import Shared

// Chunks that arrive as their difference from another. Nobody knows their hashes yet: the client and the server find them at the same time, and
// the commit that names the client's is refused if the server found another.
extension Drive {
    /// Takes a chunk as its difference from `base`, which the namespace must hold: knowing a hash gives nothing. Begins the session, or goes on
    /// with it, as `startUpload` does.
    /// - Parameters:
    ///   - start: where in the base the new chunk begins, bytes.
    ///   - length: of the new chunk, bytes.
    /// - Returns: its hash.
    func storeDelta(
        _ session: Session, _ namespace: NamespaceID, _ upload: UploadID, base: ChunkHash, from start: Int = 0, length: Int, _ delta: ByteBuffer
    ) async throws(DriveError) -> ChunkHash {
        guard (1...Manifest.maximumChunkByteCount).contains(length), (0...Manifest.maximumChunkByteCount).contains(start) else {
            throw .badRequest("A chunk has 1 to \(Manifest.maximumChunkByteCount) bytes, and begins within its base.")
        }
        let pieces: [ChunkDelta.Piece]
        do { pieces = try delta.withUnsafeReadableBytes { try ChunkDelta.pieces(of: $0, chunkLength: length) } } catch {
            throw .badRequest("The body is no sequence of pieces within the chunk.")
        }
        var location = try await read { sql in
            try Self.require(.editor, sql, session, namespace)
            guard let location = try Self.location(sql, namespace, base) else { throw DriveError.notFound("There is no such chunk.") }
            return location
        }
        location = location.suffix(from: start)
        let isCut = pieces.isEmpty && length <= location.length
        let made: ChunkStore.Made
        do throws(ChunkStoreError) {
            if isCut {
                location.length = UInt32(length)
                made = (try await chunks.hash(location), location)
            } else { made = try await chunks.make(length, from: location, delta, pieces) }
        } catch { throw Self.translated(error) }
        let isKept = try await note(made, isCut, session, namespace, upload)
        // Somebody has brought the same bytes before. If this fails, gc finds the object.
        if !isKept, !isCut { try? await chunks.remove(object: made.location.object) }
        return made.hash
    }

    /// Writes the rows of what was made.
    /// - Parameter isCut: it is a stretch of an object that was there.
    /// - Returns: whether the chunk lies where it was made; false: the store had it.
    private func note(
        _ made: ChunkStore.Made, _ isCut: Bool, _ session: Session, _ namespace: NamespaceID, _ upload: UploadID
    ) async throws(DriveError) -> Bool {
        let time = now()
        return try await write(.ordered) { sql in
            _ = try Self.beginUpload(sql, session, namespace, upload, time)
            let isKept = try sql.first("SELECT 1 FROM chunks WHERE hash = $1", [.hash(made.hash)]) == nil
            if isKept {
                if !isCut {
                    try Self.note([made.location], sql, time)
                } else if try sql.first("SELECT 1 FROM objects WHERE name = $1", [.text(made.location.object)]) == nil {
                    throw DriveError.notFound("The base is gone.")      // gc came between
                }
                try Self.place([made.hash: made.location], sql, time)
            }
            try sql.execute("""
                INSERT INTO upload_chunks (upload, hash, length, is_stored, is_needed) VALUES ($1, $2, $3, 1, 1)
                ON CONFLICT (upload, hash) DO UPDATE SET is_stored = 1
                """, [.id(upload), .hash(made.hash), .int(made.location.length)])
            return isKept
        }
    }
}
