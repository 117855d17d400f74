import Shared

// Programs that save by writing a new file and renaming it over the old one: the new file goes on with the old one's history.
extension Committer {
    /// A file that is older than this when it replaces another is a file of its own, seconds.
    static let savingSeconds: Int64 = 60

    /// Takes a replaced node out of its place.
    ///
    /// - Parameter seen: the version of it that the device saw.
    /// - Returns: false, having changed nothing, if it holds what the device never saw: then both are kept.
    func replace(_ old: NodeRow, _ seen: VersionID?, by row: inout NodeRow, at place: LiveEntry) throws -> Bool {
        let isStale = try old.isRegular && old.links == 1 && seen != nil && old.version != seen && !isSuperseded(seen, old)
        let isSave = old.isRegular && row.isRegular && old.links == 1 && row.deletedAt == nil && time < row.arrived.adding(seconds: Self.savingSeconds)
        if isSave, row.version == nil, let last = old.version, contents[row.id] != nil {
            // The content comes later in this batch, and meets then what the device did not see.
            try succeed(old, by: row, at: place)
            row.version = last
            inheritedBases[row.id] = isStale ? seen : last
            return true
        }
        guard isSave, let last = old.version, let ours = row.version else {
            if !isStale { try unlink(place, old, time) }
            return !isStale
        }
        guard isStale, let seen else {
            try adopt(last, of: old, by: row, at: place, parent: last)
            return true
        }
        guard let merge = try planned(old, seen, ours, NodeRow.content(sql, ours)) else { return false }
        try adopt(last, of: old, by: row, at: place, parent: seen)
        try conclude(merge, of: &row, last, ours, row.modified)
        return true
    }

    /// The same for a young file whose content came in an earlier commit.
    ///
    /// - Parameter parent: what its first version was edited from.
    private func adopt(_ last: VersionID, of old: NodeRow, by row: NodeRow, at place: LiveEntry, parent: VersionID) throws {
        var before = row
        before.version = last
        try guardian?.record(.rewritten, before, at: place)
        let first = try sql.first("SELECT id, parents FROM versions WHERE node = $1 ORDER BY created, id LIMIT 1", [.id(row.id)])
        try succeed(old, by: row, at: place)
        if let first, first.blob(1)?.isEmpty ?? true {
            let origin: (windowStart: Timestamp, parents: [VersionID]) = try parent == last
                ? ledger.coalesce(last, device: session.device, time, seconds: settings.versionSeconds) : (time, [parent])
            try sql.execute(
                "UPDATE versions SET parents = $1, window_start = $2 WHERE id = $3",
                [.blob(origin.parents.flatMap(\.bytes)), .time(origin.windowStart), first.values[0]])
        }
    }

    /// Gives the versions of a file to another, and buries it.
    private func succeed(_ old: NodeRow, by row: NodeRow, at place: LiveEntry) throws {
        try sql.execute("UPDATE versions SET node = $1 WHERE node = $2", [.id(row.id), .id(old.id)])
        try deleteEntry(place, keepsTrash: false)
        var gone = old
        gone.version = nil
        bury(gone)
        // Made in this commit, it may have no row yet.
        if let buried = try node(old.id) { try buried.save(sql) }
        try sql.execute("UPDATE nodes SET purged_at = $1, successor = $2 WHERE id = $3", [.time(time), .id(row.id), .id(old.id)])
    }

    /// Who goes on with the history of a node that was replaced by a save; nil for any other.
    func successor(of row: NodeRow) throws -> NodeRow? {
        guard row.deletedAt != nil else { return nil }
        let id = try TreePath.successor(sql, of: row.id)
        return id == row.id ? nil : try node(id)
    }
}
