import NIOCore
import Shared

// Objects outlive most of their chunks: packs of small ones, and long chunks of which a stretch became a chunk of its own.
extension Drive {
    /// An object is mostly dead when its chunks have less than one in so many of its bytes.
    private static let livingShare = 4
    /// Objects in one run, so that it ends.
    private static let compactedAtOnce = 256

    /// Writes what lives of mostly dead objects anew. The old ones have no chunks then and go with the next run, so that whoever has looked
    /// a chunk up can read it.
    ///
    /// Crash order: 1. the new object is on the disk; 2. its row and where the chunks lie are written, in one transaction. A crash between
    /// leaves an object that no row names, which gc finds.
    /// - Parameter before: younger objects stay as they are.
    /// - Returns: how many.
    func compact(before: Timestamp) async throws(DriveError) -> Int {
        let objects = try await read { sql in
            try sql.query("""
                SELECT o.name FROM objects o JOIN (SELECT object, sum(length) AS living FROM chunks GROUP BY object) c ON c.object = o.name
                WHERE o.arrived < $1 AND c.living * $2 < o.bytes LIMIT $3
                """, [.time(before), .int(Self.livingShare), .int(Self.compactedAtOnce)]).compactMap { $0.text(0) }
        }
        var count = 0
        for object in objects where try await compact(object) { count += 1 }
        return count
    }

    private func compact(_ object: String) async throws(DriveError) -> Bool {
        let living = try await read { sql in
            try sql.query("SELECT hash, byte_offset, length FROM chunks WHERE object = $1", [.text(object)]).map { row in
                (hash: try row.hash(0), location: ChunkLocation(object: object, offset: UInt64(row.int(1)), length: UInt32(row.int(2))))
            }
        }
        var moved: [(reference: ChunkReference, bytes: ByteBuffer)] = [], places: [ChunkLocation] = []
        do {
            for (hash, location) in living {
                let bytes = try await chunks.read(location)
                guard SHA256.hash(Array(bytes.readableBytesView)) == hash else { return false }     // fsck names it
                moved.append((ChunkReference(hash: hash, length: location.length), bytes))
            }
            guard !moved.isEmpty else { return false }
            places = try await chunks.put(moved)
        } catch { throw Self.translated(error) }
        let time = now()
        try await write(.ordered) { [moved, places] sql in
            try Self.note(places, sql, time)
            for (chunk, place) in zip(moved, places) {
                try sql.execute(
                    "UPDATE chunks SET object = $1, byte_offset = $2 WHERE hash = $3 AND object = $4",
                    [.text(place.object), .int(place.offset), .hash(chunk.reference.hash), .text(object)])
            }
        }
        return true
    }
}
