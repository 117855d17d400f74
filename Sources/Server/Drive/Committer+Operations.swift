import Foundation
import Shared

// What create, link, remove, rename and exchange do, whoever came first (DESIGN.md §4, "Conflicts").
extension Committer {
    func create(_ node: Node, _ parent: NodeID, _ name: String) throws -> Result {
        if let problem = problem(name) { return problem }
        guard FileType(mode: node.mode) != nil, node.target.map({ (1...4095).contains($0.utf8.count) }) ?? true else {
            return (.refused, .badRequest, "The node's type or target makes no sense.")
        }
        if let known = try self.node(node.id) {     // created before, by a commit whose answer was lost, and maybe moved since
            guard known.id == node.id else { return (.merged, .nameTaken, known.id.description) }
            let places = try entries(of: known.id)
            if places.isEmpty || places.contains(where: { $0.parent != parent || $0.name == name }) { return Self.applied }
            return (.conflicted, .nameTaken, places[0].name)
        }
        if try exists(node.id) { return (.refused, .conflict, "There is a node of this identity.") }
        guard Self.xattrsFit(node.xattrs) else { return (.refused, .tooLarge, "The node's extended attributes are too large.") }
        let wasGone = try self.node(parent)?.deletedAt != nil
        guard let directory = try liveDirectory(parent) else { return gone("The directory is not there.") }
        var place = name
        if let existing = try entry(directory.id, name), let other = try self.node(existing.node) {
            if try isSame(node, other) {
                try sql.execute("INSERT INTO node_aliases (alias, node) VALUES ($1, $2)", [.id(node.id), .id(other.id)])
                return (.merged, .nameTaken, other.id.description)
            }
            if FileType(mode: node.mode) == .regular, let copy = try equalCopy(of: other.id, contents[node.id] ?? .empty) {
                try sql.execute("INSERT INTO node_aliases (alias, node) VALUES ($1, $2)", [.id(node.id), .id(copy.id)])
                try tellAgain(copy.id)
                return (.merged, .nameTaken, copy.id.description)
            }
            place = try freeName(directory.id, name)
            try recordConflict(other.id, copy: node.id)
        }
        putNew(NodeRow(node, namespace: namespace, arrived: time))
        try insertEntry(directory.id, place, node.id, isNew: true)
        try touch(directory.id, node.created)
        return place != name ? (.conflicted, .nameTaken, place) : wasGone ? (.merged, nil, nil) : Self.applied
    }

    /// Two that were created under one name are one: directories, equal symlinks, files of equal content.
    private func isSame(_ node: Node, _ other: NodeRow) throws -> Bool {
        guard node.mode & 0o170000 == other.mode & 0o170000 else { return false }
        if other.isDirectory { return other.shared == nil }
        if other.isRegular {
            let mine = contents[node.id] ?? .empty, theirs = try NodeRow.content(sql, other.version) ?? .empty
            return mine == theirs
        }
        return node.target != nil && node.target == other.target
    }

    func link(_ id: NodeID, _ parent: NodeID, _ name: String, _ time: Timestamp) throws -> Result {
        if let problem = problem(name) { return problem }
        guard var row = try node(id).map({ try successor(of: $0) ?? $0 }), !row.isDirectory else { return gone("The file is not there any more.") }
        guard let directory = try liveDirectory(parent) else { return gone("The directory is not there.") }
        if try entry(directory.id, name)?.node == row.id { return Self.applied }
        if row.deletedAt != nil {
            row = try revive(row)
            row.links = 0
        }
        let place = try freeName(directory.id, name)
        row.links += 1
        row.changed = time
        put(row)
        try insertEntry(directory.id, place, row.id)
        try touch(directory.id, time)
        return place == name ? Self.applied : (.conflicted, .nameTaken, place)
    }

    func remove(_ id: NodeID, _ parent: NodeID, _ name: String, _ version: VersionID?, _ time: Timestamp) throws -> Result {
        // Otherwise gone already, or another stands there now.
        guard let row = try node(id).map({ try successor(of: $0) ?? $0 }), let directory = try node(parent),
              let entry = try place(toRemove: row, directory.id, name) else { return Self.applied }
        if row.shared != nil {
            return (.refused, .forbidden, "\(name) is a shared folder: leave it to take it away.")
        }
        if row.isDirectory, try !isEmpty(row.id) {
            return (.refused, .notEmpty, "\(name) holds what others put there.")
        }
        if try endSave(row, version, aside: entry) { return Self.applied }
        if row.isRegular, row.links == 1, row.version != version, try !isSuperseded(version, row) {
            return (.conflicted, .conflict, "\(name) was changed elsewhere and stays.")
        }
        try unlink(entry, row, time)
        try touch(directory.id, time)
        return Self.applied
    }

    /// The entry that a removal takes away: the named one, or the conflicted copy that the device's own file became under that name.
    private func place(toRemove row: NodeRow, _ directory: NodeID, _ name: String) throws -> LiveEntry? {
        if let entry = try entry(directory, name), entry.node == row.id { return entry }
        let places = try entries(of: row.id)
        guard places.count == 1, places[0].parent == directory, ConflictedCopy.isCopy(places[0].name, of: name), try sql.first(
            "SELECT 1 FROM conflicts WHERE copy = $1 AND device = $2 AND resolved_at IS NULL", [.id(row.id), .id(session.device)]) != nil else { return nil }
        return places[0]
    }

