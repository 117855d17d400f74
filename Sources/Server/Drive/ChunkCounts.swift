import Shared

/// Changes of how often chunks are referred to, gathered during a transaction and written at its end, many by one statement.
///
/// A version that takes another's place has most chunks in common with it: those are never written.
final class ChunkCounts {
    private let sql: any SQLConnection
    private let namespace: NamespaceID
    /// By anybody.
    private var stored: [ChunkHash: Int64] = [:]
    /// By the namespace.
    private var held: [ChunkHash: Int64] = [:]
    /// Of what is in `held`, bytes.
    private var lengths: [ChunkHash: Int64] = [:]
    /// Change of the namespace's used bytes.
    private var usedChange: Int64 = 0

    init(_ sql: any SQLConnection, _ namespace: NamespaceID) {
        self.sql = sql
        self.namespace = namespace
    }

    func addStored(_ chunks: [ChunkReference], _ change: Int64) {
        for chunk in chunks where !chunk.isHole { stored[chunk.hash, default: 0] += change }
    }

    func addHeld(_ chunks: [ChunkReference], _ change: Int64) {
        for chunk in chunks where !chunk.isHole {
            held[chunk.hash, default: 0] += change
            lengths[chunk.hash] = Int64(chunk.length)
        }
    }

    /// - Returns: the change of the namespace's used bytes since the ledger began.
    func settle() throws -> Int64 {
        for (change, hashes) in Self.byChange(stored) {
            try sql.inGroups(hashes) { group in
                try sql.execute(
                    "UPDATE chunks SET reference_count = reference_count + $1 WHERE hash IN (\(sql.parameters(2, count: group.count)))",
                    [.integer(change)] + group.map(SQLValue.hash))
            }
        }
        for (change, hashes) in Self.byChange(held) { try sql.inGroups(hashes) { try hold($0, by: change) } }
        (stored, held, lengths) = ([:], [:], [:])
        return usedChange
    }

    private static func byChange(_ changes: [ChunkHash: Int64]) -> [(Int64, [ChunkHash])] {
        Dictionary(grouping: changes.filter { $0.value != 0 }, by: \.value).map { ($0.key, $0.value.map(\.key)) }
    }

    private func hold(_ hashes: [ChunkHash], by change: Int64) throws {
        let names = hashes.map(SQLValue.hash)
        let counts = try sql.query("""
            UPDATE namespace_chunks SET count = count + $1 WHERE namespace = $2 AND hash IN (\(sql.parameters(3, count: names.count))) RETURNING hash, count
            """, [.integer(change), .id(namespace)] + names)
        var absent = Set(hashes), gone: [ChunkHash] = []
        for row in counts {
            let hash = try row.hash(0)
            absent.remove(hash)
            if row.int(1) == 0 { gone.append(hash) }
        }
        usedChange += absent.reduce(0) { $0 + lengths[$1]! } - gone.reduce(0) { $0 + lengths[$1]! }
        try sql.inGroups(Array(absent)) { group in
            let rest = group.dropFirst().enumerated().map { "($1, $\($0.offset + 4), $3)" }
            try sql.execute("""
                INSERT INTO namespace_chunks (namespace, hash, count) VALUES \((["($1, $2, $3)"] + rest).joined(separator: ", "))
                ON CONFLICT (namespace, hash) DO NOTHING
                """, [.id(namespace), .hash(group[0]), .integer(change)] + group.dropFirst().map(SQLValue.hash))
        }
        guard !gone.isEmpty else { return }
        try sql.execute(
            "DELETE FROM namespace_chunks WHERE namespace = $1 AND count = 0 AND hash IN (\(sql.parameters(2, count: names.count)))",
            [.id(namespace)] + names)
    }
}
