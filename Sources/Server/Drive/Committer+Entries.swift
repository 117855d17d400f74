import Foundation
import Shared

// Entries: what create, link, rename and remove do, whoever came first (DESIGN.md §4, "Conflicts").
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

    func insertEntry(_ parent: NodeID, _ name: String, _ node: NodeID, deletedAt: Timestamp? = nil) throws {
        toldNames.insert(Place(parent: parent, name: name))
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
                SELECT id, node, created_at, deleted_at FROM entries WHERE parent = $1 AND name = $2 AND deleted_at IS NOT NULL AND sequence > 0
                AND (node = $3 OR EXISTS (
                SELECT 1 FROM nodes n WHERE n.id = entries.node AND n.deleted_at IS NOT NULL AND (n.version IS NULL AND (n.mode & 61440) <> 16384
                OR EXISTS (SELECT 1 FROM entries e WHERE e.node = entries.node AND e.sequence > entries.sequence))))
                """, [.id(entry.parent), .text(entry.name), .id(entry.node)]) {
                let holder: NodeID = try row.id(1)
                // Rows of nodes are written at the end of the commit: this one may have come back meanwhile.
                guard try holder == entry.node || node(holder)?.deletedAt != nil else { continue }
                let isShort = row.time(3) >= row.time(2) && row.time(3) < row.time(2).adding(seconds: 60)
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

    private func problem(_ name: String) -> Result? {
        EntryName.problem(with: name).map { (.refused, .invalidName, "The name is not allowed: \($0).") }
    }

    // MARK: Operations

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
        try insertEntry(directory.id, place, node.id)
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

    // MARK: Content

    func setContent(
        _ id: NodeID, _ base: VersionID?, _ version: VersionID, _ content: Content, _ modified: Timestamp, _ changed: Timestamp
    ) throws -> Result {
        guard var row = try node(id).map({ try successor(of: $0) ?? $0 }), row.isRegular else { return gone("The file is not there any more.") }
        if let known = try sql.first("SELECT node FROM versions WHERE id = $1", [.id(version)]) {
            // Written before, by a commit whose answer was lost.
            guard let holder = try node(try known.id(0)), try NodeRow.content(sql, version) == content else {
                return (.refused, .conflict, "There is a version of this identity.")
            }
            return holder.id == row.id ? Self.applied : (.conflicted, .conflict, try entries(of: holder.id).first?.name)
        }
        let base = base ?? inheritedBases.removeValue(forKey: row.id)
        if row.deletedAt == nil, row.version == base {
            var origin: (windowStart: Timestamp, parents: [VersionID]) = (time, [])
            if let base, let place = try entries(of: row.id).first {
                try guardian?.record(.rewritten, row, at: place)
                origin = try ledger.coalesce(base, device: session.device, time, seconds: settings.versionSeconds)
            }
            try ledger.addVersion(
                version, of: row.id, content, session, request.device, time, modified: modified, windowStart: origin.windowStart, parents: origin.parents)
            row.version = version
            (row.modified, row.changed) = (modified, changed)
            put(row)
            return Self.applied
        }
        if try NodeRow.content(sql, row.version) ?? .empty == content, row.deletedAt == nil { return Self.applied }
        if row.deletedAt != nil {   // the edit wins: the file is back
            var back = try restore(row)
            try ledger.addVersion(version, of: back.id, content, session, request.device, time, modified: modified)
            back.version = version
            (back.modified, back.changed) = (modified, changed)
            put(back)
            return (.merged, nil, nil)
        }
        if let base, let copy = try conflictedCopy(holding: base, besides: row) {
            let (outcome, code, detail) = try setContent(copy.id, base, version, content, modified, changed)
            return outcome == .applied ? (.conflicted, .conflict, try entries(of: copy.id).first?.name) : (outcome, code, detail)
        }
        if let base, let result = try merge(row, base, version, content, modified, changed) { return result }
        return try keepBoth(row, version, content, modified, changed)
    }

    /// Where an earlier edit of the same program went, when it lost: its next edit belongs there, not into one more copy.
    private func conflictedCopy(holding version: VersionID, besides row: NodeRow) throws -> NodeRow? {
        guard let holder = try sql.first("SELECT node FROM versions WHERE id = $1", [.id(version)]),
              let copy = try node(try holder.id(0)), copy.id != row.id, copy.version == version, copy.deletedAt == nil else { return nil }
        return copy
    }

    /// Two edits of one version: the later one becomes a file of its own beside the first.
    private func keepBoth(_ row: NodeRow, _ version: VersionID, _ content: Content, _ modified: Timestamp, _ changed: Timestamp) throws -> Result {
        guard let place = try entries(of: row.id).first else { return gone("The file is not there any more.") }
        if var copy = try equalCopy(of: row.id, content) {
            // A version of the copy: the program's next edit is based on it and shall follow.
            try ledger.addVersion(version, of: copy.id, content, session, request.device, time, modified: modified)
            copy.version = version
            put(copy)
            return (.conflicted, .conflict, try entries(of: copy.id).first?.name)
        }
        let name = try freeName(place.parent, place.name)
        var copy = row
        copy.id = .make()
        copy.links = 1
        copy.version = version
        (copy.modified, copy.changed, copy.created, copy.arrived) = (modified, changed, changed, time)
        try ledger.addVersion(version, of: copy.id, content, session, request.device, time, modified: modified)
        putNew(copy)
        try recordConflict(row.id, copy: copy.id)
        try insertEntry(place.parent, name, copy.id)
        try touch(place.parent, changed)
        return (.conflicted, .conflict, name)
    }
}

/// How a conflicted copy is called.
enum ConflictedCopy {
    /// `NAME (conflicted copy, DEVICE, YYYY-MM-DD).EXT`, with a number from the second on, within 255 bytes.
    static func name(of name: String, device: String, time: Timestamp, number: Int) -> String {
        let host = String(device.map { $0 == "/" || $0 == "\0" ? "-" : $0 }.prefix(40))
        return self.name(of: name, mark: " (conflicted copy, \(host), \(day(time))\(number > 1 ? " \(number)" : ""))")
    }

    static func isCopy(_ copy: String, of name: String) -> Bool {
        let stem = name.lastIndex(of: ".").flatMap { $0 == name.startIndex ? nil : $0 }.map { name[..<$0] } ?? name[...]
        return copy.hasPrefix(withoutMark(String(stem)) + " (conflicted copy, ")
    }

    /// The name with a mark before its ending, within 255 bytes.
    static func name(of name: String, mark: String) -> String {
        let dot = name.lastIndex(of: ".").flatMap { $0 == name.startIndex ? nil : $0 } ?? name.endIndex
        var stem = String(name[..<dot])
        let ending = String(name[dot...].utf8.count > 32 ? "" : name[dot...])
        if ending.isEmpty { stem = name }
        stem = withoutMark(stem)
        while stem.utf8.count + mark.utf8.count + ending.utf8.count > EntryName.maximumByteCount, !stem.isEmpty { stem.removeLast() }
        return stem + mark + ending
    }

    /// A copy of a copy is named after the file, not after the copy.
    private static func withoutMark(_ stem: String) -> String {
        guard stem.hasSuffix(")"), let mark = stem.range(of: " (conflicted copy, ", options: .backwards), mark.lowerBound > stem.startIndex,
              !stem[mark.upperBound...].dropLast().contains(")") else { return stem }
        return String(stem[..<mark.lowerBound])
    }

    /// ISO 8601 in UTC.
    private static func day(_ time: Timestamp) -> String {
        var seconds = time.timespec.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
    }
}
