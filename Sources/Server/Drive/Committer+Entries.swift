import Foundation
import Shared

// Entries, and the directories that hold them.
extension Committer {
    struct LiveEntry { var id: [UInt8], parent: NodeID, name: String, node: NodeID }

    func entry(_ parent: NodeID, _ name: String) throws -> LiveEntry? {
        try sql.first("SELECT id, node FROM entries WHERE parent = $1 AND name = $2 AND deleted_at IS NULL", [.id(parent), .text(name)]).map {
            LiveEntry(id: $0.blob(0) ?? [], parent: parent, name: name, node: try $0.id(1))
        }
    }

    func entries(of node: NodeID) throws -> [LiveEntry] {
        try sql.query("SELECT id, parent, name FROM entries WHERE node = $1 AND deleted_at IS NULL", [.id(node)]).map {
            LiveEntry(id: $0.blob(0) ?? [], parent: try $0.id(1), name: $0.text(2) ?? "", node: node)
        }
    }

    /// - Parameter isNew: the node was nowhere before. Otherwise, what tells that it left this place leaves the feed: a reader who meets that on a
    ///   page before the new row, and has the node here already, would lose it for as long.
    func insertEntry(_ parent: NodeID, _ name: String, _ node: NodeID, isNew: Bool = false, deletedAt: Timestamp? = nil) throws {
        toldNames.insert(Place(parent: parent, name: name))
        if !isNew, deletedAt == nil {
            try sql.execute(
                "UPDATE entries SET sequence = 0 WHERE parent = $1 AND name = $2 AND node = $3 AND deleted_at IS NOT NULL AND sequence > 0",
                [.id(parent), .text(name), .id(node)])
        }
        try sql.execute(
            "INSERT INTO entries (id, namespace, parent, name, node, sequence, created_at, deleted_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            [.id(Identifier<EntryTag>.make()), .id(namespace), .id(parent), .text(name), .id(node), .integer(sequence), .time(time), .time(deletedAt)])
    }

    /// The row stays, as what the feed tells and what the trash finds. Older rows of the name leave the feed where nobody needs them there
    /// any more: those of this node, and those of removed nodes that held nothing or lay elsewhere last. A row that names a living node
    /// stays: it tells a reader who was away that the node is no longer here. What left the feed (`sequence` 0) tells what the tree was
    /// like at a time; what was there for less than a minute is forgotten.
    func deleteEntry(_ entry: LiveEntry, keepsTrash: Bool) throws {
        toldNames.insert(Place(parent: entry.parent, name: entry.name))
        if !keepsTrash {
            for row in try sql.query("""
                SELECT id, node, created_at, deleted_at, sequence FROM entries WHERE parent = $1 AND name = $2 AND deleted_at IS NOT NULL
                AND (node = $3 OR sequence > 0 AND EXISTS (
                SELECT 1 FROM nodes n WHERE n.id = entries.node AND n.deleted_at IS NOT NULL AND (n.version IS NULL AND (n.mode & 61440) <> 16384
                OR EXISTS (SELECT 1 FROM entries e WHERE e.node = entries.node AND e.sequence > entries.sequence))))
                """, [.id(entry.parent), .text(entry.name), .id(entry.node)]) {
                let holder: NodeID = try row.id(1)
                // Rows of nodes are written at the end of the commit: this one may have come back meanwhile.
                guard try holder == entry.node || node(holder)?.deletedAt != nil else { continue }
                let isShort = row.time(3) >= row.time(2) && row.time(3) < row.time(2).adding(seconds: 60)
                guard isShort || row.int(4) > 0 else { continue }      // it left the feed before
                try sql.execute(isShort ? "DELETE FROM entries WHERE id = $1" : "UPDATE entries SET sequence = 0 WHERE id = $1", [row.values[0]])
            }
        }
        try sql.execute(
            "UPDATE entries SET deleted_at = $1, sequence = $2 WHERE id = $3", [.time(time), .integer(sequence), .blob(entry.id)])
    }

    // MARK: Directories

    /// The directory, brought back with those above it if it was removed: nothing written into it is lost.
    func liveDirectory(_ id: NodeID) throws -> NodeRow? {
        guard let row = try node(id), row.isDirectory, row.shared == nil else { return nil }
        return row.deletedAt == nil ? row : try restore(row)
    }

    /// Brings a removed node back to where it was; to the root when that place is forgotten.
    func restore(_ row: NodeRow) throws -> NodeRow {
        let last = try sql.first(
            """
            SELECT parent, name FROM entries WHERE node = $1 AND namespace = $2 AND deleted_at IS NOT NULL ORDER BY sequence DESC, deleted_at DESC LIMIT 1
            """, [.id(row.id), .id(namespace)])
        var row = try revive(row)   // before its directory, so that two that once lay within each other do not restore one another for ever
        row.links = 1
        put(row)
        var place = root
        if let last, let parent = try liveDirectory(try last.id(0)), try !(row.isDirectory && isInside(parent.id, row.id)) { place = parent.id }
        try insertEntry(place, try freeName(place, last?.text(1) ?? "restored"), row.id)
        return row
    }

    func isInside(_ directory: NodeID, _ ancestor: NodeID) throws -> Bool {
        var at = directory
        while at != ancestor {
            guard let row = try sql.first("SELECT parent FROM entries WHERE node = $1 AND deleted_at IS NULL", [.id(at)]) else { return false }
            at = try row.id(0)
        }
        return true
    }

    func isEmpty(_ directory: NodeID) throws -> Bool {
        try sql.first("SELECT 1 FROM entries WHERE parent = $1 AND deleted_at IS NULL LIMIT 1", [.id(directory)]) == nil
    }

    /// Whether a junction lies below: such a folder is never taken away with what it holds.
    func holdsSharedFolder(_ directory: NodeID) throws -> Bool { try sharedFolder(below: directory) != nil }

    /// The first junction below a directory.
    func sharedFolder(below directory: NodeID) throws -> NodeID? {
        for found in try sql.query("SELECT id FROM nodes WHERE shared IS NOT NULL AND namespace = $1 AND deleted_at IS NULL", [.id(namespace)]) {
            let junction: NodeID = try found.id(0)
            if try isInside(junction, directory) { return junction }
        }
        return nil
    }

    // MARK: Names

    /// The name, or the first conflicted copy's name that is free.
    func freeName(_ parent: NodeID, _ name: String) throws -> String {
        guard try entry(parent, name) != nil else { return name }
        var number = 1
        while true {
            let candidate = ConflictedCopy.name(of: name, device: request.device, time: time, number: number)
            if try entry(parent, candidate) == nil { return candidate }
            number += 1
        }
    }
}
