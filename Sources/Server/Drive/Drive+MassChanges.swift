import Foundation
import Shared

// Mass changes (`MassChangeGuard`): telling the owner, and taking them back.
extension Drive {
    static let maximumEvents = 200

    /// Newest first, at most `maximumEvents`.
    func massChanges(_ session: Session, _ namespace: NamespaceID) async throws(DriveError) -> [MassChange] {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            return try sql.query("""
                SELECT e.id, e.started, e.last, e.device_name, a.name, e.path, e.undone_at,
                (SELECT count(*) FROM event_changes c WHERE c.event = e.id AND c.kind = 'removed'),
                (SELECT count(*) FROM event_changes c WHERE c.event = e.id AND c.kind = 'rewritten')
                FROM events e LEFT JOIN accounts a ON a.id = e.account WHERE e.namespace = $1 ORDER BY e.last DESC LIMIT $2
                """, [.id(namespace), .int(Self.maximumEvents)]).map { row in
                MassChange(
                    id: try row.id(0), started: row.time(1), last: row.time(2), device: row.text(3) ?? "", author: row.text(4), path: row.text(5) ?? "",
                    removed: Int(row.int(7)), rewritten: Int(row.int(8)), undone: row.isNull(6) ? nil : row.time(6))
            }
        }
    }

    /// Takes a mass change back whole, in one transaction. What others changed since stays as they left it, which is noted.
    func undo(_ session: Session, _ namespace: NamespaceID, _ event: EventID) async throws(DriveError) -> RestoreAnswer {
        try await amend(session, namespace) { committer, answer in
            let sql = committer.sql
            guard let row = try sql.first("SELECT device, undone_at, path FROM events WHERE id = $1 AND namespace = $2", [.id(event), .id(namespace)]) else {
                throw DriveError.notFound("There is no such mass change.")
            }
            guard row.isNull(1) else { throw DriveError.badRequest("This mass change was undone before.") }
            let device: DeviceID = try row.id(0)
            let changes = try sql.query("SELECT node, parent, name, version, kind FROM event_changes WHERE event = $1 ORDER BY node", [.id(event)])
            for change in changes where change.text(4) == MassChangeGuard.Kind.removedDirectory.rawValue { _ = try committer.liveDirectory(try change.id(0)) }
            for change in changes where change.text(4) != MassChangeGuard.Kind.removedDirectory.rawValue {
                try committer.undo(
                    try change.id(0), parent: try change.id(1), name: change.text(2) ?? "", version: try change.isNull(3) ? nil : change.id(3),
                    madeBy: device, &answer)
            }
            answer.path = row.text(2)
            try sql.execute("UPDATE events SET undone_at = $1 WHERE id = $2", [.time(committer.time), .id(event)])
            try Self.audit(sql, committer.time, session.account, device: session.deviceName, address: nil, "undone", namespace, detail: event.description)
        }
    }
}

extension Committer {
    /// Brings one node back to what it was before a device's mass change.
    fileprivate func undo(
        _ id: NodeID, parent: NodeID, name: String, version: VersionID?, madeBy device: DeviceID, _ answer: inout RestoreAnswer
    ) throws {
        guard let row = try node(id) else { return }
        step()      // a page of the feed holds whole numbers: one for all would make it as long as what is undone
        var isChanged = false
        let isInPlace = try entries(of: id).contains { $0.parent == parent && $0.name == name }
        if row.deletedAt != nil || !isInPlace {
            guard try sql.first("SELECT 1 FROM nodes WHERE id = $1 AND purged_at IS NOT NULL", [.id(id)]) == nil else {
                return note("\(name) is gone for good.", &answer)
            }
            let place = try liveDirectory(parent)?.id ?? root
            if let occupant = try entry(place, name), let other = try node(occupant.node), other.isRegular, try isWritten(other, by: device) {
                try takeAway(occupant, &answer)     // what the device put in its place
            }
            try self.place(row, place, name, &answer)
            isChanged = true
        }
        if let version, let current = try node(id), current.isRegular, current.version != version {
            if try isWritten(current, by: device) || current.version == nil {
                isChanged = try repeatVersion(version, in: current) || isChanged
            } else {
                note("\(name) was changed by somebody else since and stays as it is.", &answer)
            }
        }
        if isChanged, !row.isDirectory { answer.files += 1 }
    }

    private func isWritten(_ row: NodeRow, by device: DeviceID) throws -> Bool {
        guard let version = row.version else { return true }
        return try sql.first("SELECT device_id FROM versions WHERE id = $1", [.id(version)])?.blob(0) == device.bytes
    }
}
