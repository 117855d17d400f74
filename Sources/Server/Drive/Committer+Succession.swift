import Shared

// Programs that save by writing a new file and renaming it over the old one, or by moving the old one aside, writing a new one in its place and
// removing the old one (vim): the new file goes on with the old one's history, and with its place if that was moved meanwhile.
extension Committer {
    /// A file that is older than this when it replaces another is a file of its own, seconds.
    static let savingSeconds: Int64 = 60

    /// Takes a replaced node out of its place.
    ///
    /// - Parameter seen: the version of it that the device saw.
    /// - Returns: false, having changed nothing, if it holds what the device never saw: then both are kept.
    func replace(_ old: NodeRow, _ seen: VersionID?, by row: inout NodeRow, at place: LiveEntry) throws -> Bool {
        let isStale = try old.isRegular && old.links == 1 && seen != nil && old.version != seen && !isSuperseded(seen, old)
        let isSave = isSave(of: old, by: row)
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

    private func isSave(of old: NodeRow, by row: NodeRow) -> Bool {
        old.isRegular && row.isRegular && old.links == 1 && row.deletedAt == nil && time < row.arrived.adding(seconds: Self.savingSeconds)
    }

    /// Where the file is that a save by rename is to replace, if it was moved since the device saw it at the named place.
    func movedPlace(of old: NodeRow, savedBy row: NodeRow, _ parent: NodeID, _ name: String) throws -> LiveEntry? {
        guard isSave(of: old, by: row), let place = try entries(of: old.id).first, place.parent != parent || place.name != name else { return nil }
        return place
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

    // MARK: The old file moved aside

    /// A rename: where the device saw the node, and where it stood if that was somewhere else.
    struct Move { let parent: NodeID, name: String, strayed: LiveEntry? }

    func noteMove(of id: NodeID, _ parent: NodeID, _ name: String, _ source: LiveEntry?) throws {
        guard let parent = try node(parent)?.id else { return }
        moves[id] = Move(parent: parent, name: name, strayed: source.flatMap { $0.parent == parent && $0.name == name ? nil : $0 })
    }

    /// The removal of a file that was moved aside within its folder, and in whose place the device has put a new one: a save.
    ///
    /// - Parameter seen: the version of it that the device saw.
    /// - Returns: false, having changed nothing, if it is no save.
    func endSave(_ old: NodeRow, _ seen: VersionID?, aside: LiveEntry) throws -> Bool {
        guard old.isRegular, old.links == 1, old.version != nil else { return false }
        let stood = try moves[old.id].map { ($0.parent, $0.name) } ?? Self.lastPlace(sql, of: old.id, since: time.adding(seconds: -Self.savingSeconds))
        guard let (parent, name) = stood, parent == aside.parent, let place = try entry(parent, name), place.node != old.id, var row = try node(place.node),
              isSave(of: old, by: row), try isOwn(row), try replace(old, seen, by: &row, at: aside) else { return false }
        put(row)
        if let strayed = moves[old.id]?.strayed, let directory = try liveDirectory(strayed.parent) {    // moved elsewhere meanwhile: the save goes there
            try deleteEntry(place, keepsTrash: false)
            try insertEntry(directory.id, try freeName(directory.id, strayed.name), row.id)
            try touch(directory.id, time)
        }
        try touch(parent, time)
        return true
    }

    private func isOwn(_ row: NodeRow) throws -> Bool {
        guard let version = row.version else { return contents[row.id] != nil }
        return try sql.first("SELECT device_id FROM versions WHERE id = $1", [.id(version)])?.blob(0) == session.device.bytes
    }

    /// Where a node stood before its last move, if that was not long ago.
    static func lastPlace(_ sql: any SQLConnection, of node: NodeID, since: Timestamp) throws -> (NodeID, String)? {
        try sql.first("""
            SELECT parent, name FROM entries WHERE node = $1 AND deleted_at > $2 ORDER BY deleted_at DESC, sequence DESC LIMIT 1
            """, [.id(node), .time(since)]).map { (try $0.id(0), $0.text(1) ?? "") }
    }
}
