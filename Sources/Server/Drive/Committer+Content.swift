import Foundation
import Shared

// New bytes of a file, whoever came first (DESIGN.md §4, "Conflicts").
extension Committer {
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
