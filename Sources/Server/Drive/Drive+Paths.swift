import Shared

// Paths: names separated by `/`, from a directory downwards. Symbolic links are not followed.
extension Drive {
    /// The live node at a path below `directory`; nil when there is none.
    static func node(_ sql: any SQLConnection, at path: String, below directory: NodeID) throws -> NodeRow? {
        guard let id = try TreePath.live(sql, path, from: directory), let row = try NodeRow.fetch(sql, id), row.deletedAt == nil else { return nil }
        return row
    }

    /// Where a live node lies, from its namespace's root: the empty path for the root itself, nil for a node that cannot be reached. Of
    /// several hard links one is named.
    static func path(_ sql: any SQLConnection, of node: NodeID, root: NodeID) throws -> String? {
        var names: [String] = [], at = node
        while at != root {
            guard let row = try sql.first("SELECT parent, name FROM entries WHERE node = $1 AND deleted_at IS NULL", [.id(at)]) else { return nil }
            at = try row.id(0)
            names.append(row.text(1) ?? "")
        }
        return names.reversed().joined(separator: "/")
    }
}