    /// The remover saw an older version, and the newer one is this same device's: nothing of others is lost.
    func isSuperseded(_ version: VersionID?, _ row: NodeRow) throws -> Bool {
        guard let current = row.version else { return true }
        return try sql.first("SELECT device_id FROM versions WHERE id = $1", [.id(current)])?.blob(0) == session.device.bytes
    }

    /// Takes one entry of a node away; with the last one the node goes to the trash.
    func unlink(_ entry: LiveEntry, _ row: NodeRow, _ time: Timestamp) throws {
        var row = row
        if row.links <= 1 { try guardian?.record(row.isDirectory ? .removedDirectory : .removed, row, at: entry) }
        try deleteEntry(entry, keepsTrash: row.version != nil)
        row.links -= 1
        row.changed = time
        put(row)
        if row.links <= 0 { bury(row) }
    }

    func rename(
        _ id: NodeID, _ parent: NodeID, _ name: String, _ toParent: NodeID, _ toName: String, _ replaced: NodeID?, _ replacedVersion: VersionID?,
        _ time: Timestamp
    ) throws -> Result {
        if let problem = problem(toName) { return problem }
        guard var row = try node(id).map({ try successor(of: $0) ?? $0 }) else { return gone("What was to be renamed is not there any more.") }
        guard var target = try liveDirectory(toParent) else { return gone("The directory is not there.") }
        if row.isDirectory, try isInside(target.id, row.id) {
            return (.refused, .cycle, "\(toName) would lie within itself.")
        }
        var result = Self.applied
        if row.deletedAt != nil {   // removed elsewhere: the rename brings it back, unless what it held is gone for good
            let isPurged = try sql.first("SELECT 1 FROM nodes WHERE id = $1 AND purged_at IS NOT NULL", [.id(row.id)]) != nil
            if row.isRegular && row.version == nil || row.isDirectory && isPurged { return gone("What was to be renamed was removed elsewhere.") }
            row = try revive(row)
            row.links = 0
            result = (.merged, nil, nil)
        }
        let source = try self.source(of: row, parent, name)
        try noteMove(of: row.id, parent, name, source)
        var place = toName
        let old = try replaced.flatMap { try node($0) }.map { try successor(of: $0) ?? $0 }
        if let old, let moved = try movedPlace(of: old, savedBy: row, target.id, toName), let directory = try node(moved.parent) {
            (target, place) = (directory, moved.name)       // a save goes where its file is by now
            result = (.merged, nil, nil)
        }
        if let occupant = try entry(target.id, place) {
            if occupant.node == row.id {
                guard let source, source.id != occupant.id else { return Self.applied }
                try unlink(source, row, time)
                return Self.applied
            }
            let isReplaced = try old.map { try mayReplace($0, at: occupant) && replace($0, replacedVersion, by: &row, at: occupant) } ?? false
            if !isReplaced {
                place = try freeName(target.id, place)
                try recordConflict(occupant.node, copy: row.id)
                result = (.conflicted, .nameTaken, place)
            }
        }
        if let source {
            try guardian?.record(.moved, row, at: source)
            try deleteEntry(source, keepsTrash: false)
            try touch(source.parent, time)
        } else {
            row.links += 1
        }
        row.changed = time
        put(row)
        try insertEntry(target.id, place, row.id)
        try touch(target.id, time)
        return result
    }

    /// The entry that a rename takes away: the named one, or where somebody else moved the node meanwhile.
    private func source(of row: NodeRow, _ parent: NodeID, _ name: String) throws -> LiveEntry? {
        if let directory = try node(parent), let entry = try entry(directory.id, name), entry.node == row.id { return entry }
        let others = try entries(of: row.id)
        return others.count == 1 ? others[0] : nil
    }

    /// Whether the occupant of a rename's target is what the client saw there (a directory only when it is empty).
    private func mayReplace(_ old: NodeRow, at occupant: LiveEntry) throws -> Bool {
        try old.id == occupant.node && (!old.isDirectory || old.shared == nil && isEmpty(old.id))
    }

    func exchange(_ one: (NodeID, NodeID, String), _ other: (NodeID, NodeID, String), _ time: Timestamp) throws -> Result {
        guard let row = try node(one.0), let from = try node(one.1), let otherRow = try node(other.0), let to = try node(other.1),
              let first = try entry(from.id, one.2), first.node == row.id, let second = try entry(to.id, other.2), second.node == otherRow.id,
              try !(row.isDirectory && isInside(to.id, row.id)), try !(otherRow.isDirectory && isInside(from.id, otherRow.id))
        else { return (.refused, .conflict, "\(one.2) and \(other.2) are not what they were.") }
        guard first.id != second.id else { return Self.applied }
        try deleteEntry(first, keepsTrash: false)
        try deleteEntry(second, keepsTrash: false)
        try insertEntry(from.id, one.2, otherRow.id)
        try insertEntry(to.id, other.2, row.id)
        for var changed in [row, otherRow] {
            changed.changed = time
            put(changed)
        }
        try touch(from.id, time)
        try touch(to.id, time)
        return Self.applied
    }

    private func problem(_ name: String) -> Result? {
        EntryName.problem(with: name).map { (.refused, .invalidName, "The name is not allowed: \($0).") }
    }
}
