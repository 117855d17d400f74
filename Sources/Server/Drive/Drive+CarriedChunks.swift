import Foundation
import NIOCore
import Shared

// Short chunks that a commit brings itself. Their bytes are on the disk before its transaction begins, their rows are a part of it.
extension Drive {
    struct Carried: Sendable {
        /// Lengths in bytes of what was brought.
        var lengths: [ChunkHash: UInt32] = [:]
        /// Where that lies which the store did not have, all in one object.
        var placed: [ChunkHash: ChunkLocation] = [:]
    }

    /// Checks the chunks of a commit and stores what is new of them. After an error, or if the commit fails, gc finds the object.
    /// - Throws: `.chunksMissing` for what is to be made of a base and cannot, as the client has it whole.
    func store(_ request: CommitRequest, _ session: Session, _ namespace: NamespaceID) async throws(DriveError) -> Carried {
        guard let chunks = request.chunks, !chunks.isEmpty else { return Carried() }
        guard chunks.allSatisfy({ $0.length > 0 }), chunks.reduce(0, { $0 + UInt64($1.length) }) <= UInt64(CarriedChunk.maximumByteCount) else {
            throw .tooLarge("A commit brings chunks of 1 to \(CarriedChunk.maximumByteCount) bytes in all.")
        }
        let (bases, known, isAnswered) = try await read { sql in
            try Self.require(.editor, sql, session, namespace)
            var bases: [ChunkHash: ChunkLocation] = [:], known: Set<ChunkHash> = []
            for chunk in chunks {
                if let base = chunk.base { bases[base] = try Self.location(sql, namespace, base) }
                if try sql.first("SELECT 1 FROM chunks WHERE hash = $1", [.hash(chunk.hash)]) != nil { known.insert(chunk.hash) }
            }
            return (bases, known, try sql.first("SELECT 1 FROM commits WHERE id = $1", [.id(request.commit)]) != nil)
        }
        if isAnswered { return Carried() }
        var carried = Carried(), fresh: [(reference: ChunkReference, bytes: ByteBuffer)] = [], missing: [ChunkHash] = []
        for chunk in chunks where carried.lengths[chunk.hash] == nil {
            guard let bytes = try await bytes(of: chunk, bases), bytes.withUnsafeReadableBytes(SHA256.hash) == chunk.hash else {
                guard chunk.base != nil else { throw .hashMismatch("The commit's chunk \(chunk.hash) has other bytes.") }
                missing.append(chunk.hash)
                continue
            }
            carried.lengths[chunk.hash] = chunk.length
            if !known.contains(chunk.hash) { fresh.append((ChunkReference(hash: chunk.hash, length: chunk.length), bytes)) }
        }
        guard missing.isEmpty else { throw .chunksMissing(missing) }
        guard !fresh.isEmpty else { return carried }
        let locations: [ChunkLocation]
        do throws(ChunkStoreError) { locations = try await self.chunks.put(fresh) } catch { throw Self.translated(error) }
        carried.placed = Dictionary(uniqueKeysWithValues: zip(fresh.map(\.reference.hash), locations))
        return carried
    }

    /// - Returns: nil if the base is gone or cannot be read.
    private func bytes(of chunk: CarriedChunk, _ bases: [ChunkHash: ChunkLocation]) async throws(DriveError) -> ByteBuffer? {
        let data = ByteBuffer(bytes: chunk.data), length = Int(chunk.length)
        guard let base = chunk.base else {
            guard data.readableBytes == length else { throw .badRequest("A chunk of \(length) bytes came with \(data.readableBytes).") }
            return data
        }
        let pieces: [ChunkDelta.Piece]
        do { pieces = try data.withUnsafeReadableBytes { try ChunkDelta.pieces(of: $0, chunkLength: length) } } catch {
            throw .badRequest("A chunk's data is no sequence of pieces within it.")
        }
        guard var location = bases[base]?.suffix(from: Int(chunk.start ?? 0)) else { return nil }
        location.length = min(chunk.length, location.length)
        var bytes = ByteBuffer()
        if location.length > 0 {
            guard let held = try? await chunks.read(location) else { return nil }
            bytes = held
        }
        bytes.writeRepeatingByte(0, count: length - bytes.readableBytes)
        bytes.withUnsafeMutableReadableBytes { whole in
            data.withUnsafeReadableBytes { ChunkDelta.lay(pieces, of: $0, over: whole, at: 0) }
        }
        return bytes
    }
}
