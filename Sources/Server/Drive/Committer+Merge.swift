import Foundation
import Shared

// Edits that meet: texts are merged, other contents are kept both, once.
extension Committer {
    /// Two edits of one version as one version whose parents are both. The incoming edit is a version of its own as well: the device's next
    /// edit is based on it.
    ///
    /// - Returns: nil when there is nothing to merge.
    /// - Throws: `MergeWanted` when the bytes have to be read first.
    func merge(
        _ row: NodeRow, _ base: VersionID, _ version: VersionID, _ content: Content, _ modified: Timestamp, _ changed: Timestamp
    ) throws -> Result? {
        guard let theirs = row.version, let merge = try planned(row, base, version, content) else { return nil }
        if let place = try entries(of: row.id).first { try guardian?.record(.rewritten, row, at: place) }
        try ledger.addVersion(version, of: row.id, content, session, request.device, time, modified: modified, parents: [base])
        var row = row
        try conclude(merge, of: &row, theirs, version, modified)
        row.changed = max(changed, row.changed)
        put(row)
        return (.merged, nil, nil)
    }

    /// The merge of a file's current version with another edit of `base`; nil when there is none.
    ///
    /// - Throws: `MergeWanted` when the bytes have to be read first.
    func planned(_ row: NodeRow, _ base: VersionID, _ version: VersionID, _ content: Content?) throws -> MergePlan.Merge? {
        guard let theirs = row.version, isMergeable(content), try isMergeable(NodeRow.content(sql, theirs)),
              try sql.first("SELECT node FROM versions WHERE id = $1", [.id(base)])?.blob(0) == row.id.bytes,
              try isMergeable(NodeRow.content(sql, base)) else { return nil }
        guard let decision = plan.decisions[version], decision.theirs == theirs else {
            if plan.attempt >= MergePlan.maximumAttempts { return nil }
            throw MergeWanted()
        }
        if let merge = decision.merge, let chunk = merge.chunk { try keep(chunk, merge.location) }
        return decision.merge
    }

    /// Makes the merge the file's version.
    func conclude(_ merge: MergePlan.Merge, of row: inout NodeRow, _ theirs: VersionID, _ ours: VersionID, _ modified: Timestamp) throws {
        try ledger.addVersion(
            merge.version, of: row.id, merge.content, session, request.device, time, modified: modified, kind: .merge, parents: [theirs, ours])
        row.version = merge.version
        row.modified = max(modified, row.modified)
    }

    private func isMergeable(_ content: Content?) -> Bool {
        guard let content else { return false }
        return content.inline != nil && content.size <= UInt64(TextMerge.maximumByteCount)
    }

    private func keep(_ chunk: ChunkReference, _ location: ChunkLocation?) throws {
        if try sql.first("SELECT 1 FROM chunks WHERE hash = $1", [.hash(chunk.hash)]) != nil { return }
        guard let location else { throw MergeWanted() }     // collected since it was seen
        try Drive.note([chunk.hash], placed: [chunk.hash: location], sql, time)
    }

    // MARK: Copies

    /// The conflicted copy of the file that holds just this already: the same two contents never make a second one.
    func equalCopy(of node: NodeID, _ content: Content) throws -> NodeRow? {
        for found in try sql.query("SELECT copy FROM conflicts WHERE node = $1 AND resolved_at IS NULL", [.id(node)]) {
            if let copy = try self.node(try found.id(0)), copy.isRegular, copy.deletedAt == nil, try (NodeRow.content(sql, copy.version) ?? .empty) == content { return copy }
        }
        return nil
    }

    func recordConflict(_ node: NodeID, copy: NodeID) throws {
        try sql.execute("""
            INSERT INTO conflicts (id, namespace, node, copy, device, device_name, created) VALUES ($1, $2, $3, $4, $5, $6, $7)
            """, [.id(Identifier<ConflictTag>.make()), .id(namespace), .id(node), .id(copy), .id(session.device), .text(request.device), .time(time)])
    }
}

enum ConflictTag {}
