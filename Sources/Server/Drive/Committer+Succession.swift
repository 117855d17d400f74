import Shared

// Programs that save by writing a new file and renaming it over the old one: the new file goes on with the old one's history.
extension Committer {
    /// A file that is older than this when it replaces another is a file of its own, seconds.
    static let savingSeconds: Int64 = 60

    /// Takes the replaced file out of its place and gives its versions to the young file that comes there.
    ///
    /// - Returns: false, having changed nothing, where this is no such save.
    func succeed(_ old: NodeRow, by row: inout NodeRow, at place: LiveEntry) throws -> Bool {
        guard old.isRegular, row.isRegular, old.links == 1, row.deletedAt == nil, let last = old.version, row.version != nil,
              time < row.arrived.adding(seconds: Self.savingSeconds) else { return false }
        var before = row
        before.version = last
        try guardian?.record(.rewritten, before, at: place)
        let first = try sql.first("SELECT id, parents FROM versions WHERE node = $1 ORDER BY created, id LIMIT 1", [.id(row.id)])
        try sql.execute("UPDATE versions SET node = $1 WHERE node = $2", [.id(row.id), .id(old.id)])
        if let first, first.blob(1)?.isEmpty ?? true {
            let origin = try ledger.coalesce(last, device: session.device, time, seconds: settings.versionSeconds)
            try sql.execute(
                "UPDATE versions SET parents = $1, window_start = $2 WHERE id = $3",
                [.blob(origin.parents.flatMap(\.bytes)), .time(origin.windowStart), first.values[0]])
        }
        try deleteEntry(place, keepsTrash: false)
        var gone = old
        gone.version = nil
        bury(gone)
        // Made in this commit, it may have no row yet.
        if let buried = try node(old.id) { try buried.save(sql) }
        try sql.execute("UPDATE nodes SET purged_at = $1, successor = $2 WHERE id = $3", [.time(time), .id(row.id), .id(old.id)])
        return true
    }

    /// Who goes on with the history of a node that was replaced by a save; nil for any other.
    func successor(of row: NodeRow) throws -> NodeRow? {
        guard row.deletedAt != nil else { return nil }
        let id = try TreePath.successor(sql, of: row.id)
        return id == row.id ? nil : try node(id)
    }
}
